//! A simulated Pod: a fixed number of workers and a FIFO queue in front of them.

use std::collections::VecDeque;

use crate::scenario::WORKERS;

/// The origin of a job. Times are in nanoseconds since the start of the simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A statement. Its caller arrived at `arrived`; the client sent it at `sent`, when a connection was available.
    Statement { client: usize, arrived: u64, sent: u64 },
    /// A health check. `number` identifies the probe among this client's probes of this Pod.
    Probe { client: usize, number: u64, sent: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) origin: Origin,
    /// Service time in nanoseconds, on a Pod that is not slow.
    pub(crate) work: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Pod {
    queue: VecDeque<Job>,
    busy: usize,
    /// Number of completed statements whose callers arrived in the measured interval.
    pub(crate) completed: u64,
}

impl Pod {
    pub(crate) fn push(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    /// Starts the next queued job if a worker is free, and returns the job.
    pub(crate) fn begin(&mut self) -> Option<Job> {
        if self.busy == WORKERS {
            return None;
        }
        let job = self.queue.pop_front()?;
        self.busy += 1;
        Some(job)
    }

    /// Frees the worker of a job that has ended.
    pub(crate) fn end(&mut self) {
        self.busy -= 1;
    }

    pub(crate) fn is_free(&self) -> bool {
        self.busy < WORKERS
    }
}
