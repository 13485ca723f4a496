//! A StatefulSet of real PostgreSQL servers on this machine, to be broken by hand.
//!
//! `cargo run --features testkit --example local_cluster -- 3` prints the `DATABASE_URL` for an application, then takes
//! commands (`help` lists them) until `quit`, Ctrl-C or SIGTERM. Without a terminal it keeps running when its input
//! ends. Everything it started ends with it.

use std::{
    io::{IsTerminal, stdin},
    thread,
};

use podpool::testkit::{Cluster, Shutdown};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
  status            every Pod: name, address, role, state, process, in DNS or not
  kill N            SIGKILL to Pod N, postmaster and children
  stop N [HOW]      stop Pod N: fast (default), smart, or immediate
  start N           start Pod N again; a former primary starts as a second primary
  restart N         stop and start
  pause N           SIGSTOP: connections stay and nothing comes back
  resume N          SIGCONT
  scale N           so many Pods
  move N            Pod N to a new address
  promote N         make Pod N the primary
  reattach N        make a former primary a standby
  publish N         put Pod N into DNS
  unpublish N       take Pod N out of DNS
  dns stop|start    close or open the name server's port
  dns pause|resume  receive questions and never answer
  history           the commands so far, with their numbers
  !N, !!            command N once more, the last one once more
  help              this list
  quit              end everything";

#[tokio::main]
async fn main() -> Outcome<()> {
    let pods = match std::env::args().nth(1) {
        Some(pods) => pods.parse().map_err(|_| format!("`{pods}` is no number of Pods"))?,
        None => 3,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let begun = Instant::now();
    let cluster = tokio::select! {
        cluster = Cluster::start(pods) => cluster?,
        // Dropping what has started ends it.
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("{pods} Pods of PostgreSQL {} after {:.1?}", cluster.postgres_version(), begun.elapsed());
    status(&cluster);
    println!("DATABASE_URL={}", cluster.url());
    tokio::select! {
        done = take_commands(&cluster) => done?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cluster.shutdown().await?;
    Ok(())
}

async fn take_commands(cluster: &Cluster) -> Outcome<()> {
    let (typed, mut lines) = mpsc::unbounded_channel();
    // A thread of its own, because nothing interrupts it: it ends with the process.
    thread::spawn(move || stdin().lines().try_for_each(|line| typed.send(line)));
    println!("`help` lists the commands");
    let mut history: Vec<String> = Vec::new();
    while let Some(line) = lines.recv().await {
        let line = match recalled(&history, line?.trim()) {
            Ok(line) => line,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        if !line.is_empty() {
            history.push(line.clone());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let begun = Instant::now();
        match *words {
            [] => {}
            ["help"] => println!("{HELP}"),
            ["history"] => history.iter().zip(1..).for_each(|(line, number)| println!("{number:>4}  {line}")),
            ["quit" | "exit"] => return Ok(()),
            ["status"] => status(cluster),
            _ => match run(cluster, &words).await {
                Ok(()) => println!("done in {:.2?}", begun.elapsed()),
                Err(error) => println!("{}", with_causes(&*error)),
            },
        }
    }
    if stdin().is_terminal() { Ok(()) } else { std::future::pending().await }
}

/// What was typed; for `!N` and `!!` the command that they stand for, which is shown.
fn recalled(history: &[String], line: &str) -> Result<String, String> {
    let Some(which) = line.strip_prefix('!') else { return Ok(line.to_owned()) };
    let number = if which == "!" { history.len() } else { which.parse().unwrap_or(0) };
    let found = number.checked_sub(1).and_then(|place| history.get(place));
    let line = found.ok_or_else(|| format!("`{line}` is no command so far; `history` lists them"))?;
    println!("{line}");
    Ok(line.clone())
}

async fn run(cluster: &Cluster, words: &[&str]) -> Outcome<()> {
    let done = match *words {
        ["dns", what] => return dns(cluster, what).await,
        ["kill", pod] => cluster.kill(ordinal(pod)?).await,
        ["move", pod] => cluster.move_pod(ordinal(pod)?).await,
        ["pause", pod] => cluster.pause(ordinal(pod)?).await,
        ["promote", pod] => cluster.promote(ordinal(pod)?).await,
        ["publish", pod] => cluster.publish(ordinal(pod)?),
        ["reattach", pod] => cluster.reattach(ordinal(pod)?).await,
        ["restart", pod] => cluster.restart(ordinal(pod)?).await,
        ["resume", pod] => cluster.resume(ordinal(pod)?).await,
        ["scale", pods] => cluster.scale(ordinal(pods)?).await,
        ["start", pod] => cluster.start_pod(ordinal(pod)?).await,
        ["stop", pod] | ["stop", pod, "fast"] => cluster.stop(ordinal(pod)?, Shutdown::Fast).await,
        ["stop", pod, "smart"] => cluster.stop(ordinal(pod)?, Shutdown::Smart).await,
        ["stop", pod, "immediate"] => cluster.stop(ordinal(pod)?, Shutdown::Immediate).await,
        ["unpublish", pod] => cluster.unpublish(ordinal(pod)?),
        _ => return Err(format!("`{}` is no command; `help` lists them", words.join(" ")).into()),
    };
    Ok(done?)
}

async fn dns(cluster: &Cluster, what: &str) -> Outcome<()> {
    let dns = cluster.dns();
    match what {
        "stop" => dns.stop().await,
        "start" => dns.restart().await?,
        "pause" => dns.pause(),
        "resume" => dns.resume(),
        _ => return Err(format!("`dns {what}` is no command: stop, start, pause or resume").into()),
    }
    Ok(())
}

fn ordinal(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("`{word}` is no number, such as 0 for the first Pod"))
}

fn status(cluster: &Cluster) {
    println!("{:<20} {:<18} {:<8} {:<8} {:>7}  DNS", "POD", "ADDRESS", "ROLE", "STATE", "PID");
    println!("{}", "-".repeat(20 + 1 + 18 + 1 + 8 + 1 + 8 + 1 + 7 + 2 + 3));
    for pod in cluster.pods() {
        let pid = pod.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let dns = if pod.is_published() { "yes" } else { "no" };
        let (name, address, role, state) = (pod.name(), pod.address().to_string(), pod.role(), pod.state());
        println!("{name:<20} {address:<18} {role:<8} {state:<8} {pid:>7}  {dns}");
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
