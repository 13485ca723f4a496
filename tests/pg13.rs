//! Tests that the pool queries the role of servers that do not report `in_hot_standby`: PostgreSQL 13 and older, and
//! servers behind some poolers.

use std::time::Duration;

use podpool::{Config, Pool, Role, Target, testkit::Cluster};

mod common;
use common::{pooler::Pooler, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_the_role_of_a_server_that_does_not_report_it() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    for (ordinal, role, target) in [(0, Role::Primary, Target::Primary), (1, Role::Standby, Target::Standby)] {
        let proxy = Pooler::start(cluster.pod(ordinal).address()).await.address();
        let url = cluster.pod_url(ordinal).replace(&cluster.pod(ordinal).address().to_string(), &proxy.to_string());
        // The proxy does not support TLS.
        let config: Config = format!("{url}?sslmode=disable").parse().expect("the URL parses");
        let pool = Pool::builder(config).build().expect("the pool is created");
        let client = pool.get_for(target).await.expect("checkout succeeds");
        assert_eq!(client.role(), role);
        let other = if role == Role::Primary { Target::Standby } else { Target::Primary };
        pool.wait_ready(other, Duration::from_millis(300)).await.expect_err("the server has the other role");
        let known = || pool.status().endpoints[0].role == role;
        until(Duration::from_secs(5), "the role is known", known).await;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
