//! Tests the settings of a cluster builder.

use podpool::testkit::{Cluster, Error};

use crate::{
    Outcome,
    queries::{application, setting},
};

#[tokio::test]
async fn rejects_invalid_settings_without_starting_servers() {
    for (builder, setting) in [
        (Cluster::builder().pods(0), "pods"),
        (Cluster::builder().password(""), "password"),
        (Cluster::builder().name("Upper Case"), "name"),
        (Cluster::builder().setting("work_mem", "1MB\nfsync = on"), "setting"),
    ] {
        let error = builder.start().await.unwrap_err();
        assert!(matches!(error, Error::Setting { setting: rejected, .. } if rejected == setting), "{error}");
    }
    let outside = Cluster::builder().service("service.example.org").start().await;
    assert!(matches!(outside, Err(Error::Name { .. })));
}

#[tokio::test]
async fn settings_apply_to_servers_and_urls() -> Outcome {
    let cluster = Cluster::builder()
        .pods(1)
        .user("o'neil \"x\"")
        .password("it's? #1 &é")
        .database("data/base")
        .setting("max_connections", "23")
        .start()
        .await?;
    assert_eq!(setting(&cluster, 0, "max_connections").await?, "23");
    let row =
        application(&cluster, 0).await?.query_one("SELECT current_user::text, current_database()::text", &[]).await?;
    assert_eq!((row.get(0), row.get(1)), (cluster.user(), cluster.database()));
    assert!(cluster.srv_url().ends_with("&discovery=srv&port_name=postgresql-port"));
    Ok(())
}
