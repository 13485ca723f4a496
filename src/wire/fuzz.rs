//! Bytes of a connection, and what must hold whatever they are: how they are cut says nothing, and no more of them is
//! taken than there are bounds for.

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
    backend::{BackendMessage, BackendReader},
    bounds::{self, Allowed, Violation},
    connection_observer::ConnectionObserver,
    credentials::{Login, Source},
    dial::Dialer,
    facts,
    frontend::Frontend,
    record::Record,
    tap::Tap,
    tls::Io,
};
use crate::{config::Config, error::Phase, event::Emitter};

/// Pieces of the rest, each as long as the first byte says.
fn pieces(bytes: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let (&length, rest) = bytes.split_first()?;
    Some((rest, rest.chunks(usize::from(length).max(1))))
}

/// What the driver writes.
pub fn requests(bytes: &[u8]) {
    let Some((whole, pieces)) = pieces(bytes) else { return };
    let mut frontend = Frontend::new();
    let counted: u32 = pieces.map(|piece| frontend.feed(piece)).sum();
    assert_eq!(counted, Frontend::new().feed(whole));
    assert!(counted as usize <= whole.len() / 4, "each has a header");
}

/// What the server sends, read to its end or to the first violation of a bound.
pub fn replies(bytes: &[u8]) {
    let Some((whole, pieces)) = pieces(bytes) else { return };
    let allowed = Allowed { trusted: whole.len() % 2 == 0, asked: whole.len() % 3 == 0 };
    let at_once = hear([whole].into_iter(), allowed);
    let cut = hear(pieces, allowed);
    assert_eq!(at_once, cut);
    assert!(cut.0.len() <= whole.len() / 5, "each has a header");
}

fn hear<'a>(pieces: impl Iterator<Item = &'a [u8]>, allowed: Allowed) -> (Vec<BackendMessage>, Option<Violation>) {
    let (mut replies, mut heard) = (BackendReader::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match replies.next(&mut piece, allowed) {
                Ok(Some(reply)) => heard.push(reply),
                Ok(None) => break,
                Err(violation) => return (heard, Some(violation)),
            }
        }
    }
    (heard, None)
}

/// A server that sends the same bytes whatever it hears, in pieces, and closes. `{nonce}` in them stands for what the
/// client proposed for SCRAM.
struct Server {
    bytes: Vec<u8>,
    piece: usize,
    reads: Vec<u8>,
    sent: Arc<AtomicUsize>,
}

/// What stands for the client's nonce.
const NONCE: &[u8] = b"{nonce}";

impl Server {
    fn new(bytes: &[u8], piece: u8) -> (Self, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let piece = usize::from(piece).max(1);
        (Self { bytes: bytes.to_vec(), piece, reads: Vec::new(), sent: sent.clone() }, sent)
    }

    /// Puts the client's nonce where it belongs, once it is known.
    fn insert_nonce(&mut self) {
        let sent = self.sent.load(Ordering::Relaxed);
        let place = self.bytes[sent..].windows(NONCE.len()).position(|bytes| bytes == NONCE);
        let nonce = self.reads.windows(2).position(|bytes| bytes == b"r=");
        if let (Some(place), Some(nonce)) = (place, nonce) {
            let nonce = self.reads[nonce + 2..].to_vec();
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
        self.reads.clear();
        self.reads.extend_from_slice(bytes);
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
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

fn nobody() -> ConnectionObserver {
    ConnectionObserver::new(|_| {})
}

/// A connection on which the client writes and the server sends, in turns: each piece of the bytes begins with a byte that
/// says who, and how much. What the tap then says of the connection must follow from it.
pub fn tap(bytes: &[u8]) {
    let Some((&trusted, mut script)) = bytes.split_first() else { return };
    let record = Arc::new(Record::default());
    if trusted & 1 == 1 {
        record.trust();
    }
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    let mut turns = Vec::new();
    while let Some((&turn, rest)) = script.split_first() {
        let (piece, rest) = rest.split_at(usize::from(turn >> 1).min(rest.len()));
        (if turn & 1 == 1 { &mut from_server } else { &mut from_client }).extend_from_slice(piece);
        turns.push((turn & 1 == 1, piece.len()));
        script = rest;
    }
    let (server, taken) = Server::new(&from_server, u8::MAX);
    let mut tap = Tap::new(Box::new(server), record.clone(), nobody());
    let mut cx = Context::from_waker(Waker::noop());
    let (mut written, mut requests, mut before) = (0, 0, Frontend::new());
    for (server_speaks, length) in turns {
        if server_speaks {
            let mut buffer = vec![0; length];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut tap).poll_read(&mut cx, &mut buffer);
            if let Poll::Ready(Err(error)) = read {
                assert!(error.get_ref().is_some_and(|cause| cause.is::<Violation>()), "{error}");
                let stopped = taken.load(Ordering::Relaxed);
                let mut more = [0; 16];
                let again = Pin::new(&mut tap).poll_read(&mut cx, &mut ReadBuf::new(&mut more));
                assert!(matches!(again, Poll::Ready(Err(_))), "it stays so");
                assert_eq!(taken.load(Ordering::Relaxed), stopped, "nothing more is read");
                return;
            }
        } else {
            let piece = &from_client[written..written + length];
            assert!(matches!(Pin::new(&mut tap).poll_write(&mut cx, piece), Poll::Ready(Ok(n)) if n == length));
            requests += before.feed(piece);
            written += length;
        }
        assert!(record.outstanding() <= requests, "no more can be owed than was asked");
        assert_eq!(record.sent(), u64::from(requests));
        assert!(!record.is_clean() || record.status() == b'I' && record.outstanding() == 0);
    }
}

thread_local! {
    static DIALLING: RefCell<Option<(tokio::runtime::Runtime, Dialer)>> = const { RefCell::new(None) };
}

/// A server's side of a start-up and of a first probe: the dial comes to an end, with an error that tells its phase if it
/// is one, and takes no more than there are bounds for.
pub fn dial(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    DIALLING.with_borrow_mut(|dialling| {
        let (runtime, dialer) = dialling.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let config: Config = "postgres://user:password@127.0.0.1/database".parse().expect("a URL");
            let dialer = {
                let events = Arc::new(Emitter::new());
                let source = Source::new(&config, None, events.clone());
                Dialer::new(&config, source, None, &events).expect("a dialer")
            };
            (runtime, dialer)
        });
        let (server, taken) = Server::new(bytes, piece);
        let record = Arc::new(Record::default());
        let login = Login { user: "user".into(), password: Some("password".into()) };
        runtime.block_on(async {
            match dialer.start(Box::new(server), false, &login, record.clone(), nobody()).await {
                Ok(dialled) => drop(facts::probe(&dialled).await),
                Err(error) => {
                    assert_ne!(error.phase, Phase::Tcp, "that is behind us");
                    let said = format!("{error}: {}", error.source().expect("a cause"));
                    assert!(said.starts_with("failed in "), "{said}");
                }
            }
            tokio::task::yield_now().await; // to its end, for the driver
        });
        // Start-up, the question for the role, the Sync and the facts, and a buffer's rest.
        assert!(taken.load(Ordering::Relaxed) <= 4 * bounds::ANSWER + (64 << 10));
        assert!(!record.is_trusted());
    });
}
