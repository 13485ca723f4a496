//! Tests the restriction of authentication methods (`require_auth`), its default, and the events about the protection
//! of logins.

use std::time::{Duration, Instant};

use podpool::{
    AuthError, AuthRefusal, Config, Endpoint, Error, Event, Events, Kind, Phase, Pool,
    config::{
        AuthMethod, RequireAuth,
        ssl::{Ssl, SslMode},
    },
    discovery::Fixed,
    testkit::Cluster,
};

use crate::{
    Authority, SERVICE, cluster,
    common::until,
    config,
    login_server::{LoginServer, Received, Request},
    pool,
    proxy::server_config,
    recovered, write,
};

const PASSWORD: &str = "correct horse";

/// The hash that the client sends for MD5 authentication with the salt `salt` (PostgreSQL manual, "Message Flow").
const MD5_RESPONSE: &str = "md5";

/// Returns a pool for the server with these parameters.
fn pool_for(server: &LoginServer, ssl: Ssl, require_auth: &str) -> Pool {
    pool_with_host(SERVICE, server, ssl, require_auth)
}

fn pool_with_host(host: &str, server: &LoginServer, ssl: Ssl, require_auth: &str) -> Pool {
    let config: Config =
        format!("host={host} user=app require_auth='{require_auth}'").parse().expect("the configuration parses");
    let config = config.with_password(PASSWORD).with_ssl(ssl);
    let resolver = Fixed::new([Endpoint::new(server.address)]);
    Pool::builder(config).resolver(resolver).build().expect("the pool is created")
}

/// Returns the refusal of the only Pod, and checks that the checkout failed immediately because of it.
#[track_caller]
fn refusal(error: &Error) -> AuthError {
    assert_eq!(error.kind(), Kind::Auth, "unexpected error: {error}");
    let elapsed = error.elapsed().expect("the error has an elapsed time");
    assert!(elapsed < Duration::from_secs(3), "the checkout took {elapsed:?} to fail: {error}");
    let [attempt] = error.attempts() else { panic!("expected one attempt: {error}") };
    assert_eq!(attempt.phase(), Phase::Startup, "unexpected phase: {error}");
    assert!(error.to_string().contains(&attempt.address().to_string()), "the error does not name the Pod: {error}");
    assert!(!error.to_string().contains(PASSWORD), "the error contains the password");
    let cause = attempt.cause().and_then(|cause| cause.downcast_ref::<AuthError>());
    cause.unwrap_or_else(|| panic!("expected a refused authentication request: {error}")).clone()
}

/// Waits until the server has received credentials on a connection, and returns them.
async fn credentials(server: &LoginServer) -> Received {
    let sent = || server.received().into_iter().find(|received| !received.credentials.is_empty());
    until(Duration::from_secs(10), "credentials are received", || sent().is_some()).await;
    sent().expect("the server has received credentials")
}

/// Asserts that the server has requested the authentication and received no byte until the end of each connection.
async fn assert_nothing_received(server: &LoginServer, case: &str) {
    let ended = || server.received().iter().all(|received| received.ended);
    until(Duration::from_secs(10), "the connections have ended", ended).await;
    let received = server.received();
    assert!(!received.is_empty(), "{case}: the server has not requested the authentication");
    let bytes: usize = received.iter().map(|received| received.bytes).sum();
    assert_eq!(bytes, 0, "{case}: the server has received bytes after its request: {received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_verified_server_gets_a_password_unless_the_method_is_named() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let ours = Authority::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let tls = server_config(&ours.issue(&[SERVICE]), &["postgresql"]);
    let unverified = |mode| Ssl::new(mode);
    let verified = |mode| Ssl::new(mode).with_root_cert(&*root);
    let (mut refused, mut sent) = (0, 0);
    // The parameters, whether the server offers TLS, and the reason why it is not trusted.
    for (ssl, offers_tls, exposed) in [
        (unverified(Disable), true, Some(AuthRefusal::Unencrypted)),
        (unverified(Allow), false, Some(AuthRefusal::Unencrypted)),
        (unverified(Allow), true, Some(AuthRefusal::Unverified)),
        (verified(Allow), true, None),
        (unverified(Prefer), false, Some(AuthRefusal::Unencrypted)),
        (verified(Prefer), false, Some(AuthRefusal::Unencrypted)),
        (unverified(Prefer), true, Some(AuthRefusal::Unverified)),
        (verified(Prefer), true, None),
        (unverified(Require), true, Some(AuthRefusal::Unverified)),
        (verified(Require), true, None),
        (verified(VerifyCa), true, None),
        (verified(VerifyFull), true, None),
    ] {
        for (request, method) in [(Request::ClearText, AuthMethod::Password), (Request::Md5, AuthMethod::Md5)] {
            let named = method.as_str();
            for require_auth in ["", named, "!none", "scram-sha-256,none", "!password,!md5"] {
                let case = format!("{} with {request:?}, TLS {offers_tls}, `{require_auth}`", ssl.mode());
                let server = LoginServer::start(request, offers_tls.then(|| tls.clone())).await;
                let pool = pool_for(&server, ssl.clone(), require_auth);
                let forbidden = ["scram-sha-256,none", "!password,!md5"].contains(&require_auth);
                let expected = match exposed {
                    _ if forbidden => Some(AuthRefusal::NotAllowed(require_auth.parse().expect("the list parses"))),
                    Some(exposed) if require_auth != named => Some(exposed),
                    _ => None,
                };
                match expected {
                    Some(expected) => {
                        let error = pool.get().await.expect_err(&case);
                        let error = refusal(&error);
                        assert_eq!((error.method(), error.refusal()), (method, expected), "{case}: {error}");
                        assert!(error.to_string().contains("`require_auth="), "{case}: {error}");
                        drop(pool);
                        assert_nothing_received(&server, &case).await;
                        refused += 1;
                    }
                    None => {
                        let received = credentials(&server).await;
                        let expected = if method == AuthMethod::Md5 { MD5_RESPONSE } else { PASSWORD };
                        assert!(received.credentials[0].starts_with(expected.as_bytes()), "{case}");
                        // With `allow`, the refused request in plain text is followed by an attempt with TLS.
                        let encrypted =
                            offers_tls && ssl.mode() != Disable && !(ssl.mode() == Allow && require_auth == named);
                        assert_eq!(received.encrypted, encrypted, "{case}");
                        let plain = server.received().into_iter().filter(|received| !received.encrypted);
                        let plain: usize = if encrypted { plain.map(|received| received.bytes).sum() } else { 0 };
                        assert_eq!(plain, 0, "{case}: bytes were sent in plain text");
                        sent += 1;
                    }
                }
            }
        }
    }
    println!("{refused} combinations refused with 0 credential bytes, {sent} sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_server_is_verified_only_by_an_explicit_verify_ca() {
    use SslMode::{Allow, Prefer, Require, VerifyCa};
    let ours = Authority::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    // The host, a name of the server's certificate, and the modes in which the session is verified.
    for (name, issued, verified) in [
        (SERVICE, "other.example", &[VerifyCa][..]),
        (SERVICE, SERVICE, &[Allow, Prefer, Require, VerifyCa]),
        ("127.0.0.1", "127.0.0.2", &[VerifyCa]),
        ("127.0.0.1", "127.0.0.1", &[Allow, Prefer, Require, VerifyCa]),
    ] {
        let tls = server_config(&ours.issue(&[issued]), &["postgresql"]);
        for mode in [Allow, Prefer, Require, VerifyCa] {
            let case = format!("{mode}, expected {name}, got {issued}");
            let server = LoginServer::start(Request::ClearText, Some(tls.clone())).await;
            let pool = pool_with_host(name, &server, Ssl::new(mode).with_root_cert(&*root), "");
            if verified.contains(&mode) {
                assert_eq!(credentials(&server).await.credentials[0], format!("{PASSWORD}\0").as_bytes(), "{case}");
            } else {
                let error = refusal(&pool.get().await.expect_err(&case));
                assert_eq!(error.refusal(), AuthRefusal::Unverified, "{case}: {error}");
                drop(pool);
                assert_nothing_received(&server, &case).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_is_the_cause_if_the_attempt_with_tls_is_rejected() {
    let tls = server_config(&Authority::new("ours").issue(&[SERVICE]), &["postgresql"]);
    for code in ["28000", "28P01", "57P03"] {
        let server = LoginServer::start(Request::ClearTextOrReject(code), Some(tls.clone())).await;
        let pool = pool_for(&server, Ssl::new(SslMode::Allow), "");
        let error = refusal(&pool.get().await.expect_err(code));
        assert_eq!((error.method(), error.refusal()), (AuthMethod::Password, AuthRefusal::Unencrypted), "{error}");
        assert!(error.to_string().contains(code), "the error of the second attempt is missing: {error}");
        drop(pool);
        assert_nothing_received(&server, code).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_authentication_gets_no_password_and_is_refused_if_one_is_required() {
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        for require_auth in ["", "none", "none,scram-sha-256", "!password"] {
            let server = LoginServer::start(Request::Nothing, None).await;
            let pool = pool_for(&server, Ssl::new(mode), require_auth);
            let active = || server.received().iter().any(|received| received.bytes > 0);
            until(Duration::from_secs(10), "the client uses the session", active).await;
            drop(pool);
            let received = server.received();
            assert!(received.iter().all(|received| received.credentials.is_empty()), "{received:?}");
        }
        for require_auth in ["scram-sha-256", "password,md5", "!none"] {
            let server = LoginServer::start(Request::Nothing, None).await;
            let pool = pool_for(&server, Ssl::new(mode), require_auth);
            let error = refusal(&pool.get().await.expect_err("authentication is required"));
            let list: RequireAuth = require_auth.parse().expect("the list parses");
            assert_eq!((error.method(), error.refusal()), (AuthMethod::None, AuthRefusal::NotAllowed(list)), "{error}");
            drop(pool);
            assert_nothing_received(&server, require_auth).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_skips_its_proof_in_scram_is_refused() {
    // The server accepts the login instead of its first message, or instead of its final message with the proof.
    for messages in [0, 1, 2] {
        for require_auth in ["", "scram-sha-256", "none,scram-sha-256"] {
            let server = LoginServer::start(Request::UnprovenScram(messages), None).await;
            let pool = pool_for(&server, Ssl::new(SslMode::Disable), require_auth);
            let error = refusal(&pool.get().await.expect_err("the server has not proved that it knows the password"));
            let expected = (AuthMethod::ScramSha256, AuthRefusal::Unproven);
            assert_eq!((error.method(), error.refusal()), expected, "{error}");
            for received in server.received() {
                assert!(received.credentials.len() <= messages, "{received:?}");
                let text = received.credentials.concat();
                assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "the password was sent");
            }
        }
    }
}

/// Waits until the pool emits an event of this name.
async fn wait_for(events: &mut Events, wanted: &str) -> Event {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = tokio::time::timeout(left, events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("no event `{wanted}` within 15 s"));
        match event.expect("the event stream is open") {
            Ok(event) if event.name() == wanted => return event,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_method_of_a_real_server_follows_the_policy() {
    const HBA: &str = "\
host all clear   127.0.0.0/8 password
host all md5     127.0.0.0/8 md5
host all scram   127.0.0.0/8 scram-sha-256
host all trusted 127.0.0.0/8 trust";
    let ours = Authority::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let cluster = cluster(1, &ours.issue(&[SERVICE])).hba(HBA).start().await.expect("the cluster starts");
    let client = cluster.client(0).await.expect("the superuser connects");
    client
        .batch_execute(
            "CREATE ROLE clear LOGIN PASSWORD 'secret'; CREATE ROLE scram LOGIN PASSWORD 'secret';
             CREATE ROLE trusted LOGIN; SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD 'secret'",
        )
        .await
        .expect("the roles are created");
    let plain = || Ssl::new(SslMode::Disable);
    let unverified = || Ssl::new(SslMode::Require);
    let verified = || Ssl::new(SslMode::VerifyFull).with_root_cert(&*root);
    for (role, method) in [
        ("clear", AuthMethod::Password),
        ("md5", AuthMethod::Md5),
        ("scram", AuthMethod::ScramSha256),
        ("trusted", AuthMethod::None),
    ] {
        let exposed = matches!(method, AuthMethod::Password | AuthMethod::Md5);
        for (ssl, list, accepted) in [
            (plain(), None, !exposed),
            (unverified(), None, !exposed),
            (verified(), None, true),
            (plain(), Some(RequireAuth::only([method])), true),
            (unverified(), Some(RequireAuth::only([method])), true),
            (verified(), Some(RequireAuth::except([method])), false),
        ] {
            let case = format!("role {role}, sslmode {}, require_auth {list:?}", ssl.mode());
            let mut config = config(&cluster, ssl).with_user(role).with_password("secret");
            if let Some(list) = list {
                config = config.with_require_auth(list);
            }
            let pool = pool(config);
            let mut events = pool.events();
            match pool.get().await {
                Ok(client) => {
                    assert!(accepted, "{case}: expected a refusal");
                    client.simple_query("SELECT 1").await.expect("the query succeeds");
                }
                Err(error) => {
                    assert!(!accepted, "{case}: {error}");
                    assert_eq!(refusal(&error).method(), method, "{case}");
                    let event = wait_for(&mut events, "login_failed").await;
                    assert_eq!(event.endpoint().and_then(|pod| pod.address().tcp()), Some(cluster.pod(0).address()));
                }
            }
        }
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Returns the texts of an event about the protection of logins, and checks that they contain no secret.
#[track_caller]
fn texts(event: Event, cluster: &Cluster) -> (String, String) {
    let (Event::SecurityChanged { endpoint, from, to } | Event::SecurityDowngraded { endpoint, from, to }) = event
    else {
        panic!("expected an event about the protection of logins: {event}");
    };
    assert_eq!(endpoint.address().tcp().unwrap(), cluster.pod(0).address());
    for text in [&from, &to] {
        assert!(!text.contains(&cluster.password()), "the event contains the password");
    }
    (from.to_string(), to.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_report_a_rotated_certificate_and_a_weaker_method() {
    let ours = Authority::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let cluster = cluster(1, &ours.issue(&[SERVICE])).hba("hostssl all all 127.0.0.0/8 md5");
    let cluster = cluster.start().await.expect("the cluster starts");
    let pool = pool(config(&cluster, Ssl::new(SslMode::VerifyFull).with_root_cert(&*root)));
    let mut events = pool.events();
    let mut held = vec![pool.get().await.expect("checkout succeeds")];

    let renewed = ours.issue(&[SERVICE]);
    cluster.set_certificate(0, renewed.certificate, renewed.key).await.expect("the certificate is replaced");
    // Each checkout beyond the idle connections opens a new one.
    held.push(pool.get().await.expect("checkout succeeds"));
    held.push(recovered(&pool).await);
    let (from, to) = texts(wait_for(&mut events, "security_changed").await, &cluster);
    println!("{from}\n{to}");
    let fingerprint = |text: &str| text.split("SHA-256 fingerprint ").nth(1).expect("a fingerprint").to_owned();
    assert_ne!(fingerprint(&from), fingerprint(&to));
    assert_eq!((fingerprint(&to).len(), from.len()), (64, to.len()));
    for text in [&from, &to] {
        let expected = "authentication `scram-sha-256` with channel binding, TLSv1.3 with TLS13_AES_256_GCM_SHA384, \
                        certificate verified, ";
        assert!(text.starts_with(expected), "{text}");
    }

    let client = cluster.client(0).await.expect("the superuser connects");
    let change = format!(
        "SET password_encryption = 'md5'; ALTER ROLE \"{}\" PASSWORD '{}'",
        cluster.user(),
        cluster.password().replace('\'', "''")
    );
    client.batch_execute(&change).await.expect("the password is stored as an MD5 hash");
    held.push(pool.get().await.expect("checkout succeeds"));
    held.push(recovered(&pool).await);
    let (from, to) = texts(wait_for(&mut events, "security_downgraded").await, &cluster);
    println!("{from}\n{to}");
    assert!(from.starts_with("authentication `scram-sha-256` with channel binding, "), "{from}");
    assert!(to.starts_with("authentication `md5` without channel binding, "), "{to}");
    drop(held);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reports_the_loss_of_tls() {
    let tls = server_config(&Authority::new("ours").issue(&[SERVICE]), &["postgresql"]);
    let server = LoginServer::start(Request::Nothing, Some(tls)).await;
    let pool = pool_for(&server, Ssl::new(SslMode::Prefer), "");
    let mut events = pool.events();
    until(Duration::from_secs(10), "a connection with TLS", || server.received().iter().any(|it| it.encrypted)).await;
    server.stop_tls();
    let event = wait_for(&mut events, "security_downgraded").await;
    let Event::SecurityDowngraded { from, to, .. } = &event else { panic!("unexpected event: {event}") };
    println!("{event}");
    assert!(from.contains("certificate not verified"), "{from}");
    assert_eq!(&**to, "authentication `none` without channel binding, no TLS");
}
