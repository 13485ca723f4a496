//! Defines fuzz targets that parse arbitrary bytes as the traffic of a connection. They assert that the result does not
//! depend on how a stream is split into reads and writes, and that no more bytes are read than the limits allow.

use std::{
    cell::RefCell,
    error::Error,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::ChannelBinding;

use super::{
    auth::Gate,
    backend::{BackendMessage, BackendReader},
    connection_observer::ConnectionObserver,
    credentials::{Login, Source},
    dial::Dialer,
    frontend::FrontendReader,
    message_limits::{ConnectionState, MAX_RESPONSE, Violation},
    record::Record,
    server_facts::{self, FactQuery},
    tap::Tap,
    tls::{Io, TlsSession},
};
use crate::{
    config::{Config, Security},
    endpoint::Endpoint,
    error::Phase,
    event::Emitter,
};

/// Returns the bytes after the first byte, once as a whole and once in pieces. The first byte is the length of each
/// piece.
fn pieces(bytes: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let (&length, rest) = bytes.split_first()?;
    Some((rest, rest.chunks(usize::from(length).max(1))))
}

/// Feeds the parser of the driver's messages. Asserts that the number of requests does not depend on how the bytes are
/// split into writes, and that a change of session state is found in each case.
pub fn requests(bytes: &[u8]) {
    let Some((whole, pieces)) = pieces(bytes) else { return };
    let [mut in_pieces, mut at_once] = [(); 2].map(|()| FrontendReader::new(true));
    let counted: u32 = pieces.map(|piece| in_pieces.feed(piece)).sum();
    assert_eq!(counted, at_once.feed(whole), "the split changes the number of requests");
    let (in_pieces, at_once) = (in_pieces.take_session_change(), at_once.take_session_change());
    assert!(in_pieces.is_some() || at_once.is_none(), "the split hides a change of session state");
    assert!(counted as usize <= whole.len() / 4, "more requests than headers fit into the bytes");
}

/// Feeds the parser of the server's messages until the bytes end or a limit is violated. Asserts that the result does
/// not depend on how the bytes are split into reads.
pub fn replies(bytes: &[u8]) {
    let Some((whole, pieces)) = pieces(bytes) else { return };
    let state = ConnectionState { in_service: whole.len() % 2 == 0, awaiting_response: whole.len() % 3 == 0 };
    let from_whole = read_all([whole].into_iter(), state);
    let from_pieces = read_all(pieces, state);
    assert_eq!(from_whole, from_pieces, "the split changes the messages");
    assert!(from_pieces.0.len() <= whole.len() / 5, "more messages than headers fit into the bytes");
}

fn read_all<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    state: ConnectionState,
) -> (Vec<BackendMessage>, Option<Violation>) {
    let (mut backend, mut messages) = (BackendReader::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match backend.next(&mut piece, state) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
    }
    (messages, None)
}

/// A server that sends fixed bytes in pieces, regardless of the client's messages, and then closes the connection. In
/// the bytes, `{nonce}` is a placeholder for the SCRAM nonce that the client sent.
struct Server {
    bytes: Vec<u8>,
    piece: usize,
    /// The bytes of the client's last write.
    received: Vec<u8>,
    sent: Arc<AtomicUsize>,
}

/// The placeholder for the client's nonce.
const NONCE: &[u8] = b"{nonce}";

impl Server {
    fn new(bytes: &[u8], piece: u8) -> (Self, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let piece = usize::from(piece).max(1);
        (Self { bytes: bytes.to_vec(), piece, received: Vec::new(), sent: sent.clone() }, sent)
    }

    /// Replaces the placeholder with the client's nonce if the client has sent one.
    fn insert_nonce(&mut self) {
        let sent = self.sent.load(Ordering::Relaxed);
        let place = self.bytes[sent..].windows(NONCE.len()).position(|bytes| bytes == NONCE);
        let start = self.received.windows(2).position(|bytes| bytes == b"r=");
        if let (Some(place), Some(start)) = (place, start) {
            let nonce = self.received[start + 2..].to_vec();
            self.bytes.splice(sent + place..sent + place + NONCE.len(), nonce);
        }
    }
}

impl AsyncRead for Server {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.insert_nonce();
        let sent = self.sent.load(Ordering::Relaxed);
        let piece = self.piece.min(buf.remaining()).min(self.bytes.len() - sent);
        buf.put_slice(&self.bytes[sent..sent + piece]);
        self.sent.store(sent + piece, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.received.clear();
        self.received.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Server {
    fn tls(&self) -> Option<TlsSession> {
        None
    }

    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// Returns an observer that ignores all evidence.
fn no_observer() -> ConnectionObserver {
    ConnectionObserver::new(|_| {})
}

/// Simulates a connection on which the client writes and the server sends in turns. The first byte of each turn selects
/// the side and the number of bytes. Asserts that the record, the observed state of the connection, matches the bytes.
pub fn tap(bytes: &[u8]) {
    let Some((&flags, mut script)) = bytes.split_first() else { return };
    let record = Arc::new(Record::default());
    if flags & 1 == 1 {
        record.set_in_service();
    }
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    let mut turns = Vec::new();
    while let Some((&turn, rest)) = script.split_first() {
        let (piece, rest) = rest.split_at(usize::from(turn >> 1).min(rest.len()));
        (if turn & 1 == 1 { &mut from_server } else { &mut from_client }).extend_from_slice(piece);
        turns.push((turn & 1 == 1, piece.len()));
        script = rest;
    }
    let (server, sent) = Server::new(&from_server, u8::MAX);
    record.track_session_changes();
    let mut tap = Tap::new(Box::new(server), record.clone(), no_observer(), Gate::new(None, Security::Default, None));
    let mut cx = Context::from_waker(Waker::noop());
    let (mut written, mut requests, mut frontend) = (0, 0, FrontendReader::new(true));
    for (is_server, length) in turns {
        if is_server {
            let mut buffer = vec![0; length];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut tap).poll_read(&mut cx, &mut buffer);
            if let Poll::Ready(Err(error)) = read {
                assert!(error.get_ref().is_some_and(|cause| cause.is::<Violation>()), "{error}");
                let stopped = sent.load(Ordering::Relaxed);
                let mut more = [0; 16];
                let again = Pin::new(&mut tap).poll_read(&mut cx, &mut ReadBuf::new(&mut more));
                assert!(matches!(again, Poll::Ready(Err(_))), "a read succeeds after a violation");
                assert_eq!(sent.load(Ordering::Relaxed), stopped, "bytes were read after a violation");
                return;
            }
        } else {
            let piece = &from_client[written..written + length];
            assert!(matches!(Pin::new(&mut tap).poll_write(&mut cx, piece), Poll::Ready(Ok(n)) if n == length));
            requests += frontend.feed(piece);
            written += length;
        }
        assert!(record.outstanding() <= requests, "more requests are outstanding than were sent");
        assert_eq!(record.sent(), u64::from(requests));
        assert!(!record.is_clean() || record.status() == b'I' && record.outstanding() == 0);
    }
}

thread_local! {
    static DIALER: RefCell<Option<(tokio::runtime::Runtime, Dialer)>> = const { RefCell::new(None) };
}

/// Simulates a server during startup and a first health check. Asserts that the dial ends, that an error names its
/// phase, and that no more bytes are read than the limits allow.
pub fn dial(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    DIALER.with_borrow_mut(|dialer| {
        let (runtime, dialer) = dialer.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let config: Config = "postgres://user:password@127.0.0.1/database".parse().expect("a URL");
            let dialer = {
                let events = Arc::new(Emitter::new("test".into()));
                let source = Source::new(&config, None, events.clone());
                Dialer::new(&config, source, None, &events).expect("a dialer")
            };
            (runtime, dialer)
        });
        let (server, sent) = Server::new(bytes, piece);
        let record = Arc::new(Record::default());
        let login = Login { user: "user".into(), password: Some("password".into()) };
        let endpoint = Endpoint::new(([127, 0, 0, 1], 5432).into());
        runtime.block_on(async {
            match dialer.start(&endpoint, Box::new(server), &login, None, record.clone(), no_observer()).await {
                Ok(dialled) => drop(
                    server_facts::probe(
                        server_facts::Session { client: &dialled.client, record: &dialled.record, pooled: false },
                        &mut FactQuery::default(),
                    )
                    .await,
                ),
                Err(error) => {
                    assert_ne!(error.phase, Phase::Tcp, "there is no TCP connection in this target");
                    let text = format!("{error}: {}", error.source().expect("a cause"));
                    assert!(text.starts_with("failed in "), "{text}");
                }
            }
            tokio::task::yield_now().await; // lets the driver end
        });
        // At most four responses (to startup, the role query, the Sync and the state query), and one read buffer.
        assert!(sent.load(Ordering::Relaxed) <= 4 * MAX_RESPONSE + (64 << 10));
        assert!(!record.is_in_service());
    });
}
