//! Defaults from libpq's environment variables (PostgreSQL manual, "Environment Variables").

use std::{ffi::OsString, path::PathBuf};

use zeroize::Zeroizing;

use super::{known, parameter::PARAMETERS, setting::Settings};
use crate::{error::ConfigError, system::platform};

/// Returns the value of one of this process's environment variables.
pub(super) fn process(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

/// Adds the value of each environment variable whose parameter is missing from `settings`, as libpq does. An empty
/// variable is equivalent to an unset one.
pub(super) fn add_defaults(
    settings: &mut Settings,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<(), ConfigError> {
    let read = |name: &str| variable(name).filter(|value| !value.is_empty());
    for (name, known) in known::unimplemented_variables() {
        if let Some(value) = read(name) {
            known.check(&value.to_string_lossy()).map_err(|error| error.with_variable(Some(name)))?;
        }
    }
    for parameter in PARAMETERS {
        let Some(name) = parameter.variable.filter(|_| !settings.contains(parameter.name)) else { continue };
        let Some(value) = read(name) else { continue };
        settings.add_default(parameter.name, parameter.variable, text(parameter.name, name, value)?);
    }
    Ok(())
}

fn text(parameter: &'static str, variable: &'static str, value: OsString) -> Result<Zeroizing<String>, ConfigError> {
    value.into_string().map(Zeroizing::new).map_err(|value| {
        drop(Zeroizing::new(value.into_encoded_bytes())); // The value may be a password.
        ConfigError::new(parameter, "a value that is valid UTF-8").with_variable(Some(variable))
    })
}

/// Returns the path of libpq's default password file.
pub(super) fn passfile(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    platform::passfile(|name| variable(name).filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::Path};

    use super::*;
    use crate::{Config, Target};

    /// Parses `text` in an environment that contains only these variables.
    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let find = |name: &str| Some(OsString::from(variables.iter().find(|(known, _)| *known == name)?.1));
        Config::parse_with(text, find)
    }

    #[test]
    fn reads_parameters_from_libpq_variables() {
        let config = read(
            "",
            &[
                ("PGHOST", "db.svc"),
                ("PGHOSTADDR", "10.0.0.1"),
                ("PGPORT", "5433"),
                ("PGUSER", "app"),
                ("PGDATABASE", "shop"),
                ("PGPASSWORD", "hunter2"),
                ("PGPASSFILE", "/run/pgpass"),
                ("PGAPPNAME", "web"),
                ("PGOPTIONS", "-c a=b"),
                ("PGCONNECT_TIMEOUT", "7"),
                ("PGTARGETSESSIONATTRS", "read-write"),
                ("PGSSLMODE", "disable"),
                ("PGREQUIREAUTH", "!password,!md5"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.host().to_string(), "db.svc");
        assert_eq!(config.hosts()[0].address(), Some([10, 0, 0, 1].into()));
        assert_eq!((config.port(), config.user(), config.dbname()), (5433, "app", "shop"));
        assert_eq!(config.password().unwrap().expose(), "hunter2");
        assert_eq!(config.passfile(), Some(Path::new("/run/pgpass")));
        assert_eq!((config.application_name(), config.options()), (Some("web"), Some("-c a=b")));
        assert_eq!(config.limits().connect_timeout.as_secs(), 7);
        assert_eq!((config.target(), config.ssl_mode().as_str()), (Target::ReadWrite, "disable"));
        assert_eq!(config.require_auth().unwrap().to_string(), "!password,!md5");
    }

    #[test]
    fn the_text_overrides_environment_variables() {
        let variables = [("PGHOST", "other"), ("PGPORT", "1"), ("PGUSER", "them"), ("PGPASSWORD", "theirs")];
        for text in ["postgres://app:mine@db:5433", "host=db port=5433 user=app password=mine"] {
            let config = read(text, &variables).unwrap();
            assert_eq!(config.host().to_string(), "db");
            assert_eq!((config.port(), config.user()), (5433, "app"));
            assert_eq!(config.password().unwrap().expose(), "mine");
        }
        let config = read("postgres:///shop", &variables).unwrap();
        assert_eq!((config.host().to_string().as_str(), config.dbname()), ("other", "shop"));
        assert_eq!(config.password().unwrap().expose(), "theirs");
        let config = read("password='' host=''", &variables).unwrap();
        assert_eq!(config.password().unwrap().expose(), "theirs", "an empty value does not override a variable");
        let config = read("password_file=/run/secret", &variables).unwrap();
        assert!(config.password().is_none(), "a password file in the text overrides `PGPASSWORD`");
    }

    #[test]
    fn str_parse_ignores_the_environment() {
        // Cargo sets `CARGO_PKG_NAME` for every test, so the assertion shows that `process` reads the real environment.
        assert!(process("CARGO_PKG_NAME").is_some());
        let config: Config = "postgres://app@db".parse().unwrap();
        assert!(config.passfile().is_none() && config.password().is_none());
    }

    #[test]
    fn errors_name_the_variable() {
        for (variables, parameter, message) in [
            (
                [("PGPORT", "x"), ("PGHOST", "db")],
                "port",
                "parameter `port` (from `PGPORT`): expected a number from 1 to 65535, got `x`",
            ),
            ([("PGSSLMODE", "on"), ("PGHOST", "db")], "sslmode", "(from `PGSSLMODE`)"),
            ([("PGCONNECT_TIMEOUT", "0"), ("PGHOST", "db")], "connect_timeout", "(from `PGCONNECT_TIMEOUT`)"),
            ([("PGHOST", "@db"), ("PGPORT", "")], "host", "(from `PGHOST`): expected a name"),
            (
                [("PGHOSTADDR", "db"), ("PGHOST", "db")],
                "hostaddr",
                "parameter `hostaddr` (from `PGHOSTADDR`): expected the IP address of one server",
            ),
            ([("PGREQUIREAUTH", "scram"), ("PGHOST", "db")], "require_auth", "(from `PGREQUIREAUTH`)"),
        ] {
            let error = read("", &variables).unwrap_err();
            assert_eq!(error.parameter(), parameter);
            assert!(error.variable().is_some());
            assert!(error.to_string().contains(message), "{error}");
        }
        let error = read("", &[("PGHOST", "")]).unwrap_err();
        assert_eq!(
            (error.parameter(), error.variable()),
            ("host", None),
            "an empty variable is equivalent to an unset one"
        );
        let config = read("", &[("PGHOST", "db"), ("PGGSSENCMODE", "prefer"), ("PGCLIENTENCODING", "UTF8")]);
        assert!(config.is_ok(), "values that match the fixed behavior are accepted");
    }

    #[cfg(unix)]
    #[test]
    fn rejects_a_variable_that_is_not_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = |name: &str| (name == "PGPASSWORD").then(|| OsString::from_vec(b"hunter2\xff".to_vec()));
        let error = Config::parse_with("host=db", bytes).unwrap_err();
        assert_eq!(error.to_string(), "parameter `password` (from `PGPASSWORD`): expected a value that is valid UTF-8");
    }

    #[test]
    fn finds_the_password_file_as_libpq_does() {
        let named = read("host=db passfile=/a", &[("PGPASSFILE", "/b"), ("HOME", "/home/app")]).unwrap();
        assert_eq!(named.passfile(), Some(Path::new("/a")));
        let variable = read("host=db", &[("PGPASSFILE", "/b"), ("HOME", "/home/app")]).unwrap();
        assert_eq!(variable.passfile(), Some(Path::new("/b")));
        #[cfg(unix)]
        {
            let neither = read("host=db", &[("HOME", "/home/app")]).unwrap();
            assert_eq!(neither.passfile(), Some(Path::new("/home/app/.pgpass")));
            let homeless = read("host=db", &[]).unwrap();
            let home = std::env::home_dir().filter(|home| home.as_os_str() != OsStr::new(""));
            assert_eq!(homeless.passfile(), home.map(|home| home.join(".pgpass")).as_deref());
        }
    }
}
