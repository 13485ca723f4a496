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
        let task = spawn(pod, &tests);
        Self { absence: Absence::new(Standing::Detached, now), tests, task }
    }

    /// Continues the test dials on behalf of another pool.
    pub(super) fn test_as(&mut self, pod: &Arc<Pod>) {
        self.task.abort();
        self.task = spawn(pod, &self.tests);
    }

    pub(super) fn standing(&self) -> Standing {
        self.absence.standing()
    }
}

fn spawn(pod: &Arc<Pod>, tests: &TestDials) -> AbortHandle {
    let (tested, tests) = (pod.clone(), tests.clone());
    supervise::spawn(pod.shared(), PanicSource::Prober, move || tests.clone().run(tested.clone()))
}

impl Drop for Absent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
