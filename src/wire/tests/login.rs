//! Checks that the driver receives no authentication request that the gate refuses, however the server's bytes are
//! split.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use proptest::{prelude::*, sample::select};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};

use super::super::{
    auth::{AuthRequest, Gate},
    connection_observer::ConnectionObserver,
    message_limits::Violation,
    record::Record,
    tap::Tap,
    tls::TlsSession,
};
use crate::config::{RequireAuth, Security};

/// Messages of a server before ReadyForQuery: authentication requests, and messages that may be joined with them.
const MESSAGES: [(u8, &[u8]); 14] = [
    (b'R', b"\0\0\0\x00"),
    (b'R', b"\0\0\0\x03"),
    (b'R', b"\0\0\0\x05salt"),
    (b'R', b"\0\0\0\x07"),
    (b'R', b"\0\0\0\x09"),
    (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
    (b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
    (b'R', b"\0\0\0\x0aOAUTHBEARER\0\0"),
    (b'R', b"\0\0\0\x0br=nonce,s=c2FsdA==,i=4096"),
    (b'R', b"\0\0\0\x0cv=proof"),
    (b'N', b"SNOTICE\0C00000\0Mtext\0\0"),
    (b'S', b"in_hot_standby\0off\0"),
    (b'v', b"\0\0\0\0\0\0\0\0"),
    (b'K', b"\0\0\0\x01\0\0\0\x02"),
];

/// Lets the driver read the bytes in pieces of these lengths. Returns the bytes that it receives, and the violation.
fn received(bytes: &[u8], gate: Gate, pieces: impl Iterator<Item = usize>) -> (Vec<u8>, Option<Violation>) {
    let (stream, mut server) = duplex(1 << 12);
    let mut cx = Context::from_waker(Waker::noop());
    let written = Pin::new(&mut server).poll_write(&mut cx, bytes);
    assert!(matches!(written, Poll::Ready(Ok(length)) if length == bytes.len()));
    let mut tap = Tap::new(Box::new(stream), Arc::new(Record::default()), ConnectionObserver::new(|_| {}), gate);
    let (mut all, mut violation) = (Vec::new(), None);
    for piece in pieces {
        let mut buffer = vec![0; piece];
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(&mut tap).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                assert_eq!(violation, None, "a read succeeds after a violation");
                all.extend_from_slice(buffer.filled());
            }
            Poll::Ready(Err(error)) => {
                violation = error.get_ref().and_then(|cause| cause.downcast_ref::<Violation>()).cloned();
                assert!(violation.is_some(), "{error}");
            }
            Poll::Pending => {}
        }
    }
    (all, violation)
}

proptest! {
    #[test]
    fn the_driver_receives_no_refused_request_however_it_is_split(
        messages in prop::collection::vec(select(&MESSAGES[..]), 1..8),
        list in select(&["", "none", "password", "scram-sha-256,md5", "scram-sha-256", "!none", "!md5"][..]),
        verified in select(&[None, Some(false), Some(true)][..]),
    ) {
        let allowed: Option<RequireAuth> = (!list.is_empty()).then(|| list.parse().unwrap());
        let session = verified.map(|verified| TlsSession { verified, version: None, cipher: None, fingerprint: None });
        let gate = || Gate::new(allowed, Security::Default, session.as_ref());
        let (mut bytes, mut refused, mut expected) = (Vec::new(), None, gate());
        for (kind, body) in messages {
            bytes.push(kind);
            bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
            if let (None, b'R', Some(request)) = (&refused, kind, AuthRequest::parse(body)) {
                refused = expected.check(request).err().map(|error| (bytes.len(), error));
            }
        }
        let check = |(all, violation): (Vec<u8>, Option<Violation>)| {
            assert!(bytes.starts_with(&all));
            match &refused {
                Some((end, error)) => {
                    assert!(all.len() < *end, "the driver has received the whole request");
                    assert_eq!(violation, Some(Violation::Authentication(error.clone())));
                }
                None => assert_eq!((all.len(), violation), (bytes.len(), None)),
            }
        };
        check(received(&bytes, gate(), std::iter::repeat_n(1, bytes.len() + 1)));
        for split in 1..bytes.len() {
            check(received(&bytes, gate(), [split, bytes.len() - split, 1].into_iter()));
        }
        let (all, violation) = received(&bytes, gate(), [bytes.len(), 1].into_iter());
        if refused.is_some() {
            assert!(all.is_empty(), "messages that arrive with a refused request are withheld too");
        }
        check((all, violation));
    }
}
