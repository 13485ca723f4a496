use std::{collections::BTreeMap, time::Duration};

use super::history::{Event, History};

/// The times for which the clients were stopped.
pub(super) struct Pauses(BTreeMap<u32, Vec<(Duration, Duration)>>);

impl Pauses {
    pub(super) fn of(history: &History) -> Self {
        let mut pauses: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        let mut stopped: BTreeMap<u32, Duration> = BTreeMap::new();
        for record in &history.records {
            match record.event {
                Event::Paused { client, paused: true } => {
                    stopped.entry(client).or_insert(record.at);
                }
                Event::Paused { client, paused: false } => {
                    let pause = stopped.remove(&client).map(|since| (since, record.at));
                    pauses.entry(client).or_default().extend(pause);
                }
                _ => {}
            }
        }
        for (client, since) in stopped {
            pauses.entry(client).or_default().push((since, Duration::MAX));
        }
        Self(pauses)
    }

    /// Returns the time between two times for which a client was not stopped.
    pub(super) fn running(&self, client: u32, from: Duration, to: Duration) -> Duration {
        let stopped = self.0.get(&client).into_iter().flatten();
        let stopped: Duration = stopped.map(|(start, end)| (*end).min(to).saturating_sub((*start).max(from))).sum();
        to.saturating_sub(from).saturating_sub(stopped)
    }

    /// Returns true if a client was not stopped between two times.
    pub(super) fn is_running(&self, client: u32, from: Duration, to: Duration) -> bool {
        self.running(client, from, to) == to.saturating_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::testing::{history, ms, paused};

    #[test]
    fn running_time_excludes_pauses() {
        let pauses = Pauses::of(&history([(10, paused(true)), (30, paused(false)), (90, paused(true))]));
        assert_eq!(pauses.running(0, ms(0), ms(50)), ms(30));
        assert_eq!(pauses.running(0, ms(20), ms(100)), ms(60));
        assert_eq!(pauses.running(0, ms(15), ms(25)), ms(0));
        assert!(pauses.is_running(0, ms(30), ms(90)) && !pauses.is_running(0, ms(29), ms(90)));
        assert!(pauses.is_running(1, ms(0), ms(100)));
    }
}
