//! Tests that server certificates are verified against the right name: the Service's, the Pod's, or a configured one.

use std::time::Duration;

use podpool::{
    Config, Kind, Pool, TlsReason,
    config::{
        Limits,
        ssl::{Ssl, SslMode, VerifiedName},
    },
};

use crate::{Authority, SERVICE, assert_refused, cluster, common, config, pool, reason, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_certificates_are_verified_against_the_right_name() {
    let ours = Authority::new("ours");
    let own = |pod: usize| ours.issue(&[&format!("postgresql-sfs-{pod}.{SERVICE}")]);
    let cluster = cluster(2, &own(0)).start().await.expect("the cluster starts");
    let second = own(1);
    cluster.set_certificate(1, &*second.certificate, &*second.key).await.expect("the certificate is replaced");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root);
    let by_srv = || cluster.srv_url().parse::<Config>().expect("the URL parses");

    // With `VerifiedName::Pod`, each Pod's certificate must contain the Pod's own name.
    let pods = ssl.clone().with_verified_name(VerifiedName::Pod);
    let each = pool(by_srv().with_ssl(pods.clone()));
    for target in [podpool::Target::Primary, podpool::Target::Standby] {
        each.get_for(target).await.unwrap_or_else(|error| panic!("checkout for target {target} failed: {error}"));
    }
    // No certificate contains the Service's name.
    let error = pool(by_srv().with_ssl(ssl.clone())).get().await.expect_err("the certificates are refused");
    assert_refused(&error, TlsReason::WrongName);
    // Pod 1 is refused if it presents the certificate of Pod 0. Pod 0 still serves.
    let first = own(0);
    cluster.set_certificate(1, first.certificate, first.key).await.expect("the certificate is replaced");
    let mut limits = Limits::default();
    limits.acquire_timeout = Duration::from_secs(1);
    let swapped = pool(by_srv().with_ssl(pods.clone()).with_limits(limits));
    swapped.get_for(podpool::Target::Primary).await.expect("Pod 0 serves");
    let error = swapped.get_for(podpool::Target::Standby).await.expect_err("the certificate of Pod 1 is refused");
    println!("{error}");
    let [attempt] = error.attempts() else { panic!("expected one failed attempt: {error}") };
    assert_eq!(
        (attempt.name(), reason(attempt)),
        (Some("postgresql-sfs-1"), Some(TlsReason::WrongName)),
        "unexpected error: {error}"
    );
    // Both certificates now contain the configured name.
    let name = format!("postgresql-sfs-0.{SERVICE}");
    let other = ssl.clone().with_verified_name(name.parse().expect("the name parses"));
    pool(config(&cluster, other)).get().await.expect("checkout succeeds");

    // `VerifiedName::Pod` needs Pod names, which address records do not contain. The builder rejects this
    // configuration. With a custom resolver, the pool refuses to connect instead.
    let error = Pool::builder(config(&cluster, pods.clone())).build().expect_err("the configuration is invalid");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("discovery=srv"), "the error does not name the remedy: {error}");
    let without_names = podpool::discovery::Fixed::new([podpool::Endpoint::new(cluster.pod(0).address())]);
    let pool = Pool::builder(config(&cluster, pods)).resolver(without_names).build().expect("the pool is created");
    let error = pool.get().await.expect_err("the Pod has no name to verify");
    println!("{error}");
    assert_eq!((error.kind(), reason(&error.attempts()[0])), (Kind::Tls, Some(TlsReason::WrongName)));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_two_hosts_is_verified_against_the_name_of_either() {
    let ours = Authority::new("ours");
    let cluster = cluster(1, &ours.issue(&["second.example"])).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let (ip, port) = (cluster.pod(0).address().ip(), cluster.port());
    let (user, database) = (cluster.user(), cluster.database());
    let password = cluster.password().replace('\\', "\\\\").replace('\'', "\\'");
    let text = |hosts: &str| {
        format!(
            "host={hosts} hostaddr={ip},{ip} port={port} user={user} dbname={database} password='{password}' \
             sslmode=verify-full sslrootcert={}",
            root.display()
        )
    };
    for hosts in ["first.example,second.example", "second.example,first.example"] {
        let pool = pool(text(hosts).parse().expect("the connection string parses"));
        drop(
            common::first_checkout(&pool, Duration::from_secs(20))
                .await
                .unwrap_or_else(|error| panic!("{hosts}: {error}")),
        );
        assert_eq!(pool.status().endpoints.len(), 1, "equal addresses are one server");
    }
    let neither = pool(text("first.example,third.example").parse().expect("the connection string parses"));
    let error = neither.get().await.expect_err("the certificate is refused");
    assert_refused(&error, TlsReason::WrongName);
    cluster.shutdown().await.expect("the cluster shuts down");
}
