use std::{io, time::Duration};

use podpool::simulation::TcpOptions;
use podpool_simulation::{network::Link, world::World};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::{Pair, echo, keepalive_only, podpool_options};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_connection_survives_a_partition_of_10_seconds() {
    World::run(1, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        echo(&mut stream, b"before").await;
        pair.set_partition(true);
        sleep(10 * SECOND).await;
        pair.set_partition(false);
        assert!(echo(&mut stream, b"after").await <= Duration::from_millis(4));
    });
}

#[test]
fn a_busy_connection_survives_a_partition_of_10_seconds_and_delivers_the_data_after_it() {
    World::run(2, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        echo(&mut stream, b"before").await;
        pair.set_partition(true);
        let (client, start) = (pair.client.clone(), Instant::now());
        let echoed = client.run(async move {
            echo(&mut stream, b"during").await;
            start.elapsed()
        });
        sleep(10 * SECOND).await;
        pair.set_partition(false);
        // Retransmissions happen after 0.2, 0.6, 1.4, 3.0, 6.2 and 12.6 s.
        let took = echoed.await.unwrap();
        assert!((12 * SECOND..14 * SECOND).contains(&took), "{took:?}");
    });
}

#[test]
fn one_direction_of_a_partition_is_enough_to_delay_both() {
    World::run(3, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        let (network, from, to) = (pair.world.network().clone(), pair.server.node(), pair.client.node());
        network.set_link(from, to, Link { blocked: true, ..Link::default() });
        stream.write_all(b"x").await.unwrap();
        assert!(timeout(5 * SECOND, stream.read_u8()).await.is_err());
        network.set_link(from, to, Link::default());
        assert_eq!(timeout(8 * SECOND, stream.read_u8()).await.unwrap().unwrap(), b'x');
    });
}

#[test]
fn without_a_user_timeout_a_partition_ends_a_busy_connection_after_15_retries() {
    World::run(4, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        echo(&mut stream, b"before").await;
        pair.set_partition(true);
        let start = Instant::now();
        stream.write_all(b"lost").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // 924.6 s with the shortest time-out (Linux: tcp_retries2).
        let took = start.elapsed();
        assert!((924 * SECOND..930 * SECOND).contains(&took), "{took:?}");
    });
}

#[test]
fn the_user_timeout_ends_a_busy_connection() {
    World::run(5, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(podpool_options()).await;
        echo(&mut stream, b"before").await;
        pair.set_partition(true);
        let start = Instant::now();
        stream.write_all(b"lost").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), 3 * SECOND);
    });
}

#[test]
fn keepalive_ends_an_idle_connection() {
    let silence = |options| {
        World::run(6, async move |world| {
            let pair = Pair::new(world);
            pair.start_echo();
            let mut stream = pair.connect(options).await;
            pair.set_partition(true);
            let start = Instant::now();
            assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            start.elapsed()
        })
    };
    // 5 s until the first probe, and then 3 probes with 1 s each.
    assert_eq!(silence(keepalive_only()), 8 * SECOND);
    // With a user time-out of 3 s, one probe without a response is enough (Linux: tcp_keepalive_timer).
    assert_eq!(silence(podpool_options()), 6 * SECOND);
}

#[test]
fn keepalive_leaves_an_idle_connection_open_while_the_peer_responds() {
    World::run(7, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(podpool_options()).await;
        let packets = pair.world.network().packets();
        sleep(600 * SECOND).await;
        let probes = (pair.world.network().packets() - packets) / 2;
        assert!((115..=121).contains(&probes), "{probes} probes");
        echo(&mut stream, b"still open").await;
    });
}

#[test]
fn a_half_open_connection_is_silent_until_its_timeout() {
    World::run(8, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut without = pair.connect(TcpOptions::default()).await;
        let mut with = pair.connect(keepalive_only()).await;
        pair.server.crash();
        let start = Instant::now();
        assert_eq!(with.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), 8 * SECOND);
        assert!(timeout(3600 * SECOND, without.read_u8()).await.is_err());
        pair.server.boot();
        assert!(timeout(3600 * SECOND, without.read_u8()).await.is_err());
        without.write_all(b"hello?").await.unwrap();
        assert_eq!(without.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_killed_process_closes_its_connections_and_its_port() {
    World::run(9, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        echo(&mut stream, b"before").await;
        pair.server.kill();
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
        let refused = pair.client.connect(pair.address(), TcpOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        pair.start_echo();
        echo(&mut pair.connect(TcpOptions::default()).await, b"after").await;
        // A new process can open the same port immediately.
        pair.server.kill();
        pair.start_echo();
        echo(&mut pair.connect(TcpOptions::default()).await, b"after the second kill").await;
    });
}

#[test]
fn a_client_that_has_crashed_can_use_its_port_again_although_the_server_has_the_former_connection() {
    World::run(12, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let options = TcpOptions { local: Some(([10, 0, 0, 1], 4000).into()), ..TcpOptions::default() };
        let mut former = pair.connect(options).await;
        echo(&mut former, b"before").await;
        pair.client.crash();
        pair.client.boot();
        let start = Instant::now();
        let mut stream = pair.connect(options).await;
        // The second SYN, after 1 s, finds no former connection.
        assert!((SECOND..SECOND * 11 / 10).contains(&start.elapsed()), "{:?}", start.elapsed());
        echo(&mut stream, b"after").await;
        assert!(former.write_u8(0).await.is_err());
    });
}

#[test]
fn a_firewall_can_reset_connections() {
    World::run(10, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        pair.world.network().reset_connections(pair.client.node(), pair.server.node());
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        echo(&mut pair.connect(TcpOptions::default()).await, b"a new connection").await;
    });
}

#[test]
fn loss_delays_a_message_by_the_retransmission_timeout() {
    World::run(11, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut stream = pair.connect(TcpOptions::default()).await;
        pair.set_links(Link { loss: 0.1, ..Link::default() });
        let mut delayed = 0;
        for _ in 0..1000 {
            let took = echo(&mut stream, b"message").await;
            assert!(took < 10 * SECOND, "{took:?}");
            delayed += usize::from(took >= Duration::from_millis(200));
        }
        assert!((100..300).contains(&delayed), "{delayed} of 1000 messages");
    });
}
