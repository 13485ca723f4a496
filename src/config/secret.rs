use std::{fmt, sync::Arc};

use zeroize::{Zeroize, Zeroizing};

/// A secret text, such as a password, that is never printed.
///
/// A secret implements neither [`Display`](fmt::Display) nor [`PartialEq`], and its [`Debug`] output is the same for
/// every text. Errors, log lines and assertions therefore cannot reveal it. Only this crate reads the text, and only to
/// authenticate.
///
/// Clones share the text. When the last clone is dropped, the memory of the text is overwritten
/// ([zeroize](https://docs.rs/zeroize)). This crate also overwrites the copies that it makes while it reads a URL, a
/// file or a provider's result. Two kinds of copies are not overwritten: a borrowed text that a secret was created
/// from, and the copies of `tokio_postgres`. For each new connection, the driver allocates one copy in its
/// configuration and one in the SCRAM exchange (or, with cleartext authentication, in the password message), and frees
/// them after authentication.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Returns the text, no part of which may appear in an error or a log line.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Returns true if both secrets have the same text. Both come from this process's own configuration, never from an
    /// attacker, so the comparison need not take constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    /// Converts bytes without copying them. If they are not valid UTF-8, overwrites them and returns `None`.
    pub(crate) fn from_utf8(bytes: Vec<u8>) -> Option<Self> {
        match String::from_utf8(bytes) {
            Ok(text) => Some(text.into()),
            Err(error) => {
                error.into_bytes().zeroize();
                None
            }
        }
    }
}

/// Takes ownership of the text without copying it.
impl From<String> for Secret {
    fn from(text: String) -> Self {
        Zeroizing::new(text).into()
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(text: Zeroizing<String>) -> Self {
        Self(Arc::new(text))
    }
}

/// Copies the text.
impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_reveal_the_text() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(format!("{:#?}", Some(&secret)).replace(char::is_whitespace, ""), "Some(Secret(..),)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn converting_and_cloning_do_not_copy_the_text() {
        let text = String::from("hunter2");
        let at = text.as_ptr();
        let secret = Secret::from(text);
        assert_eq!(secret.expose().as_ptr(), at);
        assert_eq!(secret.clone().expose().as_ptr(), at);
        let bytes = b"hunter2".to_vec();
        let at = bytes.as_ptr();
        assert_eq!(Secret::from_utf8(bytes).unwrap().expose().as_ptr(), at);
    }

    #[test]
    fn rejects_invalid_utf8() {
        assert!(Secret::from_utf8(vec![b'a', 0xff]).is_none());
    }
}
