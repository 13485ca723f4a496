//! Builds the error of a failed checkout. The error lists the Pods, each with the reason why it could not be used.

use std::time::Duration;

use super::limited::is_fulfilled;
use crate::{
    endpoint::Role,
    error::{Attempt, Error, Kind},
    health::State,
    pool::pod::{
        Pod,
        requirement::{self, Requirement},
        shared::Shared,
        view::{PodHealth, View},
    },
    sync::lock,
    time::Instant,
    wire::Class,
};

/// Returns an error if the caller must fail immediately instead of waiting until its deadline.
pub(crate) fn fail_early(view: &View, requirement: Requirement, shared: &Shared, now: Instant) -> Option<Error> {
    if view.closed {
        return Some(Error::new(Kind::Shutdown, "the pool is closed"));
    }
    if shared.has_lost_its_runtime() {
        return Some(Error::new(Kind::Shutdown, "the tokio runtime on which the pool was built has shut down"));
    }
    fails_early(view, shared, now).then(|| cannot_succeed(view, requirement, shared))
}

/// Returns true if all callers must fail immediately instead of waiting until their deadlines. This is the case if the
/// pool is closed, if every Pod refuses connections for a permanent reason and each host has been looked up, or if no
/// Pod has been healthy for longer than `acquire_timeout`.
pub(crate) fn fails_early(view: &View, shared: &Shared, now: Instant) -> bool {
    if view.closed || view.health.is_empty() {
        return view.closed;
    }
    let unhealthy = view.none_healthy_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    // A Pod that is healthy for other pools may refuse the logins of this one. If it has accepted them before, the
    // password may be changing.
    let fails =
        |pod: &Pod, health: &PodHealth| health.state != State::Healthy || health.refused && !pod.has_logged_in();
    let refused = || view.servers().all(|(pod, health)| fails(pod, health) && is_permanent(last_class(pod)));
    unhealthy > shared.limits.acquire_timeout || refused() && !lock(&shared.group.resolved).is_pending()
}

/// Returns the error of a checkout that cannot succeed any more, for example because its deadline has passed.
pub(crate) fn cannot_succeed(view: &View, requirement: Requirement, shared: &Shared) -> Error {
    if view.health.is_empty() {
        let resolved = lock(&shared.group.resolved);
        return match resolved.error() {
            Some(error) => Error::new(Kind::Dns, "the Service name could not be resolved").with_source(error),
            None if resolved.at().is_none() => Error::new(Kind::Dns, "the Service name has not been resolved yet"),
            None => Error::new(Kind::NoEndpoints, "there is no Pod behind the Service name"),
        };
    }
    let target = requirement.target();
    let attempts = view.servers().map(|(pod, _)| attempt(pod)).collect();
    let candidates = view.snapshot.candidates(target.index());
    if candidates.is_empty() && view.health.iter().any(|pod| pod.state == State::Healthy && !pod.refused) {
        let roles: Vec<_> = view.servers().map(|(pod, health)| describe(pod, health)).collect();
        let unhealthy = view.servers().filter(|(_, health)| health.state != State::Healthy);
        let failures =
            unhealthy.filter_map(|(pod, _)| lock(&pod.last_failure).last().map(|(_, attempt)| attempt)).collect();
        let message = format!("no Pod can serve `{target}`: {}", roles.join(", "));
        return Error::new(Kind::NoEndpoints, message).with_attempts(failures);
    }
    if let Some(limit) = requirement.limit().filter(|_| !candidates.is_empty() && !is_fulfilled(view, requirement)) {
        let ages: Vec<_> = candidates.iter().map(|candidate| describe_age(view.snapshot.pod(*candidate))).collect();
        let message = format!("no Pod can serve `{target}` with data at most {limit:?} old: {}", ages.join(", "));
        return Error::new(Kind::NoEndpoints, message);
    }
    let classes: Vec<_> = view.servers().map(|(pod, _)| last_class(pod)).collect();
    if classes.iter().copied().all(is_permanent) {
        let (kind, message) = match classes.contains(&Some(Class::Tls)) {
            true => (Kind::Tls, "could not connect to any Pod over TLS"),
            false => (Kind::Auth, "every Pod refused the session"),
        };
        return Error::new(kind, message).with_attempts(attempts);
    }
    if classes.iter().all(|class| matches!(class, Some(Class::Access | Class::Credentials))) {
        return Error::new(Kind::Auth, "could not log in to any Pod").with_attempts(attempts);
    }
    let busy = candidates.iter().any(|candidate| {
        let pod = view.snapshot.pod(*candidate);
        match last_class(pod) {
            None => !is_connecting(pod),
            class => class == Some(Class::Full),
        }
    });
    let connecting = || view.servers().any(|(pod, _)| last_class(pod).is_none() && is_connecting(pod));
    let (kind, message) = if busy {
        (Kind::PoolTimeout, "no connection became free")
    } else if connecting() {
        (Kind::Connecting, "no connection has been opened yet")
    } else {
        (Kind::Connect, "could not connect to any Pod")
    };
    Error::new(kind, message).with_attempts(attempts)
}

/// Returns true if no connection to the Pod is open, although the limits permit one.
fn is_connecting(pod: &Pod) -> bool {
    pod.open() == 0 && !is_limited(pod)
}

/// Returns true if the pool's limit permits no connection to the Pod.
fn is_limited(pod: &Pod) -> bool {
    pod.open() == 0 && pod.opening() == 0 && pod.shared().connection_limit.available() == 0
}

fn describe(pod: &Pod, health: &PodHealth) -> String {
    if let Some(fence) = health.fence {
        return format!("{} is fenced: {fence}", pod.endpoint);
    }
    if health.refused {
        return format!("{} refuses the login", pod.endpoint);
    }
    if health.is_detached() {
        return format!("{} is absent from DNS", pod.endpoint);
    }
    match (health.state, health.role) {
        (State::Healthy, role) if health.late => {
            format!("{} is a {role} that is too far behind", pod.endpoint)
        }
        (State::Healthy, role) => format!("{} is {role}", pod.endpoint),
        (state, Role::Unknown) => format!("{} is {state}", pod.endpoint),
        (state, role) => format!("{} is {state}, last role {role}", pod.endpoint),
    }
}

fn describe_age(pod: &Pod) -> String {
    match pod.slot.data_age(requirement::now) {
        Some(age) => format!("the data of {} is up to {:?} old", pod.endpoint, Duration::from_millis(age)),
        None => format!("the age of the data of {} is unknown", pod.endpoint),
    }
}

fn is_permanent(class: Option<Class>) -> bool {
    class.is_some_and(Class::is_permanent)
}

fn last_class(pod: &Pod) -> Option<Class> {
    lock(&pod.last_failure).class()
}

fn attempt(pod: &Pod) -> Attempt {
    if let Some((_, attempt)) = lock(&pod.last_failure).last() {
        return attempt;
    }
    let (name, address) = (pod.endpoint.shared_name(), pod.endpoint.address().clone());
    if is_limited(pod) {
        Attempt::limited(name, address)
    } else if is_connecting(pod) {
        Attempt::connecting(name, address)
    } else {
        Attempt::busy(name, address, pod.slot.in_use() as usize, pod.size())
    }
}
