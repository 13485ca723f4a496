use std::{env, net::SocketAddr, str::FromStr, time::Duration};

const USAGE: &str = "\
usage: load [--address IP:PORT] [--rate REQUESTS_A_SECOND] [--seconds N] [--every SECONDS]
       default: --address 127.0.0.1:8080 --rate 50 --seconds 600 --every 1
       with DATABASE_URL set, makes the table for the writes first";

/// What the command line says.
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    pub(crate) rate: u32,
    pub(crate) length: Duration,
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
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match word.as_str() {
                "--address" => options.address = parse(&value)?,
                "--rate" => options.rate = parse(&value)?,
                "--seconds" => options.length = Duration::from_secs(parse(&value)?),
                "--every" => options.every = Duration::from_secs(parse(&value)?),
                _ => return Err(USAGE.to_owned()),
            }
        }
        let sound = (1..=10_000).contains(&options.rate) && !options.length.is_zero() && !options.every.is_zero();
        if sound { Ok(options) } else { Err(format!("a rate is 1 to 10000, a time at least a second\n{USAGE}")) }
    }
}

fn parse<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{value}` will not do\n{USAGE}"))
}
