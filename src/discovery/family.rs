//! A and AAAA: two questions with two fates.
//!
//! A Service has addresses of one family or of both (Kubernetes, "IPv4/IPv6 dual-stack"); the other family's answer is
//! then NODATA, or NXDOMAIN from servers that know no better. So each family is asked and judged apart: one that is not
//! heard of keeps its last good half, one that has nothing is asked rarely, and neither makes the other wait.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    error::ServerError,
    nameservers::Answered,
    query::{Found, QueryContext},
};
use crate::{
    endpoint::Endpoint,
    time::{Duration, Instant},
};

/// After one family has answered, the other is waited for this long: enough for a lost packet to be repeated (after
/// 333 ms) and answered.
const GRACE: Duration = Duration::from_millis(400);
/// After how many lookups in a row without an address of a family, while the other had some, it is asked rarely.
const QUIET_AFTER: u32 = 2;
/// How rarely: at every tenth lookup.
const RARELY: u32 = 10;

/// What is remembered of both families of one name.
#[derive(Clone, Debug)]
pub(super) struct Families([Family; 2]);

#[derive(Clone, Debug)]
struct Family {
    kind: RecordType,
    /// The addresses of the last answer.
    good: Vec<IpAddr>,
    /// Lookups in a row that brought none, while the other family had some.
    quiet: u32,
    /// Lookups since it was last asked.
    skipped: u32,
}

type Heard = Result<Answered, Vec<ServerError>>;

impl Families {
    pub(super) fn new() -> Self {
        Self([RecordType::A, RecordType::AAAA].map(|kind| Family { kind, good: Vec::new(), quiet: 0, skipped: 0 }))
    }

    /// Asks the families that are due, and the other one too where they have nothing.
    pub(super) async fn ask(&mut self, name: &Name, cx: &QueryContext) -> Result<Found, Vec<ServerError>> {
        let due = self.0.each_mut().map(Family::due);
        let mut heard: [Option<Heard>; 2] = [None, None];
        let mut asking = JoinSet::new();
        let ask = |asking: &mut JoinSet<_>, index: usize, kind| {
            let (name, cx) = (name.clone(), cx.clone());
            asking.spawn(async move { (index, cx.servers.ask(&name, kind, cx.hold, cx.deadline).await) });
        };
        for (index, family) in self.0.iter().enumerate().filter(|(index, _)| due[*index]) {
            ask(&mut asking, index, family.kind);
        }
        let mut late = None;
        loop {
            tokio::select! {
                biased;
                done = asking.join_next() => match done {
                    Some(Ok((index, outcome))) => {
                        if outcome.is_ok() {
                            late = Some(Instant::now() + GRACE);
                        }
                        heard[index] = Some(outcome);
                    }
                    Some(Err(stopped)) => {
                        tracing::warn!(%name, error = %stopped, "a question to a name server ended without an answer");
                    }
                    None => {
                        let skipped = (0..2).find(|index| !due[*index] && heard[*index].is_none());
                        match skipped.filter(|_| heard.iter().flatten().all(is_negative)) {
                            Some(index) => ask(&mut asking, index, self.0[index].kind),
                            None => break,
                        }
                    }
                },
                () = sleep_until(late.unwrap_or(cx.deadline)), if late.is_some() => break,
            }
        }
        self.settle(due, heard, cx.port)
    }

    /// Puts both halves together.
    fn settle(&mut self, due: [bool; 2], heard: [Option<Heard>; 2], port: u16) -> Result<Found, Vec<ServerError>> {
        if !heard.iter().flatten().any(Result::is_ok) {
            return Err(heard.into_iter().flatten().filter_map(Result::err).flatten().collect());
        }
        let mut found = Found::default();
        for (family, (due, heard)) in self.0.iter_mut().zip(due.into_iter().zip(heard)) {
            match heard {
                Some(Ok(Answered { server, answer })) => {
                    family.found(answer.addresses);
                    found.add_answer(server, answer.ttl, answer.left_out);
                }
                Some(Err(errors)) if errors.iter().all(|error| error.kind().is_negative()) => family.empty(),
                None if !due => {}
                failed => {
                    if let Some(Err(errors)) = failed {
                        for error in errors {
                            tracing::debug!(%error, "one family of addresses was not heard of");
                        }
                    }
                    found.partial |= family.failed();
                }
            }
            found.endpoints.extend(family.good.iter().map(|ip| Endpoint::new((*ip, port).into())));
        }
        Ok(found)
    }
}

fn is_negative(heard: &Heard) -> bool {
    heard.as_ref().is_err_and(|errors| errors.iter().all(|error| error.kind().is_negative()))
}

impl Family {
    /// Whether it is asked this time.
    fn due(&mut self) -> bool {
        if self.quiet < QUIET_AFTER {
            return true;
        }
        self.skipped += 1;
        let due = self.skipped >= RARELY;
        if due {
            self.skipped = 0;
        }
        due
    }

    fn found(&mut self, addresses: Vec<IpAddr>) {
        self.good = addresses;
        self.quiet = 0;
        self.skipped = 0;
    }

    fn empty(&mut self) {
        self.good.clear();
        self.quiet = self.quiet.saturating_add(1);
    }

    /// Whether an earlier answer stands in.
    fn failed(&mut self) -> bool {
        if self.good.is_empty() {
            self.quiet = self.quiet.saturating_add(1);
        }
        !self.good.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{error::ResolveErrorKind, records::Answer};

    fn answered(addresses: &[&str]) -> Option<Heard> {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let answer = Answer { addresses, ttl: Duration::from_secs(5), ..Answer::default() };
        Some(Ok(Answered { server: ([10, 0, 0, 10], 53).into(), answer }))
    }

    fn error(kind: ResolveErrorKind) -> Option<Heard> {
        Some(Err(vec![ServerError::new(([10, 0, 0, 10], 53).into(), &Name::root(), RecordType::A, kind)]))
    }

    fn settled(families: &mut Families, heard: [Option<Heard>; 2]) -> (Vec<String>, bool) {
        let found = families.settle([true, true], heard, 5432).unwrap();
        (found.endpoints.iter().map(ToString::to_string).collect(), found.partial)
    }

    #[test]
    fn a_family_that_is_not_heard_of_keeps_its_last_good_half_and_one_without_records_loses_it() {
        let mut families = Families::new();
        let both = || [answered(&["10.0.0.1"]), answered(&["2001:db8::1"])];
        let all = vec!["10.0.0.1:5432".to_owned(), "[2001:db8::1]:5432".to_owned()];
        assert_eq!(settled(&mut families, both()), (all.clone(), false));
        let silent = [answered(&["10.0.0.1"]), error(ResolveErrorKind::Timeout)];
        assert_eq!(settled(&mut families, silent), (all.clone(), true));
        let late = [answered(&["10.0.0.1"]), None];
        assert_eq!(settled(&mut families, late), (all, true));
        let none = [answered(&["10.0.0.1"]), error(ResolveErrorKind::NoSuchName)];
        assert_eq!(settled(&mut families, none), (vec!["10.0.0.1:5432".to_owned()], false));
    }

    #[test]
    fn an_error_beside_a_negative_answer_is_an_error() {
        for [v4, v6] in [
            [ResolveErrorKind::Timeout, ResolveErrorKind::NoAddress],
            [ResolveErrorKind::NoSuchName, ResolveErrorKind::ServerFailure("SERVFAIL")],
        ] {
            let errors = Families::new().settle([true, true], [error(v4), error(v6)], 5432).unwrap_err();
            assert_eq!(errors.len(), 2);
            assert!(!errors.iter().all(|error| error.kind().is_negative()));
        }
    }

    #[test]
    fn an_empty_family_is_asked_at_every_tenth_lookup_and_often_again_once_it_has_addresses() {
        let mut families = Families::new();
        let mut asked = 0;
        for _ in 0..42 {
            let due = families.0.each_mut().map(Family::due);
            assert!(due[0]);
            asked += u32::from(due[1]);
            let v6 = if due[1] { error(ResolveErrorKind::NoAddress) } else { None };
            families.settle(due, [answered(&["10.0.0.1"]), v6], 5432).unwrap();
        }
        assert_eq!(asked, 2 + 4);
        families.0[1].found(vec!["2001:db8::1".parse().unwrap()]);
        assert!(families.0[1].due());
    }
}
