//! A Pod: a few workers and a queue before them, first come, first served.

use std::collections::VecDeque;

use crate::scenario::WORKERS;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender {
    /// A statement of a client, sent then by one who had come at another time.
    Statement { client: usize, came: u64, sent: u64 },
    /// A client's probe, by its number.
    Probe { client: usize, number: u64, sent: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) sender: Sender,
    /// Nanoseconds of work, on a Pod that is not slow.
    pub(crate) work: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Pod {
    queue: VecDeque<Job>,
    busy: usize,
    /// Answered statements.
    pub(crate) share: u64,
}

impl Pod {
    pub(crate) fn push(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    /// The next job, if a worker is free.
    pub(crate) fn begin(&mut self) -> Option<Job> {
        if self.busy == WORKERS {
            return None;
        }
        let job = self.queue.pop_front()?;
        self.busy += 1;
        Some(job)
    }

    pub(crate) fn end(&mut self) {
        self.busy -= 1;
    }

    pub(crate) fn is_free(&self) -> bool {
        self.busy < WORKERS
    }
}
