//! Which standbys are too far behind their primary.

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, check, is_default, is_true, millis, yes};
use crate::{
    health::lag::{self, Lag, Limit},
    time::{Duration, Instant},
};

struct Lateness {
    clock: Clock,
    limit: Limit,
    /// The previous result for the standby.
    before: Lag,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    max_lag_bytes: Option<u64>,
    max_lag_ms: Option<u64>,
}

/// What the servers reported. The query to the standby was sent at the time of the event.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Reports {
    standby: Standby,
    /// Positions of the serving primary, oldest first. Empty if no primary serves.
    primary: Vec<Reading>,
    /// The position of the most advanced standby. Used only if no primary serves.
    #[serde(default, skip_serializing_if = "is_default")]
    advanced: Option<u64>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Standby {
    /// The last position that it has replayed.
    position: u64,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    receiving: bool,
    /// The age of the last commit that it has replayed, by the servers' clocks.
    #[serde(default, skip_serializing_if = "is_default")]
    replayed_ago_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    disconnected_for_ms: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    position: u64,
    sent_ms: u64,
    received_ms: u64,
}

#[derive(Serialize)]
struct Outcome {
    bytes: Option<u64>,
    time_ms: Option<u64>,
    late: bool,
    disconnected: bool,
    upstream_lost: bool,
    /// Whether the standby must be queried again, according to positions that are newer than its own.
    may_be_exceeded: bool,
}

impl Decision for Lateness {
    const NAME: &str = "lag";
    type Settings = Settings;
    type Event = Reports;
    type Outcome = Outcome;

    fn new(settings: &Settings, clock: Clock) -> Self {
        let limit = Limit { bytes: settings.max_lag_bytes, time: settings.max_lag_ms.map(Duration::from_millis) };
        Self { clock, limit, before: Lag::default() }
    }

    fn apply(&mut self, event: &Reports, now: Instant) -> Outcome {
        let reading = |reading: &Reading| lag::Reading {
            position: reading.position,
            sent: self.clock.at(reading.sent_ms),
            received: self.clock.at(reading.received_ms),
        };
        let standby = lag::Standby {
            reading: lag::Reading { position: event.standby.position, sent: now, received: now },
            receiving: event.standby.receiving,
            replayed_ago: event.standby.replayed_ago_ms.map(Duration::from_millis),
            disconnected_for: Duration::from_millis(event.standby.disconnected_for_ms),
        };
        let primary: Vec<_> = event.primary.iter().map(reading).collect();
        self.before = lag::judge(self.limit, &standby, &primary, event.advanced, self.before);
        Outcome {
            bytes: self.before.bytes,
            time_ms: self.before.time.map(millis),
            late: self.before.late,
            disconnected: self.before.disconnected,
            upstream_lost: self.before.upstream_lost,
            may_be_exceeded: self.limit.may_be_exceeded(&standby, &primary),
        }
    }
}

#[test]
fn lag() {
    check::<Lateness>();
}
