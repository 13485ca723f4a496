//! Which Pods that are absent from DNS are still used, and for how long.

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, NoSettings, Role, check, is_default, is_true, targets, yes};
use crate::{
    health::absence::{self, Absence, Standing},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Use {
    Retained,
    Detached,
}

impl From<Use> for Standing {
    fn from(standing: Use) -> Self {
        match standing {
            Use::Retained => Self::Retained,
            Use::Detached => Self::Detached,
        }
    }
}

impl From<Standing> for Use {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Retained => Self::Retained,
            Standing::Detached => Self::Detached,
        }
    }
}

struct Standings(Clock);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    /// The targets that callers have requested since the pool was built.
    requested: Vec<String>,
    pods: Vec<Pod>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pod {
    role: Role,
    /// Whether the Pod is healthy, not fenced, and not too far behind its primary.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    serves: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    read_only: bool,
    /// The current standing of a Pod whose absence is confirmed. `None` if DNS names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent: Option<Use>,
    /// Time of the last passed probe.
    #[serde(default, skip_serializing_if = "is_default")]
    answered_ms: Option<u64>,
}

#[derive(Serialize)]
struct Decided {
    /// The standing of each absent Pod, in the order of the facts; null for a named one.
    standings: Vec<Option<Use>>,
    /// The requested targets that no named Pod serves in the role that the target prefers.
    missing: Vec<String>,
}

impl Decision for Standings {
    const NAME: &str = "absence";
    type Settings = NoSettings;
    type Event = Facts;
    type Outcome = Decided;

    fn new(_: &NoSettings, clock: Clock) -> Self {
        Self(clock)
    }

    fn apply(&mut self, event: &Facts, _: Instant) -> Decided {
        let pod = |pod: &Pod| absence::Pod {
            serves: pod.serves,
            role: pod.role.into(),
            read_only: pod.read_only,
            absent: pod.absent.map(Into::into),
            answered: pod.answered_ms.map(|ms| self.0.at(ms)),
        };
        let (pods, requested): (Vec<_>, _) = (event.pods.iter().map(pod).collect(), targets::bits(&event.requested));
        let standings = absence::standings(&pods, requested).into_iter().map(|standing| standing.map(Into::into));
        Decided { standings: standings.collect(), missing: targets::names(absence::missing(&pods, requested)) }
    }
}

struct Linger {
    clock: Clock,
    linger: Duration,
    absence: Option<Absence>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    detach_linger_ms: u64,
}

#[derive(Serialize)]
struct Period {
    /// Whether the standing changed. The first standing is a change.
    changed: bool,
    /// When the Pod is drained if it keeps its standing.
    drained_at_ms: Option<u64>,
}

impl Decision for Linger {
    const NAME: &str = "linger";
    type Settings = Settings;
    type Event = Use;
    type Outcome = Period;

    fn new(settings: &Settings, clock: Clock) -> Self {
        Self { clock, linger: Duration::from_millis(settings.detach_linger_ms), absence: None }
    }

    fn apply(&mut self, event: &Use, now: Instant) -> Period {
        let standing = Standing::from(*event);
        let changed = match &mut self.absence {
            Some(absence) => absence.set(standing, now),
            None => true,
        };
        let absence = self.absence.get_or_insert(Absence::new(standing, now));
        assert_eq!(absence.standing(), standing);
        Period { changed, drained_at_ms: absence.ends_at(self.linger).map(|at| self.clock.ms(at)) }
    }
}

#[test]
fn absence() {
    check::<Standings>();
}

#[test]
fn linger() {
    check::<Linger>();
}
