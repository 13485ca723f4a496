use std::{fmt, sync::Arc};

use zeroize::{Zeroize, Zeroizing};

/// A text that never prints, such as a password.
///
/// It has no [`Display`](fmt::Display), its [`Debug`] shows the same few characters for every content, and it compares
/// with nothing: an error, a log line or an assertion made from it cannot give it away. Only this crate reads it, and
/// only to authenticate.
///
/// A clone shares the text. When the last one is dropped, the memory that held it is overwritten
/// ([zeroize](https://docs.rs/zeroize)). So are the copies that this crate makes on the way from a URL, a file or a
/// provider to here. What it cannot reach is not: the text that it was made from, if that was only borrowed; and the
/// driver's own copies, which `tokio_postgres` makes for each connection that is opened and frees, not overwritten,
/// when that is authenticated (one in its configuration, one in the SCRAM exchange; for a server that asks for a
/// password in clear text, one in the message).
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// The text itself. Never put it, or a part of it, into a message.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is the same text. No secret of ours is compared with somebody else's, so the time it takes tells
    /// nobody anything.
    pub(crate) fn is(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    /// Bytes that are no UTF-8 are given up, and overwritten.
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

/// Takes the text over, without a copy.
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
    fn never_prints() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(format!("{:#?}", Some(&secret)).replace(char::is_whitespace, ""), "Some(Secret(..),)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn is_not_copied_on_its_way_in_or_by_a_clone() {
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
    fn bytes_that_are_no_text_are_no_secret() {
        assert!(Secret::from_utf8(vec![b'a', 0xff]).is_none());
    }
}
