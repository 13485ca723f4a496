//! The URL form of a configuration: `postgres://user:password@SERVICE:PORT/database?param=value&…`, as libpq has it
//! (PostgreSQL manual, "Connection URIs"), for one host.
//!
//! A password with a reserved character that is not percent-encoded makes a URL that reads as another one: the
//! password's pieces land in the host, the port, the path or the query. Two rules keep them out of every message. The
//! one raw `@` of a URL is the one before the host; with two, or with one behind a raw `/`, `?` or `#`, nothing of the
//! URL is repeated. And nothing that follows a `password=` in the query is repeated either, for a raw `&` in it may
//! have made it.

use super::{parameter::known, percent, setting::Settings};
use crate::error::ConfigError;

const ENCODED: &str = "`@ : / ? # % & =` and blanks in it are percent-encoded: %40 %3A %2F %3F %23 %25 %26 %3D %20";

/// Splits a URL into its settings, decoded, each with a known name. Whether their values make sense is not looked at.
pub(super) fn parse(url: &str) -> Result<Settings, ConfigError> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or_else(|| ConfigError::new("url", "`postgres://` or `postgresql://` at its beginning"))?;
    if rest.contains(|c: char| c.is_ascii_control() || c == ' ') {
        return Err(ConfigError::new("url", "no blanks and no control characters; a blank is percent-encoded as %20"));
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if tail.contains('@') || authority.matches('@').count() > 1 {
        return Err(stray_at(rest));
    }
    if tail.contains('#') {
        return Err(ConfigError::new("url", "no fragment: a `#` is percent-encoded as %23"));
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));

    let mut settings = Settings::new(ENCODED);
    match authority.split_once('@') {
        Some((user, host)) => {
            user_and_password(user, &mut settings)?;
            host_and_port(host, false, &mut settings)?;
        }
        None => host_and_port(authority, true, &mut settings)?,
    }
    database(path, &mut settings)?;
    parameters(query, &mut settings)?;
    Ok(settings)
}

/// The error for an `@` that is not the one before the host. It is most often part of the password.
fn stray_at(rest: &str) -> ConfigError {
    let user = rest.split('@').next().unwrap_or_default();
    match user.contains(':') {
        true => ConfigError::new("password", format!("a password in which {ENCODED}")),
        false => ConfigError::new("url", "one `@`, the one before the host; every other is percent-encoded as %40"),
    }
}

fn user_and_password(text: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    if password.contains(':') {
        return Err(ConfigError::new("password", format!("a password in which {ENCODED}")));
    }
    for (name, text) in [("user", user), ("password", password)] {
        if !text.is_empty() {
            settings.push(name, percent::decode(name, text)?, name == "password");
        }
    }
    Ok(())
}

/// `quiet` where no `@` came before: what looks like a port may then be the password of a URL that lacks its host.
fn host_and_port(text: &str, quiet: bool, settings: &mut Settings) -> Result<(), ConfigError> {
    let (host, port) = match text.rfind(']') {
        // Two hosts, or an IPv6 address without brackets: left whole, for the host's own error.
        _ if text.contains(',') => (text, None),
        None if text.matches(':').count() > 1 => (text, None),
        Some(end) if text[end + 1..].is_empty() => (text, None),
        Some(end) if text[end + 1..].starts_with(':') => (&text[..=end], Some(&text[end + 2..])),
        Some(_) => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if !host.is_empty() {
        let quiet = quiet && host.contains(':');
        settings.push("host", percent::decode("host", host)?, quiet);
    }
    match port {
        Some(port) if quiet && !port.bytes().all(|b| b.is_ascii_digit()) => {
            let expected = format!(
                "a number from 1 to 65535; where it is a password, an `@` and the host follow it, and {ENCODED}"
            );
            Err(ConfigError::new("port", expected))
        }
        Some(port) => {
            settings.push("port", percent::decode("port", port)?, quiet);
            Ok(())
        }
        None => Ok(()),
    }
}

fn database(path: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let name = path.strip_prefix('/').unwrap_or(path);
    if name.contains('/') {
        return Err(ConfigError::new("dbname", "one name after the host's `/`; a `/` in it is percent-encoded as %2F"));
    }
    if !name.is_empty() {
        settings.push("dbname", percent::decode("dbname", name)?, false);
    }
    Ok(())
}

fn parameters(query: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut quiet = false;
    for pair in query.split('&') {
        if query.is_empty() {
            break;
        }
        let (raw, value) = match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => (name, value),
            _ => return Err(ConfigError::new("url", "`name=value` between the `&` of its query")),
        };
        let decoded = percent::decode("url", raw)?;
        let name = known(&decoded).map_or("url", |parameter| parameter.name);
        if value.contains('=') && name != "url" {
            return Err(ConfigError::new(
                name,
                "one `=`, the one before its value; every other is percent-encoded as %3D",
            ));
        }
        quiet |= name == "password";
        settings.add(&decoded, percent::decode(name, value)?, quiet)?;
    }
    Ok(())
}
