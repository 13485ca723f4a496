//! The receiver of collected counters and gauges.

use std::sync::Arc;

/// A receiver of the values of counters and gauges. It adds the labels of the pool.
pub(crate) trait Sink {
    /// True if the receiver must get zeros for a Pod that has left, and the counters of Pods that have left, because it
    /// cannot remove a series.
    const KEEPS_SERIES: bool;

    /// Receives the total of a counter, which never decreases.
    fn counter(&mut self, name: &'static str, labels: &[Label], total: u64);

    /// Receives the value of a gauge.
    fn gauge(&mut self, name: &'static str, labels: &[Label], value: f64);
}

/// A label of a series: its name and value.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Label(pub(crate) &'static str, pub(crate) Value);

/// The value of a label.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Value {
    Fixed(&'static str),
    /// `None` for a Unix socket.
    Port(Option<u16>),
    Shared(Arc<str>),
}

impl Label {
    pub(crate) fn fixed(name: &'static str, value: &'static str) -> Self {
        Self(name, Value::Fixed(value))
    }

    pub(crate) fn shared(name: &'static str, value: Arc<str>) -> Self {
        Self(name, Value::Shared(value))
    }
}
