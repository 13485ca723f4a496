//! The startup of a connection: requests for encryption, cancel requests, and the login of a session.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::sleep,
};

use super::{Ended, Registration, handle::Interrupt, parameters::Parameters};
use crate::postgres::{
    error::Report,
    protocol::{Fields, Wire},
    scram::{Exchange, MECHANISM},
    server::Server,
    settings::{Authentication, User},
};

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const PROTOCOL_3: i32 = 3 << 16;

/// Performs the startup of a connection.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    wire: &mut Wire<S>,
) -> Result<(Registration, Parameters), Ended> {
    let startup = startup(server, wire).await?;
    server.unhung().await;
    let phase = server.lock().phase;
    if let Some(refusal) = phase.refusal() {
        return Err(Ended::Report(refusal));
    }
    let user = startup.iter().find(|(name, _)| name == "user").map(|(_, value)| value.clone());
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        return Err(Ended::Report(Report::fatal("28000", "no PostgreSQL user name specified in startup packet")));
    };
    let Some(registration) = Registration::new(server, &user) else {
        return Err(Ended::Report(Report::fatal("53300", "sorry, too many clients already")));
    };
    let delay = server.lock().settings.login;
    let work = async {
        sleep(delay).await;
        authenticate(server, wire, &user).await
    };
    let account = select! {
        biased;
        report = terminated(&registration) => return Err(Ended::Report(report)),
        account = work => account?,
    };
    wire.output.authentication(0, &[]);
    check(server, &registration, account.as_ref(), &startup).map_err(Ended::Report)?;
    let superuser = account.is_some_and(|account| account.superuser);
    let mut parameters = Parameters::new(server, &startup, &user, superuser).map_err(Ended::Report)?;
    parameters.report(server, &mut wire.output);
    let handle = registration.handle();
    wire.output.key_data(handle.pid, handle.key);
    wire.output.ready(b'I');
    wire.flush().await?;
    Ok((registration, parameters))
}

/// Waits for the termination of the session.
async fn terminated(registration: &Registration) -> Report {
    loop {
        if let Interrupt::Terminate(report) = registration.handle().interrupted().await {
            return report;
        }
    }
}

/// Reads messages until one begins a session. Returns its parameters.
async fn startup<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    wire: &mut Wire<S>,
) -> Result<Vec<(String, String)>, Ended> {
    loop {
        let body = wire.startup().await?.ok_or(Ended::Closed)?;
        server.unhung().await;
        let mut fields = Fields(&body);
        match fields.i32().map_err(Ended::Report)? {
            SSL_REQUEST => {
                let certificate = server.lock().settings.certificate.clone();
                wire.raw(if certificate.is_some() { b'S' } else { b'N' }).await?;
                if let Some(certificate) = certificate {
                    wire.encrypt(&certificate).await?;
                }
            }
            GSS_REQUEST => wire.raw(b'N').await?,
            CANCEL_REQUEST => {
                let (pid, key) = (fields.i32().map_err(Ended::Report)?, fields.i32().map_err(Ended::Report)?);
                server.cancel(pid, key);
                return Err(Ended::Closed);
            }
            version if version & !0xFFFF == PROTOCOL_3 => {
                return parameters(wire, fields, version).map_err(Ended::Report);
            }
            version => {
                let (major, minor) = (version >> 16, version & 0xFFFF);
                let text = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
                return Err(Ended::Report(Report::fatal("0A000", text)));
            }
        }
    }
}

/// Reads the parameters of a startup message. Reports the options and the minor version that the server does not
/// support.
fn parameters<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    mut fields: Fields<'_>,
    version: i32,
) -> Result<Vec<(String, String)>, Report> {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    while fields.0.len() > 1 {
        let (name, value) = (fields.text()?, fields.text()?);
        if name.starts_with("_pq_.") {
            unknown.push(name.to_owned());
        } else {
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    if version != PROTOCOL_3 || !unknown.is_empty() {
        let mut body = [PROTOCOL_3.to_be_bytes(), i32::try_from(unknown.len()).unwrap_or(0).to_be_bytes()].concat();
        unknown.iter().for_each(|name| body.extend_from_slice(format!("{name}\0").as_bytes()));
        wire.output.message(b'v', &body);
    }
    Ok(found)
}

/// Authenticates a user. Returns the role, or `None` if the server trusts every user.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    wire: &mut Wire<S>,
    user: &str,
) -> Result<Option<User>, Ended> {
    let account = match &server.lock().settings.authentication {
        Authentication::Trust => return Ok(None),
        Authentication::Scram(users) => users.get(user).cloned(),
    };
    wire.output.authentication(10, format!("{MECHANISM}\0\0").as_bytes());
    wire.flush().await?;
    let body = password_message(wire).await?;
    let mut fields = Fields(&body);
    let mechanism = fields.text().map_err(Ended::Report)?;
    if mechanism != MECHANISM {
        return Err(Ended::Report(Report::protocol("client selected an invalid SASL authentication mechanism")));
    }
    let first = fields.value().map_err(Ended::Report)?.unwrap_or_default();
    // As in the real server, an unknown user fails only at the end of the exchange.
    let password = account.as_ref().map_or("", |account| &account.password);
    let exchange = Exchange::begin(first, password, &mut server.random()).map_err(Ended::Report)?;
    wire.output.authentication(11, exchange.challenge().as_bytes());
    wire.flush().await?;
    let last = password_message(wire).await?;
    match (exchange.finish(&last).map_err(Ended::Report)?, account) {
        (Some(proof), Some(account)) => {
            wire.output.authentication(12, proof.as_bytes());
            Ok(Some(account))
        }
        _ => {
            let text = format!("password authentication failed for user \"{user}\"");
            Err(Ended::Report(Report::fatal("28P01", text)))
        }
    }
}

async fn password_message<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Vec<u8>, Ended> {
    match wire.message().await? {
        Some((b'p', body)) => Ok(body),
        Some((kind, _)) => {
            Err(Ended::Report(Report::protocol(format!("expected SASL response, got message type {kind}"))))
        }
        None => Err(Ended::Closed),
    }
}

/// Checks the limits on connections, and the database.
fn check(
    server: &Server,
    registration: &Registration,
    account: Option<&User>,
    startup: &[(String, String)],
) -> Result<(), Report> {
    let state = server.lock();
    let user = &registration.handle().user;
    let (settings, superuser) = (&state.settings, account.is_some_and(|account| account.superuser));
    if !superuser && state.sessions.len() > settings.max_connections.saturating_sub(settings.reserved_connections) {
        let text = match settings.major() {
            0..16 => "remaining connection slots are reserved for non-replication superuser connections",
            _ => "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        };
        return Err(Report::fatal("53300", text));
    }
    let open = state.sessions.values().filter(|session| session.user == *user).count();
    if account.and_then(|account| account.connection_limit).is_some_and(|limit| !superuser && open > limit) {
        return Err(Report::fatal("53300", format!("too many connections for role \"{user}\"")));
    }
    let database = startup.iter().find(|(name, _)| name == "database").map_or(user, |(_, value)| value);
    if !settings.databases.is_empty() && !settings.databases.contains(database) {
        return Err(Report::fatal("3D000", format!("database \"{database}\" does not exist")));
    }
    Ok(())
}

impl Server {
    /// Cancels the running statement of the session with this process id and key.
    fn cancel(&self, pid: i32, key: i32) {
        let session = self.lock().sessions.get(&pid).filter(|session| session.key == key).cloned();
        if let Some(session) = session {
            session.interrupt(Interrupt::Cancel);
        }
    }
}
