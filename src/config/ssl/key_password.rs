use crate::config::Secret;

/// The password of an encrypted private key. Unlike [`Secret`], it can be compared, because [`Ssl`](super::Ssl) can.
/// `Debug` output does not contain the text.
#[derive(Clone, Debug)]
pub(super) struct KeyPassword(pub(super) Secret);

impl PartialEq for KeyPassword {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Eq for KeyPassword {}
