//! Pods on their way out: nothing new is lent, what is borrowed may finish until a deadline.

use std::sync::Arc;

use super::{entry::Entry, pod::Pod};
use crate::{endpoint::Endpoint, time::Instant};

/// The Pods that are being drained.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    pods: Vec<(Arc<Pod>, Instant)>,
    cut: usize,
}

impl Drain {
    /// A Pod begins: its idle connections are closed, and its probe with them.
    pub(crate) fn begin(&mut self, entry: Entry, deadline: Instant) {
        let pod = entry.pod.clone();
        drop(entry);
        pod.close();
        self.pods.push((pod, deadline));
    }

    /// No Pod may take longer than this.
    pub(crate) fn shorten(&mut self, deadline: Instant) {
        for (_, until) in &mut self.pods {
            *until = deadline.min(*until);
        }
    }

    /// Takes out the Pods whose last connection has gone. Those whose time is up are cut first.
    pub(crate) fn finished(&mut self, now: Instant) -> Vec<Endpoint> {
        let mut finished = Vec::new();
        let cut = &mut self.cut;
        self.pods.retain(|(pod, until)| {
            let deserted = pod.is_deserted();
            if !deserted && now >= *until {
                let lines = pod.cut();
                if lines > 0 {
                    tracing::warn!(endpoint = %pod.endpoint, connections = lines, "cut what was not given back in time");
                }
                *cut += lines;
                finished.push(pod.endpoint.clone());
                return false;
            }
            if deserted {
                finished.push(pod.endpoint.clone());
            }
            !deserted
        });
        finished
    }

    /// When the first of them is to be cut, if any is left.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pods.iter().map(|(_, until)| *until).min()
    }

    /// Connections that were cut so far.
    pub(crate) fn cut(&self) -> usize {
        self.cut
    }
}
