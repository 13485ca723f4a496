use std::{fmt, str::FromStr};

use super::text::{ParseError, Value, halves};

/// A host of the simulated world, by its number from 0.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Host {
    /// A client: a process with one pool.
    Client(u32),
    /// The Pod with this ordinal, whatever its address.
    Pod(u32),
    /// A name server.
    NameServer(u32),
    /// The operator, with its lease store.
    Operator,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "client-{number}"),
            Self::Pod(number) => write!(f, "pod-{number}"),
            Self::NameServer(number) => write!(f, "dns-{number}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

impl FromStr for Host {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Value::parse(text)
    }
}

impl Value for Host {
    fn text(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        let number = |kind: &str| text.strip_prefix(kind).and_then(|number| number.parse().ok());
        if text == "operator" {
            return Ok(Self::Operator);
        }
        let host = number("client-").map(Self::Client).or_else(|| number("pod-").map(Self::Pod));
        let host = host.or_else(|| number("dns-").map(Self::NameServer));
        host.ok_or_else(|| ParseError::new("a host, such as `client-0`, `pod-1`, `dns-0` or `operator`", text))
    }

    fn host(&self) -> Option<Host> {
        Some(*self)
    }
}

/// A percentage from 1 to 100.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Percent(pub u32);

impl Value for Percent {
    fn text(&self) -> String {
        format!("{}%", self.0)
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        let number = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
        let valid = number.filter(|number| (1..=100).contains(number));
        valid.map(Self).ok_or_else(|| ParseError::new("a percentage from `1%` to `100%`", text))
    }

    fn milder(&self) -> Vec<Self> {
        halves(self.0.into()).into_iter().map(|half| Self(half as u32)).collect()
    }
}

/// A factor by which something takes longer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Factor(pub u32);

impl Value for Factor {
    fn text(&self) -> String {
        format!("{}x", self.0)
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        let number = text.strip_suffix('x').and_then(|digits| digits.parse().ok());
        let valid = number.filter(|number| *number >= 2);
        valid.map(Self).ok_or_else(|| ParseError::new("a factor of at least `2x`", text))
    }

    fn milder(&self) -> Vec<Self> {
        halves(self.0.into()).into_iter().filter(|half| *half >= 2).map(|half| Self(half as u32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_own_text() {
        for host in [Host::Client(0), Host::Pod(19), Host::NameServer(1), Host::Operator] {
            assert_eq!(Host::parse(&host.text()), Ok(host));
        }
        assert_eq!(Percent::parse("20%"), Ok(Percent(20)));
        assert_eq!(Factor::parse("8x"), Ok(Factor(8)));
    }

    #[test]
    fn rejects_other_text() {
        assert!(Host::parse("server-1").is_err());
        for text in ["0%", "101%", "5"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
        assert!(Factor::parse("1x").is_err());
    }

    #[test]
    fn milder_values_are_smaller_and_valid() {
        assert_eq!(Percent(20).milder(), [Percent(5), Percent(10)]);
        assert_eq!(Percent(1).milder(), []);
        assert_eq!(Factor(8).milder(), [Factor(2), Factor(4)]);
    }
}
