//! What the errors of a handshake mean.

use std::{error, io};

use crate::{
    error::{BoxError, TlsError, TlsReason},
    wire::classify::Class,
};

/// A connection that did not get to TLS.
#[derive(Debug)]
pub(crate) struct TlsFailure {
    pub(crate) class: Class,
    /// The handshake itself failed: plain text may do.
    pub(crate) in_handshake: bool,
    pub(crate) cause: BoxError,
}

impl TlsFailure {
    /// It will be the same at the next try.
    pub(super) fn permanent(error: TlsError) -> Self {
        Self { class: Class::Tls, in_handshake: false, cause: error.into() }
    }

    /// The socket broke.
    pub(super) fn broken(error: io::Error) -> Self {
        Self { class: Class::NotReady, in_handshake: false, cause: error.into() }
    }

    /// The handshake failed.
    pub(super) fn handshake(error: BoxError) -> Self {
        let (class, cause) = judge(error);
        Self { class, in_handshake: true, cause }
    }
}

fn judge(error: BoxError) -> (Class, BoxError) {
    if error.is::<TlsError>() {
        return (Class::Tls, error);
    }
    if let Some(error) = told(&*error) {
        return (Class::Tls, error.into());
    }
    if is_broken(&*error) {
        return (Class::NotReady, error);
    }
    (Class::Tls, TlsError::new(TlsReason::Other, "the TLS connector failed").with_source(error).into())
}

/// What rustls says in an error of this chain, if it does: by our own connector, or by a user's. An alert can come as
/// late as start-up: in TLS 1.3, the server looks at our certificate when the handshake is over for us.
pub(crate) fn told(error: &(dyn error::Error + 'static)) -> Option<TlsError> {
    #[cfg(feature = "rustls")]
    return chain(error).find_map(super::rustls::told);
    #[cfg(not(feature = "rustls"))]
    {
        let _ = error;
        None
    }
}

/// Whether it is the network's trouble.
fn is_broken(error: &(dyn error::Error + 'static)) -> bool {
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

/// An error and its causes, with those that an I/O error carries and does not count among its own.
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
    fn a_broken_socket_is_the_networks_trouble_and_anything_else_of_a_connectors_is_tls() {
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
        let named = TlsFailure::handshake("no such key on the card".into());
        let cause = named.cause.downcast_ref::<TlsError>().unwrap();
        assert_eq!(cause.reason(), TlsReason::Other);
        assert_eq!(error::Error::source(cause).unwrap().to_string(), "no such key on the card");
    }
}
