//! A scenario in which the primary is lost and an administrator promotes a standby.

use std::time::{Duration, Instant};

use crate::{
    cluster::{Cluster, DATABASE},
    isolated::inside,
};

/// Time until the administrator notices.
const NOTICED: Duration = Duration::from_secs(1);
/// Time until the lost Pod is deleted by force.
const GIVEN_UP: Duration = Duration::from_secs(20);

#[ignore = "needs the built control plane and takes two minutes: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn by_hand() {
    let Some(paths) = inside("promotion::by_hand").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    let (primary, standby) = (cluster.node.pod(&cluster.primary()), cluster.node.pod(&cluster.standby()));
    cluster.timeline.note(format!("the node of {} is lost: no packet from or to it arrives", primary.name));
    let lost = Instant::now();
    cluster.node.network.cut(primary.address).await;
    tokio::time::sleep(NOTICED).await;
    let promote = ["psql", "-U", "postgres", "-c", "SELECT pg_promote()"];
    cluster.timeline.note(format!("{} is promoted", standby.name));
    standby.exec(DATABASE, &promote).await.expect("the standby is promoted");
    tokio::time::sleep(GIVEN_UP).await;
    cluster.delete(&primary.name, true).await;
    cluster.until_replaced(&primary.name, &primary.uid).await;
    let mut report = cluster.report("primary lost, standby promoted by hand 1.0 s later", load).await;
    report.primary_lost = Some(lost);
    report.check();
}
