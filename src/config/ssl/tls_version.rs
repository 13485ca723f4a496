use std::{fmt, str::FromStr};

use crate::{config::message, error::ConfigError};

/// A version of the TLS protocol: a value of libpq's `ssl_min_protocol_version` and `ssl_max_protocol_version`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246). Written as `TLSv1.2`. The default minimum, as in libpq.
    #[default]
    V1_2,
    /// TLS 1.3 (RFC 8446). Written as `TLSv1.3`.
    V1_3,
}

impl TlsVersion {
    const KEYWORDS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
    /// The versions that RFC 8996 deprecates, and that are not implemented.
    const OBSOLETE: [&str; 2] = ["TLSv1", "TLSv1.1"];

    /// Returns the name of the version, such as `TLSv1.2`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }

    /// Parses `ssl_min_protocol_version`. An obsolete version is a weaker minimum than TLS 1.2, the oldest version that
    /// is implemented, and therefore means TLS 1.2.
    pub(super) fn minimum(text: &str) -> Result<Self, ConfigError> {
        if Self::OBSOLETE.iter().any(|version| version.eq_ignore_ascii_case(text)) {
            return Ok(Self::V1_2);
        }
        Self::parse("ssl_min_protocol_version", text)
    }

    /// Parses `ssl_max_protocol_version`. Rejects the obsolete versions.
    pub(super) fn maximum(text: &str) -> Result<Self, ConfigError> {
        if Self::OBSOLETE.iter().any(|version| version.eq_ignore_ascii_case(text)) {
            let expected = "`TLSv1.2` or `TLSv1.3`, because older versions are insecure (RFC 8996) and not implemented";
            return Err(ConfigError::new("ssl_max_protocol_version", expected).got(text));
        }
        Self::parse("ssl_max_protocol_version", text)
    }

    /// Parses a version. As in libpq, upper and lower case are equivalent.
    fn parse(parameter: &'static str, text: &str) -> Result<Self, ConfigError> {
        let versions = [Self::V1_2, Self::V1_3];
        let found = versions.into_iter().find(|version| version.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| message::unknown_keyword(parameter, &Self::KEYWORDS, text))
    }
}

impl FromStr for TlsVersion {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse("ssl_min_protocol_version", text)
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obsolete_versions_are_accepted_only_as_a_minimum() {
        for text in ["TLSv1", "TLSv1.1", "tlsv1.1"] {
            assert_eq!(TlsVersion::minimum(text).unwrap(), TlsVersion::V1_2);
            let error = TlsVersion::maximum(text).unwrap_err();
            assert_eq!((error.parameter(), error.received()), ("ssl_max_protocol_version", Some(text)));
        }
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            assert_eq!(version.to_string().parse::<TlsVersion>().unwrap(), version);
            assert_eq!(TlsVersion::minimum(&version.as_str().to_lowercase()).unwrap(), version);
            assert_eq!(TlsVersion::maximum(version.as_str()).unwrap(), version);
        }
        let error = TlsVersion::minimum("1.3").unwrap_err();
        assert_eq!((error.parameter(), error.received()), ("ssl_min_protocol_version", Some("1.3")));
    }
}
