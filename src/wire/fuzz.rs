//! Bytes of a connection, and what must hold whatever they are: how they are cut says nothing.

use super::{
    frontend::Frontend,
    reply::{Replies, Reply},
};

/// Pieces of the rest, each as long as the first byte says.
fn pieces(bytes: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let (&length, rest) = bytes.split_first()?;
    Some((rest, rest.chunks(usize::from(length).max(1))))
}

/// What the driver writes.
pub fn requests(bytes: &[u8]) {
    let Some((whole, pieces)) = pieces(bytes) else { return };
    let mut frontend = Frontend::new();
    let counted: u32 = pieces.map(|piece| frontend.feed(piece)).sum();
    assert_eq!(counted, Frontend::new().feed(whole));
    assert!(counted as usize <= whole.len() / 4, "each has a header");
}

/// What the server sends.
pub fn replies(bytes: &[u8]) {
    let Some((whole, pieces)) = pieces(bytes) else { return };
    let (mut at_once, mut cut): (Vec<Reply>, Vec<Reply>) = (Vec::new(), Vec::new());
    Replies::new().feed(whole, |reply| at_once.push(reply));
    let mut replies = Replies::new();
    for piece in pieces {
        replies.feed(piece, |reply| cut.push(reply));
    }
    assert_eq!(at_once, cut);
    assert!(cut.len() <= whole.len() / 5, "each has a header");
}
