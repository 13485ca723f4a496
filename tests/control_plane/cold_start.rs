//! A scenario in which everything starts at the same time, while callers wait for each role.

use crate::{
    cluster::{Cluster, MICROSERVICE},
    isolated::inside,
    load::{Kind, Load},
    observed::Role,
    report::GRACE,
    servers::PREFIX,
};

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cold_start() {
    let Some(paths) = inside("cold_start::cold_start").await else { return };
    let cluster = Cluster::start(paths).await;
    let load = Load::start(cluster.node.clone(), cluster.timeline.clone());
    cluster
        .until("all Pods are ready", || cluster.node.ready(PREFIX) == 3 && cluster.node.ready(MICROSERVICE) == 2)
        .await;
    cluster.until("requests of each kind succeed", || load.all_served()).await;
    let report = cluster.report("cold start", load).await;
    let roles = [
        (Kind::Any, report.first_after_publication(Kind::Any, |role| role != Role::Down)),
        (Kind::Write, report.first_after_publication(Kind::Write, |role| role == Role::Primary)),
        (Kind::Standby, report.first_after_publication(Kind::Standby, |role| role == Role::Standby)),
    ];
    for (kind, after) in roles {
        println!(
            "  the first request ({kind:?}) ends {:.2} s after DNS names a Pod that can serve it",
            after.as_secs_f64()
        );
    }
    report.check();
    for (kind, after) in roles {
        assert!(
            after <= GRACE,
            "{kind:?}: the first request ends {after:.2?} after DNS names a Pod, expected {GRACE:?}"
        );
    }
}
