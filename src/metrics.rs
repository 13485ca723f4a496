//! The metrics of a pool, by name: the feature `metrics` gives them to the recorder of the [`metrics`] facade.
//!
//! They are read once a second from what the pool counts anyway, in its upkeep and never in a checkout, so a checkout
//! costs the same with and without them. Only what has to wait or to dial records its time by itself. They are read once
//! more when the pool begins to close and before [`Pool::close`](crate::Pool::close) returns: a Pod's gauges are zero
//! then, and every count is complete but for connections that their borrowers still hold, which are counted when the
//! last of them has gone. Install the recorder before the pool is built: what was given to nobody is not given again.
//!
//! Every metric has the label `service`, the name that the pool was given; those of one Pod have `pod`, its name where
//! discovery tells it and its address otherwise, and `address` too. The names and labels are stable; another label value may come with
//! any version.
//!
//! [`metrics`]: https://docs.rs/metrics

/// What sort of number a metric is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the facade knows these three")]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A value for each of many things, of which the spread matters.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What sort of number it is.
    pub kind: MetricKind,
    /// Its labels beside `service`.
    pub labels: &'static [&'static str],
    /// What it means, in one sentence.
    pub help: &'static str,
}

/// The labels of what is told of each Pod.
const POD: &[&str] = &["pod", "address"];

macro_rules! metrics {
    ($($kind:ident $name:ident = $text:literal $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: &str = $text;
        )*

        /// Every metric there is.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: $labels, help: $help },)*
        ];
    };
}

metrics! {
    Gauge ENDPOINT_UP = "podpool_endpoint_up" POD, "1 while the Pod serves, else 0.";
    Gauge ENDPOINT_OPEN = "podpool_endpoint_open" POD, "Open connections to the Pod, the probe's not counted.";
    Gauge ENDPOINT_IDLE = "podpool_endpoint_idle" POD, "Open connections that nobody has borrowed.";
    Gauge ENDPOINT_IN_USE = "podpool_endpoint_in_use" POD, "Connections that are lent out, or are settling after that.";
    Gauge ENDPOINT_WAITING = "podpool_endpoint_waiting" POD, "Callers in the queue for whom the Pod would do.";
    Gauge ENDPOINT_LAG_BYTES = "podpool_endpoint_lag_bytes" POD, "Bytes of write-ahead log that a standby is behind.";
    Gauge ENDPOINT_LATENCY_SECONDS = "podpool_endpoint_latency_seconds" POD,
        "How long the Pod takes to answer a request: a moving average.";
    Counter ENDPOINT_PICKS = "podpool_endpoint_picks_total" POD, "Connections of the Pod that were lent out.";
    Counter CHECKOUTS = "podpool_checkouts_total" &[], "Connections that were lent out, of whichever Pod.";
    Counter WAITS = "podpool_waits_total" &[], "Checkouts that found nothing idle, or something to ping first.";
    Histogram WAIT_SECONDS = "podpool_wait_seconds" &["outcome"],
        "How long those took. `outcome` is `ok` or the error's kind.";
    Counter TIMEOUTS = "podpool_timeouts_total" &["phase"],
        "What was given up when its time was up. `phase` is `wait` for a checkout, else where on the way to a usable \
         connection it was.";
    Counter RETRIES = "podpool_retries_total" &[], "Pieces of work that were done again on another connection.";
    Counter CONNECTIONS_OPENED = "podpool_connections_opened_total" &[], "Connections opened, the probes' not counted.";
    Counter CONNECTIONS_FAILED = "podpool_connections_failed_total" &["phase"], "Connections that could not be opened.";
    Histogram CONNECT_SECONDS = "podpool_connect_seconds" &[], "How long it took to open those that were opened.";
    Counter CONNECTIONS_CLOSED = "podpool_connections_closed_total" &["reason"],
        "Connections closed. `reason` is `ended` (by the server or the network), `drained` (the Pod left, or the pool \
         closed), `ejected` (the Pod was put out, or fenced), `lifetime`, `idle`, or `discarded` (a ping failed, or it \
         did not come clean).";
    Counter CONNECTIONS_SETTLED = "podpool_connections_settled_total" &[],
        "Connections that came back in the middle of something.";
    Counter CONNECTIONS_RESET = "podpool_connections_reset_total" &[], "Connections whose session was reset (`reset=discard`).";
    Counter CONNECTIONS_RELIEVED = "podpool_connections_relieved_total" &[],
        "Connections that were relieved of prepared statements they kept.";
    Counter EJECTIONS = "podpool_ejections_total" &["cause"],
        "Pods that were put out of traffic. `cause` is the phase that failed: `query` where traffic showed it.";
    Counter EVENTS = "podpool_events_total" &["event"],
        "Events of the set of Pods, by name: `endpoint_added`, `endpoint_removed`, `role_changed`, and so on.";
    Counter RESOLVE_ANSWERS = "podpool_resolve_answers_total" &[], "Good answers to the Service's name.";
    Counter RESOLVE_FAILURES = "podpool_resolve_failures_total" &[], "Failures to resolve the Service's name.";
    Gauge RESOLVE_AGE_SECONDS = "podpool_resolve_age_seconds" &[],
        "The age of the set of Pods: since the last good answer to the Service's name.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_prometheus_names_and_each_is_there_once() {
        for metric in ALL {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(metric.name.starts_with("podpool_") && metric.name.chars().all(plain), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.kind != MetricKind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
        }
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
