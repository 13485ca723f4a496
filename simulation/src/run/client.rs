//! A client: a host with a pool, an observer of its events, and samples of its state.

use std::{collections::BTreeSet, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use podpool::{
    Config, Event as PoolEvent, Observer, Pool, Role as PoolRole, State,
    config::Host as Target,
    discovery::{Dns, DnsOptions, Resolution, Resolve, ResolveError},
};
use tokio::time::{Instant, sleep};

use super::{
    name_servers::{self, SERVICE},
    pods::{Pod, Pods},
    recorder::Recorder,
};
use crate::{
    adversary::{Discovery, Plan, Settings},
    postgres::{AUTHORITY, Phase},
    properties::{Event, Instance, PodSample, Stage, Standing},
    world::{Host, World},
};

/// The file with the password of a client.
pub(super) const PASSWORD_FILE: &str = "/etc/podpool/password";
/// The file with the authority that has signed the certificates of the servers.
const AUTHORITY_FILE: &str = "/etc/podpool/authority.pem";
/// The password of every user at the start.
pub(super) const PASSWORD: &str = "correct horse";
/// The database.
pub(super) const DATABASE: &str = "shop";
/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(250);

/// A client. Clones refer to the same one.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) host: Host,
    pub(super) pool: Pool,
    /// Time limit for a checkout.
    pub(super) acquire_timeout: Duration,
    pub(super) recorder: Recorder,
    pods: Arc<Pods>,
}

/// Returns the name of a client, which is also the name of its user.
pub(super) fn name(number: u32) -> String {
    format!("client-{number}")
}

impl Client {
    /// Starts a client with its pool.
    pub(super) fn start(world: &World, plan: &Plan, number: u32, pods: &Arc<Pods>) -> Self {
        let part = number as u8 + 1;
        let mut addresses = vec![[10, 0, 2, part].into()];
        if plan.topology.dual_stack {
            addresses.push([0xfd00, 0, 0, 0, 0, 0, 2, u16::from(part)].into());
        }
        let host = world.host(&name(number), &addresses);
        pods.paths.set(&name(number), host.node(), super::paths::Presence::Running);
        let servers =
            (0..plan.topology.name_servers).map(|server| format!("nameserver {}\n", name_servers::address(server)));
        host.write_file("/etc/resolv.conf", servers.chain(["options ndots:5\n".to_owned()]).collect::<String>());
        host.write_file_with_mode(PASSWORD_FILE, PASSWORD, 0o600);
        host.write_file(AUTHORITY_FILE, AUTHORITY);
        let recorder = pods.recorder.clone();
        let observer = Observe { client: number, host: host.clone(), recorder: recorder.clone() };
        let pool = host.enter(|| {
            let config = config(plan, number);
            let names = dns(&config, &plan.settings);
            let resolver = Record { names, client: number, recorder: recorder.clone() };
            let pool = Pool::builder(config).observer(observer).resolver(resolver).build();
            pool.expect("the plan has valid settings")
        });
        let acquire_timeout = plan.settings.acquire_timeout;
        let client = Self { number, host, pool, acquire_timeout, recorder, pods: pods.clone() };
        let sampled = client.clone();
        client.host.run(async move { sampled.sample().await });
        client
    }

    /// Samples the state of the pool until the task is dropped or the pool is closed.
    async fn sample(self) {
        let mut retained = BTreeSet::new();
        while !self.pool.status().closed {
            self.record_state(&mut retained);
            sleep(SAMPLE).await;
        }
    }

    fn record_state(&self, retained: &mut BTreeSet<SocketAddr>) {
        let mut samples = Vec::new();
        let mut still = BTreeSet::new();
        for pod in self.pool.status().endpoints {
            let Some(address) = pod.endpoint.address().tcp() else { continue };
            let Some(on) = self.recorder.pod_at(address.ip()) else { continue };
            if pod.retained {
                still.insert(address);
            }
            samples.push(PodSample {
                on,
                address,
                alternatives: pod.alternatives.len() as u32,
                healthy: pod.state == State::Healthy,
                usable: pod.is_usable(),
                avoided: pod.late || pod.suspect,
                standby: match pod.role {
                    PoolRole::Primary => Some(false),
                    PoolRole::Standby => Some(true),
                    _ => None,
                },
                timeline: pod.timeline,
                server_timeline: self.running(on).map(|pod| pod.server.status().timeline),
                open: pod.open as u32,
                idle: pod.idle as u32,
                in_use: pod.in_use as u32,
                waiting: pod.waiting as u32,
                sessions: self.running(on).map(|pod| pod.server.sessions_of(&name(self.number)) as u32),
            });
        }
        for address in still.difference(retained) {
            let (client, address, standing) = (self.number, *address, Standing::Retained);
            self.recorder.record(Event::Standing { client, address, standing });
        }
        *retained = still;
        self.recorder.record(Event::Sampled { client: self.number, pods: samples });
    }

    /// Returns a Pod if its server accepts sessions.
    fn running(&self, on: Instance) -> Option<Pod> {
        let pod = self.pods.get(on.pod).filter(|_| self.recorder.instance(on.pod) == on)?;
        (pod.server.status().phase == Phase::Running).then_some(pod)
    }
}

/// Returns the configuration of a client's pool.
fn config(plan: &Plan, number: u32) -> Config {
    let (user, query) = (name(number), plan.settings.query());
    let tls = match plan.topology.tls {
        true => format!("sslmode=verify-full&sslrootcert={AUTHORITY_FILE}"),
        false => "sslmode=disable".to_owned(),
    };
    let text = format!("postgres://{user}@{SERVICE}/{DATABASE}?{tls}&password_file={PASSWORD_FILE}&{query}");
    text.trim_end_matches('&').parse().unwrap_or_else(|error| panic!("`{text}` is rejected: {error}"))
}

/// Returns the resolver that the pool would use without another one.
fn dns(config: &Config, settings: &Settings) -> Dns {
    let Target::Service(name) = config.host() else { unreachable!("the host is a name") };
    let mut options = DnsOptions::new(name.clone(), config.port());
    options.timeout = config.limits().dns_timeout;
    options.hedge = config.limits().dns_hedge;
    if settings.discovery == Discovery::Srv {
        options.srv_port_name = Some(Settings::PORT_NAME.to_owned());
    }
    Dns::new(options).expect("a valid name")
}

/// A resolver that records its results.
struct Record {
    names: Dns,
    client: u32,
    recorder: Recorder,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Resolve for Record {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async move {
            let began = Instant::now();
            let result = self.names.resolve().await;
            let client = self.client;
            let answer = match &result {
                Ok(found) => Some(found.endpoints.as_slice()),
                Err(error) if error.is_negative() => Some(&[][..]),
                Err(_) => None,
            };
            if let Some(endpoints) = answer {
                let addresses: BTreeSet<_> = endpoints.iter().filter_map(|endpoint| endpoint.address().tcp()).collect();
                let pods = addresses.iter().filter_map(|address| self.recorder.pod_at(address.ip())).collect();
                self.recorder.record(Event::Resolved { client, pods, addresses });
            }
            let took = began.elapsed();
            self.recorder.record(Event::Finished { client, stage: Stage::Lookup, took });
            result
        })
    }

    fn source(&self) -> String {
        self.names.source()
    }
}

/// An observer that records the pool's events.
struct Observe {
    client: u32,
    host: Host,
    recorder: Recorder,
}

impl Observe {
    /// Returns the records of an event.
    fn records_of(&self, event: &PoolEvent) -> Vec<Event> {
        let client = self.client;
        if matches!(event, PoolEvent::FencingHistoryForgotten { .. }) {
            return vec![Event::Forgot { client }];
        }
        let Some(address) = event.endpoint().and_then(|endpoint| endpoint.address().tcp()) else { return Vec::new() };
        let Some(on) = self.recorder.pod_at(address.ip()) else { return Vec::new() };
        let standing = |standing| Event::Standing { client, address, standing };
        let health = |healthy| Event::Health { client, address, healthy };
        match event {
            PoolEvent::EndpointAdded { .. } | PoolEvent::EndpointReturned { .. } => vec![standing(Standing::Member)],
            PoolEvent::EndpointRetained { .. } => vec![standing(Standing::Retained)],
            PoolEvent::EndpointDetached { .. } => vec![standing(Standing::Detached)],
            // The fence ends with the Pod. The pool reports it again if the Pod returns.
            PoolEvent::EndpointDrained { .. } => {
                vec![standing(Standing::Drained), health(false), Event::Fenced { client, on, fenced: false }]
            }
            PoolEvent::EndpointFenced { .. } => vec![Event::Fenced { client, on, fenced: true }],
            PoolEvent::EndpointUnfenced { .. } => vec![Event::Fenced { client, on, fenced: false }],
            PoolEvent::StateChanged { to: "healthy", .. } => vec![health(true)],
            PoolEvent::StateChanged { to: "ejected", .. } => vec![Event::Ejected { client, on }, health(false)],
            _ => Vec::new(),
        }
    }
}

impl Observer for Observe {
    fn event(&mut self, event: &PoolEvent) {
        self.host.event(event);
        self.records_of(event).into_iter().for_each(|event| self.recorder.record(event));
    }
}
