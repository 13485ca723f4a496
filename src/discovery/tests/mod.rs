//! Tests lookups over real sockets against a name server that injects faults, and, in `combined`, the resolvers that
//! combine several sources.
//!
//! The DNS failures and the tests that cover them:
//!
//! | failure | test |
//! |---|---|
//! | Pods are added, removed, replaced | `sets::follows_pods_that_are_added_removed_and_replaced` |
//! | the same Pods in another order, or with duplicates | `sets::ignores_the_order_of_records_and_duplicates` |
//! | NXDOMAIN once, repeatedly, permanently | `sets::nxdomain_removes_all_pods_only_if_repeated_and_none_passes` |
//! | NODATA for A, NODATA for AAAA only | `sets::nodata_is_negative_unless_the_other_family_has_addresses` |
//! | SERVFAIL, REFUSED or FORMERR | `failures::servfail_keeps_the_pods_and_limits_packets_to_four_per_second` |
//! | SERVFAIL or no response from three servers | `failures::three_failing_servers_share_one_packet_limit` |
//! | unresponsive server, closed port | `failures::unresponsive_server_and_closed_port_keep_the_pods` |
//! | closed port, without an earlier lookup | `closed_port_fails_immediately` |
//! | the first server fails, the second works | `failures::second_server_answers_when_the_first_fails` |
//! | the first server does not respond, repeatedly | `unresponsive_first_server_delays_only_the_first_lookup` |
//! | the first server returns a wrong NXDOMAIN | `failures::retries_a_negative_response_only_if_configured` |
//! | a lost packet | `failures::retransmits_within_350_ms_even_after_40_negative_responses` |
//! | delayed responses, some after the deadline | `failures::discards_a_late_response_to_an_earlier_lookup` |
//! | 28 to 1000 addresses | `sizes::returns_all_addresses_of_small_and_large_responses` |
//! | a truncated response; TCP closed, reset, slow | `sizes::never_uses_a_truncated_response` |
//! | wrong id, source or question | `answers::ignores_a_forged_response_and_uses_the_genuine_one` |
//! | only invalid responses | `answers::lookup_with_only_invalid_responses_fails_and_keeps_the_pods` |
//! | 0.0.0.0, multicast, IPv4-mapped addresses | `answers::drops_addresses_that_no_pod_can_have` |
//! | TTL of 0, 1, 5, 30 or 86,400 s, mixed TTLs | `sets::lookup_interval_follows_the_ttl_within_its_bounds` |
//! | one family works, the other does not | `answers::failing_family_does_not_delay_or_clear_the_other` |
//! | SERVFAIL in one family, NXDOMAIN in the other | `answers::error_in_one_family_outweighs_nxdomain_in_the_other` |
//! | a short name and a Pod's search list | `names::only_the_first_lookup_tries_the_search_list` |
//! | slow responses for the names of the search list | `names::all_names_of_the_search_list_share_one_timeout` |
//! | SERVFAIL or timeout for the right candidate | `names::error_for_one_candidate_ends_the_search` |
//! | a wildcard record in a search domain | `names::skips_a_search_domain_with_a_wildcard_record` |
//! | two DNS replicas with different Pods | `sets::keeps_healthy_pods_while_two_dns_replicas_disagree` |
//! | resolv.conf replaced, broken, removed | `names::rereads_a_changed_resolv_conf_and_ignores_an_unusable_one` |
//! | a Pod moves; an address is reused | `sets::treats_a_moved_pod_and_a_reused_address_as_new_pods` |
//! | SRV: addresses are missing | `srv::queries_addresses_that_the_srv_response_lacks` |
//! | SRV: port, priority or weight changes | `srv::changed_port_is_a_new_pod_and_changed_weights_are_ignored` |
//! | SRV: weights and priorities | `srv::weights_and_priorities_are_used_if_they_are_asked_for` |
//! | SRV: more Pods than a packet holds | `srv::fetches_an_srv_response_too_large_for_udp_over_tcp` |
//! | SRV: dual-stack Pods | `srv::returns_a_dual_stack_pod_once` |
//! | SRV: no records; SERVFAIL | `srv::missing_srv_records_are_negative_and_servfail_is_an_error` |
//! | a CNAME chain, a loop, a dangling alias | `answers::follows_up_to_eight_cname_records_and_rejects_a_loop` |
//! | random case, lower-case response | `answers::repeats_a_query_over_tcp_after_a_lower_case_response` |
//! | 1000 concurrent callers, cancellation | `failures::concurrent_callers_share_one_lookup` |
//! | hours of lookups with faults | `tests/dns_soak.rs`, a test binary because it measures its whole process |
//! | no DNS for ten minutes | `failures::keeps_the_pods_through_ten_minutes_without_dns` |
//! | the server closes an idle TCP connection | `sizes::reopens_a_tcp_connection_closed_between_lookups` |
//!
//! The test binary `tests/dns_pool` covers some of these failures with a complete pool. `tests/real_dns` covers some of
//! them with real name servers.

mod answers;
mod combined;
mod failures;
mod names;
mod sets;
mod sizes;
mod srv;

use std::collections::BTreeMap;

use rand::{SeedableRng as _, rngs::StdRng};

#[cfg(not(feature = "testkit"))]
use super::fault_dns::*;
use super::{confirm::Decision, *};
#[cfg(feature = "testkit")]
use crate::testkit::fault_dns::*;
use crate::{
    endpoint::Endpoint,
    time::{Duration, Instant},
};

const SVC: &str = "postgresql-svc.k8s-training.svc.cluster.local.";
const SRV: &str = "_postgresql-port._tcp.postgresql-svc.k8s-training.svc.cluster.local.";

fn options(servers: &[&FaultDns]) -> DnsOptions {
    let mut options = DnsOptions::new(SVC.parse().expect("the name is a valid Service name"), 5432);
    options.nameservers = servers.iter().map(|server| server.address()).collect();
    options
}

fn dns(servers: &[&FaultDns]) -> Dns {
    Dns::new(options(servers)).unwrap()
}

fn addresses(resolution: &Resolution) -> Vec<String> {
    resolution.endpoints.iter().map(ToString::to_string).collect()
}

/// A stand-in for the pool: it keeps the set of Pods and schedules the lookups by its own clock.
struct Follower {
    dns: Dns,
    schedule: Schedule,
    confirm: Confirm,
    rng: StdRng,
    /// All known Pods. The value is true if the Pod passes its health check.
    known: BTreeMap<Endpoint, bool>,
    /// True if new Pods pass their health check.
    healthy: bool,
    /// The time of the next lookup.
    now: Instant,
    /// The interval from the last lookup to the next.
    waited: Duration,
    /// True if the last decision requested an early lookup, because an absence is unconfirmed.
    recheck: bool,
}

impl Follower {
    fn new(dns: Dns) -> Self {
        Self {
            dns,
            schedule: Schedule::new(Duration::from_secs(1), Duration::from_secs(10)),
            confirm: Confirm::default(),
            rng: StdRng::seed_from_u64(1),
            known: BTreeMap::new(),
            healthy: true,
            now: Instant::now(),
            waited: Duration::ZERO,
            recheck: false,
        }
    }

    /// Performs one lookup, advances the clock to the next lookup and returns the set of Pods.
    async fn step(&mut self) -> Result<Vec<String>, ResolveError> {
        let known: Vec<_> = self.known.clone().into_iter().collect();
        let result = self.dns.resolve().await;
        let (decision, due) = match &result {
            Ok(resolution) => {
                let holds = resolution.valid_until.saturating_duration_since(Instant::now());
                let due = self.schedule.after_success(self.now, self.now + holds, &mut self.rng);
                (self.confirm.answer(self.now, &known, &resolution.endpoints, self.now + holds), due)
            }
            Err(error) => {
                let due = self.schedule.after_failure(self.now, &mut self.rng);
                if error.is_negative() {
                    (self.confirm.negative(self.now, &known, error.negative_ttl()), due)
                } else {
                    self.confirm.error();
                    let set = self.known.keys().cloned().collect();
                    (Decision { set, absent: Vec::new(), gone: Vec::new(), recheck_at: None }, due)
                }
            }
        };
        let healthy = self.healthy;
        // The pool keeps absent Pods while DNS names no Pod.
        let is_absent = |pod: &Endpoint| result.is_ok() && decision.absent.contains(pod);
        self.known = decision
            .set
            .into_iter()
            .filter(|pod| !is_absent(pod))
            .map(|pod| {
                let passes = self.known.get(&pod).copied().unwrap_or(healthy);
                (pod, passes)
            })
            .collect();
        self.recheck = decision.recheck_at.is_some();
        // An earlier lookup would not confirm an absence, so that the number of lookups would depend on the jitter.
        let due = decision.recheck_at.unwrap_or(due);
        self.waited = due - self.now;
        self.now = due;
        result.map(|_| self.set())
    }

    fn set(&self) -> Vec<String> {
        self.known.keys().map(ToString::to_string).collect()
    }

    /// Makes all Pods, including new ones, pass or fail their health check from now on.
    fn all_pass(&mut self, passes: bool) {
        self.healthy = passes;
        self.known.values_mut().for_each(|known| *known = passes);
    }
}

async fn start() -> FaultDns {
    FaultDns::start().await.unwrap()
}

/// Measures `run` up to ten times and returns the shortest duration, because other tests may slow the machine down.
/// Stops after the first duration within `limit`.
async fn shortest<F: Future<Output = Duration>>(limit: Duration, mut run: impl FnMut() -> F) -> Duration {
    let mut best = run().await;
    for _ in 0..9 {
        if best > limit {
            best = best.min(run().await);
        }
    }
    best
}

fn pods(last: &[u8]) -> Vec<String> {
    last.iter().map(|last| format!("10.0.0.{last}:5432")).collect()
}

fn ips(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("10.1.{}.{}", n / 256, n % 256)).collect()
}

fn set_many(server: &FaultDns, count: usize) {
    let ips = ips(count);
    server.set(SVC, &ips.iter().map(String::as_str).collect::<Vec<_>>());
}

fn tcp(log: &[Packet]) -> usize {
    log.iter().filter(|packet| packet.tcp).count()
}

fn kinds(log: &[Packet]) -> Vec<RecordType> {
    let mut kinds: Vec<_> = log.iter().map(|packet| packet.kind).collect();
    kinds.sort_unstable();
    kinds
}

#[tokio::test]
async fn returns_name_and_server_and_sends_one_packet_per_family() {
    let server = start().await;
    server.set(SVC, &["10.0.0.2", "10.0.0.1"]);
    let dns = dns(&[&server]);
    let resolution = dns.resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["10.0.0.1:5432", "10.0.0.2:5432"]);
    assert_eq!(resolution.server, Some(server.address()));
    assert_eq!(resolution.name.as_deref(), Some(SVC));
    let holds = resolution.valid_until - Instant::now();
    assert!(holds > Duration::from_secs(4) && holds <= Duration::from_secs(5), "{holds:?}");
    let log = server.take_log();
    assert_eq!(kinds(&log), [RecordType::A, RecordType::AAAA]);
    assert!(log.iter().all(|packet| packet.payload == Some(1232) && packet.name == SVC));
}

#[tokio::test]
async fn unresponsive_first_server_delays_only_the_first_lookup() {
    let unresponsive = start().await;
    let good = start().await;
    unresponsive.always(Fault::Drop);
    good.set(SVC, &["10.0.0.1"]);
    let dns = dns(&[&unresponsive, &good]);
    let begin = Instant::now();
    assert_eq!(addresses(&dns.resolve().await.unwrap()), ["10.0.0.1:5432"]);
    assert!(begin.elapsed() < Duration::from_millis(350), "{:?}", begin.elapsed());
    unresponsive.take_log();
    let begin = Instant::now();
    dns.resolve().await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(50), "{:?}", begin.elapsed());
    assert_eq!(unresponsive.take_log(), []);
}

#[tokio::test]
async fn srv_query_returns_names_ports_and_addresses_in_one_packet() {
    let server = start().await;
    let target = |pod: u8| format!("postgresql-sfs-{pod}.{SVC}");
    let mut records = vec![service(SRV, 5433, &target(1)), service(SRV, 5432, &target(0))];
    records.extend([0, 1].map(|pod| address(&target(pod), TTL, &format!("10.0.0.{}", pod + 1))));
    server.set_records(SVC, records);
    let mut options = options(&[&server]);
    options.srv_port_name = Some("postgresql-port".into());
    let resolution = Dns::new(options).unwrap().resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["postgresql-sfs-0 (10.0.0.1:5432)", "postgresql-sfs-1 (10.0.0.2:5433)"]);
    assert_eq!(kinds(&server.take_log()), [RecordType::SRV]);
}

#[tokio::test]
async fn closed_port_fails_immediately() {
    let server = start().await;
    let address = server.address();
    server.stop().await;
    let mut options = DnsOptions::new(SVC.parse().expect("the name is a valid Service name"), 5432);
    options.nameservers = vec![address];
    let begin = Instant::now();
    let error = Dns::new(options).unwrap().resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::Io, "{error:?}");
    assert!(error.to_string().contains("efused"), "{error}");
    assert!(begin.elapsed() < Duration::from_millis(200), "{:?}", begin.elapsed());
}
