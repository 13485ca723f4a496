//! Runs PgBouncer for tests.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use podpool::{Config, Pool, testkit::Cluster, tokio_postgres::NoTls};

/// Time limit for the start of a PgBouncer.
const READY: Duration = Duration::from_secs(20);

/// A PgBouncer in front of one Pod. Dropping it kills its process. Its files are in the cluster's directory and are
/// removed with that directory.
pub(crate) struct Bouncer {
    child: Child,
    address: SocketAddr,
    pub(crate) url: String,
}

impl Bouncer {
    /// Starts a PgBouncer. `mode` can be followed by further lines of its configuration.
    pub(crate) async fn start(program: &Path, cluster: &Cluster, ordinal: usize, mode: &str, size: u32) -> Self {
        for _ in 0..5 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the port is bound");
            let address = listener.local_addr().expect("the socket has an address");
            drop(listener);
            let pod = cluster.pod(ordinal).address();
            // These files are readable by everyone, but other users cannot enter the cluster's directory.
            let name = format!("pgbouncer-{}", address.port());
            let [ini, users, log] = ["ini", "users", "log"].map(|e| cluster.directory().join(format!("{name}.{e}")));
            write(&users, &format!("\"{}\" \"{}\"\n", cluster.user(), cluster.password()));
            let text = format!(
                "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
                 auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {size}\n",
                pod.ip(),
                pod.port(),
                address.ip(),
                address.port(),
                users.display(),
            );
            write(&ini, &text);
            let log = fs::File::create(log).expect("the log is created");
            let mut command = Command::new(program);
            command.arg(&ini).stdin(Stdio::null()).stdout(log.try_clone().expect("the log is duplicated")).stderr(log);
            if rustix::process::geteuid().is_root() {
                // PgBouncer refuses to run as root.
                command.args(["-u", "postgres"]);
            }
            let child = command.spawn().expect("PgBouncer starts");
            let direct = cluster.pod_url(ordinal);
            let (authority, path) = (pod.to_string(), format!("/{}", cluster.database()));
            assert!(direct.contains(&authority), "{direct}");
            let url = direct.replace(&authority, &address.to_string());
            assert!(url.contains(&path), "{url}");
            let mut bouncer = Self { child, address, url };
            if bouncer.is_ready(cluster).await {
                return bouncer;
            }
        }
        panic!("PgBouncer did not start in five attempts; its logs are in {}", cluster.directory().display());
    }

    /// Waits until PgBouncer accepts connections. Returns false if it exits or does not become ready in time.
    async fn is_ready(&mut self, cluster: &Cluster) -> bool {
        let deadline = Instant::now() + READY;
        let mut config = podpool::tokio_postgres::Config::new();
        config.host(self.address.ip().to_string()).port(self.address.port());
        config.user(cluster.user()).password(cluster.password()).dbname(cluster.database());
        while Instant::now() < deadline {
            if self.child.try_wait().expect("the process state is available").is_some() {
                return false;
            }
            if config.connect(NoTls).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub(crate) fn pool(&self, parameters: &str) -> Pool {
        let config: Config = format!("{}?{parameters}", self.url).parse().expect("the URL parses");
        Pool::builder(config).build().expect("the pool is created")
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot kill PgBouncer's process {}: {error}", self.child.id());
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("the mode is set");
}
