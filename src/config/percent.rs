//! Percent-decoding (RFC 3986, section 2.1) that refuses what it cannot read: a `%` without two hexadecimal digits,
//! bytes that are no UTF-8, and `%00`, which ends a text in PostgreSQL's protocol.

use zeroize::{Zeroize, Zeroizing};

use crate::error::ConfigError;

/// Decodes a value. The error names the parameter and never the text, which may be a password; what was decoded of it
/// is overwritten.
pub(super) fn decode(parameter: &'static str, text: &str) -> Result<Zeroizing<String>, ConfigError> {
    // Decoding never makes a text longer, so this is the only copy there will be.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => {
                    return Err(ConfigError::new(parameter, "two hexadecimal digits after `%`; a `%` itself is `%25`"));
                }
            },
            byte => byte,
        });
    }
    if out.contains(&0) {
        return Err(ConfigError::new(parameter, "no `%00`: PostgreSQL's texts end at a zero byte"));
    }
    match String::from_utf8(std::mem::take(&mut *out)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(ConfigError::new(parameter, "UTF-8 in its percent-encoded bytes"))
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes() {
        assert_eq!(*decode("user", "a%20b%C3%a9+é").unwrap(), "a bé+é");
    }

    #[test]
    fn refuses_without_repeating() {
        for (text, expected) in [
            ("hunter%", "`%25`"),
            ("hunter%2", "`%25`"),
            ("hunter%zz", "`%25`"),
            ("hunter%+1", "`%25`"),
            ("hunter%ff", "UTF-8"),
            ("hunter%00", "zero byte"),
        ] {
            let error = decode("password", text).unwrap_err();
            assert_eq!(error.parameter(), "password");
            assert!(error.expected().contains(expected), "{error}");
            assert!(!error.to_string().contains("hunter"));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in "[^\0]*") {
            prop_assert_eq!(&*decode("password", &encode(&text)).unwrap(), &text);
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = decode("password", &text);
        }
    }
}
