//! Tests that a cluster's processes and directory are removed when the cluster is dropped, and when the process that
//! started it panics, exits or is killed.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use podpool::testkit::Cluster;
use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    processes::{cluster_pids, is_running},
};

/// Environment variable that makes [`runs_a_cluster_in_a_child_process`] start a cluster. Its value selects how the
/// child ends: `exit`, `panic`, or `hang` until it is killed.
const CHILD: &str = "PODPOOL_TESTKIT_CHILD";

#[tokio::test]
async fn cluster_is_cleaned_up_when_dropped() -> Outcome {
    let cluster = Cluster::start(2).await?;
    cluster.pause(1).await?;
    let (directory, pids) = (cluster.directory().to_owned(), cluster_pids(cluster.directory()));
    drop(cluster);
    assert!(!pids.iter().any(|pid| is_running(*pid)));
    assert!(!directory.exists());
    Ok(())
}

#[tokio::test]
async fn cluster_is_cleaned_up_when_its_process_is_killed() -> Outcome {
    let (mut child, directory) = child_with_cluster("hang")?;
    let pids = cluster_pids(&directory);
    child.kill()?;
    child.wait()?;
    assert_gone(&directory, &pids).await;
    Ok(())
}

#[tokio::test]
async fn cluster_is_cleaned_up_after_a_panic_or_exit() -> Outcome {
    for ending in ["panic", "exit"] {
        let (mut child, directory) = child_with_cluster(ending)?;
        let pids = cluster_pids(&directory);
        // The child waits for the end of its input.
        drop(child.stdin.take());
        assert!(!child.wait()?.success());
        assert_gone(&directory, &pids).await;
    }
    Ok(())
}

/// Does nothing unless another test runs it in a child process.
#[tokio::test]
async fn runs_a_cluster_in_a_child_process() -> Outcome {
    let Ok(ending) = std::env::var(CHILD) else { return Ok(()) };
    let cluster = Cluster::start(2).await?;
    println!("\nDIRECTORY={}", cluster.directory().display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    match &*ending {
        "exit" => std::process::exit(3),
        _ => panic!("requested by the parent"),
    }
}

/// Runs [`runs_a_cluster_in_a_child_process`] in a child process and waits until its cluster has started. Returns the
/// process and the cluster's directory.
fn child_with_cluster(ending: &str) -> Result<(Child, PathBuf), Box<dyn std::error::Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "cleanup::runs_a_cluster_in_a_child_process", "--nocapture"])
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
    Err("the child exited before its cluster had started".into())
}

/// Waits until the directory and the processes are gone.
async fn assert_gone(directory: &Path, pids: &BTreeSet<u32>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while directory.exists() || pids.iter().any(|pid| is_running(*pid)) {
        let left: Vec<_> = pids.iter().filter(|pid| is_running(**pid)).collect();
        assert!(Instant::now() < deadline, "still present: {directory:?} ({}), processes {left:?}", directory.exists());
        sleep(Duration::from_millis(10)).await;
    }
}
