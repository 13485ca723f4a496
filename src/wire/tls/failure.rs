//! Classifies the errors of a TLS handshake.

use std::{error, io};

use crate::{
    error::{BoxError, TlsError, TlsReason},
    unwind::Panic,
    wire::classify::Class,
};

/// The error of a connection on which TLS could not be established.
#[derive(Debug)]
pub(crate) struct TlsFailure {
    pub(crate) class: Class,
    /// True if the handshake itself failed, so a connection in plain text may succeed.
    pub(crate) in_handshake: bool,
    pub(crate) cause: BoxError,
}

impl TlsFailure {
    /// Returns a permanent failure: every retry would fail with the same error.
    pub(super) fn permanent(error: TlsError) -> Self {
        Self { class: Class::Tls, in_handshake: false, cause: error.into() }
    }

    /// Returns the failure for an I/O error of the socket before the handshake.
    pub(super) fn io(error: io::Error) -> Self {
        Self { class: Class::NotReady, in_handshake: false, cause: error.into() }
    }

    /// Returns the failure of a connector that panicked. The next dial may succeed, so the failure is not permanent. A
    /// panic does not lead to a retry in plain text either.
    pub(super) fn panicked(panic: Panic) -> Self {
        let error = TlsError::new(TlsReason::Other, "the TLS connector panicked").with_source(panic);
        Self { class: Class::NotReady, in_handshake: false, cause: error.into() }
    }

    /// Returns the failure for an error of the handshake.
    pub(super) fn handshake(error: BoxError) -> Self {
        let (class, cause) = classify(error);
        Self { class, in_handshake: true, cause }
    }
}

fn classify(error: BoxError) -> (Class, BoxError) {
    if error.is::<TlsError>() {
        return (Class::Tls, error);
    }
    if let Some(error) = find_tls_error(&*error) {
        return (Class::Tls, error.into());
    }
    if is_network_error(&*error) {
        return (Class::NotReady, error);
    }
    (Class::Tls, TlsError::new(TlsReason::Other, "the TLS connector failed").with_source(error).into())
}

/// Returns the first rustls error in a chain of causes as a [`TlsError`]. The error may come from podpool's own
/// connector or from one that was passed to the builder. The error can also occur during startup, after the handshake:
/// in TLS 1.3, the server verifies the client's certificate when the handshake is already complete for the client.
pub(crate) fn find_tls_error(error: &(dyn error::Error + 'static)) -> Option<TlsError> {
    #[cfg(feature = "_tls")]
    return chain(error).find_map(super::rustls::to_tls_error);
    #[cfg(not(feature = "_tls"))]
    {
        let _ = error;
        None
    }
}

/// Returns true if the chain of causes contains an I/O error that comes from the network.
fn is_network_error(error: &(dyn error::Error + 'static)) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, NotConnected,
        TimedOut, UnexpectedEof,
    };
    chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| {
        matches!(
            error.kind(),
            BrokenPipe
                | ConnectionAborted
                | ConnectionReset
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
                | NotConnected
                | TimedOut
                | UnexpectedEof
        )
    })
}

/// Returns an error and its causes. Includes an error that is wrapped in an I/O error, because `source` skips the
/// wrapped error.
fn chain<'a>(error: &'a (dyn error::Error + 'static)) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        carried.map(|carried| carried as &(dyn error::Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_network_errors_from_tls_errors() {
        for (kind, class) in [
            (io::ErrorKind::ConnectionReset, Class::NotReady),
            (io::ErrorKind::UnexpectedEof, Class::NotReady),
            (io::ErrorKind::InvalidData, Class::Tls),
        ] {
            let failure = TlsFailure::handshake(io::Error::from(kind).into());
            assert_eq!(failure.class, class, "{kind}");
            assert!(failure.in_handshake);
        }
        let deep = io::Error::other(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(TlsFailure::handshake(deep.into()).class, Class::NotReady);
        let custom = TlsFailure::handshake("no such key on the card".into());
        let cause = custom.cause.downcast_ref::<TlsError>().unwrap();
        assert_eq!(cause.reason(), TlsReason::Other);
        assert_eq!(error::Error::source(cause).unwrap().to_string(), "no such key on the card");
    }
}
