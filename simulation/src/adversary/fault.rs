use std::time::Duration;

use super::{
    Topology,
    host::{Factor, Host, Percent},
    text::{Fields, ParseError, Value, keywords},
};

keywords! {
    /// The manner in which a server is stopped.
    StopMode {
        /// Sessions are ended with FATAL, and a checkpoint is written.
        Fast = "fast",
        /// No new sessions are accepted; the present ones end by themselves.
        Smart = "smart",
        /// Sessions are ended without a checkpoint, so that the next start is a recovery.
        Immediate = "immediate",
    }
}

/// Defines the faults: their names, their fields and their text form in one place.
macro_rules! faults {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal
        { $($(#[doc = $field_doc:literal])* $field:ident: $type:ty),* $(,)? }),* $(,)?) => {
        /// Something that goes wrong, from the start of its window to the end. A fault that happens at one moment has
        /// an empty window.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Fault { $($(#[doc = $doc])* $variant { $($(#[doc = $field_doc])* $field: $type),* }),* }

        impl Fault {
            /// The names of all faults.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Returns the name of the fault.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name),* }
            }

            /// Returns the fields in their text form.
            #[allow(unused_mut, reason = "some faults have no fields")]
            pub(super) fn fields(&self) -> Fields {
                let mut fields = Fields::default();
                match self { $(Self::$variant { $($field),* } => { $(fields.put(stringify!($field), $field);)* }),* }
                fields
            }

            /// Parses a fault.
            pub(super) fn parse(name: &str, mut fields: Fields) -> Result<Self, ParseError> {
                let fault = match name {
                    $($name => Self::$variant { $($field: fields.need(stringify!($field))?),* },)*
                    _ => return Err(ParseError::new(format!("one of {}", Self::NAMES.join(", ")), name)),
                };
                fields.end()?;
                Ok(fault)
            }

            /// Returns milder faults: one magnitude is smaller, or it concerns fewer directions.
            #[must_use]
            #[allow(unused_mut, reason = "some faults have no fields")]
            pub fn milder(&self) -> Vec<Self> {
                let mut milder = Vec::new();
                match self {
                    $(Self::$variant { $($field),* } => {
                        $(for value in $field.milder() {
                            let mut copy = self.clone();
                            if let Self::$variant { $field, .. } = &mut copy {
                                *$field = value;
                            }
                            milder.push(copy);
                        })*
                    }),*
                }
                milder
            }

            /// Returns the hosts that the fault names.
            #[must_use]
            pub fn hosts(&self) -> Vec<Host> {
                match self {
                    $(Self::$variant { $($field),* } => {
                        let hosts: &[Option<Host>] = &[$($field.host()),*];
                        hosts.iter().copied().flatten().collect()
                    }),*
                }
            }
        }
    };
}

faults! {
    /// Packets are lost at random.
    Loss = "network.loss" {
        /// The sender.
        from: Host,
        /// The receiver.
        to: Host,
        /// True if the other direction is affected too.
        both: bool,
        /// Share of the packets that is lost.
        share: Percent,
    },
    /// Packets take longer.
    Delay = "network.delay" {
        /// The sender.
        from: Host,
        /// The receiver.
        to: Host,
        /// True if the other direction is affected too.
        both: bool,
        /// Time that is added to each packet's.
        by: Duration,
        /// Maximum random time that is added too.
        jitter: Duration,
    },
    /// Every packet is lost.
    Partition = "network.partition" {
        /// The sender.
        from: Host,
        /// The receiver.
        to: Host,
        /// True if the other direction is affected too.
        both: bool,
    },
    /// The packets of the connections that exist at the start are lost in both directions. New ones are not affected.
    HalfOpen = "network.half-open" {
        /// One end.
        from: Host,
        /// The other end.
        to: Host,
    },
    /// Every connection is ended with RST at the start.
    Reset = "network.reset" {
        /// One end.
        from: Host,
        /// The other end.
        to: Host,
    },
    /// The server's process is killed at the start, and started again at the end.
    Crash = "server.crash" {
        /// The Pod.
        pod: Host,
    },
    /// The server's machine loses power at the start, and boots at the end.
    PowerLoss = "server.power-loss" {
        /// The Pod.
        pod: Host,
    },
    /// The server's processes are stopped (SIGSTOP) from the start to the end.
    Hang = "server.hang" {
        /// The Pod.
        pod: Host,
    },
    /// Statements, logins and replay take longer.
    Slow = "server.slow" {
        /// The Pod.
        pod: Host,
        /// The factor.
        by: Factor,
    },
    /// The server is stopped at the start, and started again at the end.
    Stop = "server.stop" {
        /// The Pod.
        pod: Host,
        /// The manner.
        mode: StopMode,
    },
    /// Other programs take all connection slots that are free.
    Full = "server.full" {
        /// The Pod.
        pod: Host,
    },
    /// `default_transaction_read_only` is on for new sessions.
    ReadOnly = "server.read-only" {
        /// The Pod.
        pod: Host,
    },
    /// The standby replays nothing.
    ReplayPaused = "server.replay-paused" {
        /// The Pod.
        pod: Host,
    },
    /// An administrator promotes the standby by mistake at the start. The operator makes it a standby again.
    Promoted = "server.promoted" {
        /// The Pod.
        pod: Host,
    },
    /// Sessions are terminated by an administrator at the start.
    Terminate = "server.terminate" {
        /// The Pod.
        pod: Host,
        /// Share of the sessions.
        share: Percent,
    },
    /// The operator promotes another server although the primary runs. If there is a synchronous standby, it is chosen.
    Failover = "operator.failover" {},
    /// The primary hands over to another server.
    Switchover = "operator.switchover" {},
    /// Every server is restarted or re-created, one after another.
    RollingUpdate = "operator.rolling-update" {},
    /// The number of Pods changes at the start, and changes back at the end.
    Scale = "operator.scale" {
        /// Number of Pods.
        to: u32,
    },
    /// The lease store does not respond, so that the leader must give up its lease.
    LeaseStoreLost = "operator.lease-store-lost" {},
    /// The operator does nothing.
    OperatorPaused = "operator.pause" {},
    /// A name server responds with SERVFAIL.
    ServFail = "dns.servfail" {
        /// The name server, or every one.
        server: Option<Host>,
        /// Share of the queries.
        share: Percent,
    },
    /// A name server responds that the name does not exist.
    NxDomain = "dns.nxdomain" {
        /// The name server, or every one.
        server: Option<Host>,
        /// Share of the queries.
        share: Percent,
    },
    /// A name server learns no changes.
    Stale = "dns.stale" {
        /// The name server, or every one.
        server: Option<Host>,
    },
    /// A name server truncates its responses over UDP.
    Truncated = "dns.truncated" {
        /// The name server, or every one.
        server: Option<Host>,
        /// Share of the queries.
        share: Percent,
    },
    /// A name server does not respond.
    Silent = "dns.silent" {
        /// The name server, or every one.
        server: Option<Host>,
        /// Share of the queries.
        share: Percent,
    },
    /// A name server responds later.
    Late = "dns.late" {
        /// The name server, or every one.
        server: Option<Host>,
        /// The additional time.
        by: Duration,
    },
    /// Responses with another id or name, or malformed ones, arrive first or instead.
    Wrong = "dns.wrong" {
        /// The name server, or every one.
        server: Option<Host>,
        /// Share of the queries.
        share: Percent,
    },
    /// The readiness probe of a Pod fails.
    Unready = "kubernetes.unready" {
        /// The Pod.
        pod: Host,
    },
    /// A Pod is deleted with its grace period, and created again.
    Delete = "kubernetes.delete" {
        /// The Pod.
        pod: Host,
    },
    /// A Pod is deleted by force, and created again while the former process may still run.
    ForceDelete = "kubernetes.force-delete" {
        /// The Pod.
        pod: Host,
    },
    /// A Pod gets other addresses at the start. Its former ones lead nowhere.
    Move = "kubernetes.move" {
        /// The Pod.
        pod: Host,
    },
    /// A node is unreachable with all its Pods.
    NodeLost = "kubernetes.node-lost" {
        /// Number of the node.
        node: u32,
    },
    /// The API server is away.
    ApiServerLost = "kubernetes.api-server-lost" {},
    /// A client's process is stopped (SIGSTOP) from the start to the end.
    ClientPaused = "client.pause" {
        /// The client.
        client: Host,
    },
    /// A client's process is stopped and continued again and again, as with cpulimit.
    ClientStarved = "client.starved" {
        /// The client.
        client: Host,
        /// Time for which it is stopped each time.
        stopped: Duration,
        /// Shortest time for which it runs in between. The longest is twice as long.
        running: Duration,
    },
    /// The wall clock of a host is wrong.
    Skew = "clock.skew" {
        /// The host.
        host: Host,
        /// The deviation.
        by: Duration,
        /// True if the clock is ahead, otherwise it is behind.
        ahead: bool,
    },
    /// The password changes on the servers at the start. The clients' password file follows at the end.
    PasswordRotated = "secret.password-rotated" {},
    /// A server rejects the right password.
    PasswordRejected = "secret.password-rejected" {
        /// The Pod.
        pod: Host,
    },
    /// The password file of a client is missing.
    PasswordFileMissing = "secret.password-file-missing" {
        /// The client.
        client: Host,
    },
    /// A server's certificate has expired.
    CertificateExpired = "secret.certificate-expired" {
        /// The Pod.
        pod: Host,
    },
    /// A server's certificate is renewed at the start.
    CertificateRenewed = "secret.certificate-renewed" {
        /// The Pod.
        pod: Host,
    },
}

impl Fault {
    /// Returns the family of the fault, the part of its name before the point.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.name().split('.').next().unwrap_or_default()
    }

    /// Returns the fields of the fault as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.fields().to_string()
    }

    /// Returns a reason why the fault cannot happen in this topology.
    pub(super) fn check(&self, topology: &Topology) -> Result<(), ParseError> {
        let problem = |expected: String, received: String| Err(ParseError::new(expected, received));
        for host in self.hosts() {
            let (number, hosts) = match host {
                Host::Client(number) => (number, topology.clients),
                Host::Pod(number) => (number, topology.pods),
                Host::NameServer(number) => (number, topology.name_servers),
                Host::Operator => continue,
            };
            let is_fitting = match self.family() {
                "server" => matches!(host, Host::Pod(_)),
                "dns" => matches!(host, Host::NameServer(_)),
                "client" => matches!(host, Host::Client(_)),
                _ => true,
            };
            if !is_fitting || number >= hosts {
                return problem(format!("a host of this kind with a number below {hosts}"), host.to_string());
            }
        }
        match self {
            Self::NodeLost { node } if *node >= topology.nodes => {
                problem(format!("a node below {}", topology.nodes), node.to_string())
            }
            Self::ClientStarved { stopped, running, .. } if stopped.is_zero() || running.is_zero() => {
                problem("times of at least 1ms".to_owned(), self.text())
            }
            Self::Scale { to } if !(1..=20).contains(to) => problem("1 to 20 Pods".to_owned(), to.to_string()),
            _ => Ok(()),
        }
    }
}
