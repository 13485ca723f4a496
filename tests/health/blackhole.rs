//! A Pod that no packet reaches and none comes from, as when its node or its network goes. In a network namespace that
//! this test makes for itself, by running itself there.

use std::{
    net::IpAddr,
    process::{Command, Output, Stdio},
};

use podpool::testkit::Cluster;

use crate::{
    silence::{PODS, silent},
    stage::{addresses, alone},
};

/// Set inside the namespace.
const INSIDE: &str = "PODPOOL_TEST_NAMESPACE";
/// The test below, to itself.
const NAME: &str = "blackhole::a_pod_in_a_black_hole_costs_only_what_was_in_flight_there";

/// `unshare` with a network of its own, as root, or as an ordinary user who is allowed to.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if rustix::process::geteuid().is_root() {
        unshare.arg("--net");
    } else {
        unshare.args(["--user", "--map-current-user", "--net", "--keep-caps"]);
    }
    unshare
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{command:?}: {}, {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn nft(rules: &str) {
    run(Command::new("nft").arg(rules)).expect("nftables");
}

/// Drops every packet to and from an address, in a table of this name.
fn drop_packets(table: &str, address: IpAddr) {
    nft(&format!(
        "add table ip {table}; add chain ip {table} drops {{ type filter hook input priority 0; }}; \
         add rule ip {table} drops ip daddr {address} drop; add rule ip {table} drops ip saddr {address} drop"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_in_a_black_hole_costs_only_what_was_in_flight_there() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let able = run(unshare().args(["sh", "-c", "ip link set lo up && nft list ruleset"]));
    if let Err(cause) = able {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no network namespace with nftables: {cause}");
        println!("skipped: this needs a network namespace, `ip` and `nft`: {cause}");
        return;
    }
    let _alone = alone().await;
    let inside = tokio::task::spawn_blocking(|| {
        let program = std::env::current_exe().expect("this program");
        run(unshare().arg(program).args([NAME, "--exact", "--nocapture"]).env(INSIDE, "1"))
    });
    let output = inside.await.expect("a thread");
    let output = output.unwrap_or_else(|error| panic!("{error}"));
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

async fn inside() {
    run(Command::new("ip").args(["link", "set", "lo", "up"])).expect("the loopback interface");
    let cluster = Cluster::start(PODS).await.expect("a cluster");
    let pods = addresses(&cluster);
    let begin = async |pod: usize| drop_packets(&format!("pod{pod}"), pods[pod]);
    let end = async |pod| nft(&format!("delete table ip pod{pod}"));
    silent("packets dropped (the node is gone)", &cluster, begin, end).await;
    cluster.shutdown().await.expect("an orderly end");
}
