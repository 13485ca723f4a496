//! The order in which a dial tries the names and the addresses of one server.
//!
//! A server can have several *names*: several configured hosts may resolve to it. Each one is dialed as its own entry
//! of the configuration says, with its own name for TLS and for the password file. The first one is used, and the next
//! one if the server's certificate or the login contradicts it.
//!
//! A server can have several *addresses*: those in the hosts file, and those of `localhost`. [`connect_any`] connects
//! to the first one that accepts. If it is another program that listens there, or nothing responds, the dial goes on
//! with the remaining addresses. As in libpq, the server's answer to the login ends the dial.
//!
//! All attempts share the deadline of the dial.
//!
//! [`connect_any`]: crate::wire::connect::connect_any

use std::net::SocketAddr;

use super::{DialError, Dialer, Dialled, Request};
use crate::{endpoint::Endpoint, time::Instant, wire::credentials::Login};

impl Request<'_> {
    /// Returns the request for the phases after a connection to `connected`, one of the server's addresses. If others
    /// remain, the phases get an equal share of the time, so that an address that does not respond leaves time for
    /// them.
    pub(super) fn limited_to(&self, connected: &Endpoint) -> Self {
        let others = self.endpoint.all_tcp().filter(|other| Some(*other) != connected.address().tcp()).count();
        let left = self.deadline.saturating_duration_since(Instant::now());
        match u32::try_from(others) {
            Ok(0) | Err(_) => self.clone(),
            Ok(others) => {
                let limit = left / (others + 1);
                Self { limit, deadline: Instant::now() + limit, ..self.clone() }
            }
        }
    }
}

impl Dialer {
    /// Opens a connection with the name of each host that names the server, in order, until one is not contradicted.
    /// Returns the error of the first one if all fail.
    pub(super) async fn with_each_name(&self, request: Request<'_>) -> Result<Dialled, DialError> {
        let names = self.distinct_names(request.endpoint);
        let mut first = None;
        for (index, endpoint) in names.iter().enumerate() {
            let error = match self.with_name(&Request { endpoint, ..request.clone() }).await {
                Err(error) if error.may_depend_on_name() => error,
                result => return result.map_err(|error| first.unwrap_or(error)),
            };
            if index + 1 < names.len() {
                tracing::debug!(%endpoint, error = %error.chain(), "dialing with the name of the next host");
            }
            first.get_or_insert(error);
        }
        // There is at least one name.
        match first {
            Some(error) => Err(error),
            None => self.with_name(&request).await,
        }
    }

    /// Returns the endpoint once for each host that names it. Leaves out a host if a dial with it would be the same as
    /// with an earlier one.
    fn distinct_names(&self, endpoint: &Endpoint) -> Vec<Endpoint> {
        let mut names: Vec<Endpoint> = Vec::new();
        for index in endpoint.host_indexes() {
            let named = endpoint.with_hosts([index]);
            if !names.iter().any(|other| self.tls.is_same_name(other, &named) && self.source.is_same(other, &named)) {
                names.push(named);
            }
        }
        if names.is_empty() { vec![endpoint.clone()] } else { names }
    }

    /// Opens a connection to each address of the server that accepts one, until the server answers.
    pub(super) async fn at_each_address(&self, request: &Request<'_>, login: &Login) -> Result<Dialled, DialError> {
        let mut endpoint = request.endpoint.clone();
        loop {
            let error = match self.open(&Request { endpoint: &endpoint, ..request.clone() }, login).await {
                Err(error) if error.may_depend_on_address() => error,
                result => return result,
            };
            let Some(rest) = error.address.and_then(|failed| without(&endpoint, failed)) else { return Err(error) };
            tracing::debug!(%endpoint, error = %error.chain(), "dialing the next address of the server");
            endpoint = rest;
        }
    }
}

/// Returns the endpoint without one of its addresses. Returns `None` if it has no other address.
fn without(endpoint: &Endpoint, failed: SocketAddr) -> Option<Endpoint> {
    let mut rest = endpoint.all_tcp().filter(|address| *address != failed);
    let first = rest.next()?;
    Some(endpoint.only_at(first).with_alternatives(rest))
}
