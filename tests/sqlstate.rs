//! Tests `Error::sqlstate`, and the texts of errors that contain a message of the server.

use std::{error, fmt};

use podpool::{Client, Config, Kind, Pool, Target, testkit::Cluster, tokio_postgres::error::SqlState};

/// An application's error, with the driver's error as its source.
#[derive(Debug)]
struct Wrapped(podpool::tokio_postgres::Error);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot store the order")
    }
}

impl error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn an_error_has_the_sqlstate_of_its_source_or_of_an_attempt() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.pod_url(0)).await.expect("the pool is created");
    let work = |client: Client| async move { client.batch_execute("SELECT 1/0").await.map_err(Wrapped) };
    let error = pool.retry_unapplied(Target::Primary, work).await.expect_err("the statement fails");
    assert_eq!((error.kind(), error.sqlstate()), (Kind::Query, Some(&SqlState::DIVISION_BY_ZERO)), "{error}");
    let endpoint = error.endpoint().expect("the work ran on a Pod");
    assert_eq!(error.message(), format!("the work failed on {endpoint}"));
    let text = error.to_string();
    assert!(text.starts_with(error.message()) && text.ends_with(": division by zero (SQLSTATE 22012)"), "{text}");
    let text = format!("{error:#}");
    assert!(text.ends_with(": cannot store the order: db error: ERROR: division by zero"), "{text}");
    let work = |_: Client| async move { Err::<(), _>(std::io::Error::other("no server is involved")) };
    let error = pool.retry_unapplied(Target::Primary, work).await.expect_err("the work fails");
    assert_eq!(error.sqlstate(), None);
    assert!(!error.to_string().contains("no server") && format!("{error:#}").ends_with(": no server is involved"));

    let url = cluster.pod_url(0);
    let (server, _) = url.rsplit_once('/').expect("the URL has a database");
    let config: Config = format!("{server}/missing").parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    let error = pool.get().await.expect_err("there is no such database");
    assert_eq!((error.kind(), error.sqlstate()), (Kind::Auth, Some(&SqlState::INVALID_CATALOG_NAME)), "{error}");
    assert_eq!((error.endpoint(), error.attempts().len()), (None, 1), "{error}");
    pool.close().await;
    let error = pool.get().await.expect_err("the pool is closed");
    assert_eq!((error.kind(), error.sqlstate()), (Kind::Shutdown, None));
}
