//! The testkit's cluster: real servers, real names, and nothing left behind.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
};
use podpool::testkit::{Cluster, Error, Role, Shutdown, State};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Set for the test that is run again in a process of its own, to be killed there; says how it shall end.
const CHILD: &str = "PODPOOL_TESTKIT_CHILD";

#[tokio::test]
async fn three_pods_are_up_in_five_seconds_and_replicate() -> Outcome {
    let mut cluster = None;
    // The best of three: other tests want the processors too.
    for attempt in 1..=3 {
        drop(cluster.take());
        let begun = Instant::now();
        let started = Cluster::start(3).await?;
        let took = begun.elapsed();
        println!("three Pods are up after {took:.2?} (PostgreSQL {})", started.postgres_version());
        cluster = Some(started);
        if took < Duration::from_secs(5) {
            break;
        }
        assert!(attempt < 3, "three Pods took {took:?}, and no less the times before");
    }
    let cluster = cluster.ok_or("no cluster")?;

    for (i, pod) in cluster.pods().iter().enumerate() {
        assert_eq!(pod.name(), format!("postgresql-sfs-{i}"));
        assert_eq!(pod.role(), if i == 0 { Role::Primary } else { Role::Standby });
        assert_eq!(pod.state(), State::Running);
        assert!(pod.is_published());
        assert_eq!(setting(&cluster, i, "cluster_name").await?, pod.name());
        assert_eq!(setting(&cluster, i, "in_hot_standby").await?, if i == 0 { "off" } else { "on" });
    }
    assert_eq!(addresses(&cluster).await?, known(&cluster));

    // The application's user, by the URL's own words, may make tables; what it writes is on every standby.
    let app = application(&cluster, 0).await?;
    app.batch_execute("CREATE TABLE words (word text); INSERT INTO words VALUES ('there')").await?;
    cluster.wait_replicated().await?;
    for i in 0..3 {
        let word: String = application(&cluster, i).await?.query_one("SELECT word FROM words", &[]).await?.get(0);
        assert_eq!(word, "there");
    }
    let superuser: bool =
        app.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[]).await?.get(0);
    assert!(!superuser);

    let (directory, pids) = (cluster.directory().to_owned(), cluster_pids(cluster.directory()));
    cluster.shutdown().await?;
    assert!(!directory.exists());
    assert!(!pids.iter().any(|pid| lives(*pid)));
    Ok(())
}

#[tokio::test]
async fn dns_follows_the_scale() -> Outcome {
    let cluster = Cluster::start(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    for pods in [3, 5, 2] {
        cluster.scale(pods).await?;
        assert_eq!(cluster.len(), pods);
        assert_eq!(addresses(&cluster).await?, known(&cluster));
        assert_eq!(addresses(&cluster).await?.len(), pods);
    }
    assert_eq!(targets(&cluster).await?, ["postgresql-sfs-0", "postgresql-sfs-1"]);

    // To nothing and back, with the data there was.
    application(&cluster, 0).await?.batch_execute("CREATE TABLE kept ()").await?;
    cluster.scale(0).await?;
    assert!(cluster.is_empty());
    assert!(addresses(&cluster).await.is_err());
    cluster.scale(3).await?;
    cluster.wait_replicated().await?;
    application(&cluster, 2).await?.batch_execute("SELECT FROM kept").await?;
    assert_eq!(addresses(&cluster).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_growth_that_fails_changes_nothing() -> Outcome {
    let cluster = Cluster::start(1).await?;
    cluster.kill(0).await?;
    assert!(matches!(cluster.scale(3).await, Err(Error::NoPrimary { .. })));
    assert_eq!((cluster.len(), addresses(&cluster).await?.len()), (1, 1));
    cluster.start_pod(0).await?;
    cluster.scale(3).await?;
    let names: Vec<_> = cluster.pods().iter().map(|pod| pod.name().to_owned()).collect();
    assert_eq!(names, ["postgresql-sfs-0", "postgresql-sfs-1", "postgresql-sfs-2"]);
    assert_eq!(addresses(&cluster).await?, known(&cluster));
    Ok(())
}

/// Tests break Pods from one task while others work.
#[test]
fn can_be_shared_between_tasks() {
    fn shared<T: Send + Sync>(_: &T) {}
    fn sent<T: Send>(_: T) {}
    let _ = |cluster: &Cluster| {
        shared(cluster);
        sent(cluster.kill(0));
        sent(cluster.scale(3));
        sent(cluster.promote(1));
        sent(cluster.reattach(0));
        sent(cluster.move_pod(0));
        sent(cluster.dns().stop());
        sent(cluster.dns().restart());
    };
}

#[tokio::test]
async fn an_orderly_end_does_not_wait_for_a_paused_pod() -> Outcome {
    let cluster = Cluster::start(2).await?;
    cluster.pause(1).await?;
    let begun = Instant::now();
    cluster.shutdown().await?;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_before_anything_starts() {
    for (builder, setting) in [
        (Cluster::builder().pods(0), "pods"),
        (Cluster::builder().password(""), "password"),
        (Cluster::builder().name("Upper Case"), "name"),
        (Cluster::builder().setting("work_mem", "1MB\nfsync = on"), "setting"),
    ] {
        let error = builder.start().await.unwrap_err();
        assert!(matches!(error, Error::Setting { setting: refused, .. } if refused == setting), "{error}");
    }
    let outside = Cluster::builder().service("service.example.org").start().await;
    assert!(matches!(outside, Err(Error::Name { .. })));
}

#[tokio::test]
async fn settings_reach_the_servers_and_urls() -> Outcome {
    let cluster = Cluster::builder()
        .pods(1)
        .user("o'neil \"x\"")
        .password("it's? #1 &é")
        .database("data/base")
        .setting("max_connections", "23")
        .start()
        .await?;
    assert_eq!(setting(&cluster, 0, "max_connections").await?, "23");
    let row =
        application(&cluster, 0).await?.query_one("SELECT current_user::text, current_database()::text", &[]).await?;
    assert_eq!((row.get(0), row.get(1)), (cluster.user(), cluster.database()));
    assert!(cluster.srv_url().ends_with("&discovery=srv&port_name=postgresql-port"));
    Ok(())
}

#[tokio::test]
async fn a_killed_pod_loses_every_process_and_comes_back() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let client = cluster.client(1).await?;
    let pids = server_pids(&cluster.directory().join("postgresql-sfs-1"));
    cluster.kill(1).await?;
    assert!(client.query_one("SELECT 1", &[]).await.is_err());
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert_eq!((cluster.pod(1).state(), cluster.pod(1).pid()), (State::Down, None));
    assert_eq!(addresses(&cluster).await?.len(), 2, "its record stays");
    cluster.unpublish(1)?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    cluster.start_pod(1).await?;
    cluster.publish(1)?;
    cluster.wait_replicated().await?;

    assert!(matches!(cluster.start_pod(1).await, Err(Error::State { .. })));
    assert!(matches!(cluster.kill(7).await, Err(Error::NoSuchPod { ordinal: 7, pods: 2 })));
    for shutdown in [Shutdown::Smart, Shutdown::Fast, Shutdown::Immediate] {
        cluster.stop(1, shutdown).await?;
        assert_eq!(cluster.pod(1).state(), State::Down);
        cluster.start_pod(1).await?;
    }
    // The primary, under its standby.
    cluster.kill(0).await?;
    cluster.start_pod(0).await?;
    cluster.restart(0).await?;
    application(&cluster, 0).await?.batch_execute("CREATE TABLE later ()").await?;
    cluster.wait_replicated().await?;
    Ok(())
}

#[tokio::test]
async fn readiness_is_followed_where_asked_for() -> Outcome {
    let cluster = Cluster::builder().pods(2).follow_readiness(true).start().await?;
    cluster.kill(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    cluster.start_pod(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 2);
    cluster.pause(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    cluster.resume(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_paused_pod_hangs_until_it_is_resumed() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let client = cluster.client(1).await?;
    client.query_one("SELECT 1", &[]).await?;
    cluster.pause(1).await?;
    assert_eq!(cluster.pod(1).state(), State::Paused);
    let query = client.query_one("SELECT 2", &[]);
    tokio::pin!(query);
    assert!(timeout(Duration::from_millis(300), &mut query).await.is_err(), "a paused server answered");
    assert!(timeout(Duration::from_millis(300), application(&cluster, 1)).await.is_err(), "a paused server accepted");
    cluster.resume(1).await?;
    let answer: i32 = query.await?.get(0);
    assert_eq!(answer, 2);
    // And a paused one can be killed and stopped.
    cluster.pause(1).await?;
    cluster.kill(1).await?;
    cluster.start_pod(1).await?;
    cluster.pause(1).await?;
    cluster.stop(1, Shutdown::Fast).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_pod_gets_a_part_of_its_time() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let refused = cluster.throttle(0, 0.0).await.map(drop).unwrap_err();
    assert_eq!(refused.to_string(), "setting `share`: expected more than 0, and at most 1");
    let client = application(&cluster, 0).await?;
    let work = async || {
        let began = std::time::Instant::now();
        client.execute("SELECT count(*) FROM generate_series(1, 200000)", &[]).await.map(|_| began.elapsed())
    };
    let before = work().await?.min(work().await?);
    // What it is left is a share of what it uses.
    let busy = async {
        loop {
            if let Err(error) = work().await {
                break error;
            }
        }
    };
    let throttle = tokio::select! {
        throttle = cluster.throttle(0, 0.1) => throttle?,
        error = busy => return Err(error.into()),
    };
    println!("{throttle:?}");
    work().await?; // the rest of the one that was given up
    let throttled = work().await?;
    drop(throttle);
    let after = work().await?.min(work().await?);
    println!("{before:?}, throttled {throttled:?}, then {after:?}");
    assert!(throttled > 4 * before, "{before:?}, throttled {throttled:?}");
    assert!(throttled > 3 * after, "throttled {throttled:?}, then {after:?}");
    cluster.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_standby_is_promoted_and_the_former_primary_comes_back() -> Outcome {
    let cluster = Cluster::start(3).await?;
    application(&cluster, 0).await?.batch_execute("CREATE TABLE t (n int)").await?;
    cluster.wait_replicated().await?;

    // The old primary still runs, and takes a write that nobody else will ever have.
    cluster.promote(2).await?;
    assert_eq!(cluster.primary(), Some(2));
    assert_eq!(setting(&cluster, 2, "in_hot_standby").await?, "off");
    assert_eq!(setting(&cluster, 0, "in_hot_standby").await?, "off", "two primaries");
    application(&cluster, 0).await?.batch_execute("INSERT INTO t VALUES (0)").await?;
    application(&cluster, 2).await?.batch_execute("INSERT INTO t VALUES (2)").await?;
    cluster.wait_replicated().await?;
    assert_eq!(numbers(&cluster, 1).await?, [2]);

    cluster.reattach(0).await?;
    cluster.wait_replicated().await?;
    assert_eq!(numbers(&cluster, 0).await?, [2], "rewound");
    assert_eq!(setting(&cluster, 0, "in_hot_standby").await?, "on");

    // Again, with the primary killed first.
    cluster.kill(2).await?;
    cluster.promote(0).await?;
    application(&cluster, 0).await?.batch_execute("INSERT INTO t VALUES (3)").await?;
    cluster.reattach(2).await?;
    cluster.scale(4).await?;
    cluster.wait_replicated().await?;
    for i in 0..4 {
        assert_eq!(numbers(&cluster, i).await?, [2, 3]);
    }
    assert!(matches!(cluster.reattach(0).await, Err(Error::State { .. })));
    assert!(matches!(cluster.promote(0).await, Err(Error::State { .. })));
    Ok(())
}

#[tokio::test]
async fn a_pod_moves_to_an_address_that_nobody_had() -> Outcome {
    let cluster = Cluster::start(3).await?;
    let mut seen: BTreeSet<IpAddr> = known(&cluster);
    for ordinal in [1, 0] {
        let before = cluster.pod(ordinal);
        cluster.move_pod(ordinal).await?;
        let after = cluster.pod(ordinal);
        assert_eq!(after.name(), before.name());
        assert!(seen.insert(after.address().ip()), "{} was used before", after.address());
        assert_eq!(addresses(&cluster).await?, known(&cluster));
    }
    // Its standbys have found the primary again.
    application(&cluster, 0).await?.batch_execute("CREATE TABLE moved ()").await?;
    cluster.wait_replicated().await?;
    application(&cluster, 1).await?.batch_execute("SELECT FROM moved").await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_drop() -> Outcome {
    let cluster = Cluster::start(2).await?;
    cluster.pause(1).await?;
    let (directory, pids) = (cluster.directory().to_owned(), cluster_pids(cluster.directory()));
    drop(cluster);
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert!(!directory.exists());
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_process_that_is_killed() -> Outcome {
    let (mut child, directory) = child_with_cluster("hang")?;
    let pids = cluster_pids(&directory);
    child.kill()?;
    child.wait()?;
    assert_gone(&directory, &pids).await;
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_process_that_panics_or_exits() -> Outcome {
    for ending in ["panic", "exit"] {
        let (mut child, directory) = child_with_cluster(ending)?;
        let pids = cluster_pids(&directory);
        // It goes on when its input ends.
        drop(child.stdin.take());
        assert!(!child.wait()?.success());
        assert_gone(&directory, &pids).await;
    }
    Ok(())
}

/// Does nothing, unless a test above runs it in a process of its own.
#[tokio::test]
async fn the_child_of_other_tests() -> Outcome {
    let Ok(ending) = std::env::var(CHILD) else { return Ok(()) };
    let cluster = Cluster::start(2).await?;
    println!("\nDIRECTORY={}", cluster.directory().display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    match &*ending {
        "exit" => std::process::exit(3),
        _ => panic!("as asked"),
    }
}

/// Runs the test above in a process of its own and waits until its cluster is up.
fn child_with_cluster(ending: &str) -> Result<(Child, PathBuf), Box<dyn std::error::Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "the_child_of_other_tests", "--nocapture"])
        .env(CHILD, ending)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    for line in lines {
        if let Some(directory) = line?.strip_prefix("DIRECTORY=") {
            return Ok((child, directory.into()));
        }
    }
    Err("the child ended before its cluster was up".into())
}

async fn assert_gone(directory: &Path, pids: &BTreeSet<u32>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while directory.exists() || pids.iter().any(|pid| lives(*pid)) {
        let left: Vec<_> = pids.iter().filter(|pid| lives(**pid)).collect();
        assert!(Instant::now() < deadline, "left: {directory:?} ({}), processes {left:?}", directory.exists());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Every process of a cluster's servers.
fn cluster_pids(directory: &Path) -> BTreeSet<u32> {
    let pods = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    pods.flat_map(|pod| server_pids(&pod)).collect()
}

/// The postmaster whose data is below a Pod's directory, and all its children.
fn server_pids(pod: &Path) -> BTreeSet<u32> {
    let file = fs::read_to_string(pod.join("data/postmaster.pid")).unwrap();
    let postmaster: u32 = file.lines().next().unwrap().parse().unwrap();
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let parent = |pid: u32| stat(pid).and_then(|stat| stat.split_whitespace().nth(1)?.parse::<u32>().ok());
    let mut pids: BTreeSet<u32> = processes.filter(|pid| parent(*pid) == Some(postmaster)).collect();
    assert!(pids.len() > 2 && lives(postmaster), "{postmaster} has children {pids:?}");
    pids.insert(postmaster);
    pids
}

fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.starts_with('Z'))
}

/// What Linux tells everybody about a process, from its state on.
fn stat(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.to_owned())
}

/// The application's connection to one Pod, by its URL.
async fn application(cluster: &Cluster, pod: usize) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&cluster.pod_url(pod), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn setting(cluster: &Cluster, pod: usize, name: &str) -> Result<String, Box<dyn std::error::Error>> {
    Ok(cluster.client(pod).await?.query_one("SELECT current_setting($1)", &[&name]).await?.get(0))
}

async fn numbers(cluster: &Cluster, pod: usize) -> Result<Vec<i32>, Box<dyn std::error::Error>> {
    let rows = cluster.client(pod).await?.query("SELECT n FROM t ORDER BY n", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn known(cluster: &Cluster) -> BTreeSet<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

/// What the name server says that the Service's addresses are.
async fn addresses(cluster: &Cluster) -> Result<BTreeSet<IpAddr>, Box<dyn std::error::Error>> {
    let answer = resolver(cluster)?.lookup_ip(format!("{}.", cluster.service())).await?;
    Ok(answer.iter().collect())
}

/// The Pods' names by SRV records, which have to name the Pods' port.
async fn targets(cluster: &Cluster) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let name = format!("_postgresql-port._tcp.{}.", cluster.service());
    let answer = resolver(cluster)?.lookup(name, RecordType::SRV).await?;
    let mut targets = Vec::new();
    for record in answer.answers() {
        let RData::SRV(srv) = &record.data else { return Err("not an SRV record".into()) };
        assert_eq!(srv.port, cluster.port());
        targets.push(srv.target.to_string().split('.').next().unwrap_or_default().to_owned());
    }
    targets.sort();
    Ok(targets)
}

fn resolver(cluster: &Cluster) -> Result<TokioResolver, Box<dyn std::error::Error>> {
    let server = cluster.dns().address();
    let mut udp = ConnectionConfig::udp();
    udp.port = server.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![udp, tcp])];
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()?)
}
