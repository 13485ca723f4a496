use std::io;

/// The error of a socket, as Linux reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    AddressInUse,
    AddressNotAvailable,
    BrokenPipe,
    Refused,
    Reset,
    TimedOut,
    Unreachable,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::from_raw_os_error(match failure {
            Failure::AddressInUse => libc::EADDRINUSE,
            Failure::AddressNotAvailable => libc::EADDRNOTAVAIL,
            Failure::BrokenPipe => libc::EPIPE,
            Failure::Refused => libc::ECONNREFUSED,
            Failure::Reset => libc::ECONNRESET,
            Failure::TimedOut => libc::ETIMEDOUT,
            Failure::Unreachable => libc::ENETUNREACH,
        })
    }
}
