//! Strict percent-decoding (RFC 3986, section 2.1). Three inputs are rejected: a `%` without two hexadecimal digits,
//! invalid UTF-8, and `%00`, because a zero byte ends a string in PostgreSQL's protocol.

use zeroize::{Zeroize, Zeroizing};

use crate::error::ConfigError;

/// Decodes the value of `parameter`, which may be a password. An error therefore does not contain the value, and the
/// bytes decoded before the error are overwritten.
pub(super) fn decode(parameter: &'static str, text: &str) -> Result<Zeroizing<String>, ConfigError> {
    // The result is never longer than the input, so the buffer is not reallocated and leaves no copy of a password.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => {
                    return Err(ConfigError::new(
                        parameter,
                        "two hexadecimal digits after each `%` (a literal `%` is `%25`)",
                    ));
                }
            },
            byte => byte,
        });
    }
    if out.contains(&0) {
        return Err(ConfigError::new(
            parameter,
            "a value without `%00` (PostgreSQL strings cannot contain a zero byte)",
        ));
    }
    match String::from_utf8(std::mem::take(&mut *out)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(ConfigError::new(parameter, "percent-encoded bytes that are valid UTF-8"))
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Percent-encodes every byte except ASCII letters and digits.
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
    fn decodes_percent_encoded_bytes_and_keeps_other_characters() {
        assert_eq!(*decode("user", "a%20b%C3%a9+é").unwrap(), "a bé+é");
    }

    #[test]
    fn rejects_invalid_encodings_without_revealing_the_value() {
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
            assert!(error.problem().contains(expected), "{error}");
            assert!(!error.to_string().contains("hunter"));
        }
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding(text in "[^\0]*") {
            prop_assert_eq!(&*decode("password", &encode(&text)).unwrap(), &text);
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = decode("password", &text);
        }
    }
}
