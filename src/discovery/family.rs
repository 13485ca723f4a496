//! Looks up A and AAAA records, each address family separately.
//!
//! A Service has addresses of one family or of both (Kubernetes, "IPv4/IPv6 dual-stack"). For a family without
//! addresses, name servers return NODATA, and some incorrectly return NXDOMAIN. Each family is therefore handled
//! separately. A family whose query fails keeps the addresses of its last successful query. A family without addresses
//! is queried only in every tenth lookup. After one family has returned addresses, the lookup waits at most 400 ms for
//! the other.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::sleep_until;

use super::{
    error::ServerError,
    nameservers::ServerAnswer,
    query::{Found, QueryContext},
};
use crate::{
    endpoint::Endpoint,
    system::JoinSet,
    time::{Duration, Instant},
};

/// Time to wait for one family after the other family has returned addresses. It suffices for one retransmission of a
/// lost packet, which happens after 333 ms, and for the response.
const GRACE: Duration = Duration::from_millis(400);
/// Number of consecutive lookups without an address of a family after which that family is queried rarely.
const RARE_AFTER: u32 = 2;
/// Number of lookups per query for a family that is queried rarely.
const RARE_INTERVAL: u32 = 10;

/// The state of both address families of one name.
#[derive(Clone, Debug)]
pub(super) struct Families([Family; 2]);

#[derive(Clone, Debug)]
struct Family {
    kind: RecordType,
    /// Addresses of the last successful query.
    last_good: Vec<IpAddr>,
    /// Number of consecutive lookups that returned addresses of the other family only.
    empty_lookups: u32,
    /// Number of lookups since the last query for this family. Counted only while the family is queried rarely.
    skipped: u32,
}

type FamilyResult = Result<ServerAnswer, Vec<ServerError>>;

impl Families {
    pub(super) fn new() -> Self {
        Self([RecordType::A, RecordType::AAAA].map(|kind| Family {
            kind,
            last_good: Vec::new(),
            empty_lookups: 0,
            skipped: 0,
        }))
    }

    /// Queries the families that are due in this lookup. If all their responses are negative, also queries the family
    /// that is not due.
    pub(super) async fn query(&mut self, name: &Name, cx: &QueryContext) -> Result<Found, Vec<ServerError>> {
        let due = self.0.each_mut().map(Family::due);
        let mut results: [Option<FamilyResult>; 2] = [None, None];
        let mut queries = JoinSet::new();
        let query = |queries: &mut JoinSet<_>, index: usize, kind| {
            let (name, cx) = (name.clone(), cx.clone());
            queries.spawn(async move { (index, cx.servers.query(&name, kind, cx.throttled, cx.deadline).await) });
        };
        for (index, family) in self.0.iter().enumerate().filter(|(index, _)| due[*index]) {
            query(&mut queries, index, family.kind);
        }
        let mut grace_end = None;
        loop {
            tokio::select! {
                biased;
                done = queries.join_next() => match done {
                    Some(Ok((index, result))) => {
                        if result.is_ok() {
                            grace_end = Some(Instant::now() + GRACE);
                        }
                        results[index] = Some(result);
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%name, %error, "DNS query task panicked or was aborted");
                    }
                    None => {
                        let skipped = (0..2).find(|index| !due[*index] && results[*index].is_none());
                        match skipped.filter(|_| results.iter().flatten().all(is_negative)) {
                            Some(index) => query(&mut queries, index, self.0[index].kind),
                            None => break,
                        }
                    }
                },
                () = sleep_until(grace_end.unwrap_or(cx.deadline)), if grace_end.is_some() => break,
            }
        }
        self.merge(due, results, cx.port)
    }

    /// Merges the results of both families. Fails if neither family has returned addresses.
    fn merge(
        &mut self,
        due: [bool; 2],
        results: [Option<FamilyResult>; 2],
        port: u16,
    ) -> Result<Found, Vec<ServerError>> {
        if !results.iter().flatten().any(Result::is_ok) {
            return Err(results.into_iter().flatten().filter_map(Result::err).flatten().collect());
        }
        let mut found = Found::default();
        for (family, (due, result)) in self.0.iter_mut().zip(due.into_iter().zip(results)) {
            match result {
                Some(Ok(ServerAnswer { server, answer })) => {
                    family.set(answer.addresses);
                    found.add_answer(server, answer.ttl, answer.left_out);
                }
                Some(Err(errors)) if errors.iter().all(|error| error.kind().is_negative()) => family.clear(),
                None if !due => {}
                failed => {
                    if let Some(Err(errors)) = failed {
                        for error in errors {
                            tracing::debug!(%error, "DNS query for one address family failed; keeping its addresses");
                        }
                    }
                    found.partial |= family.keep();
                }
            }
            found.endpoints.extend(family.last_good.iter().map(|ip| Endpoint::new((*ip, port).into())));
        }
        Ok(found)
    }
}

fn is_negative(result: &FamilyResult) -> bool {
    result.as_ref().is_err_and(|errors| errors.iter().all(|error| error.kind().is_negative()))
}

impl Family {
    /// Counts a lookup and returns true if it should query this family.
    fn due(&mut self) -> bool {
        if self.empty_lookups < RARE_AFTER {
            return true;
        }
        self.skipped += 1;
        let due = self.skipped >= RARE_INTERVAL;
        if due {
            self.skipped = 0;
        }
        due
    }

    fn set(&mut self, addresses: Vec<IpAddr>) {
        self.last_good = addresses;
        self.empty_lookups = 0;
        self.skipped = 0;
    }

    fn clear(&mut self) {
        self.last_good.clear();
        self.empty_lookups = self.empty_lookups.saturating_add(1);
    }

    /// Keeps the last good addresses after a failed query. Returns true if the family has such addresses.
    fn keep(&mut self) -> bool {
        if self.last_good.is_empty() {
            self.empty_lookups = self.empty_lookups.saturating_add(1);
        }
        !self.last_good.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{error::ResolveErrorKind, records::Answer};

    fn answered(addresses: &[&str]) -> Option<FamilyResult> {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let answer = Answer { addresses, ttl: Duration::from_secs(5), ..Answer::default() };
        Some(Ok(ServerAnswer { server: ([10, 0, 0, 10], 53).into(), answer }))
    }

    fn error(kind: ResolveErrorKind) -> Option<FamilyResult> {
        Some(Err(vec![ServerError::new(([10, 0, 0, 10], 53).into(), &Name::root(), RecordType::A, kind)]))
    }

    fn merged(families: &mut Families, results: [Option<FamilyResult>; 2]) -> (Vec<String>, bool) {
        let found = families.merge([true, true], results, 5432).unwrap();
        (found.endpoints.iter().map(ToString::to_string).collect(), found.partial)
    }

    #[test]
    fn keeps_addresses_after_an_error_and_clears_them_after_nxdomain() {
        let mut families = Families::new();
        let both = || [answered(&["10.0.0.1"]), answered(&["2001:db8::1"])];
        let all = vec!["10.0.0.1:5432".to_owned(), "[2001:db8::1]:5432".to_owned()];
        assert_eq!(merged(&mut families, both()), (all.clone(), false));
        let timed_out = [answered(&["10.0.0.1"]), error(ResolveErrorKind::Timeout)];
        assert_eq!(merged(&mut families, timed_out), (all.clone(), true));
        let late = [answered(&["10.0.0.1"]), None];
        assert_eq!(merged(&mut families, late), (all, true));
        let none = [answered(&["10.0.0.1"]), error(ResolveErrorKind::NoSuchName)];
        assert_eq!(merged(&mut families, none), (vec!["10.0.0.1:5432".to_owned()], false));
    }

    #[test]
    fn error_in_one_family_outweighs_a_negative_response() {
        for [v4, v6] in [
            [ResolveErrorKind::Timeout, ResolveErrorKind::NoAddress],
            [ResolveErrorKind::NoSuchName, ResolveErrorKind::ServerFailure("SERVFAIL")],
        ] {
            let errors = Families::new().merge([true, true], [error(v4), error(v6)], 5432).unwrap_err();
            assert_eq!(errors.len(), 2);
            assert!(!errors.iter().all(|error| error.kind().is_negative()));
        }
    }

    #[test]
    fn queries_an_empty_family_in_every_tenth_lookup() {
        let mut families = Families::new();
        let mut queries = 0;
        for _ in 0..42 {
            let due = families.0.each_mut().map(Family::due);
            assert!(due[0]);
            queries += u32::from(due[1]);
            let v6 = if due[1] { error(ResolveErrorKind::NoAddress) } else { None };
            families.merge(due, [answered(&["10.0.0.1"]), v6], 5432).unwrap();
        }
        assert_eq!(queries, 2 + 4);
        families.0[1].set(vec!["2001:db8::1".parse().unwrap()]);
        assert!(families.0[1].due());
    }
}
