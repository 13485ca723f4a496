//! Broken logins and TLS: wrong passwords, databases, certificates and names, and TLS that one side requires.

use crate::{assert_explains, assert_good, authority::Authority, cluster, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_logins_and_servers_without_tls() {
    let cluster = cluster(2).start().await.expect("the cluster starts");
    let url = cluster.url();
    let login = url.find('@').expect("the URL has a login");

    let wrong = format!("postgres://{}:wrong{}", cluster.user(), &url[login..]);
    assert_explains(&wrong, 1, "login", "rejects the password of user `user`", "the URL or PGPASSWORD").await;

    let files = tempfile::tempdir().expect("the temporary directory is created");
    let file = write(&files.path().join("password"), "wrong");
    let wrong = format!("postgres://{}{}&password_file={file}", cluster.user(), &url[login..]);
    assert_explains(&wrong, 1, "login", "rejects the password of user `user`", &file).await;
    let missing = format!("postgres://{}{}&password_file=/nonexistent/password", cluster.user(), &url[login..]);
    assert_explains(&missing, 1, "login", "there is no usable password", "/nonexistent/password").await;

    let wrong = url.replace(&format!("/{}?", cluster.database()), "/shpo?");
    assert_ne!(wrong, url);
    assert_explains(&wrong, 1, "login", "there is no database `shpo`", "CREATE DATABASE \"shpo\"").await;

    let required = format!("{url}&sslmode=require");
    let cause = "sslmode=require requires TLS, but the server does not offer it";
    assert_explains(&required, 1, "tls", cause, "ssl=on").await;
    let missing = format!("{url}&sslmode=verify-full&sslrootcert=/nonexistent/ca.crt");
    assert_explains(&missing, 1, "config", "/nonexistent/ca.crt", "correct the URL").await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_certificates_and_servers_that_require_tls() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let builder = cluster(2).service("postgresql-svc.k8s-training.svc.cluster.local");
    let server = ours.issue(&["postgresql-svc.k8s-training.svc.cluster.local"]);
    let builder = builder.certificate(server.certificate, server.key).hba("hostssl all all 127.0.0.0/8 scram-sha-256");
    let cluster = builder.start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let [root, unknown] = [("ours.crt", &ours), ("other.crt", &other)]
        .map(|(name, authority)| write(&files.path().join(name), authority.certificate()));
    let url = |root: &str| format!("{}&sslmode=verify-full&sslrootcert={root}", cluster.url());
    assert_good(&url(&root)).await;

    let plain = format!("{}&sslmode=disable", cluster.url());
    let cause = "the server requires TLS, but sslmode=disable connects without it";
    assert_explains(&plain, 1, "login", cause, "set sslmode=verify-full").await;

    let cause = "signed by an unknown authority";
    assert_explains(&url(&unknown), 1, "tls", cause, "set sslrootcert to the certificate of the authority").await;

    let renamed = format!("{}&ssl_verify_name=db.example", url(&root));
    let remedy = "issue a certificate with the DNS name `db.example`";
    assert_explains(&renamed, 1, "tls", "the server's certificate is for another name", remedy).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
