use super::*;

fn scram(limit: Option<usize>) -> Authentication {
    let user = |password: &str, superuser| User { password: password.into(), connection_limit: limit, superuser };
    let users = [("app", user("secret", false)), ("postgres", user("root", true))];
    Authentication::Scram(users.into_iter().map(|(name, user)| (name.to_owned(), user)).collect())
}

fn login(user: &str, password: &str) -> Config {
    let mut config = config();
    config.user(user).password(password);
    config
}

async fn rejection(server: &Arc<Server>, config: &Config) -> (String, bool) {
    let error = connect_with(server, config).await.err().unwrap();
    let (code, fatal) = code(&error);
    (code.to_owned(), fatal)
}

#[tokio::test(start_paused = true)]
async fn scram_accepts_only_the_right_password() {
    let server = primary().await;
    server.set(|settings| settings.authentication = scram(None));
    assert_eq!(connect_with(&server, &login("app", "secret")).await.unwrap().ids().await, [0_i64; 0]);
    for (user, password) in [("app", "wrong"), ("nobody", "secret"), ("nobody", "")] {
        assert_eq!(rejection(&server, &login(user, password)).await, ("28P01".into(), true), "{user}");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_the_parameters_of_each_version() {
    let server = primary().await;
    for (version, hot_standby, scram_iterations, search_path) in [
        ("13.9", None, None, None),
        ("14.1", Some("off"), None, None),
        ("17.4", Some("off"), Some("4096"), None),
        ("18.0", Some("off"), Some("4096"), Some("\"$user\", public")),
    ] {
        server.set(|settings| settings.version = version.into());
        let value = connect(&server).await.parameters().await;
        assert_eq!(value("server_version").as_deref(), Some(version));
        assert_eq!(value("in_hot_standby").as_deref(), hot_standby, "{version}");
        assert_eq!(value("default_transaction_read_only").as_deref(), hot_standby, "{version}");
        assert_eq!(value("scram_iterations").as_deref(), scram_iterations, "{version}");
        assert_eq!(value("search_path").as_deref(), search_path, "{version}");
        assert_eq!(value("session_authorization").as_deref(), Some("app"));
    }
}

#[tokio::test(start_paused = true)]
async fn applies_the_options_of_the_startup_message() {
    let server = primary().await;
    let mut config = config();
    config.options("-c default_transaction_read_only=on -c statement_timeout=5").application_name("web");
    let connected = connect_with(&server, &config).await.unwrap();
    assert_eq!(connected.value("SHOW statement_timeout").await.as_deref(), Some("5"));
    assert_eq!(connected.value("SHOW application_name").await.as_deref(), Some("web"));
    assert_eq!(code(&connected.insert(1).await.unwrap_err()), ("25006", false));
    config.options("-c no_such_parameter=1");
    assert_eq!(rejection(&server, &config).await, ("42704".into(), true));
}

#[tokio::test(start_paused = true)]
async fn refuses_connections_above_its_limits() {
    let server = primary().await;
    server.set(|settings| {
        (settings.max_connections, settings.reserved_connections) = (4, 1);
        settings.authentication = scram(None);
    });
    let (app, superuser) = (login("app", "secret"), login("postgres", "root"));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connect_with(&server, &app).await.unwrap());
    }
    let reserved = connect_with(&server, &app).await.err().unwrap();
    assert_eq!(code(&reserved), ("53300", true));
    assert!(db(&reserved).message().starts_with("remaining connection slots are reserved"), "{reserved:?}");
    open.push(connect_with(&server, &superuser).await.unwrap());
    let full = connect_with(&server, &superuser).await.err().unwrap();
    assert_eq!(db(&full).message(), "sorry, too many clients already");
    drop(open);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.status().sessions, 0);
    server.set(|settings| settings.authentication = scram(Some(1)));
    let _first = connect_with(&server, &app).await.unwrap();
    let limited = connect_with(&server, &app).await.err().unwrap();
    assert_eq!(db(&limited).message(), "too many connections for role \"app\"");
}

#[tokio::test(start_paused = true)]
async fn rejects_unknown_databases() {
    let server = primary().await;
    server.set(|settings| settings.databases = vec!["app".into()]);
    let mut config = config();
    connect_with(&server, &config).await.unwrap();
    assert_eq!(rejection(&server, config.dbname("other")).await, ("3D000".into(), true));
}

#[tokio::test(start_paused = true)]
async fn refuses_encryption_but_accepts_the_session() {
    let server = primary().await;
    for (mode, accepted) in [(SslMode::Prefer, true), (SslMode::Require, false)] {
        let mut config = config();
        config.ssl_mode(mode);
        // `NoTls` cannot connect with TLS, so the driver sends no request unless TLS is required.
        assert_eq!(connect_with(&server, &config).await.is_ok(), accepted);
    }
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = stream(&server);
    for code in [80_877_103_u32, 80_877_104] {
        stream.write_all(&[8_u32.to_be_bytes(), code.to_be_bytes()].concat()).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    let (client, _connection) = config().connect_raw(stream, NoTls).await.unwrap();
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn refuses_sessions_while_it_starts() {
    let server = server(&cluster().0, "a");
    server.set(|settings| settings.startup = Duration::from_secs(5));
    server.start();
    let error = connect_with(&server, &config()).await.err().unwrap();
    assert_eq!((code(&error), db(&error).message()), (("57P03", true), "the database system is starting up"));
    server.running().await;
    connect(&server).await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_accepts_connections_but_answers_nothing() {
    let server = primary().await;
    let connected = connect(&server).await;
    server.hang(true);
    let minute = Duration::from_secs(60);
    assert!(tokio::time::timeout(minute, connect_with(&server, &config())).await.is_err());
    assert!(tokio::time::timeout(minute, connected.client.check_connection()).await.is_err());
    server.hang(false);
    connected.client.check_connection().await.unwrap();
    connect(&server).await;
}
