//! Which Pods a checkout may choose from, for each target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, NoSettings, Role, check, is_default};
use crate::{
    config::{LagFallback, Target},
    health::{State, alternative, candidates},
    time::Instant,
};

/// Returns the bit set of targets with these names.
pub(super) fn bits(names: &[String]) -> u32 {
    let target = |name: &String| name.parse::<Target>().unwrap_or_else(|error| panic!("target `{name}`: {error}"));
    names.iter().fold(0, |bits, name| bits | target(name).bit())
}

/// Returns the names of the targets in a bit set.
pub(super) fn names(bits: u32) -> Vec<String> {
    Target::ALL.iter().filter(|target| bits & target.bit() != 0).map(ToString::to_string).collect()
}

struct Candidates(LagFallback);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// `fail` or `primary`.
    lag_fallback: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    pods: Vec<Pod>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pod {
    state: String,
    role: Role,
    #[serde(default, skip_serializing_if = "is_default")]
    read_only: bool,
    /// Whether the Pod must not be used: fenced, detached, or an alternative address.
    #[serde(default, skip_serializing_if = "is_default")]
    fenced: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    late: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    suspect: bool,
    /// Whether this client uses the Pod only because of its role, in addition to its subset.
    #[serde(default, skip_serializing_if = "is_default")]
    role_only: bool,
    /// The Pod's priority, as in SRV records: the lowest number that can serve a target does.
    #[serde(default, skip_serializing_if = "is_default")]
    priority: u16,
}

#[derive(Serialize)]
struct Eligible {
    /// For each target, the indexes of the Pods from which a checkout chooses.
    eligible: BTreeMap<String, Vec<u32>>,
    /// Whether no Pod is healthy, so that ejected Pods are used.
    panic: bool,
}

impl Decision for Candidates {
    const NAME: &str = "candidates";
    type Settings = Settings;
    type Event = Facts;
    type Outcome = Eligible;

    fn new(settings: &Settings, _: Clock) -> Self {
        Self(settings.lag_fallback.parse().expect("`fail` or `primary`"))
    }

    fn apply(&mut self, event: &Facts, _: Instant) -> Eligible {
        let state = |name: &str| *State::ALL.iter().find(|state| state.as_str() == name).expect("a state");
        let pod = |pod: &Pod| candidates::Eligibility {
            state: state(&pod.state),
            role: pod.role.into(),
            read_only: pod.read_only,
            fenced: pod.fenced,
            late: pod.late,
            suspect: pod.suspect,
            role_only: pod.role_only,
            priority: pod.priority,
        };
        let pods: Vec<_> = event.pods.iter().map(pod).collect();
        let lists = candidates::candidates(&pods, self.0);
        let list = |target: &Target| (target.to_string(), lists.distinct[lists.of[target.index()]].clone());
        Eligible { eligible: Target::ALL.iter().map(list).collect(), panic: lists.panic }
    }
}

struct Targets;

/// What a server reports.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Server {
    role: Role,
    /// `default_transaction_read_only`.
    read_only: bool,
}

#[derive(Serialize)]
struct Accepting {
    /// The targets that accept the server.
    accepted_by: Vec<String>,
    /// The targets among them that prefer servers of its role, or have no preference.
    preferred_by: Vec<String>,
}

impl Decision for Targets {
    const NAME: &str = "targets";
    type Settings = NoSettings;
    type Event = Server;
    type Outcome = Accepting;

    fn new(_: &NoSettings, _: Clock) -> Self {
        Self
    }

    fn apply(&mut self, event: &Server, _: Instant) -> Accepting {
        let role = event.role.into();
        let bits =
            |is: &dyn Fn(&Target) -> bool| Target::ALL.iter().filter(|it| is(it)).fold(0, |all, it| all | it.bit());
        let accepts = |target: &Target| target.accepts(role, event.read_only);
        Accepting {
            accepted_by: names(bits(&accepts)),
            preferred_by: names(bits(&|target| accepts(target) && target.prefers(role))),
        }
    }
}

struct Alternatives;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Addresses {
    addresses: Vec<Address>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Address {
    ipv6: bool,
    /// System identifier and start time that the server has reported.
    server: Option<(u64, u64)>,
    usability: Usability,
    /// Whether the last decision was to use another address instead.
    #[serde(default, skip_serializing_if = "is_default")]
    alternative: bool,
    /// Whether callers are served over this address at present.
    #[serde(default, skip_serializing_if = "is_default")]
    in_use: bool,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Usability {
    Failing,
    Absent,
    Named,
}

#[derive(Serialize)]
struct Replaced {
    /// For each address, the index of the address that is used instead; null if it is not an alternative.
    used_instead: Vec<Option<usize>>,
}

impl Decision for Alternatives {
    const NAME: &str = "alternatives";
    type Settings = NoSettings;
    type Event = Addresses;
    type Outcome = Replaced;

    fn new(_: &NoSettings, _: Clock) -> Self {
        Self
    }

    fn apply(&mut self, event: &Addresses, _: Instant) -> Replaced {
        let address = |address: &Address| alternative::Address {
            identity: address.server.map(|(system, started)| alternative::Identity { system, started }),
            is_ipv6: address.ipv6,
            usability: match address.usability {
                Usability::Failing => alternative::Usability::Failing,
                Usability::Absent => alternative::Usability::Absent,
                Usability::Named => alternative::Usability::Named,
            },
            is_alternative: address.alternative,
            in_use: address.in_use,
        };
        let addresses: Vec<_> = event.addresses.iter().map(address).collect();
        Replaced { used_instead: alternative::alternatives(&addresses) }
    }
}

#[test]
fn candidates() {
    check::<Candidates>();
}

#[test]
fn targets() {
    check::<Targets>();
}

#[test]
fn alternatives() {
    check::<Alternatives>();
}
