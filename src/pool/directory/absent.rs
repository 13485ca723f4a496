//! The absence of one member from DNS.

use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::{
    health::absence::{Absence, Standing},
    pool::{
        pod::{Pod, test_dials::TestDials},
        supervise,
    },
    time::Instant,
    unwind::PanicSource,
};

/// The absence of a member, and the task that tests whether its server accepts new connections. Dropping it aborts the
/// task.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) absence: Absence,
    pub(super) tests: TestDials,
    task: AbortHandle,
}

impl Absent {
    pub(super) fn new(pod: &Arc<Pod>, now: Instant) -> Self {
        let tests = TestDials::new();
        let task = supervise::spawn(pod.shared(), PanicSource::Prober, {
            let (pod, tests) = (pod.clone(), tests.clone());
            move || tests.clone().run(pod.clone())
        });
        Self { absence: Absence::new(Standing::Detached, now), tests, task }
    }

    pub(super) fn standing(&self) -> Standing {
        self.absence.standing()
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
