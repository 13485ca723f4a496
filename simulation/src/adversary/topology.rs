use std::time::Duration;

use super::text::{keywords, record};

keywords! {
    /// The program that promotes standbys, and starts and stops servers.
    OperatorKind {
        /// Patroni: each server has an agent, and the leader holds a lease.
        Patroni = "patroni",
        /// CloudNativePG: one controller, which sees the cluster through Kubernetes.
        CloudNativePg = "cnpg",
    }
}

keywords! {
    /// The caches between the clients and the authoritative data.
    DnsCache {
        /// CoreDNS without its cache.
        None = "none",
        /// CoreDNS with its cache.
        CoreDns = "coredns",
        /// A NodeLocal cache in front of CoreDNS with its cache.
        NodeLocal = "node-local",
    }
}

record! {
    /// The hosts of a simulated world, and the properties that do not change. The default is the smallest usual one.
    Topology {
        /// Number of Pods, from 1 to 20.
        pods: u32 = 3,
        /// Number of clients, from 1 to 8.
        clients: u32 = 2,
        /// Number of nodes on which the Pods run.
        nodes: u32 = 3,
        /// Number of synchronous standbys for which a commit waits. Less than the number of Pods.
        synchronous: u32 = 1,
        /// Major version of PostgreSQL. Version 13 does not report role changes.
        postgres: u32 = 17,
        /// Maximum number of sessions of each server.
        max_connections: u32 = 100,
        /// True if the servers require a password (SCRAM), otherwise every user may log in.
        password: bool = true,
        /// True if the servers and the clients use TLS.
        tls: bool = false,
        /// True if every Pod has an IPv4 and an IPv6 address.
        dual_stack: bool = false,
        /// True if the addresses of Pods that are gone are given to new ones.
        reuse_addresses: bool = false,
        /// True if the application's role may read `pg_stat_wal_receiver`.
        read_all_stats: bool = true,
        /// True if the Service names Pods that are not ready.
        publish_not_ready: bool = false,
        /// The operator.
        operator: OperatorKind = OperatorKind::Patroni,
        /// Time for which the leader's lease is valid.
        lease: Duration = Duration::from_secs(10),
        /// Number of name servers.
        name_servers: u32 = 1,
        /// The caches of the name servers.
        dns_cache: DnsCache = DnsCache::CoreDns,
        /// Lifetime of DNS records, in seconds.
        ttl: u32 = 5,
        /// Mean round trip between two hosts.
        round_trip: Duration = Duration::from_millis(1),
        /// Mean time that a statement takes.
        statement: Duration = Duration::from_millis(1),
    }
}

impl Topology {
    /// Returns an estimate of the work to simulate it: each client has connections to each Pod and probes them, and
    /// each Pod replicates.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.clients * self.pods + self.pods
    }

    /// Draws a topology. Three quarters of them are small. The sizes of the others are skewed towards small ones, so
    /// that the mean cost stays low.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let skewed = |random: &mut fastrand::Rng, maximum: u32| 1 + (random.f64().powi(2) * f64::from(maximum)) as u32;
        let is_small = random.u32(..4) < 3;
        let pods = if is_small { [1, 2, 3, 3, 3, 3][random.usize(..6)] } else { skewed(random, 20) };
        let clients = if is_small { random.u32(1..=2) } else { skewed(random, 8) };
        let chance = |random: &mut fastrand::Rng, percent: u32| random.u32(..100) < percent;
        let synchronous = if chance(random, 70) { random.u32(1..=2).min(pods - 1) } else { 0 };
        let max_connections = if chance(random, 15) { random.u32(10..=30) } else { 100 };
        Self {
            pods,
            clients,
            nodes: random.u32(1..=pods.min(5)),
            synchronous,
            postgres: if chance(random, 10) { 13 } else { random.u32(14..=18) },
            max_connections,
            password: chance(random, 80),
            tls: chance(random, 15),
            dual_stack: chance(random, 20),
            reuse_addresses: chance(random, 30),
            read_all_stats: chance(random, 70),
            publish_not_ready: chance(random, 15),
            operator: OperatorKind::ALL[random.usize(..OperatorKind::ALL.len())],
            lease: Duration::from_secs(random.u64(5..=15)),
            name_servers: random.u32(1..=3),
            dns_cache: DnsCache::ALL[random.usize(..DnsCache::ALL.len())],
            ttl: [0, 1, 5, 5, 30][random.usize(..5)],
            round_trip: Duration::from_millis([1, 1, 1, 1, 2, 10][random.usize(..6)]),
            statement: Duration::from_millis(random.u64(1..=3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 10_000;

    fn drawn() -> impl Iterator<Item = Topology> {
        (0..SEEDS).map(|seed| Topology::draw(&mut fastrand::Rng::with_seed(seed)))
    }

    #[test]
    fn three_quarters_are_small() {
        let small = drawn().filter(|topology| topology.pods <= 3 && topology.clients <= 2).count() as u64;
        assert!(small * 100 >= SEEDS * 74, "{small} of {SEEDS}");
    }

    #[test]
    fn the_mean_cost_is_at_most_twice_the_default() {
        let total: u64 = drawn().map(|topology| u64::from(topology.cost())).sum();
        let (mean, default) = (total as f64 / SEEDS as f64, f64::from(Topology::default().cost()));
        assert!(mean <= 2.0 * default, "mean {mean}, default {default}");
    }

    #[test]
    fn every_size_occurs() {
        let most = |size: fn(&Topology) -> u32| drawn().map(|topology| size(&topology)).max();
        let least = |size: fn(&Topology) -> u32| drawn().map(|topology| size(&topology)).min();
        assert_eq!((least(|topology| topology.pods), most(|topology| topology.pods)), (Some(1), Some(20)));
        assert_eq!((least(|topology| topology.clients), most(|topology| topology.clients)), (Some(1), Some(8)));
        assert!(drawn().all(|topology| topology.synchronous < topology.pods));
    }

    #[test]
    fn parses_its_own_text() {
        for topology in drawn().take(200) {
            assert_eq!(Topology::parse(topology.fields()), Ok(topology));
        }
    }
}
