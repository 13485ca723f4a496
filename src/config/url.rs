//! Parser for connection URLs: `postgres://user:password@SERVICE:PORT/database?param=value&…`, as in libpq (PostgreSQL
//! manual, "Connection URIs"). Several hosts are separated by commas, each with its own port. The scheme `postgres+srv`
//! selects discovery by SRV records, which contain the ports.
//!
//! A reserved character in a password must be percent-encoded. Otherwise the URL is split in the wrong place, and parts
//! of the password end up in the host, port, path or query. Two rules keep these parts out of error messages:
//!
//! - The only raw `@` in a valid URL precedes the host. An error for a URL with a second raw `@`, or with one after a
//!   raw `/`, `?` or `#`, contains no part of the URL.
//! - An error contains no name or value that follows `password=` in the query, because a raw `&` in the password may
//!   have produced it.

use zeroize::Zeroizing;

use super::{known, parameter, percent, setting::Settings};
use crate::error::ConfigError;

const PASSWORD_SYNTAX: &str =
    "a password with `@ : / ? # % & =` and spaces percent-encoded (%40 %3A %2F %3F %23 %25 %26 %3D %20)";

/// Splits a URL into settings with known names and decoded values, without checking the values.
pub(super) fn parse(url: &str) -> Result<Settings, ConfigError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let is_srv = match scheme {
        "postgres" | "postgresql" => false,
        "postgres+srv" | "postgresql+srv" => true,
        _ => {
            let expected = "`postgres://`, `postgresql://`, `postgres+srv://` or `postgresql+srv://` at the beginning";
            return Err(ConfigError::new("url", expected));
        }
    };
    if rest.contains(|c: char| c.is_ascii_control() || c == ' ') {
        return Err(ConfigError::new("url", "no spaces and no control characters (percent-encode a space as %20)"));
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if tail.contains('@') || authority.matches('@').count() > 1 {
        return Err(unexpected_at(rest));
    }
    if tail.contains('#') {
        return Err(ConfigError::new("url", "no fragment (percent-encode `#` as %23)"));
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));

    let mut settings = Settings::new(PASSWORD_SYNTAX);
    match authority.split_once('@') {
        Some((user, host)) => {
            parse_userinfo(user, &mut settings)?;
            parse_hosts(host, false, &mut settings)?;
        }
        None => parse_hosts(authority, true, &mut settings)?,
    }
    parse_dbname(path, &mut settings)?;
    parse_query(query, &mut settings)?;
    if is_srv {
        settings.use_srv()?;
    }
    Ok(settings)
}

/// Returns the error for an `@` that does not precede the host. Such an `@` is most likely part of the password.
fn unexpected_at(rest: &str) -> ConfigError {
    let user = rest.split('@').next().unwrap_or_default();
    match user.contains(':') {
        true => ConfigError::new("password", PASSWORD_SYNTAX),
        false => ConfigError::new("url", "only one `@`, before the host (percent-encode any other `@` as %40)"),
    }
}

fn parse_userinfo(text: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    if password.contains(':') {
        return Err(ConfigError::new("password", PASSWORD_SYNTAX));
    }
    for (name, text) in [("user", user), ("password", password)] {
        if !text.is_empty() {
            settings.push(name, percent::decode(name, text)?, name == "password");
        }
    }
    Ok(())
}

/// Parses `host`, `host:port`, `[address]:port`, and lists of these. As in libpq, the port may be empty. `sensitive` is
/// true if the URL has no `@`: its apparent hosts and ports may then be a user and a password whose host is missing.
fn parse_hosts(text: &str, sensitive: bool, settings: &mut Settings) -> Result<(), ConfigError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (host, port) = split_port(part);
        if sensitive && !port.unwrap_or_default().bytes().all(|b| b.is_ascii_digit()) {
            let expected = format!("a number from 1 to 65535, or {PASSWORD_SYNTAX} and followed by `@` and the host");
            return Err(ConfigError::new("port", expected));
        }
        hosts.push(percent::decode("host", host)?);
        ports.push(port.map(|port| percent::decode("port", port)).transpose()?);
    }
    if hosts.len() > 1 || !hosts[0].is_empty() {
        let is_login = ports.iter().any(Option::is_some) || hosts.iter().any(|host| host.contains(':'));
        let sensitive = sensitive && is_login;
        settings.push("host", join(hosts), sensitive);
    }
    if ports.iter().any(Option::is_some) {
        settings.push("port", join(ports.into_iter().map(Option::unwrap_or_default)), sensitive);
    }
    Ok(())
}

/// Splits the port from one host.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rfind(']') {
        // An IPv6 address without brackets: parsing the whole text as a host returns the right error.
        None if text.matches(':').count() > 1 => (text, None),
        Some(end) if text[end + 1..].starts_with(':') => (&text[..=end], Some(&text[end + 2..])),
        Some(_) => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    }
}

/// Joins the entries of a list. They may contain a password.
fn join(entries: impl IntoIterator<Item = Zeroizing<String>>) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::new());
    for (index, entry) in entries.into_iter().enumerate() {
        // A new allocation instead of growing the old one, so that each is overwritten.
        let separator = if index == 0 { "" } else { "," };
        out = Zeroizing::new([out.as_str(), separator, entry.as_str()].concat());
    }
    out
}

fn parse_dbname(path: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let name = path.strip_prefix('/').unwrap_or(path);
    if name.contains('/') {
        return Err(ConfigError::new("dbname", "one database name after the host (percent-encode `/` as %2F)"));
    }
    if !name.is_empty() {
        settings.push("dbname", percent::decode("dbname", name)?, false);
    }
    Ok(())
}

fn parse_query(query: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut sensitive = false;
    for pair in query.split('&') {
        if query.is_empty() {
            break;
        }
        let (raw, value) = match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => (name, value),
            _ => return Err(ConfigError::new("url", "a query of `name=value` pairs separated by `&`")),
        };
        let decoded = percent::decode("url", raw)?;
        let name = parameter::find(&decoded).map_or("url", |parameter| parameter.name);
        if value.contains('=') && name != "url" {
            return Err(ConfigError::new(name, "a value without a raw `=` (percent-encode `=` as %3D)"));
        }
        sensitive |= known::is_secret(&decoded);
        settings.add(&decoded, percent::decode(name, value)?, sensitive)?;
    }
    Ok(())
}
