//! The command line.

use std::{error::Error, ffi::OsString, net::SocketAddr, time::Duration};

use lexopt::{Arg, Parser, ValueExt as _};
use podpool::{Config, discovery::DnsOptions};

/// A fault of the command line.
pub(crate) type Fault = Box<dyn Error + Send + Sync>;

pub(crate) const HELP: &str = "\
podpool: look up, check, watch and measure the PostgreSQL Pods behind a Service

usage:
  podpool resolve NAME [--srv PORT_NAME] [--port PORT] [--server IP:PORT]... [--json]
      print the addresses of a name, and with --srv the names of the Pods
  podpool check [URL] [--json]
      check DNS, TCP, TLS, login, roles, connection slots, lag and clocks of every Pod, and explain each fault
  podpool watch [URL] [--interval SECONDS] [--count N] [--json]
      show the Pods, their shares of sessions and transactions, and events, until Ctrl-C or N times
  podpool bench [URL] [--seconds N] [--tasks N] [--sql STATEMENT] [--json]
      execute a statement (SELECT 1) in N tasks, and print rates, latencies and each Pod's share

URL is a podpool connection string. Default: the environment variable DATABASE_URL, else PGHOST and libpq's other
variables, which also supply missing parameters. A password on the command line is visible to other users of the
machine: prefer DATABASE_URL, PGPASSWORD or password_file.

exit status:
  0  nothing is wrong
  1  at least one error
  2  the command line or the URL is invalid
  3  warnings, but no error
";

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    /// True to print JSON.
    pub(crate) json: bool,
}

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Resolve(DnsOptions),
    Check(Box<Config>),
    Watch(Box<Watch>),
    Bench(Box<Bench>),
}

#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) config: Config,
    pub(crate) interval: Duration,
    /// Number of views. `None`: until the program is interrupted.
    pub(crate) count: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) config: Config,
    pub(crate) duration: Duration,
    pub(crate) tasks: usize,
    pub(crate) sql: String,
}

/// The options of all commands, before the command decides which of them are valid.
#[derive(Default)]
struct Options {
    json: bool,
    values: Vec<(&'static str, OsString)>,
    operands: Vec<OsString>,
}

/// The options with a value, each with the command that has it.
const VALUES: [(&str, &str); 8] = [
    ("count", "watch"),
    ("interval", "watch"),
    ("port", "resolve"),
    ("seconds", "bench"),
    ("server", "resolve"),
    ("sql", "bench"),
    ("srv", "resolve"),
    ("tasks", "bench"),
];

impl Arguments {
    /// Parses a command line. A URL that is not given is read from the environment.
    pub(crate) fn parse(mut parser: Parser) -> Result<Self, Fault> {
        let mut options = Options::default();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("help") | Arg::Short('h') => return Ok(Self { command: Command::Help, json: false }),
                Arg::Long("version") | Arg::Short('V') => return Ok(Self { command: Command::Version, json: false }),
                Arg::Long("json") => options.json = true,
                Arg::Long(name) => match VALUES.iter().find(|(option, _)| *option == name) {
                    Some((option, _)) => options.values.push((option, parser.value()?)),
                    None => return Err(format!("unknown option `--{name}`; see `podpool --help`").into()),
                },
                Arg::Value(operand) => options.operands.push(operand),
                Arg::Short(_) => return Err(format!("{}; see `podpool --help`", arg.unexpected()).into()),
            }
        }
        options.into_arguments()
    }
}

impl Options {
    fn into_arguments(mut self) -> Result<Arguments, Fault> {
        if self.operands.is_empty() {
            return Err("expected a command; see `podpool --help`".into());
        }
        let name = self.operands.remove(0).string()?;
        if let Some((option, of)) =
            VALUES.iter().find(|(option, of)| *of != name && self.values.iter().any(|(given, _)| given == option))
        {
            return Err(format!("`--{option}` is an option of `podpool {of}`; see `podpool --help`").into());
        }
        let command = match name.as_str() {
            "help" => Command::Help,
            "resolve" => Command::Resolve(self.resolve()?),
            "check" => Command::Check(Box::new(self.config()?)),
            "watch" => Command::Watch(Box::new(self.watch()?)),
            "bench" => Command::Bench(Box::new(self.bench()?)),
            // A URL may contain a password.
            _ if name.contains(['=', ':']) => {
                return Err("expected a command before the URL, such as `check`; see `podpool --help`".into());
            }
            _ => return Err(format!("unknown command `{name}`; see `podpool --help`").into()),
        };
        Ok(Arguments { command, json: self.json })
    }

    fn resolve(&mut self) -> Result<DnsOptions, Fault> {
        let name = self.operand()?.ok_or("expected the name of a Service; see `podpool --help`")?;
        let port = self.number("port", 5432)?;
        let mut options = DnsOptions::new(name.parse()?, port);
        options.cluster_ip_after = 1;
        options.srv_port_name = self.text("srv")?;
        while let Some(server) = self.text("server")? {
            let with_port = |_| server.parse().map(|ip| SocketAddr::new(ip, 53));
            let address = server.parse().or_else(with_port);
            options.nameservers.push(address.map_err(|_| format!("`--server` expects IP:PORT, got `{server}`"))?);
        }
        Ok(options)
    }

    fn watch(&mut self) -> Result<Watch, Fault> {
        let interval = self.seconds("interval", 1.0)?;
        let count = match self.number("count", 0)? {
            0 => None,
            count => Some(count),
        };
        Ok(Watch { config: self.config()?, interval, count })
    }

    fn bench(&mut self) -> Result<Bench, Fault> {
        let duration = self.seconds("seconds", 5.0)?;
        let tasks = self.number("tasks", 16)?;
        if !(1..=10_000).contains(&tasks) {
            return Err("`--tasks` expects a number from 1 to 10000".into());
        }
        let sql = self.text("sql")?.unwrap_or_else(|| "SELECT 1".to_owned());
        Ok(Bench { config: self.config()?, duration, tasks, sql })
    }

    /// Returns the configuration from the URL, which the environment completes.
    fn config(&mut self) -> Result<Config, Fault> {
        let url = match self.operand()? {
            Some(url) => url,
            None => std::env::var("DATABASE_URL").unwrap_or_default(),
        };
        let config = Config::parse_with_env(&url).map_err(|error| match url.as_str() {
            "" => format!("expected a URL as an argument, in DATABASE_URL, or in libpq's variables: {error}"),
            _ => format!("the URL is invalid: {error}"),
        })?;
        config.validate()?;
        Ok(config)
    }

    /// Takes the only operand after the command.
    fn operand(&mut self) -> Result<Option<String>, Fault> {
        if self.operands.len() > 1 {
            return Err("expected only one name or URL; see `podpool --help`".into());
        }
        // The text of an error would contain the URL, and therefore possibly a password.
        let text = |operand: OsString| operand.into_string().map_err(|_| "the name or URL is not valid UTF-8");
        Ok(self.operands.pop().map(text).transpose()?)
    }

    /// Takes the first value of an option.
    fn text(&mut self, option: &str) -> Result<Option<String>, Fault> {
        let at = self.values.iter().position(|(given, _)| *given == option);
        Ok(at.map(|at| self.values.remove(at).1.string()).transpose()?)
    }

    fn number<T: std::str::FromStr>(&mut self, option: &str, default: T) -> Result<T, Fault> {
        let Some(text) = self.text(option)? else { return Ok(default) };
        text.parse().map_err(|_| format!("`--{option}` expects a number, got `{text}`").into())
    }

    fn seconds(&mut self, option: &str, default: f64) -> Result<Duration, Fault> {
        let seconds = self.number(option, default)?;
        if !(0.05..=86_400.0).contains(&seconds) {
            return Err(format!("`--{option}` expects a number of seconds from 0.05 to 86400").into());
        }
        Ok(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Fault> {
        Arguments::parse(Parser::from_args(line.split_whitespace()))
    }

    fn fault(line: &str) -> String {
        parse(line).expect_err("the command line is invalid").to_string()
    }

    #[test]
    fn parses_each_command() {
        let Command::Resolve(options) =
            parse("resolve svc --srv pg --server 10.0.0.1 --server [::1]:54").unwrap().command
        else {
            panic!("not `resolve`")
        };
        assert_eq!((options.name.as_str(), options.port, options.srv_port_name.as_deref()), ("svc", 5432, Some("pg")));
        assert_eq!(options.nameservers, ["10.0.0.1:53".parse().unwrap(), "[::1]:54".parse().unwrap()]);
        let checked = parse("check --json postgres://app@svc/shop").unwrap();
        assert!(checked.json && matches!(&checked.command, Command::Check(config) if config.dbname() == "shop"));
        let watched = parse("watch postgres://app@svc/shop --interval 0.5 --count=3").unwrap().command;
        assert!(
            matches!(watched, Command::Watch(watch) if watch.count == Some(3) && watch.interval.as_millis() == 500)
        );
        let Command::Bench(bench) = parse("bench postgres://app@svc/ --tasks 4").unwrap().command else {
            panic!("not `bench`")
        };
        assert_eq!((bench.tasks, bench.duration.as_secs(), bench.sql.as_str()), (4, 5, "SELECT 1"));
        assert!(matches!(parse("--help").unwrap().command, Command::Help));
        assert!(matches!(parse("check --version").unwrap().command, Command::Version));
    }

    #[test]
    fn faults_name_the_option_and_never_the_url() {
        for (line, expected) in [
            ("", "expected a command"),
            ("chek", "unknown command `chek`"),
            ("check postgres://a:s3cret@svc/ more", "only one name or URL"),
            ("check --tasks 3 postgres://a@svc/", "`--tasks` is an option of `podpool bench`"),
            ("check --jsn postgres://a@svc/", "unknown option `--jsn`"),
            ("bench --tasks 0 postgres://a@svc/", "from 1 to 10000"),
            ("watch --interval x postgres://a@svc/", "`--interval` expects a number, got `x`"),
            ("watch --interval 0 postgres://a@svc/", "from 0.05"),
            ("resolve", "the name of a Service"),
            ("resolve svc --server host", "expects IP:PORT"),
            ("postgres://a:s3cret@svc/", "expected a command before the URL"),
            ("check postgres://a:s3cret@svc/?pool_sise=3", "pool_size"),
        ] {
            let fault = fault(line);
            assert!(fault.contains(expected) && !fault.contains("s3cret"), "{line}: {fault}");
        }
    }
}
