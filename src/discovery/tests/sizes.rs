//! Tests small and large responses over UDP and TCP.

use super::*;

#[tokio::test]
async fn returns_all_addresses_of_small_and_large_responses() {
    let server = start().await;
    let dns = dns(&[&server]);
    for (count, over_tcp) in [(28, 0), (29, 0), (72, 0), (73, 1), (200, 1), (1000, 1)] {
        set_many(&server, count);
        let resolution = dns.resolve().await.unwrap();
        assert_eq!(resolution.endpoints.len(), count);
        let log = server.take_log();
        assert_eq!(tcp(&log), over_tcp, "{count} addresses");
        assert_eq!(log.iter().filter(|packet| packet.kind == RecordType::A && !packet.tcp).count(), 1);
    }
}

#[tokio::test]
async fn never_uses_a_truncated_response() {
    let all: Vec<_> = (1..=5).collect();
    for keep in [3, 0] {
        let server = start().await;
        server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        let mut options = options(&[&server]);
        options.timeout = Duration::from_millis(800);
        let mut follower = Follower::new(Dns::new(options).unwrap());
        assert_eq!(follower.step().await.unwrap(), pods(&all));

        for fine in [Tcp::Answer, Tcp::CloseAfter, Tcp::Slow(Duration::from_millis(1))] {
            server.always(Fault::Truncate(keep, fine));
            assert_eq!(addresses(&follower.dns.resolve().await.unwrap()), pods(&all), "{fine:?}");
        }
        for bad in [Tcp::Close, Tcp::Reset, Tcp::Hang, Tcp::Slow(Duration::from_millis(200))] {
            server.always(Fault::Truncate(keep, bad));
            server.take_log();
            let begin = Instant::now();
            let error = follower.step().await.unwrap_err();
            assert!(!error.is_negative(), "{bad:?}: {error}");
            assert!(begin.elapsed() < Duration::from_millis(1100));
            assert_eq!(follower.set(), pods(&all), "{bad:?}");
            assert!(tcp(&server.take_log()) >= 1, "{bad:?}");
        }
        server.heal();
        assert_eq!(follower.step().await.unwrap(), pods(&all));
    }
}

#[tokio::test]
async fn reopens_a_tcp_connection_closed_between_lookups() {
    let server = start().await;
    set_many(&server, 100);
    let dns = dns(&[&server]);
    for _ in 0..3 {
        assert_eq!(dns.resolve().await.unwrap().endpoints.len(), 100);
        server.take_log();
        server.close_tcp();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let resolution = dns.resolve().await.unwrap();
        assert_eq!(resolution.endpoints.len(), 100);
        assert!(!resolution.partial);
        assert_eq!(tcp(&server.take_log()), 1);
    }
    // An unresponsive TCP connection fails one lookup. The next lookup opens another connection.
    let mut options = options(&[&server]);
    options.timeout = Duration::from_millis(300);
    let impatient = Dns::new(options).unwrap();
    assert_eq!(impatient.resolve().await.unwrap().endpoints.len(), 100);
    server.nth(Some(RecordType::A), 0, 1, Fault::Truncate(1, Tcp::Hang));
    assert_eq!(impatient.resolve().await.unwrap_err().kind(), ResolveErrorKind::Timeout);
    assert_eq!(impatient.resolve().await.unwrap().endpoints.len(), 100);
    // The server may close the connection after every response.
    server.always(Fault::Truncate(1, Tcp::CloseAfter));
    for _ in 0..3 {
        assert_eq!(dns.resolve().await.unwrap().endpoints.len(), 100);
    }
}
