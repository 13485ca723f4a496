//! The service with a server on the same machine, which it reaches over a Unix socket.

use std::{fs, os::unix::fs::PermissionsExt as _};

use podpool::testkit::Cluster;
use serde_json::Value;

use crate::{
    contract::{count_rows, create_table},
    service::{Service, fields},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_a_server_behind_a_unix_socket_is_null() {
    let directory = tempfile::tempdir().expect("a directory");
    // The server may run as another user.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("the permissions are set");
    let path = directory.path().display().to_string();
    let cluster =
        Cluster::builder().pods(1).setting("unix_socket_directories", &path).hba("local all all scram-sha-256");
    let cluster = cluster.start().await.expect("the cluster starts");
    let primary = create_table(&cluster).await;
    // In the authority of a URL, the slashes of a directory are percent-encoded.
    let tcp = format!("{}:", cluster.pod(0).address().ip());
    let url = cluster.pod_url(0).replace(&tcp, &format!("{}:", path.replace('/', "%2F")));
    let service = Service::start(&url).await;
    let read = service.get_until("/query?target=primary", |response| response.status == 200).await;
    assert_eq!(fields(&read.body), ["attempts", "in_recovery", "pod", "server_addr", "us"]);
    assert_eq!((&read.body["server_addr"], read.text("pod")), (&Value::Null, cluster.pod(0).name()), "{read:?}");
    let written = service.write("over a socket").await;
    assert_eq!(fields(&written.body), ["attempts", "pod", "server_addr", "us"]);
    assert_eq!((written.status, &written.body["server_addr"]), (200, &Value::Null), "{written:?}");
    assert_eq!(count_rows(&primary, "over a socket").await, 1);
    // The path of the socket is the label of the server.
    let socket = format!("{path}/.s.PGSQL.{}", cluster.port());
    let endpoints = service.get("/endpoints").await;
    assert_eq!(endpoints.body["endpoints"][0]["addr"], socket, "{endpoints:?}");
    let (_, metrics) = service.get_text("/metrics").await;
    assert!(metrics.contains(&format!("server_address=\"{socket}\"")), "{metrics}");
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
