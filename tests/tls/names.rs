use std::time::Duration;

use podpool::{
    Config, Kind, Pool, TlsReason,
    config::{
        Limits,
        ssl::{Ssl, SslMode, VerifiedName},
    },
};

use crate::{Authority, SERVICE, assert_refused, cluster, config, pool, reason, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_is_the_services_the_pods_own_or_another_one() {
    let ours = Authority::new("ours");
    let own = |pod: usize| ours.issue(&[&format!("postgresql-sfs-{pod}.{SERVICE}")]);
    let cluster = cluster(2, &own(0)).start().await.expect("a cluster");
    let second = own(1);
    cluster.set_certificate(1, &*second.certificate, &*second.key).await.expect("a new certificate");
    let files = tempfile::tempdir().expect("a directory");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root);
    let by_srv = || cluster.srv_url().parse::<Config>().expect("a URL");

    // Each Pod by its own name.
    let pods = ssl.clone().with_verified_name(VerifiedName::Pod);
    let each = pool(by_srv().with_ssl(pods.clone()));
    for target in [podpool::Target::Primary, podpool::Target::Standby] {
        each.get_for(target).await.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
    // By the Service's, which is on no certificate.
    assert_refused(&pool(by_srv().with_ssl(ssl.clone())).get().await.expect_err("refused"), TlsReason::WrongName);
    // One with the other's certificate is refused, by name, while the other serves.
    let first = own(0);
    cluster.set_certificate(1, first.certificate, first.key).await.expect("a new certificate");
    let mut limits = Limits::default();
    limits.acquire_timeout = Duration::from_secs(1);
    let swapped = pool(by_srv().with_ssl(pods.clone()).with_limits(limits));
    swapped.get_for(podpool::Target::Primary).await.expect("Pod 0 serves");
    let error = swapped.get_for(podpool::Target::Standby).await.expect_err("Pod 1 does not");
    println!("{error}");
    let [attempt] = error.attempts() else { panic!("one Pod has failed: {error}") };
    assert_eq!((attempt.name(), reason(attempt)), (Some("postgresql-sfs-1"), Some(TlsReason::WrongName)), "{error}");
    // By another name altogether.
    let name = format!("postgresql-sfs-0.{SERVICE}");
    let other = ssl.clone().with_verified_name(name.parse().expect("a name"));
    pool(config(&cluster, other)).get().await.expect("both are that");

    // The Pods' names are not known where nobody tells them: refused when the pool is built, or when it dials.
    let error = Pool::builder(config(&cluster, pods.clone())).build().expect_err("refused");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("discovery=srv"), "{error}");
    let nameless = podpool::discovery::Fixed::new([podpool::Endpoint::new(cluster.pod(0).address())]);
    let pool = Pool::builder(config(&cluster, pods)).resolver(nameless).build().expect("a pool");
    let error = pool.get().await.expect_err("refused");
    println!("{error}");
    assert_eq!((error.kind(), reason(&error.attempts()[0])), (Kind::Tls, Some(TlsReason::WrongName)));
    cluster.shutdown().await.expect("an orderly end");
}
