//! F1 and F2: the set changes, and does not.

use podpool::Pool;

use crate::{
    common::until,
    site::{FOLLOW, Heard, Site, refreshed, set, warm},
};

fn told(site: &Site, ordinals: &[usize]) -> Vec<String> {
    ordinals.iter().map(|ordinal| site.cluster.pod(*ordinal).address().to_string()).collect()
}

async fn follow(site: &Site, pool: &Pool, ordinals: &[usize]) {
    site.publish(ordinals);
    let expected = told(site, ordinals);
    until(FOLLOW, "the set follows", || set(pool) == expected).await;
    until(FOLLOW, "every Pod is warm", || warm(pool) == ordinals.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_who_stays_keeps_its_very_connections_while_the_set_grows_and_shrinks_and_is_replaced() {
    let site = Site::start(5).await;
    site.publish(&[0, 1, 2]);
    let pool = site.pool(3, "").await;
    let heard = Heard::of(&pool);
    let mut before = Vec::new();
    for ordinal in 0..3 {
        before.push(site.sessions(ordinal).await);
        assert!(!before[ordinal].is_empty());
    }

    follow(&site, &pool, &[0, 1, 2, 3, 4]).await;
    assert_eq!((heard.count("endpoint_added"), heard.count("endpoint_drained")), (2, 0));
    for (ordinal, sessions) in before.iter().enumerate() {
        assert_eq!(site.sessions(ordinal).await, *sessions, "Pod {ordinal} after the set grew");
    }

    heard.take();
    follow(&site, &pool, &[0, 1]).await;
    assert_eq!((heard.count("endpoint_added"), heard.count("endpoint_drained")), (0, 3));
    for (ordinal, sessions) in before.iter().enumerate().take(2) {
        assert_eq!(site.sessions(ordinal).await, *sessions, "Pod {ordinal} after the set shrank");
    }
    until(FOLLOW, "who went is gone", || heard.count("endpoint_removed") == 3).await;

    // All replaced, under callers.
    site.publish(&[2, 3, 4]);
    let expected = told(&site, &[2, 3, 4]);
    let mut checkouts = 0;
    until(FOLLOW, "the pool hears of it", || set(&pool).len() > 2).await;
    while set(&pool) != expected {
        let client = pool.get().await.expect("a connection");
        client.query_one("SELECT 1", &[]).await.expect("an answer");
        checkouts += 1;
    }
    println!("{checkouts} checkouts while every Pod was replaced");
    until(FOLLOW, "every Pod is warm", || warm(&pool) == 3).await;
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_an_answer_in_another_order_or_with_duplicates_is_no_event() {
    let site = Site::start(3).await;
    let pool = site.pool(3, "").await;
    let before = [site.sessions(0).await, site.sessions(1).await, site.sessions(2).await];
    let heard = Heard::of(&pool);
    for order in [&[2, 1, 0][..], &[1, 2, 0], &[0, 0, 2, 1, 2]] {
        site.publish(order);
        refreshed(&pool, 2).await;
        assert_eq!(set(&pool), told(&site, &[0, 1, 2]));
    }
    assert_eq!(heard.take(), [""; 0]);
    for (ordinal, sessions) in before.iter().enumerate() {
        assert_eq!(site.sessions(ordinal).await, *sessions, "Pod {ordinal}");
    }
    site.end(pool).await;
}
