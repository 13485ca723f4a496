//! The table of all settings of libpq: its parameters (PostgreSQL manual, "Parameter Key Words") and its environment
//! variables (manual, "Environment Variables"), as of libpq 18. No setting is ignored in silence: each one is
//! implemented, refused with a reason, or accepted because it has no effect here.
//!
//! [`PARAMETERS`](super::parameter::PARAMETERS) has the functions that parse the implemented parameters. The page
//! `docs/parameters.md` is generated from both tables.

use super::message;
use crate::error::ConfigError;

/// A setting of libpq.
pub(super) struct Known {
    /// The name of the parameter. For a variable without a parameter, the name of the server setting that libpq sets,
    /// or the variable itself.
    pub(super) name: &'static str,
    /// The environment variable, if any.
    pub(super) variable: Option<&'static str>,
    /// What this crate does with the setting.
    pub(super) state: State,
}

/// What this crate does with a setting of libpq.
pub(super) enum State {
    /// The parameter is in [`PARAMETERS`](super::parameter::PARAMETERS). The text describes the differences from libpq.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests check the text and write it to `docs/parameters.md`"))]
    Implemented(&'static str),
    /// Setting it is an error, except to an empty value and to the values that match the pool's fixed behavior.
    Refused {
        /// The values that match the pool's fixed behavior.
        accepted: &'static [&'static str],
        /// The text of the error: the reason and the remedy.
        reason: &'static str,
    },
    /// It is accepted and has no effect, for this reason.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests write the reason to `docs/parameters.md`"))]
    Harmless(&'static str),
}

/// Creates the entry for an implemented parameter.
const fn implemented(name: &'static str, variable: Option<&'static str>, differs: &'static str) -> Known {
    Known { name, variable, state: State::Implemented(differs) }
}

/// Creates the entry for a setting whose use is an error.
const fn refused(
    name: &'static str,
    variable: Option<&'static str>,
    accepted: &'static [&'static str],
    reason: &'static str,
) -> Known {
    Known { name, variable, state: State::Refused { accepted, reason } }
}

/// Creates the entry for a setting that has no effect.
const fn harmless(name: &'static str, variable: Option<&'static str>, reason: &'static str) -> Known {
    Known { name, variable, state: State::Harmless(reason) }
}

const GSSAPI: &str = "GSSAPI is not implemented; remove it";
const OAUTH: &str = "OAuth is not implemented; remove it, and log in with a password or a certificate";
const SERVICE_FILE: &str =
    "connection service files are not read; set `host`, `user` and the other parameters directly";
const SCRAM_KEYS: &str = "SCRAM keys are not accepted in place of a password; remove it and set `password`";
const SAME: &str = "";

/// All parameters of libpq 18, sorted by name.
#[rustfmt::skip]
pub(super) const PARAMETERS: &[Known] = &[
    implemented("application_name", Some("PGAPPNAME"), SAME),
    implemented("channel_binding", Some("PGCHANNELBINDING"), SAME),
    refused("client_encoding", Some("PGCLIENTENCODING"), &["utf8", "UTF8", "utf-8", "UTF-8"],
        "the client encoding is always UTF-8; remove it or set `UTF8`"),
    implemented("connect_timeout", Some("PGCONNECT_TIMEOUT"),
        "libpq has no limit by default, and accepts only whole seconds"),
    implemented("dbname", Some("PGDATABASE"), "libpq also accepts a connection string here"),
    refused("fallback_application_name", None, &[], "set `application_name` instead"),
    refused("gssdelegation", Some("PGGSSDELEGATION"), &["0"], GSSAPI),
    refused("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"],
        "GSSAPI is not implemented; remove it or set `disable`, and use `sslmode` for encryption"),
    refused("gsslib", Some("PGGSSLIB"), &[], GSSAPI),
    implemented("host", Some("PGHOST"),
        "each name stands for all Pods behind it; required, and abstract Unix sockets (`@name`) are not implemented"),
    implemented("hostaddr", Some("PGHOSTADDR"), "an IPv6 address may be in brackets"),
    refused("keepalives", None, &["1"], "TCP keepalives are always enabled; remove it and use `keepalives_idle`, \
        `keepalives_interval` and `keepalives_count`"),
    implemented("keepalives_count", None, "libpq's default is the system's"),
    implemented("keepalives_idle", None, "libpq's default is the system's"),
    implemented("keepalives_interval", None, "libpq's default is the system's"),
    refused("krbsrvname", Some("PGKRBSRVNAME"), &[], GSSAPI),
    refused("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), &["random"],
        "the pool balances between all servers that serve the target, whatever their order; remove it or set \
        `random`, and choose servers with `target_session_attrs`"),
    refused("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), &["3.0", "3.2", "latest"],
        "the pool always uses version 3.0 of the protocol; remove it or set `3.0`"),
    refused("min_protocol_version", Some("PGMINPROTOCOLVERSION"), &["3.0"],
        "the pool always uses version 3.0 of the protocol; remove it or set `3.0`"),
    refused("oauth_client_id", None, &[], OAUTH),
    refused("oauth_client_secret", None, &[], OAUTH),
    refused("oauth_issuer", None, &[], OAUTH),
    refused("oauth_scope", None, &[], OAUTH),
    implemented("options", Some("PGOPTIONS"), SAME),
    implemented("passfile", Some("PGPASSFILE"), "the file is read again for each connection"),
    implemented("password", Some("PGPASSWORD"), SAME),
    implemented("port", Some("PGPORT"), SAME),
    refused("replication", None, &["false", "off", "no", "0"],
        "the pool does not open replication connections; remove it"),
    implemented("require_auth", Some("PGREQUIREAUTH"),
        "without it, libpq sends a password in clear text or hashed with MD5 even to a server that is not verified"),
    refused("requirepeer", Some("PGREQUIREPEER"), &[],
        "the user of a Unix socket's server is not checked; remove it, and restrict the socket's directory"),
    refused("scram_client_key", None, &[], SCRAM_KEYS),
    refused("scram_server_key", None, &[], SCRAM_KEYS),
    refused("service", Some("PGSERVICE"), &[], SERVICE_FILE),
    implemented("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"),
        "`TLSv1` and `TLSv1.1` are errors, because both versions are obsolete and not implemented (RFC 8996)"),
    implemented("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), "`TLSv1` and `TLSv1.1` mean `TLSv1.2`"),
    implemented("sslcert", Some("PGSSLCERT"), "a missing file is an error; changes take effect without a restart"),
    implemented("sslcertmode", Some("PGSSLCERTMODE"),
        "`require` needs `sslmode=require` or stricter, and a client certificate"),
    refused("sslcompression", Some("PGSSLCOMPRESSION"), &["0"],
        "TLS compression is insecure (CRIME) and not implemented; remove it or set `0`"),
    implemented("sslcrl", Some("PGSSLCRL"), "a missing file, or a list that is not used because certificates are not \
        verified, is an error; changes take effect without a restart"),
    implemented("sslcrldir", Some("PGSSLCRLDIR"), "the files need not be named by hash values; a directory without any \
        list is an error; changes take effect without a restart"),
    implemented("sslkey", Some("PGSSLKEY"), "a missing file is an error; keys of an OpenSSL engine (`engine:name`) \
        and the legacy format of encrypted keys are not implemented"),
    implemented("sslkeylogfile", None, "only with the feature `keylog`, otherwise an error"),
    implemented("sslmode", Some("PGSSLMODE"), "`allow` and `prefer` try the other kind of connection only for SQLSTATE \
        28000"),
    implemented("sslnegotiation", Some("PGSSLNEGOTIATION"), SAME),
    implemented("sslpassword", None, "only with the feature `encrypted-keys`, otherwise an error"),
    implemented("sslrootcert", Some("PGSSLROOTCERT"), "a missing file is an error; changes take effect without a \
        restart"),
    implemented("sslsni", Some("PGSSLSNI"), "the name is that of `ssl_verify_name`"),
    implemented("target_session_attrs", Some("PGTARGETSESSIONATTRS"),
        "the default for checkouts without a target; `prefer-primary` does not exist in libpq"),
    implemented("tcp_user_timeout", None, "libpq's default is the system's"),
    implemented("user", Some("PGUSER"), SAME),
];

/// Names that look like parameters of libpq 18 but are not in its list, sorted: obsolete ones, those of newer versions,
/// and those of JDBC that libpq translates.
#[rustfmt::skip]
pub(super) const FOREIGN: &[Known] = &[
    refused("requiressl", Some("PGREQUIRESSL"), &["0"],
        "it is obsolete; set `sslmode=require`, or `sslmode=verify-full` to verify the server's certificate too"),
    refused("servicefile", None, &[], SERVICE_FILE),
    refused("ssl", None, &[], "it is a parameter of JDBC; set `sslmode=verify-full` (the meaning of `ssl=true` in \
        JDBC), or `sslmode=require` (its meaning in libpq)"),
];

/// The environment variables of libpq 18 that have no parameter, sorted by variable.
#[rustfmt::skip]
pub(super) const VARIABLES: &[Known] = &[
    refused("datestyle", Some("PGDATESTYLE"), &["default"],
        "session settings are not read from the environment; set `options` to `-c datestyle=…`"),
    refused("geqo", Some("PGGEQO"), &["default"],
        "session settings are not read from the environment; set `options` to `-c geqo=…`"),
    harmless("PGLOCALEDIR", Some("PGLOCALEDIR"), "messages are not translated"),
    harmless("PGOAUTHDEBUG", Some("PGOAUTHDEBUG"), "OAuth is not implemented, so there is nothing to debug"),
    harmless("PGSERVICEFILE", Some("PGSERVICEFILE"),
        "the file is used only if a service is named, and `PGSERVICE` is an error"),
    harmless("PGSYSCONFDIR", Some("PGSYSCONFDIR"),
        "the directory contains only the service file, which is used only if a service is named"),
    refused("timezone", Some("PGTZ"), &["default"],
        "session settings are not read from the environment; set `options` to `-c timezone=…`"),
];

/// Parameters whose values are secrets, so that errors never contain them.
const SECRETS: &[&str] = &["oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword"];

/// Returns true if the values of this parameter are secrets.
pub(super) fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

/// Returns the entry of a parameter that is not implemented.
pub(super) fn find_unimplemented(name: &str) -> Option<&'static Known> {
    let all = PARAMETERS.iter().chain(FOREIGN);
    all.filter(|known| !matches!(known.state, State::Implemented(_))).find(|known| known.name == name)
}

/// Returns every setting that libpq reads from the environment but that is not implemented.
pub(super) fn unimplemented_variables() -> impl Iterator<Item = (&'static str, &'static Known)> {
    let all = PARAMETERS.iter().chain(FOREIGN).chain(VARIABLES);
    all.filter(|known| !matches!(known.state, State::Implemented(_))).filter_map(|known| Some((known.variable?, known)))
}

impl Known {
    /// Rejects every value of a refused setting, except an empty one and those that match the pool's fixed behavior.
    pub(super) fn check(&self, value: &str) -> Result<(), ConfigError> {
        let State::Refused { accepted, reason } = self.state else { return Ok(()) };
        if value.is_empty() || accepted.contains(&value) {
            return Ok(());
        }
        let error = ConfigError::unsupported(self.name, reason);
        Err(if is_secret(self.name) { error } else { error.got(message::excerpt(value)) })
    }
}

#[cfg(test)]
mod tests;
