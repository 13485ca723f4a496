//! The scenarios: each is one fault, or one change that is no fault.
//!
//! A scenario starts a cluster, builds a pool, injects the fault after one minute, and keeps the cluster until the
//! recording ends. The order of the scenarios is that of the rows of docs/failure-modes.md.

mod application;
mod certificates;
mod logins;
mod outages;
mod pods;
mod primary;
mod sessions;
mod shutdowns;

use crate::{raw::Raw, scene::Scene};

/// Defines [`NAMES`], and [`run`], which calls the function of a scenario.
macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        /// The names of all scenarios.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// Runs a scenario. Takes seven minutes.
        pub(crate) async fn run(name: &str) -> Raw {
            let scene = Scene::new();
            match name {
                $(stringify!($name) => Box::pin($module::$name(scene)).await,)*
                _ => panic!("unknown scenario {name}; expected one of {NAMES:?}"),
            }
        }
    };
}

scenarios! {
    pods::pod_killed,
    shutdowns::pod_shuts_down,
    shutdowns::rolling_update,
    sessions::session_ended,
    sessions::client_stopped,
    pods::primary_pauses,
    pods::pod_hangs,
    pods::pod_leaves_dns,
    pods::last_pod_leaves_dns,
    pods::pod_returns_to_dns,
    pods::absent_pod_fails,
    pods::address_family_lost,
    pods::pod_moved,
    outages::name_does_not_resolve,
    outages::name_never_resolves,
    primary::failover,
    primary::no_primary,
    primary::cold_start_without_primary,
    primary::former_primary_restarts,
    primary::cluster_restored,
    primary::cluster_restored_unnoticed,
    primary::standby_lags,
    primary::no_standby_is_current,
    primary::no_primary_with_max_lag,
    sessions::listener_lost,
    sessions::listen_on_pooled_connection,
    outages::every_pod_killed,
    outages::cold_start_every_pod_down,
    shutdowns::cold_start_succeeds,
    outages::pool_exhausted,
    outages::application_gives_up,
    outages::server_full,
    outages::server_oversubscribed,
    logins::wrong_password,
    logins::password_changed_on_servers,
    logins::authentication_method_refused,
    application::setup_fails,
    application::cold_start_setup_fails,
    application::checkout_rejected,
    certificates::certificate_renewed,
    certificates::protection_weakened,
    logins::password_rotated,
    logins::passfile_ignored,
    logins::password_file_removed,
    certificates::certificate_invalid,
    certificates::certificate_invalid_on_one_pod,
    certificates::certificate_files_renewed,
    certificates::certificate_files_invalid,
    application::future_dropped,
    application::statements_abandoned,
    application::policy_panics,
}
