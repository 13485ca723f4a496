//! A local StatefulSet of real PostgreSQL servers, with commands that inject faults.
//!
//! `cargo run --features testkit --example local_cluster -- 3` prints the `DATABASE_URL` for an application, then
//! executes commands (`help` lists them) until `quit`, Ctrl-C or SIGTERM. On a terminal, Ctrl-D also ends the program.
//! All servers stop when the program ends.
//!
//! The servers have a certificate of an authority that is created for this run, and the URL contains
//! `sslmode=verify-full` and the path of the authority's certificate. As in most clusters without further
//! configuration, the servers also accept plain text.

use std::{
    fs,
    io::{IsTerminal, stdin},
    thread,
};

use podpool::testkit::{Cluster, Shutdown};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The Service name, which the servers' certificate contains.
const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

const HELP: &str = "\
  status            list the Pods: name, address, role, state, process id, in DNS or not
  kill N            send SIGKILL to the processes of Pod N
  stop N [MODE]     stop Pod N; MODE is fast (default), smart or immediate
  start N           start Pod N again; a former primary becomes a second primary
  restart N         stop and start Pod N
  pause N           send SIGSTOP to Pod N: its connections stay open, but it does not respond
  resume N          send SIGCONT to Pod N
  scale N           change the number of Pods to N
  move N            give Pod N a new address
  promote N         make Pod N the primary
  reattach N        make Pod N, a former primary, a standby
  publish N         add Pod N to DNS
  unpublish N       remove Pod N from DNS
  dns stop|start    close or open the port of the name server
  dns pause|resume  leave queries without a response, or respond again
  history           list the previous commands with their numbers
  !N, !!            repeat command N, or the last command
  help              print this list
  quit              stop the cluster and exit";

#[tokio::main]
async fn main() -> Outcome<()> {
    let pods = match std::env::args().nth(1) {
        Some(pods) => pods.parse().map_err(|_| format!("expected a number of Pods, got `{pods}`"))?,
        None => 3,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let begun = Instant::now();
    let Certificates { authority, server, key } = Certificates::create()?;
    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("ca.crt");
    fs::write(&ca, authority)?;
    let builder = Cluster::builder().pods(pods).service(SERVICE).certificate(server, key);
    let cluster = tokio::select! {
        cluster = builder.start() => cluster?,
        // Returning drops the startup's future, which stops the servers that have already started.
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("started {pods} Pods of PostgreSQL {} in {:.1?}", cluster.postgres_version(), begun.elapsed());
    status(&cluster);
    println!("DATABASE_URL={}&sslmode=verify-full&sslrootcert={}", cluster.url(), ca.display());
    tokio::select! {
        result = execute_commands(&cluster) => result?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cluster.shutdown().await?;
    Ok(())
}

/// The certificate of an authority, and a certificate and private key for all servers, in PEM format.
struct Certificates {
    authority: String,
    server: String,
    key: String,
}

impl Certificates {
    fn create() -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "authority of the local cluster");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority_key = KeyPair::generate()?;
        let certificate = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        // The wildcard is for `ssl_verify_name=pod`.
        let server = CertificateParams::new([SERVICE.to_owned(), format!("*.{SERVICE}")])?;
        let server = server.signed_by(&key, &issuer)?.pem();
        Ok(Self { authority: certificate, server, key: key.serialize_pem() })
    }
}

/// Executes the commands from standard input until `quit`.
async fn execute_commands(cluster: &Cluster) -> Outcome<()> {
    let (sender, mut lines) = mpsc::unbounded_channel();
    // A read from standard input cannot be cancelled, so a separate thread reads. The thread ends with the process.
    thread::spawn(move || stdin().lines().try_for_each(|line| sender.send(line)));
    println!("`help` lists the commands");
    let mut history: Vec<String> = Vec::new();
    while let Some(line) = lines.recv().await {
        let line = match expand(&history, line?.trim()) {
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

/// Replaces `!N` and `!!` with the command in the history that they refer to, and prints that command. Returns other
/// commands unchanged.
fn expand(history: &[String], line: &str) -> Result<String, String> {
    let Some(reference) = line.strip_prefix('!') else { return Ok(line.to_owned()) };
    let number = if reference == "!" { history.len() } else { reference.parse().unwrap_or(0) };
    let found = number.checked_sub(1).and_then(|index| history.get(index));
    let line = found.ok_or_else(|| format!("`{line}` is not in the history; `history` lists the commands"))?;
    println!("{line}");
    Ok(line.clone())
}

async fn run(cluster: &Cluster, words: &[&str]) -> Outcome<()> {
    let result = match *words {
        ["dns", action] => return dns(cluster, action).await,
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
        _ => return Err(format!("unknown command `{}`; `help` lists the commands", words.join(" ")).into()),
    };
    Ok(result?)
}

async fn dns(cluster: &Cluster, action: &str) -> Outcome<()> {
    let dns = cluster.dns();
    match action {
        "stop" => dns.stop().await,
        "start" => dns.restart().await?,
        "pause" => dns.pause(),
        "resume" => dns.resume(),
        _ => return Err(format!("unknown action `dns {action}`; expected stop, start, pause or resume").into()),
    }
    Ok(())
}

fn ordinal(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("expected a number, such as 0 for the first Pod, got `{word}`"))
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
