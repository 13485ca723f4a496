//! From a name as it was given to the absolute names it may mean, in the order of resolv.conf(5).

use hickory_resolver::proto::rr::Name;

use super::resolv_conf::ResolvConf;

/// An absolute name that the given one may mean.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Candidate {
    pub(super) name: Name,
    /// A search domain outside the cluster that the name was completed with. An answer from there counts only after it
    /// is shown that the domain does not answer to every name.
    pub(super) foreign: Option<Name>,
}

/// The candidates for `name` (in A and AAAA mode the name itself, in SRV mode with `prefix` before it), each once.
///
/// An absolute name is its only candidate. So is one that lies in one of the search domains already, such as
/// `postgresql-svc.k8s-training.svc.cluster.local` in a Pod: completed once more it could only be denied, at the price
/// of five lookups, or answered by a stranger.
pub(super) fn candidates(name: &Name, absolute: bool, prefix: Option<&Name>, conf: &ResolvConf) -> Vec<Candidate> {
    let mut as_it_is = name.clone();
    as_it_is.set_fqdn(true);
    let complete = conf.search.iter().any(|domain| domain.num_labels() > 1 && domain.zone_of(&as_it_is));
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |name: Name, foreign: Option<Name>| {
        let name = match prefix {
            Some(prefix) => prefix.clone().append_domain(&name).ok(),
            None => Some(name),
        };
        if let Some(name) = name
            && !found.iter().any(|candidate| candidate.name == name)
        {
            found.push(Candidate { name, foreign });
        }
    };
    if absolute || name.is_fqdn() || complete {
        add(as_it_is, None);
        return found;
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let itself_first = dots >= conf.ndots;
    if itself_first {
        add(as_it_is.clone(), None);
    }
    let cluster = cluster(&conf.search);
    for domain in &conf.search {
        if let Ok(completed) = name.clone().append_domain(domain) {
            let inside = cluster.as_ref().is_some_and(|cluster| cluster.zone_of(domain));
            add(completed, (!inside).then(|| domain.clone()));
        }
    }
    if !itself_first {
        add(as_it_is, None);
    }
    found
}

/// The cluster's zone, as a Pod's search list tells it: `cluster.local.` where `svc.cluster.local.` and
/// `cluster.local.` both stand in it (Kubernetes, "DNS for Services and Pods").
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
            .map(|candidate| match candidate.foreign {
                Some(domain) => format!("{} of {domain}", candidate.name),
                None => candidate.name.to_ascii(),
            })
            .collect()
    }

    #[test]
    fn a_short_name_is_completed_along_the_search_list_and_taken_as_it_is_last() {
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
    fn a_name_with_enough_dots_is_taken_as_it_is_first() {
        assert_eq!(
            expand("db.example", b"search corp.example\n"),
            ["db.example.", "db.example.corp.example. of corp.example."]
        );
        assert_eq!(expand("db", b"options ndots:0\n"), ["db."]);
    }

    #[test]
    fn an_absolute_or_complete_name_is_itself() {
        for name in
            ["a.b.", "postgresql-svc.k8s-training.svc.cluster.local", "POSTGRESQL-SVC.k8s-training.svc.Cluster.Local"]
        {
            assert_eq!(expand(name, POD).len(), 1, "{name}");
        }
        let name = Name::from_ascii("a.b").unwrap();
        assert_eq!(candidates(&name, true, None, &ResolvConf::parse(POD)).len(), 1);
    }

    #[test]
    fn an_srv_name_is_completed_behind_its_prefix() {
        let prefix = Name::from_ascii("_postgresql-port._tcp").unwrap();
        let found = candidates(&Name::from_ascii("svc1").unwrap(), false, Some(&prefix), &ResolvConf::parse(POD));
        assert_eq!(found[0].name.to_ascii(), "_postgresql-port._tcp.svc1.k8s-training.svc.cluster.local.");
        assert!(found[0].name.is_fqdn());
    }

    #[test]
    fn a_name_that_would_be_too_long_is_left_out() {
        let long = vec!["a".repeat(60); 4].join(".");
        assert_eq!(expand(&long, POD).len(), 1);
    }
}
