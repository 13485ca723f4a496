//! Which Pods must not be used: other clusters, former primaries, second primaries.

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, NoSettings, Role, check, is_default, is_true, yes};
use crate::{
    health::fencing::{self, Extent, Forgotten, Timelines},
    time::Instant,
};

struct Fencing {
    clock: Clock,
    timelines: Timelines,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Event {
    /// What all known Pods have reported. `named` is the number of Pods that DNS names.
    Claims { named: usize, claims: Vec<Claim> },
    /// The application requests to forget the history.
    Forget { claims: Vec<Claim> },
}

/// What one Pod has reported. `pod` is its serial number.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    pod: u64,
    role: Role,
    #[serde(default, skip_serializing_if = "is_default")]
    system: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    timeline: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    started: Option<u64>,
    /// The position up to which the timeline is known to be the highest. Omitted for the whole log.
    #[serde(default, skip_serializing_if = "is_default")]
    up_to: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    position: Option<u64>,
    /// When the query was sent. Omitted for the time of the event.
    #[serde(default, skip_serializing_if = "is_default")]
    queried_ms: Option<u64>,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    passing: bool,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    named: bool,
}

#[derive(Serialize)]
struct Outcome {
    /// The highest timeline of the pool's cluster.
    newest: Option<u32>,
    /// The decision about each claim, in their order.
    verdicts: Vec<Verdict>,
    forgotten: Option<What>,
}

#[derive(Serialize)]
struct Verdict {
    fence: Option<Fence>,
    confirmed: bool,
    follows_former: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Fence {
    OtherSystem,
    OldTimeline,
    SecondPrimary,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Timeline(u32),
    System(u64),
    Requested,
}

impl From<Forgotten> for What {
    fn from(forgotten: Forgotten) -> Self {
        match forgotten {
            Forgotten::Timeline(timeline) => Self::Timeline(timeline),
            Forgotten::System { system, .. } => Self::System(system),
            Forgotten::Requested { .. } => Self::Requested,
        }
    }
}

impl From<fencing::Verdict> for Verdict {
    fn from(verdict: fencing::Verdict) -> Self {
        let fence = verdict.fence.map(|fence| match fence {
            fencing::Fence::OtherSystem { .. } => Fence::OtherSystem,
            fencing::Fence::OldTimeline { .. } => Fence::OldTimeline,
            fencing::Fence::SecondPrimary => Fence::SecondPrimary,
        });
        Self { fence, confirmed: verdict.confirmed, follows_former: verdict.follows_former }
    }
}

impl Fencing {
    fn claims(&self, claims: &[Claim], now: Instant) -> Vec<fencing::Claim> {
        let claim = |claim: &Claim| fencing::Claim {
            pod: claim.pod,
            role: claim.role.into(),
            system: claim.system,
            started: claim.started,
            timeline: claim.timeline,
            extent: claim.up_to.map_or(Extent::Complete, Extent::UpTo),
            position: claim.position,
            queried: Some(claim.queried_ms.map_or(now, |ms| self.clock.at(ms))),
            passing: claim.passing,
            named: claim.named,
        };
        claims.iter().map(claim).collect()
    }
}

impl Decision for Fencing {
    const NAME: &str = "fencing";
    type Settings = NoSettings;
    type Event = Event;
    type Outcome = Outcome;

    fn new(_: &NoSettings, clock: Clock) -> Self {
        Self { clock, timelines: Timelines::default() }
    }

    fn apply(&mut self, event: &Event, now: Instant) -> Outcome {
        let (verdicts, forgotten) = match event {
            Event::Claims { named, claims } => {
                let claims = self.claims(claims, now);
                self.timelines.judge(&claims, *named, now)
            }
            Event::Forget { claims } => {
                let claims = self.claims(claims, now);
                (Vec::new(), Some(self.timelines.forget(&claims)))
            }
        };
        Outcome {
            newest: self.timelines.newest(),
            verdicts: verdicts.into_iter().map(Into::into).collect(),
            forgotten: forgotten.map(Into::into),
        }
    }
}

#[test]
fn fencing() {
    check::<Fencing>();
}
