use crate::{
    config::Limits,
    system::{Keepalive, SocketOptions},
};

/// Returns the TCP options that make the operating system detect a dead peer.
pub(super) fn socket_options(limits: &Limits) -> SocketOptions {
    let keepalive = Keepalive {
        idle: limits.keepalives_idle,
        interval: limits.keepalives_interval,
        count: limits.keepalives_count,
    };
    SocketOptions { local: None, user_timeout: limits.tcp_user_timeout, keepalive: Some(keepalive) }
}
