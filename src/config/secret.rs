use std::fmt;

/// A text that never prints, such as a password.
///
/// It has no [`Display`](fmt::Display), its [`Debug`] shows the same few characters for every content, and it compares
/// with nothing: an error, a log line or an assertion made from it cannot give it away. Only this crate reads it, and
/// only to authenticate.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Never put it, or a part of it, into a message.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
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
}
