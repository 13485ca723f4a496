//! Unix sockets: the directory of a server's socket as the host.

use std::{fs, os::unix::fs::PermissionsExt as _};

use podpool::{
    Client, Config, Error, Event, Pool, Role, State, Target,
    testkit::{Cluster, Shutdown},
};
use tempfile::TempDir;

use crate::{SOON, common};

/// Starts a server with a socket in a new directory. Returns its connection string.
async fn server(hba: &str) -> (Cluster, TempDir, String) {
    // The server may run as another user.
    let directory = TempDir::new().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("the permissions are set");
    let path = directory.path().display().to_string();
    let cluster = Cluster::builder().pods(1).setting("unix_socket_directories", &path).hba(hba);
    let cluster = cluster.start().await.expect("the cluster starts");
    let password = cluster.password().replace('\\', "\\\\").replace('\'', "\\'");
    let (port, user, database) = (cluster.port(), cluster.user(), cluster.database());
    let text = format!("host={path} port={port} user={user} dbname={database} password='{password}'");
    (cluster, directory, text)
}

fn pool(text: &str) -> Pool {
    let config: Config = text.parse().expect("the connection string parses");
    Pool::builder(config).build().expect("the pool is created")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_serves_without_tls_and_its_path_is_the_label() {
    let (cluster, directory, text) = server("local all all scram-sha-256").await;
    // As in libpq, `sslmode` does not apply to Unix sockets.
    let pool = pool(&format!("{text} sslmode=require"));
    let path = directory.path().join(format!(".s.PGSQL.{}", cluster.port())).display().to_string();
    let client = pool.get_for(Target::Primary).await.expect("checkout succeeds");
    assert_eq!((client.endpoint().to_string(), client.role()), (path.clone(), Role::Primary));
    assert_eq!((client.endpoint().address().to_string(), client.endpoint().address().ip()), (path.clone(), None));
    let query = "SELECT host(inet_server_addr()), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = client.query_one(query, &[]).await.expect("the query succeeds");
    assert_eq!((row.get::<_, Option<String>>(0), row.get::<_, bool>(1)), (None, false));
    assert_eq!(common::cancelled(&client).await.as_deref(), Some("57014"));
    drop(client);

    let mut events = pool.events();
    cluster.stop(0, Shutdown::Fast).await.expect("the server stops");
    let failing = || pool.status().endpoints.iter().all(|pod| pod.state == State::Ejected);
    common::until(SOON, "the server is ejected", failing).await;
    let error = pool.get().await.map(drop::<Client>).expect_err("no server runs");
    assert_eq!(error.attempts().first().map(|attempt| attempt.address().to_string()), Some(path.clone()), "{error}");
    cluster.start_pod(0).await.expect("the server starts");
    common::until(SOON, "the server is healthy", || common::in_state(&pool, State::Healthy) == 1).await;
    drop(pool.get().await.expect("checkout succeeds"));
    let changed = loop {
        let event = events.next().await.expect("an event").expect("no event is lost");
        if matches!(event, Event::StateChanged { .. }) {
            break event.to_string();
        }
    };
    assert!(changed.contains(&path), "{changed}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_sent_over_a_socket_in_clear_text_as_libpq_does() {
    let (cluster, _directory, text) = server("local all all password\nhost all all 127.0.0.0/8 password").await;
    let over_socket = pool(&text);
    drop(over_socket.get().await.expect("checkout succeeds"));
    let config: Config = cluster.pod_url(0).parse().expect("the URL parses");
    let over_tcp = Pool::builder(config).build().expect("the pool is created");
    let error: Error = over_tcp.get().await.map(drop::<Client>).expect_err("the password is not sent over TCP");
    println!("{error}");
    drop((over_socket, over_tcp));
    cluster.shutdown().await.expect("the cluster shuts down");
}
