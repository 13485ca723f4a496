//! Messages that tokio-postgres does not send.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, timeout},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn startup(version: i32, parameters: &str) -> Vec<u8> {
    let length = i32::try_from(parameters.len()).unwrap() + 9;
    [&length.to_be_bytes()[..], &version.to_be_bytes(), parameters.as_bytes(), b"\0"].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap() + 4;
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// Reads one message. Returns `None` if none arrives, or at the end of the stream.
async fn read(stream: &mut DuplexStream) -> Option<(char, Vec<u8>)> {
    let read = async {
        let kind = stream.read_u8().await.ok()?;
        let mut body = vec![0; stream.read_u32().await.ok()? as usize - 4];
        stream.read_exact(&mut body).await.ok()?;
        Some((char::from(kind), body))
    };
    timeout(SECOND, read).await.ok().flatten()
}

/// Reads messages until none arrives any more. Returns their types.
async fn kinds(stream: &mut DuplexStream) -> String {
    let mut kinds = String::new();
    while let Some((kind, _)) = read(stream).await {
        kinds.push(kind);
    }
    kinds
}

async fn session(server: &Arc<Server>) -> DuplexStream {
    let mut stream = stream(server);
    stream.write_all(&startup(3 << 16, "user\0app\0")).await.unwrap();
    assert!(kinds(&mut stream).await.ends_with("KZ"));
    stream
}

#[tokio::test(start_paused = true)]
async fn negotiates_newer_minor_versions_and_unknown_options() {
    let mut stream = stream(&primary().await);
    stream.write_all(&startup(3 << 16 | 2, "user\0app\0_pq_.option\0on\0")).await.unwrap();
    let (kind, body) = read(&mut stream).await.unwrap();
    assert_eq!((kind, &body[..]), ('v', &b"\0\x03\0\0\0\0\0\x01_pq_.option\0"[..]));
    assert!(kinds(&mut stream).await.ends_with("KZ"));
}

#[tokio::test(start_paused = true)]
async fn refuses_other_major_versions() {
    let mut stream = stream(&primary().await);
    stream.write_all(&startup(2 << 16, "")).await.unwrap();
    let (kind, body) = read(&mut stream).await.unwrap();
    assert!(kind == 'E' && body.windows(7).any(|field| field == b"C0A000\0"), "{body:?}");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flush_sends_responses_without_ending_the_sequence() {
    let server = primary().await;
    let mut stream = session(&server).await;
    let requests = [
        message(b'P', b"\0INSERT INTO history (id) VALUES (1)\0\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
    ];
    stream.write_all(&requests.concat()).await.unwrap();
    assert_eq!(kinds(&mut stream).await, "");
    stream.write_all(&message(b'H', b"")).await.unwrap();
    assert_eq!(kinds(&mut stream).await, "12nC");
    // The commit follows with the Sync only.
    assert_eq!(server.cluster().history().writes(), []);
    stream.write_all(&message(b'S', b"")).await.unwrap();
    assert_eq!(kinds(&mut stream).await, "Z");
    assert!(server.cluster().history().writes()[0].acknowledged.is_some());
}

#[tokio::test(start_paused = true)]
async fn skips_requests_after_an_error_until_the_sync() {
    let mut stream = session(&primary().await).await;
    let requests = [
        message(b'B', b"\0missing\0\0\0\0\0\0\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
        message(b'C', b"Smissing\0"),
        message(b'S', b""),
        message(b'Q', b" ; \0"),
    ];
    stream.write_all(&requests.concat()).await.unwrap();
    assert_eq!(kinds(&mut stream).await, "EZ3ZIZ");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_message_ends_the_session() {
    let server = primary().await;
    let mut stream = session(&server).await;
    stream.write_all(&message(b'?', b"")).await.unwrap();
    let (kind, body) = read(&mut stream).await.unwrap();
    assert!(kind == 'E' && body.starts_with(b"SFATAL\0VFATAL\0C08P01\0"), "{body:?}");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(server.status().sessions, 0);
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_login_takes_too_long() {
    let server = primary().await;
    let mut stream = stream(&server);
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(began.elapsed().as_secs(), 60);
}
