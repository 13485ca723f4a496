use std::{io, time::Duration};

use podpool::simulation::TcpOptions;
use podpool_simulation::{network::Link, world::World};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::{Pair, echo};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connection_works_with_a_round_trip_of_300_milliseconds() {
    World::run(1, async |world| {
        let pair = Pair::new(world);
        pair.set_links(Link { latency: SECOND * 15 / 100, jitter: Duration::ZERO, ..Link::default() });
        pair.start_echo();
        let start = Instant::now();
        let mut stream = pair.connect(TcpOptions::default()).await;
        assert_eq!(start.elapsed(), SECOND * 3 / 10);
        for _ in 0..10 {
            assert_eq!(echo(&mut stream, b"hello").await, SECOND * 3 / 10);
        }
    });
}

#[test]
fn a_transfer_larger_than_the_window_arrives_in_order_despite_loss() {
    World::run(2, async |world| {
        let pair = Pair::new(world);
        pair.set_links(Link { loss: 0.05, jitter: Duration::from_millis(20), ..Link::default() });
        pair.start_echo();
        let stream = pair.connect(TcpOptions::default()).await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let writing = {
            let sent = sent.clone();
            pair.client.run(async move {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            })
        };
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == sent, "{} of {} bytes, or bytes in another order", received.len(), sent.len());
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    World::run(3, async |world| {
        let pair = Pair::new(world);
        let listener = pair.server.listen(pair.address()).unwrap();
        let mut stream = pair.connect(TcpOptions::default()).await;
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut written = 0;
        while let Ok(count) = timeout(60 * SECOND, stream.write(&[7; 10_000])).await {
            written += count.unwrap();
        }
        assert!((300_000..500_000).contains(&written), "{written} bytes");
        let reading = pair.server.run(async move {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).await.map(|_| received.len())
        });
        drop(stream);
        assert_eq!(reading.await.unwrap().unwrap(), written);
    });
}

#[test]
fn a_closed_port_refuses_a_connection() {
    World::run(4, async |world| {
        let pair = Pair::new(world);
        let start = Instant::now();
        let refused = pair.client.connect(pair.address(), TcpOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(start.elapsed() <= Duration::from_millis(2), "{:?}", start.elapsed());
    });
}

#[test]
fn an_address_without_a_host_times_out() {
    World::run(5, async |world| {
        let pair = Pair::new(world);
        let start = Instant::now();
        let failed = pair.client.connect(([10, 0, 0, 9], 5432).into(), TcpOptions::default()).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), 127 * SECOND);
    });
}

#[test]
fn a_socket_that_is_dropped_ends_the_peers_stream() {
    World::run(6, async |world| {
        let pair = Pair::new(world);
        let listener = pair.server.listen(pair.address()).unwrap();
        let mut stream = pair.connect(TcpOptions::default()).await;
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"goodbye").await.unwrap();
        drop(peer);
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "goodbye");
        drop(stream);
        sleep(SECOND).await;
        let network = pair.world.network();
        assert_eq!((network.endpoints(pair.client.node()), network.endpoints(pair.server.node())), (0, 0));
    });
}

#[test]
fn a_socket_that_is_dropped_with_unread_data_resets_the_connection() {
    World::run(7, async |world| {
        let pair = Pair::new(world);
        let listener = pair.server.listen(pair.address()).unwrap();
        let mut stream = pair.connect(TcpOptions::default()).await;
        let (peer, _) = listener.accept().await.unwrap();
        stream.write_all(b"unread").await.unwrap();
        sleep(SECOND).await;
        drop(peer);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stream.write_u8(0).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_write_after_the_peer_has_closed_its_socket_resets_the_connection() {
    World::run(8, async |world| {
        let pair = Pair::new(world);
        let listener = pair.server.listen(pair.address()).unwrap();
        let mut stream = pair.connect(TcpOptions::default()).await;
        drop(listener.accept().await.unwrap());
        sleep(SECOND).await;
        stream.write_all(b"too late").await.unwrap();
        sleep(SECOND).await;
        assert_eq!(stream.write_u8(0).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_stopped_process_still_has_a_kernel_that_accepts_connections() {
    World::run(9, async |world| {
        let pair = Pair::new(world);
        pair.start_echo();
        let mut before = pair.connect(TcpOptions::default()).await;
        pair.server.set_paused(true);
        let mut during = pair.connect(TcpOptions::default()).await;
        during.write_all(b"x").await.unwrap();
        before.write_all(b"y").await.unwrap();
        assert!(timeout(10 * SECOND, during.read_u8()).await.is_err());
        pair.server.set_paused(false);
        assert_eq!((during.read_u8().await.unwrap(), before.read_u8().await.unwrap()), (b'x', b'y'));
    });
}
