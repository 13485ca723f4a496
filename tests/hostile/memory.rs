//! However much a server sends, the process keeps its memory, and the error says what was too much.

use std::time::{Duration, Instant};

use podpool::{Config, Pool, Target};

use crate::{
    common::until,
    server::{Manner, Server},
};

/// A second of what a server sends is hundreds of times as much.
const GROWN: usize = 48 << 20;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux's /proc");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}

async fn floods(manner: Manner) {
    let server = Server::start(manner).await;
    let url = server.url("sslmode=disable&connect_timeout=3s&pool_size=4");
    let config: Config = url.parse().expect("a URL");
    let (before, mut most) = (resident(), 0);
    let pools: Vec<_> = (0..4).map(|_| Pool::builder(config.clone()).build().expect("a pool")).collect();
    for pool in &pools {
        // Whoever gets through asks something, too.
        let calls = async {
            loop {
                if let Ok(client) = pool.get_for(Target::Any).await {
                    drop(client.check_connection().await);
                }
                // An error may come at once, again and again.
                tokio::task::yield_now().await;
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(50), calls).await);
    }
    let began = Instant::now();
    until(Duration::from_secs(10), "it has had time", || {
        most = most.max(resident());
        began.elapsed() > Duration::from_millis(2500)
    })
    .await;
    let grown = most.saturating_sub(before);
    let trouble: Vec<_> = pools[0].status().endpoints.into_iter().filter_map(|pod| pod.last_failure).collect();
    println!("{manner:?}: {} KiB more resident at most; {trouble:?}", grown / 1024);
    assert!(grown < GROWN, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_any_kind_is_cut_short() {
    for manner in [
        Manner::Garbage,
        Manner::GarbageBodies,
        Manner::AnnouncesMuch,
        Manner::EndlessNotices,
        Manner::EndlessParameters,
        Manner::ReadyThenParameters,
        Manner::EndlessRows,
        Manner::LargeRow,
    ] {
        floods(manner).await;
    }
}
