//! Expands a configured name into the absolute names to try, in the order that resolv.conf(5) defines.

use hickory_resolver::proto::rr::Name;

use super::resolv_conf::ResolvConf;

/// An absolute name that the configured name may stand for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Candidate {
    pub(super) name: Name,
    /// The search domain that was appended, if it is outside the cluster. Records from such a domain are used only if
    /// it has no wildcard record, which resolves every name.
    pub(super) external_domain: Option<Name>,
}

/// Returns the candidates for `name`, without duplicates. If `prefix` is given (SRV records), each candidate begins
/// with the prefix.
///
/// An absolute name has only one candidate: the name itself. A name that already ends with a search domain has only one
/// candidate too. An example is `postgresql-svc.k8s-training.svc.cluster.local` in a Pod of that namespace. Appending
/// another domain would cost several queries, which would return NXDOMAIN or the records of an unrelated name.
pub(super) fn candidates(name: &Name, absolute: bool, prefix: Option<&Name>, conf: &ResolvConf) -> Vec<Candidate> {
    let mut as_is = name.clone();
    as_is.set_fqdn(true);
    let complete = conf.search.iter().any(|domain| domain.num_labels() > 1 && domain.zone_of(&as_is));
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |name: Name, external_domain: Option<Name>| {
        let name = match prefix {
            Some(prefix) => prefix.clone().append_domain(&name).ok(),
            None => Some(name),
        };
        if let Some(name) = name
            && !found.iter().any(|candidate| candidate.name == name)
        {
            found.push(Candidate { name, external_domain });
        }
    };
    if absolute || name.is_fqdn() || complete {
        add(as_is, None);
        return found;
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let as_is_first = dots >= conf.ndots;
    if as_is_first {
        add(as_is.clone(), None);
    }
    let cluster = cluster(&conf.search);
    for domain in &conf.search {
        if let Ok(completed) = name.clone().append_domain(domain) {
            let inside = cluster.as_ref().is_some_and(|cluster| cluster.zone_of(domain));
            add(completed, (!inside).then(|| domain.clone()));
        }
    }
    if !as_is_first {
        add(as_is, None);
    }
    found
}

/// Returns the cluster's zone if the search list is that of a Pod: `cluster.local.` if the list contains both
/// `svc.cluster.local.` and `cluster.local.` (Kubernetes, "DNS for Services and Pods").
fn cluster(search: &[Name]) -> Option<Name> {
    let services = search.iter().filter(|domain| domain.iter().next() == Some(&b"svc"[..]));
    services.map(Name::base_name).find(|zone| search.contains(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] = b"nameserver 10.96.0.10\noptions ndots:5\nsearch k8s-training.svc.cluster.local \
                         svc.cluster.local cluster.local corp.example\n";

    fn expand(name: &str, conf: &[u8]) -> Vec<String> {
        let name = Name::from_ascii(name).unwrap();
        candidates(&name, false, None, &ResolvConf::parse(conf))
            .into_iter()
            .map(|candidate| match candidate.external_domain {
                Some(domain) => format!("{} of {domain}", candidate.name),
                None => candidate.name.to_ascii(),
            })
            .collect()
    }

    #[test]
    fn tries_a_short_name_in_each_search_domain_and_as_is_last() {
        assert_eq!(
            expand("postgresql-svc.k8s-training", POD),
            [
                "postgresql-svc.k8s-training.k8s-training.svc.cluster.local.",
                "postgresql-svc.k8s-training.svc.cluster.local.",
                "postgresql-svc.k8s-training.cluster.local.",
                "postgresql-svc.k8s-training.corp.example. of corp.example.",
                "postgresql-svc.k8s-training.",
            ]
        );
    }

    #[test]
    fn tries_a_name_with_at_least_ndots_dots_as_is_first() {
        assert_eq!(
            expand("db.example", b"search corp.example\n"),
            ["db.example.", "db.example.corp.example. of corp.example."]
        );
        assert_eq!(expand("db", b"options ndots:0\n"), ["db."]);
    }

    #[test]
    fn appends_no_domain_to_an_absolute_or_complete_name() {
        for name in
            ["a.b.", "postgresql-svc.k8s-training.svc.cluster.local", "POSTGRESQL-SVC.k8s-training.svc.Cluster.Local"]
        {
            assert_eq!(expand(name, POD).len(), 1, "{name}");
        }
        let name = Name::from_ascii("a.b").unwrap();
        assert_eq!(candidates(&name, true, None, &ResolvConf::parse(POD)).len(), 1);
    }

    #[test]
    fn srv_candidates_begin_with_the_prefix() {
        let prefix = Name::from_ascii("_postgresql-port._tcp").unwrap();
        let found = candidates(&Name::from_ascii("svc1").unwrap(), false, Some(&prefix), &ResolvConf::parse(POD));
        assert_eq!(found[0].name.to_ascii(), "_postgresql-port._tcp.svc1.k8s-training.svc.cluster.local.");
        assert!(found[0].name.is_fqdn());
    }

    #[test]
    fn skips_a_candidate_that_exceeds_the_maximum_name_length() {
        let long = vec!["a".repeat(60); 4].join(".");
        assert_eq!(expand(&long, POD).len(), 1);
    }
}
