use std::{env, net::SocketAddr, str::FromStr, time::Duration};

const USAGE: &str = "\
usage: load [--address IP:PORT] [--rate REQUESTS_PER_SECOND] [--seconds N] [--every SECONDS]
       default: --address 127.0.0.1:8080 --rate 50 --seconds 600 --every 1
       creates the table for the writes first if DATABASE_URL is set";

/// Command-line options.
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    /// Requests per second.
    pub(crate) rate: u32,
    pub(crate) length: Duration,
    /// Interval between the printed lines.
    pub(crate) every: Duration,
}

impl Options {
    pub(crate) fn from_command_line() -> Result<Self, String> {
        let mut options = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            rate: 50,
            length: Duration::from_secs(600),
            every: Duration::from_secs(1),
        };
        let mut arguments = env::args().skip(1);
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match option.as_str() {
                "--address" => options.address = parse(&value)?,
                "--rate" => options.rate = parse(&value)?,
                "--seconds" => options.length = Duration::from_secs(parse(&value)?),
                "--every" => options.every = Duration::from_secs(parse(&value)?),
                _ => return Err(USAGE.to_owned()),
            }
        }
        let valid = (1..=10_000).contains(&options.rate) && !options.length.is_zero() && !options.every.is_zero();
        if valid {
            Ok(options)
        } else {
            Err(format!("expected a rate from 1 to 10000 and times of at least one second\n{USAGE}"))
        }
    }
}

fn parse<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("invalid value `{value}`\n{USAGE}"))
}
