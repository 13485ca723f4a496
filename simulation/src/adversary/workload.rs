use std::time::Duration;

use super::{
    Fault, Topology, Window,
    host::Percent,
    text::{ParseError, Value, keywords, record},
};

keywords! {
    /// The requested kind of server, as in `target_session_attrs`.
    Target {
        /// Every server.
        Any = "any",
        /// A server that accepts writes.
        ReadWrite = "read-write",
        /// A server that does not accept writes.
        ReadOnly = "read-only",
        /// The primary.
        Primary = "primary",
        /// A standby.
        Standby = "standby",
        /// A standby, or any server while no standby is healthy.
        PreferStandby = "prefer-standby",
        /// The primary, or any server while no primary is healthy.
        PreferPrimary = "prefer-primary",
    }
}

keywords! {
    /// The work of a call.
    Work {
        /// One statement that reads, through `retry`.
        Read = "read",
        /// One statement that inserts an id, through `retry_unapplied`.
        Insert = "insert",
        /// A transaction that inserts two ids, through `retry_unapplied`.
        Transaction = "transaction",
        /// Two statements outside of a transaction that insert an id each, through `retry_unapplied`.
        TwoInserts = "two-inserts",
        /// Both ids in one simple query, through `retry_unapplied`.
        Batch = "batch",
        /// Concurrent statements on one connection, through `retry_unapplied`.
        Pipelined = "pipelined",
        /// A `COPY` that inserts two ids, through `retry_unapplied`.
        Copy = "copy",
        /// A checkout with `get`, one statement that reads, and the return.
        Checkout = "checkout",
        /// A statement outside of a transaction that inserts an id, and one that fails, through `retry_unapplied`.
        InsertThenFail = "insert-then-fail",
        /// A statement on a shared connection that reads, and may run twice. Some take long.
        SharedRead = "shared-read",
        /// A statement on a shared connection that inserts an id.
        SharedInsert = "shared-insert",
    }
}

impl Work {
    /// Returns true if the work runs on shared connections, without a checkout.
    #[must_use]
    pub fn is_shared(self) -> bool {
        matches!(self, Self::SharedRead | Self::SharedInsert)
    }
}

keywords! {
    /// The state in which a caller leaves a connection.
    Leak {
        /// A clean connection.
        None = "none",
        /// An open transaction.
        Transaction = "transaction",
        /// A failed transaction.
        Failed = "failed",
        /// A statement that is still running.
        Statement = "statement",
        /// A `COPY` that has not ended.
        Copy = "copy",
        /// A changed session: a marker, set with `SET`.
        Session = "session",
    }
}

record! {
    /// A task of a client that calls its pool again and again.
    Caller {
        /// Number of the client.
        client: u32 = 0,
        /// The work of each call.
        work: Work = Work::Read,
        /// The requested kind of server.
        target: Target = Target::Any,
        /// Mean time between two calls.
        every: Duration = Duration::from_millis(100),
        /// Number of calls that may run at the same time.
        concurrency: u32 = 1,
        /// Time for which a connection is kept after its statement.
        hold: Duration = Duration::ZERO,
        /// Share of the calls whose future is dropped at a random time.
        cancelled: Option<Percent> = None,
        /// The state in which some calls leave the connection.
        leak: Leak = Leak::None,
        /// Share of the calls that leave it so.
        leaked: Option<Percent> = None,
    }
}

impl Caller {
    /// Returns the mean number of calls per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        1.0 / self.every.as_secs_f64()
    }

    /// Returns true if the work writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self.work, Work::Read | Work::Checkout | Work::SharedRead)
    }

    /// Returns a reason why the caller cannot run.
    pub(super) fn check(&self, topology: &Topology) -> Result<(), ParseError> {
        if self.client >= topology.clients {
            return Err(ParseError::new(format!("a client below {}", topology.clients), self.client.text()));
        }
        if self.every.is_zero() {
            return Err(ParseError::new("`every` of at least 1ms", self.every.text()));
        }
        if self.concurrency == 0 {
            return Err(ParseError::new("`concurrency` of at least 1", self.concurrency.text()));
        }
        Ok(())
    }

    fn draw(client: u32, work: Work, random: &mut fastrand::Rng) -> Self {
        let writes = Self { work, ..Self::default() }.writes();
        let targets: &[Target] = if writes {
            &[Target::Primary, Target::Primary, Target::ReadWrite, Target::PreferPrimary]
        } else {
            Target::ALL
        };
        let can_leak = work == Work::Checkout && random.u32(..2) == 0;
        let leak = Leak::ALL[random.usize(1..Leak::ALL.len())];
        let leaked = Percent(random.u32(1..=30));
        let is_cancelled = random.u32(..4) == 0;
        let cancelled = Percent(random.u32(1..=20));
        Self {
            client,
            work,
            target: targets[random.usize(..targets.len())],
            every: Duration::from_millis([20, 50, 100, 100, 200, 500][random.usize(..6)]),
            concurrency: [1, 1, 2, 4][random.usize(..4)],
            hold: Duration::from_millis([0, 0, 0, 5, 50][random.usize(..5)]),
            cancelled: is_cancelled.then_some(cancelled),
            leak: if can_leak { leak } else { Leak::None },
            leaked: can_leak.then_some(leaked),
        }
    }
}

/// The works that are drawn. Work that always fails is drawn only for short plans; see [`fail_some`].
const DRAWN: &[Work] =
    &[Work::Read, Work::Insert, Work::Transaction, Work::TwoInserts, Work::Batch, Work::Pipelined, Work::Checkout];

/// Adds callers that share connections to one client.
pub(super) fn share(callers: &mut Vec<Caller>, topology: &Topology, random: &mut fastrand::Rng) {
    let client = random.u32(..topology.clients);
    for work in [Work::SharedRead, Work::SharedRead, Work::SharedInsert] {
        let concurrency = random.u32(2..=8);
        callers.push(Caller { concurrency, hold: Duration::ZERO, ..Caller::draw(client, work, random) });
    }
}

/// Makes half of the callers that insert twice fail instead of the second insert.
pub(super) fn fail_some(callers: &mut [Caller], random: &mut fastrand::Rng) {
    for caller in callers.iter_mut().filter(|caller| caller.work == Work::TwoInserts) {
        if random.bool() {
            caller.work = Work::InsertThenFail;
        }
    }
}

/// Adds the load without which some faults have no consequences: the shares of a standby that was slow are compared
/// only if it gets enough reads.
pub(super) fn suit(callers: &mut Vec<Caller>, faults: &[Window]) {
    if faults.iter().any(|window| matches!(window.fault, Fault::Slow { .. })) {
        let every = Duration::from_millis(20);
        callers.push(Caller { target: Target::Standby, every, ..Caller::default() });
    }
}

/// Adds callers to each client that use more connections than there are.
pub(super) fn crowd(callers: &mut Vec<Caller>, topology: &Topology) {
    let (every, hold) = (Duration::from_millis(20), Duration::from_millis(50));
    let crowd = Caller { work: Work::Checkout, every, concurrency: 8, hold, ..Caller::default() };
    for client in 0..topology.clients {
        callers.extend([Target::Any, Target::Primary].map(|target| Caller { client, target, ..crowd.clone() }));
    }
}

/// Replaces the callers by one for each client, which seldom reads from any Pod.
pub(super) fn read_only(callers: &mut Vec<Caller>, topology: &Topology) {
    let every = Duration::from_millis(100);
    *callers = (0..topology.clients).map(|client| Caller { client, every, ..Caller::default() }).collect();
}

/// Replaces the callers by one for each client, which often reads from standbys.
pub(super) fn read_standbys(callers: &mut Vec<Caller>, topology: &Topology) {
    let standby = Caller { target: Target::Standby, every: Duration::from_millis(20), ..Caller::default() };
    *callers = (0..topology.clients).map(|client| Caller { client, ..standby.clone() }).collect();
}

/// Replaces the callers by three for each client: one writes, and two read from standbys and from any Pod.
pub(super) fn read_and_write(callers: &mut Vec<Caller>, topology: &Topology) {
    let every = Duration::from_millis(50);
    let works = [(Work::Insert, Target::Primary), (Work::Read, Target::Standby), (Work::Read, Target::Any)];
    let of = |client| works.map(|(work, target)| Caller { client, work, target, every, ..Caller::default() });
    *callers = (0..topology.clients).flat_map(of).collect();
}

/// Draws the callers: each client has at least one, and at least one client writes.
pub(super) fn draw(topology: &Topology, random: &mut fastrand::Rng) -> Vec<Caller> {
    let mut callers = Vec::new();
    for client in 0..topology.clients {
        for _ in 0..random.u32(1..=3) {
            let work = DRAWN[random.usize(..DRAWN.len())];
            callers.push(Caller::draw(client, work, random));
        }
    }
    if !callers.iter().any(Caller::writes) {
        let client = random.u32(..topology.clients);
        callers.push(Caller::draw(client, Work::Insert, random));
    }
    callers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn() -> Vec<Caller> {
        let topology = Topology::default();
        (0..500).flat_map(|seed| draw(&topology, &mut fastrand::Rng::with_seed(seed))).collect()
    }

    #[test]
    fn every_work_target_and_leak_is_drawn() {
        let callers = drawn();
        assert!(DRAWN.iter().all(|work| callers.iter().any(|caller| caller.work == *work)));
        assert!(Target::ALL.iter().all(|target| callers.iter().any(|caller| caller.target == *target)));
        assert!(Leak::ALL.iter().all(|leak| callers.iter().any(|caller| caller.leak == *leak)));
    }

    #[test]
    fn parses_its_own_text() {
        let mut callers = drawn();
        share(&mut callers, &Topology::default(), &mut fastrand::Rng::with_seed(1));
        for caller in callers {
            assert_eq!(Caller::parse(caller.fields()), Ok(caller.clone()));
            assert_eq!(caller.check(&Topology::default()), Ok(()));
        }
    }

    #[test]
    fn rejects_a_client_that_does_not_exist() {
        let caller = Caller { client: 2, ..Caller::default() };
        assert_eq!(
            caller.check(&Topology::default()).unwrap_err().to_string(),
            "expected a client below 2, received `2`"
        );
    }
}
