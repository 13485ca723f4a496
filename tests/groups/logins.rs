//! Users and databases that a server treats in a particular way.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use podpool::{Event, Kind, Pool, State, Target, testkit::Cluster};

use crate::{
    LIMIT,
    common::{in_state, until},
    create_user, identity, is_ejection, ready, received, run, start, tenant, tenant_with,
};

/// Waits until the pool serves the target. Returns the time that this has taken.
async fn recovers(pool: &Pool, target: Target) -> Duration {
    let began = Instant::now();
    while let Err(error) = pool.get_for(target).await {
        assert!(began.elapsed() < LIMIT, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_of_one_pool_does_not_affect_the_others() {
    let cluster = start(["good".into()]).await;
    create_user(&cluster, "bad", "ALTER ROLE bad PASSWORD 'other'").await;
    cluster.wait_replicated().await.expect("the standbys have the users");
    for bad_first in [false, true] {
        // The user `bad` has another password, and the database `none` does not exist.
        let bad = |other: Option<&Pool>| {
            let builder = tenant(&cluster, "bad");
            other.into_iter().fold(builder, |builder, other| builder.share_with(other)).build().expect("a pool")
        };
        let (good, bad) = match bad_first {
            true => {
                let bad = bad(None);
                (tenant(&cluster, "good").share_with(&bad).build().expect("a pool"), bad)
            }
            false => {
                let good = tenant(&cluster, "good").build().expect("a pool");
                let bad = bad(Some(&good));
                (good, bad)
            }
        };
        let none = tenant_with(&cluster, "good", "none", "").share_with(&good).build().expect("a pool");
        let [mut good_events, mut bad_events] = [&good, &bad].map(Pool::events);
        ready(&[&good], Target::Any).await;
        until(LIMIT, "all Pods are healthy", || in_state(&good, State::Healthy) == 3).await;
        received(&mut good_events).await;
        for pool in [&bad, &none] {
            let began = Instant::now();
            let error = pool.get().await.expect_err("every login is refused");
            println!("bad_first={bad_first}: {} after {:.0?}: {error}", pool.name(), began.elapsed());
            assert_eq!(error.kind(), Kind::Auth, "{error}");
        }
        // All Pods have refused the logins, and the others' probes and callers go on.
        let refused = |pool: &Pool| pool.status().endpoints.iter().all(|pod| pod.last_failure.is_some());
        until(LIMIT, "every Pod has refused the logins", || refused(&bad) && refused(&none)).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert_eq!(identity(&good).await.0, "good");
            assert_eq!(in_state(&good, State::Healthy), 3, "{:?}", good.status().endpoints);
        }
        let events = received(&mut good_events).await;
        assert!(!events.iter().any(is_ejection), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::LoginFailed { .. })), "{events:?}");
        let refusals = received(&mut bad_events).await;
        assert!(refusals.iter().any(|event| matches!(event, Event::LoginFailed { .. })), "{refusals:?}");

        run(&cluster, "ALTER ROLE bad PASSWORD 'secret'; ").await;
        run(&cluster, "CREATE DATABASE none").await;
        println!("the password is accepted after {:.1?}", recovers(&bad, Target::ReadWrite).await);
        println!("the database is found after {:.1?}", recovers(&none, Target::ReadWrite).await);
        assert_eq!(identity(&bad).await.0, "bad");
        ready(&[&bad, &none], Target::Standby).await;
        drop((good, bad, none));
        run(&cluster, "ALTER ROLE bad PASSWORD 'other'").await;
        run(&cluster, "DROP DATABASE none WITH (FORCE)").await;
        cluster.wait_replicated().await.expect("the standbys have dropped the database");
    }
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_read_only_for_one_user_take_the_primary_from_that_pool_only() {
    let cluster = start(["writer".into()]).await;
    let read_only = "ALTER ROLE reader SET default_transaction_read_only = on";
    create_user(&cluster, "reader", read_only).await;
    cluster.wait_replicated().await.expect("the standbys have the users");
    for reader_first in [false, true] {
        let [first, second] = if reader_first { ["reader", "writer"] } else { ["writer", "reader"] };
        let first = tenant_with(&cluster, first, cluster.database(), "&acquire_timeout=1s").build().expect("a pool");
        let second = tenant_with(&cluster, second, cluster.database(), "&acquire_timeout=1s");
        let second = second.share_with(&first).build().expect("a pool");
        let (reader, writer) = if reader_first { (&first, &second) } else { (&second, &first) };
        ready(&[writer], Target::ReadWrite).await;
        ready(&[reader], Target::Any).await;
        let mut events = writer.events();
        reader.get_for(Target::ReadWrite).await.expect_err("the user's sessions are read-only");
        let began = Instant::now();
        let mut writes = 0;
        while began.elapsed() < Duration::from_secs(3) {
            let client = writer.get_for(Target::ReadWrite).await.expect("the primary serves the writer");
            client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS t ()").await.expect("the write succeeds");
            // A write of the reader is refused, which is no sign of a new role.
            let refused = reader.primary().await.expect("a read-only session").batch_execute("CREATE TABLE u ()").await;
            refused.expect_err("the session is read-only");
            writes += 1;
        }
        reader.get_for(Target::ReadWrite).await.expect_err("the user's sessions are still read-only");
        println!("reader_first={reader_first}: {writes} writes beside a reader");
        let events = received(&mut events).await;
        assert!(!events.iter().any(|event| is_ejection(event) || event.name() == "role_changed"), "{events:?}");
        run(&cluster, "ALTER ROLE reader RESET default_transaction_read_only").await;
        println!("the reader may write after {:.1?}", recovers(reader, Target::ReadWrite).await);
        drop((first, second));
        run(&cluster, read_only).await;
        cluster.wait_replicated().await.expect("the standbys have the setting");
    }
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_all_sessions_of_one_pool_does_not_eject_the_pod() {
    let cluster = start(["a".into(), "b".into()]).await;
    run(&cluster, "CREATE DATABASE tenant OWNER b").await;
    cluster.wait_replicated().await.expect("the standbys have the database");
    let a = tenant_with(&cluster, "a", cluster.database(), "&min_idle=2").build().expect("a pool");
    let b = tenant_with(&cluster, "b", "tenant", "&min_idle=4").share_with(&a).build().expect("a pool");
    let open = |pool: &Pool, count| pool.status().endpoints.iter().filter(|pod| pod.open >= count).count() == 3;
    until(LIMIT, "connections are open", || open(&a, 2) && open(&b, 4)).await;
    let mut events = a.events();
    let before = sessions_of(&cluster, "a").await;
    assert!(before.len() >= 6, "{before:?}");
    run(&cluster, "DROP DATABASE tenant WITH (FORCE)").await;
    let error = async {
        loop {
            if let Err(error) = b.get().await {
                break error;
            }
        }
    };
    let error = tokio::time::timeout(LIMIT, error).await.expect("the database is missing");
    println!("{error}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(identity(&a).await.0, "a");
    }
    let events = received(&mut events).await;
    assert!(!events.iter().any(is_ejection), "{events:?}");
    let after = sessions_of(&cluster, "a").await;
    assert!(before.is_subset(&after), "the sessions of the other pool stay open: {before:?}, {after:?}");

    // A crash of the server ends the sessions of both.
    let mut events = a.events();
    cluster.kill(2).await.expect("the server is killed");
    until(LIMIT, "the Pod is ejected", || in_state(&a, State::Ejected) == 1).await;
    assert!(received(&mut events).await.iter().any(is_ejection));
    cluster.shutdown().await.expect("the cluster stops");
}

/// Returns the sessions of a user without those that only probes use, each with its Pod and process ID.
async fn sessions_of(cluster: &Cluster, user: &str) -> BTreeSet<(usize, i32)> {
    let mut sessions = BTreeSet::new();
    for pod in 0..3 {
        let client = cluster.client(pod).await.expect("the superuser connects");
        let query = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND application_name NOT LIKE '%/probe'";
        let rows = client.query(query, &[&user]).await.expect("the query succeeds");
        sessions.extend(rows.iter().map(|row| (pod, row.get::<_, i32>(0))));
    }
    sessions
}
