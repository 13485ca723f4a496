//! The run-time parameters of a session, and the reports of some of them to the client.

use std::collections::{BTreeMap, BTreeSet};

use crate::postgres::{error::Report, protocol::Output, server::Server};

/// The reported parameters: the first major version that reports each, its name, and its default.
const REPORTED: [(u32, &str, &str); 15] = [
    (9, "application_name", ""),
    (0, "client_encoding", "UTF8"),
    (0, "DateStyle", "ISO, MDY"),
    (14, "default_transaction_read_only", "off"),
    (14, "in_hot_standby", "off"),
    (0, "integer_datetimes", "on"),
    (0, "IntervalStyle", "postgres"),
    (0, "is_superuser", "off"),
    (16, "scram_iterations", "4096"),
    (18, "search_path", "\"$user\", public"),
    (0, "server_encoding", "UTF8"),
    (0, "server_version", ""),
    (0, "session_authorization", ""),
    (0, "standard_conforming_strings", "on"),
    (0, "TimeZone", "Etc/UTC"),
];

/// Other parameters that a session may set.
const OTHERS: [(&str, &str); 13] = [
    ("default_transaction_isolation", "read committed"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("lock_timeout", "0"),
    ("role", "none"),
    ("row_security", "on"),
    ("search_path", "\"$user\", public"),
    ("statement_timeout", "0"),
    ("synchronous_commit", "on"),
    ("transaction_timeout", "0"),
    ("work_mem", "4MB"),
    ("client_min_messages", "notice"),
];

/// Parameters that no session can change.
const FIXED: [&str; 6] =
    ["in_hot_standby", "integer_datetimes", "is_superuser", "max_connections", "server_encoding", "server_version"];

/// The parameters that sessions have set, by their names in lower case.
pub(super) type Values = BTreeMap<String, String>;

/// The parameters of one session. Names are in lower case.
#[derive(Debug)]
pub(super) struct Parameters {
    /// The values of the startup message and of the login. `RESET` restores them.
    initial: Values,
    /// The values of `SET`.
    pub(super) session: Values,
    /// The values of `SET LOCAL`, until the end of the transaction.
    pub(super) local: Values,
    /// The names with a dot that the session has set. They stay known, with an empty value, when they are reset.
    placeholders: BTreeSet<String>,
    reported: BTreeMap<&'static str, String>,
}

impl Parameters {
    /// Creates the parameters of a session with the options of its startup message.
    pub(super) fn new(
        server: &Server,
        startup: &[(String, String)],
        user: &str,
        superuser: bool,
    ) -> Result<Self, Report> {
        let (initial, session, local) = (Values::new(), Values::new(), Values::new());
        let (placeholders, reported) = (BTreeSet::new(), BTreeMap::new());
        let mut parameters = Self { initial, session, local, placeholders, reported };
        let options = startup.iter().filter(|(name, _)| name == "options").flat_map(|(_, value)| options(value));
        let others = startup.iter().filter(|(name, _)| !matches!(name.as_str(), "database" | "options" | "user"));
        for (name, value) in others.cloned().chain(options) {
            let name = name.to_lowercase();
            parameters.check(&name).map_err(|report| Report::fatal(report.code, report.message))?;
            parameters.initial.insert(name, value);
        }
        let fixed = [
            ("session_authorization", user.to_owned()),
            ("is_superuser", if superuser { "on" } else { "off" }.to_owned()),
            ("server_version", server.lock().settings.version.clone()),
        ];
        parameters.initial.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        Ok(parameters)
    }

    /// Returns the value of a parameter, or `None` if there is no such parameter.
    pub(super) fn value(&self, server: &Server, name: &str) -> Option<String> {
        let set = [&self.local, &self.session, &self.initial].into_iter().find_map(|values| values.get(name));
        let text = |on: bool| if on { "on" } else { "off" }.to_owned();
        match name {
            "in_hot_standby" => Some(text(server.lock().in_recovery)),
            "max_connections" => Some(server.lock().settings.max_connections.to_string()),
            "default_transaction_read_only" if set.is_none() => Some(text(server.lock().read_only)),
            _ => {
                let placeholder = || self.placeholders.contains(name).then(String::new);
                set.cloned().or_else(|| default(name).map(str::to_owned)).or_else(placeholder)
            }
        }
    }

    /// Returns true if a parameter is `on`.
    pub(super) fn is_on(&self, server: &Server, name: &str) -> bool {
        self.value(server, name).is_some_and(|value| matches!(value.as_str(), "on" | "true" | "1" | "yes"))
    }

    /// Sets a parameter, or restores its initial value.
    pub(super) fn set(&mut self, name: &str, value: Option<String>, local: bool) -> Result<(), Report> {
        let name = name.to_lowercase();
        self.check(&name)?;
        if FIXED.contains(&name.as_str()) {
            return Err(Report::error("55P02", format!("parameter \"{name}\" cannot be changed")));
        }
        let value = value.map(|value| if default(&name) == Some("off") { boolean(value) } else { value });
        if name.contains('.') {
            self.placeholders.insert(name.clone());
        }
        self.local.remove(&name);
        let values = if local { &mut self.local } else { &mut self.session };
        match (value, local) {
            (Some(value), _) => drop(values.insert(name, value)),
            (None, true) => {
                let initial = self.initial.get(&name).cloned();
                let value = initial.unwrap_or_else(|| default(&name).unwrap_or_default().to_owned());
                drop(values.insert(name, value));
            }
            (None, false) => drop(values.remove(&name)),
        }
        Ok(())
    }

    /// Restores the initial values of all parameters. `RESET ALL` excludes the role and the session's user.
    pub(super) fn reset_all(&mut self) {
        self.session.retain(|name, _| matches!(name.as_str(), "role" | "session_authorization"));
        self.local.clear();
    }

    /// Checks that a parameter exists. Names with a dot belong to extensions, and may be set freely.
    fn check(&self, name: &str) -> Result<(), Report> {
        if name.contains('.') || default(name).is_some() || name == "max_connections" {
            return Ok(());
        }
        Err(Report::error("42704", format!("unrecognized configuration parameter \"{name}\"")))
    }

    /// Reports the parameters that have changed since the last call.
    pub(super) fn report(&mut self, server: &Server, output: &mut Output) {
        let major = server.lock().settings.major();
        for (_, name, _) in REPORTED.iter().filter(|(since, ..)| major >= *since) {
            let value = self.value(server, &name.to_lowercase()).unwrap_or_default();
            if self.reported.get(name) != Some(&value) {
                output.parameter(name, &value);
                self.reported.insert(name, value);
            }
        }
    }
}

fn default(name: &str) -> Option<&'static str> {
    let reported = REPORTED.iter().find(|(_, reported, _)| reported.eq_ignore_ascii_case(name));
    let reported = reported.map(|(.., default)| *default);
    reported.or_else(|| OTHERS.iter().find(|(other, _)| *other == name).map(|(_, default)| *default))
}

fn boolean(value: String) -> String {
    match value.as_str() {
        "true" | "1" | "yes" => "on".into(),
        "false" | "0" | "no" => "off".into(),
        _ => value,
    }
}

/// Parses the options of a startup message: `-c name=value` and `--name=value`.
fn options(text: &str) -> Vec<(String, String)> {
    let words = text.split_whitespace();
    let words = words.filter_map(|word| word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).or(Some(word)));
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs.map(|(name, value)| (name.replace('-', "_"), value.to_owned())).collect()
}
