use std::{io, time::Duration};

use podpool_simulation::{network::Link, world::World};
use tokio::time::{Instant, timeout};

use crate::Pair;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_closed_port_refuses_a_packet() {
    World::run(1, async |world| {
        let pair = Pair::new(world);
        let (network, client) = (pair.world.network(), pair.client.node());
        let socket = network.bind_udp(client, ([0, 0, 0, 0], 0).into(), Some(pair.address())).unwrap();
        socket.send_to(b"hello", pair.address()).unwrap();
        let start = Instant::now();
        assert_eq!(socket.receive().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(start.elapsed() <= Duration::from_millis(2), "{:?}", start.elapsed());
    });
}

#[test]
fn packets_are_lost_duplicated_and_reordered() {
    World::run(2, async |world| {
        let pair = Pair::new(world);
        pair.set_links(Link { loss: 0.2, duplicates: 0.1, jitter: Duration::from_millis(50), ..Link::default() });
        let (server, client) =
            (pair.server.bind_udp(pair.address()).unwrap(), pair.client.bind_udp(([10, 0, 0, 1], 7).into()).unwrap());
        for number in 0..200u8 {
            client.send_to(&[number], pair.address()).unwrap();
        }
        let mut received = Vec::new();
        while let Ok(packet) = timeout(SECOND, server.receive()).await {
            received.push(packet.unwrap().0[0]);
        }
        let mut distinct = received.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!((140..180).contains(&distinct.len()), "{} distinct packets", distinct.len());
        assert!((5..30).contains(&(received.len() - distinct.len())), "{} duplicates", received.len() - distinct.len());
        assert!(!received.is_sorted());
    });
}

#[test]
fn a_connected_socket_ignores_other_sources() {
    World::run(3, async |world| {
        let pair = Pair::new(world);
        let other = pair.world.host("other", &[[10, 0, 0, 3].into()]);
        let (network, client) = (pair.world.network(), pair.client.node());
        let socket = network.bind_udp(client, ([0, 0, 0, 0], 0).into(), Some(pair.address())).unwrap();
        let stranger = other.bind_udp(([10, 0, 0, 3], 53).into()).unwrap();
        let server = pair.server.bind_udp(pair.address()).unwrap();
        stranger.send_to(b"forged", socket.local_address()).unwrap();
        server.send_to(b"genuine", socket.local_address()).unwrap();
        assert_eq!(socket.receive().await.unwrap().0, "genuine");
        assert!(timeout(SECOND, socket.receive()).await.is_err());
    });
}
