//! Draws plans: hosts, settings, load and faults from one seed.

use std::time::Duration;

use super::{
    Fault, Host, Plan, Settings, Topology, Window,
    fault::StopMode,
    host::{Factor, Percent},
    pattern::Pattern,
    workload,
};

/// Time without faults at the start, in which the pools connect.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);
/// Shortest duration of a fault, in milliseconds.
const SHORTEST: u64 = 50;
/// Maximum number of faults in a plan.
const MAX_FAULTS: usize = 12;
/// One plan in so many has callers that share connections.
const SHARES: u64 = 10;
/// The families of faults.
const FAMILIES: &[&str] = &["network", "server", "operator", "dns", "kubernetes", "client", "clock", "secret"];

/// The time frame of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Time within which all faults start and end. At least 3 s.
    pub active: Duration,
    /// Time after that without faults.
    pub tail: Duration,
}

impl Default for Shape {
    /// 30 s with faults and 45 s without. The tail exceeds the bounds within which a pool recovers with most settings
    /// (`properties::bounds`).
    fn default() -> Self {
        Self { active: Duration::from_secs(30), tail: Duration::from_secs(45) }
    }
}

impl Shape {
    /// Returns the time frame of a plan that takes `total`, of at least 9 s: a third with faults.
    #[must_use]
    pub fn within(total: Duration) -> Self {
        let active = total / 3;
        Self { active, tail: total - active }
    }

    /// Returns the same total time with a tail that suffices only for a few checkouts.
    fn with_long_faults(self) -> Self {
        let tail = self.tail.min(Duration::from_secs(4));
        Self { active: self.active + self.tail - tail, tail }
    }

    /// Returns true if the tail is too short to judge a recovery with most settings.
    fn is_short(self) -> bool {
        self.tail < Self::default().tail
    }
}

impl Plan {
    /// Draws a plan. The same seed and shape give the same plan.
    ///
    /// Each plan contains only some families of faults, because faults of one family often hide the consequences of
    /// another one (swarm testing). One plan in twenty has no faults.
    ///
    /// With a short tail, seven of eight plans have short intervals, so that their recoveries can be judged. Two of the
    /// eight have one or two faults that last almost until the end, because slow processes such as the removal of an
    /// absent Pod need a long fault. One has long faults that depend on each other ([`Pattern`]). Settings that change
    /// the load and the faults are more frequent.
    #[must_use]
    pub fn draw(seed: u64, shape: Shape) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0070_6f64_706f_6f6c);
        let mut topology = Topology::draw(&mut random);
        let mut settings = Settings::draw(&topology, &mut random);
        let mut callers = workload::draw(&topology, &mut random);
        let (is_long, has_pattern) = (shape.is_short() && seed % 4 == 1, shape.is_short() && seed % 8 == 3);
        let used = if is_long || has_pattern { shape.with_long_faults() } else { shape };
        let mut faults = match is_long {
            true => long_faults(&topology, used, &mut random),
            false => faults(&topology, used, &mut random),
        };
        if shape.is_short() && seed % 8 != 7 {
            settings.shorten();
            settings.suit(&callers, &faults);
            workload::suit(&mut callers, &faults);
            workload::fail_some(&mut callers, &mut random);
        }
        // The generators are others, so that the other plans stay the same.
        if has_pattern {
            let mut random = fastrand::Rng::with_seed(seed ^ 0x0070_6174_7465_726e);
            let pattern = Pattern::draw(&mut random);
            pattern.suit(&mut settings, &mut callers, &mut topology);
            faults = pattern.faults(&topology, used.active, &mut random);
        }
        if seed % SHARES == 2 {
            let mut random = fastrand::Rng::with_seed(seed ^ 0x0073_6861_7265_6421);
            settings.share(&mut random);
            workload::share(&mut callers, &topology, &mut random);
        }
        Self { seed, active: used.active, tail: used.tail, topology, settings, callers, faults }
    }
}

/// Draws one or two faults that begin soon and last until the end of the active time.
fn long_faults(topology: &Topology, shape: Shape, random: &mut fastrand::Rng) -> Vec<Window> {
    let window = |fault: Fault, random: &mut fastrand::Rng| {
        let start = WARM_UP + Duration::from_millis(random.u64(..2_000));
        let end = if is_momentary(&fault) { start } else { shape.active };
        Window { start, end, fault }
    };
    let draw = |random: &mut fastrand::Rng| {
        // Families with more faults are more frequent.
        let family = random.choice(["network", "server", "server", "operator", "dns", "kubernetes", "client"]);
        let family = if random.u32(..8) == 0 { random.choice(FAMILIES).copied() } else { family };
        draw_of(family.unwrap_or_default(), topology, random)
    };
    let first = draw(random);
    let mut windows = vec![window(first.clone(), random)];
    if random.bool() {
        let second = match first {
            // A wrong clock must not hide the lag.
            Fault::ReplayPaused { pod } => Fault::Skew { host: pod, by: Duration::from_secs(3600), ahead: false },
            _ => draw(random),
        };
        windows.push(window(second, random));
    }
    windows.sort_by_key(|window| window.start);
    windows
}

/// Draws the faults of a plan.
fn faults(topology: &Topology, shape: Shape, random: &mut fastrand::Rng) -> Vec<Window> {
    let mut families: Vec<_> = FAMILIES.iter().filter(|_| random.bool()).collect();
    if families.is_empty() {
        families.push(&FAMILIES[random.usize(..FAMILIES.len())]);
    }
    // Few faults are more frequent than many. Fewer ones fit into a shorter time.
    let most = MAX_FAULTS.min(1 + shape.active.as_secs() as usize / 2);
    let number = if random.u32(..20) == 0 { 0 } else { 1 + (random.f64().powi(2) * most as f64) as usize };
    let mut windows: Vec<Window> = Vec::new();
    for _ in 0..number {
        let family = families[random.usize(..families.len())];
        let fault = draw_of(family, topology, random);
        let (start, end) = window(&fault, &windows, shape, random);
        windows.push(Window { start, end, fault });
    }
    windows.sort_by_key(|window| window.start);
    windows
}

/// Draws the window of a fault. A third of the faults start close to an edge of another fault's window, because
/// defects often need two faults within a short time.
fn window(fault: &Fault, others: &[Window], shape: Shape, random: &mut fastrand::Rng) -> (Duration, Duration) {
    let (first, end) = (WARM_UP.as_millis() as u64, shape.active.as_millis() as u64);
    let last = end.saturating_sub(SHORTEST).max(first);
    let start = if !others.is_empty() && random.u32(..3) == 0 {
        let other = &others[random.usize(..others.len())];
        let edge = if random.bool() { other.start } else { other.end };
        (edge.as_millis() as u64 + random.u64(..1000)).saturating_sub(500).clamp(first, last)
    } else {
        random.u64(first..=last)
    };
    // Log-uniform up to 13 s.
    let length = (SHORTEST as f64 * 256_f64.powf(random.f64())) as u64;
    let end = if is_momentary(fault) { start } else { (start + length).min(end) };
    (Duration::from_millis(start), Duration::from_millis(end))
}

/// Returns true if the fault happens at one moment.
fn is_momentary(fault: &Fault) -> bool {
    use Fault::*;
    matches!(
        fault,
        Reset { .. }
            | Promoted { .. }
            | Terminate { .. }
            | Failover {}
            | Switchover {}
            | RollingUpdate {}
            | Delete { .. }
            | ForceDelete { .. }
            | Move { .. }
            | CertificateRenewed { .. }
    )
}

/// Draws a fault of a family.
fn draw_of(family: &str, topology: &Topology, random: &mut fastrand::Rng) -> Fault {
    let pod = Host::Pod(random.u32(..topology.pods));
    // The first Pod is the primary at the start.
    let standby = Host::Pod(random.u32(topology.pods.min(2) - 1..topology.pods));
    let client = Host::Client(random.u32(..topology.clients));
    let server = random.bool().then(|| Host::NameServer(random.u32(..topology.name_servers)));
    let share = Percent([5, 20, 50, 100, 100][random.usize(..5)]);
    let both = random.bool();
    match family {
        "network" => {
            let (from, to) = pair(topology, random);
            let by = Duration::from_millis([5, 20, 100, 300, 1000][random.usize(..5)]);
            let jitter = Duration::from_millis([0, 1, 10, 100][random.usize(..4)]);
            match random.u32(..6) {
                0 => Fault::Loss { from, to, both, share: Percent([1, 5, 20, 50][random.usize(..4)]) },
                1 => Fault::Delay { from, to, both, by, jitter },
                2 | 3 => Fault::Partition { from, to, both },
                4 => Fault::HalfOpen { from, to },
                _ => Fault::Reset { from, to },
            }
        }
        "server" => match random.u32(..17) {
            0 | 1 => Fault::Crash { pod },
            2 => Fault::PowerLoss { pod },
            3 | 4 => Fault::Hang { pod },
            5..=7 => Fault::Slow { pod: standby, by: Factor([2, 10, 30, 100][random.usize(..4)]) },
            8 | 9 => Fault::Stop { pod, mode: StopMode::ALL[random.usize(..StopMode::ALL.len())] },
            10 => Fault::Full { pod },
            11 => Fault::ReadOnly { pod },
            12 | 13 => Fault::ReplayPaused { pod: standby },
            14 => Fault::Promoted { pod: standby },
            _ => Fault::Terminate { pod, share },
        },
        "operator" => match random.u32(..9) {
            0 | 1 => Fault::Failover {},
            2 => Fault::Switchover {},
            3 => Fault::RollingUpdate {},
            4 => Fault::Scale { to: (topology.pods + random.u32(..=3)).saturating_sub(1).clamp(1, 20) },
            5 => Fault::LeaseStoreLost {},
            6 | 7 => Fault::Promoted { pod: standby },
            _ => Fault::OperatorPaused {},
        },
        "dns" => match random.u32(..7) {
            0 => Fault::ServFail { server, share },
            1 => Fault::NxDomain { server, share },
            2 => Fault::Stale { server },
            3 => Fault::Truncated { server, share },
            4 => Fault::Silent { server, share },
            5 => Fault::Late { server, by: Duration::from_millis([10, 200, 1000, 3000][random.usize(..4)]) },
            _ => Fault::Wrong { server, share },
        },
        "kubernetes" => match random.u32(..7) {
            0 | 1 => Fault::Unready { pod },
            2 => Fault::Delete { pod },
            3 => Fault::ForceDelete { pod },
            4 => Fault::Move { pod },
            5 => Fault::NodeLost { node: random.u32(..topology.nodes) },
            _ => Fault::ApiServerLost {},
        },
        "client" => match random.bool() {
            true => Fault::ClientPaused { client },
            false => {
                // At least a tenth of the time, and long enough for a dial, whose repetitions are limited.
                let stopped = [300, 1000, 1500, 2000][random.usize(..4)];
                let running = (stopped / [1, 3, 9][random.usize(..3)]).max(200);
                let [stopped, running] = [stopped, running].map(Duration::from_millis);
                Fault::ClientStarved { client, stopped, running }
            }
        },
        "clock" => {
            let host = if random.bool() { client } else { pod };
            let by = Duration::from_millis([100, 2000, 60_000, 3_600_000][random.usize(..4)]);
            Fault::Skew { host, by, ahead: both }
        }
        _ => {
            let password =
                [Fault::PasswordRotated {}, Fault::PasswordRejected { pod }, Fault::PasswordFileMissing { client }];
            let tls = [Fault::CertificateExpired { pod }, Fault::CertificateRenewed { pod }];
            let password = password.into_iter().filter(|_| topology.password);
            let mut faults: Vec<_> = password.chain(tls.into_iter().filter(|_| topology.tls)).collect();
            // Servers without passwords and without TLS have no secrets.
            if faults.is_empty() {
                Fault::ClientPaused { client }
            } else {
                faults.swap_remove(random.usize(..faults.len()))
            }
        }
    }
}

/// Draws two hosts whose packets a fault of the network affects.
fn pair(topology: &Topology, random: &mut fastrand::Rng) -> (Host, Host) {
    let pod = |random: &mut fastrand::Rng| Host::Pod(random.u32(..topology.pods));
    let client = Host::Client(random.u32(..topology.clients));
    let other = match random.u32(..10) {
        0..=5 => pod(random),
        6 => Host::NameServer(random.u32(..topology.name_servers)),
        7 => return (Host::Operator, pod(random)),
        _ if topology.pods > 1 => {
            let one = random.u32(..topology.pods);
            let other = (one + random.u32(1..topology.pods)) % topology.pods;
            return (Host::Pod(one), Host::Pod(other));
        }
        _ => pod(random),
    };
    if random.bool() { (client, other) } else { (other, client) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::properties::bounds;

    fn drawn() -> impl Iterator<Item = Plan> {
        (0..3_000).map(|seed| Plan::draw(seed, Shape::default()))
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        for seed in 0..100 {
            assert_eq!(Plan::draw(seed, Shape::default()), Plan::draw(seed, Shape::default()));
            assert_ne!(Plan::draw(seed, Shape::default()), Plan::draw(seed + 1, Shape::default()));
        }
    }

    #[test]
    fn every_plan_is_valid() {
        for plan in drawn() {
            assert_eq!(plan.check(), Ok(()), "{plan}");
        }
    }

    #[test]
    fn every_fault_is_drawn() {
        let names: BTreeSet<_> = drawn().flat_map(|plan| plan.faults).map(|window| window.fault.name()).collect();
        let missing: Vec<_> = Fault::NAMES.iter().filter(|name| !names.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn faults_start_after_the_warm_up_and_end_before_the_tail() {
        let windows: Vec<_> = drawn().flat_map(|plan| plan.faults).collect();
        assert!(windows.iter().all(|window| window.start >= WARM_UP && window.start <= window.end));
        assert!(windows.iter().all(|window| window.end <= Shape::default().active));
        let shortest = Duration::from_millis(SHORTEST);
        let is_long_enough = |window: &Window| is_momentary(&window.fault) || window.end - window.start >= shortest;
        assert!(windows.iter().all(is_long_enough));
    }

    #[test]
    fn a_short_plan_judges_recoveries() {
        let shape = Shape::within(Duration::from_secs(30));
        assert_eq!(shape.active + shape.tail, Duration::from_secs(30));
        let plans: Vec<_> = (0..1_000).map(|seed| Plan::draw(seed, shape)).collect();
        let judged = plans.iter().filter(|plan| {
            assert_eq!((plan.check(), plan.duration()), (Ok(()), Duration::from_secs(30)), "{plan}");
            assert!(plan.faults.iter().all(|window| window.end <= plan.active), "{plan}");
            plan.last_end() + bounds::served(&plan.settings) < plan.duration()
        });
        let judged = judged.count();
        let long = plans.iter().filter(|plan| plan.faults.iter().any(|window| window.end > shape.active)).count();
        assert!(judged > 400 && long > 150, "{judged} judged, {long} long, of {}", plans.len());
    }

    #[test]
    fn secrets_fail_only_where_they_are_used() {
        for plan in drawn() {
            for fault in plan.faults.iter().map(|window| window.fault.name()) {
                assert!(plan.topology.password || !fault.starts_with("secret.password"), "{plan}");
                assert!(plan.topology.tls || !fault.starts_with("secret.certificate"), "{plan}");
            }
        }
    }

    #[test]
    fn partitions_affect_every_kind_of_pair_in_both_directions() {
        let kind = |host: &Host| std::mem::discriminant(host);
        let mut kinds = Vec::new();
        for window in drawn().flat_map(|plan| plan.faults) {
            if let Fault::Partition { from, to, .. } = window.fault
                && !kinds.contains(&(kind(&from), kind(&to)))
            {
                kinds.push((kind(&from), kind(&to)));
            }
        }
        // Client and Pod, client and name server in either direction; operator to Pod; Pod to Pod.
        assert_eq!(kinds.len(), 6);
    }

    #[test]
    fn some_plans_have_no_faults_and_some_many() {
        let numbers: Vec<_> = drawn().map(|plan| plan.faults.len()).collect();
        assert!(numbers.contains(&0));
        assert!(numbers.contains(&MAX_FAULTS));
    }
}
