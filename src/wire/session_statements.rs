//! Finds the statements that may change session state in the messages that the driver sends.
//!
//! Only Query and Parse contain a statement's text. A prepared statement can be executed again in a later checkout, so
//! the names of prepared statements whose text has an effect are kept until they are closed.

use std::collections::HashMap;

use super::{
    record::SessionChange,
    session_text::{PartialSearch, TextEffect, effect_of, may_run_block},
};

/// Maximum number of names that are kept. With more, the connection is closed when it is returned.
pub(super) const MAX_NAMES: usize = 1024;

/// The statements of one connection that may change session state.
#[derive(Debug)]
pub(super) struct SessionStatements {
    /// The names of the prepared statements whose text has an effect.
    named: HashMap<Box<[u8]>, Named>,
    /// True if a name whose statement may change session state could not be kept.
    overflowed: bool,
    /// The search of the text of a message that arrives in several parts.
    search: PartialSearch,
    /// True if a statement that may change session state was sent.
    changed: bool,
    /// The effect of the statement that was bound last.
    bound: TextEffect,
    /// The kind of the statements that were executed since the last request.
    executed: Executed,
}

/// A prepared statement whose text has an effect.
#[derive(Clone, Copy, Debug)]
struct Named {
    effect: TextEffect,
    /// The number of the request that prepares the statement.
    request: u64,
}

/// The kind of the statements that the messages since the last request execute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Executed {
    Nothing,
    LocalSets,
    Other,
}

/// Splits the text before the next zero byte off.
fn split_text(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().position(|&byte| byte == 0)?;
    Some((&body[..end], &body[end + 1..]))
}

impl SessionStatements {
    pub(super) fn new() -> Self {
        Self {
            named: HashMap::new(),
            overflowed: false,
            search: PartialSearch::new(),
            changed: false,
            bound: TextEffect::None,
            executed: Executed::Nothing,
        }
    }

    /// Returns true if the bodies of messages of this type are needed.
    #[inline]
    pub(super) fn needs_body(&self, kind: u8) -> bool {
        match kind {
            b'Q' | b'P' => true,
            b'B' | b'C' => !self.named.is_empty(),
            _ => false,
        }
    }

    /// Applies a message that was received as a whole. `request` is the number of its request if it is a Parse. Returns
    /// the effect of a Query.
    pub(super) fn apply(&mut self, kind: u8, body: &[u8], request: u64) -> TextEffect {
        match kind {
            b'Q' => return self.query(effect_of(body)),
            b'P' => match split_text(body) {
                Some((name, text)) => self.prepare(name, Named { effect: effect_of(text), request }),
                None => self.changed = true, // not a valid message
            },
            _ => self.apply_name(kind, body),
        }
        TextEffect::None
    }

    /// Applies a part of the body of a message that arrives in several parts.
    pub(super) fn add_part(&mut self, kind: u8, part: &[u8]) {
        if matches!(kind, b'Q' | b'P') {
            self.search.add(part);
        }
    }

    /// Applies a message that has arrived in several parts. `start` is the start of the body.
    pub(super) fn end_parts(&mut self, kind: u8, start: &[u8], request: u64) {
        let effect = match kind {
            b'Q' | b'P' => std::mem::replace(&mut self.search, PartialSearch::new()).finish(),
            _ => return self.apply_name(kind, start),
        };
        let with_block = |text| if may_run_block(text) { TextEffect::Changes } else { effect };
        if kind == b'Q' {
            self.query(with_block(start));
        } else if let Some((name, text)) = split_text(start) {
            self.prepare(name, Named { effect: with_block(text), request });
        } else {
            // The name is too long to be kept, or the message is not valid.
            self.changed = true;
            self.overflowed |= effect == TextEffect::Changes;
        }
    }

    fn query(&mut self, effect: TextEffect) -> TextEffect {
        self.changed |= effect == TextEffect::Changes;
        effect
    }

    fn prepare(&mut self, name: &[u8], new: Named) {
        self.changed |= new.effect == TextEffect::Changes;
        // If a statement of this name exists, the server refuses the new one and keeps the existing one, except for the
        // unnamed statement, which it replaces.
        match self.named.get_mut(name).filter(|_| !name.is_empty()) {
            Some(named) if named.effect == TextEffect::Changes || named.effect == new.effect => return,
            Some(named) if new.effect == TextEffect::Changes => return named.effect = new.effect,
            _ => drop(self.named.remove(name)),
        }
        if new.effect == TextEffect::None {
            return;
        }
        if new.effect == TextEffect::Changes && self.named.len() == MAX_NAMES {
            self.named.retain(|_, named| named.effect == TextEffect::Changes);
        }
        if self.named.len() < MAX_NAMES {
            self.named.insert(name.into(), new);
        } else {
            self.overflowed |= new.effect == TextEffect::Changes;
        }
    }

    /// Forgets the statements that a request was to prepare, because the server has refused them.
    pub(super) fn forget(&mut self, request: u64) {
        self.named.retain(|_, named| named.request != request);
    }

    /// Applies a Bind or a Close. `body` may be truncated.
    fn apply_name(&mut self, kind: u8, body: &[u8]) {
        if kind == b'B' {
            // The name of the portal, and the name of the statement.
            let name = split_text(body).and_then(|(_, rest)| split_text(rest));
            self.bound = match name {
                Some((name, _)) => self.named.get(name).map_or(TextEffect::None, |named| named.effect),
                // The name is too long, or the message is not valid.
                None if self.named.values().any(|named| named.effect == TextEffect::Changes) => TextEffect::Changes,
                None => TextEffect::None,
            };
            self.changed |= self.bound == TextEffect::Changes;
        } else if let Some((name, _)) = body.strip_prefix(b"S").and_then(split_text) {
            self.named.remove(name);
        }
    }

    /// Applies a Bind whose body is not needed.
    #[inline]
    pub(super) fn bind_other(&mut self) {
        self.bound = TextEffect::None;
    }

    /// Applies an Execute.
    #[inline]
    pub(super) fn execute(&mut self) {
        self.executed = match (self.executed, self.bound) {
            (Executed::Nothing | Executed::LocalSets, TextEffect::LocalSet) => Executed::LocalSets,
            _ => Executed::Other,
        };
    }

    /// Applies the end of a request. Returns true if the request executes `SET LOCAL` or `SET TRANSACTION`, and nothing
    /// else.
    #[inline]
    pub(super) fn end_request(&mut self) -> bool {
        self.bound = TextEffect::None;
        std::mem::replace(&mut self.executed, Executed::Nothing) == Executed::LocalSets
    }

    /// Applies a FunctionCall, which contains no text.
    pub(super) fn call_function(&mut self) {
        self.changed = true;
    }

    /// Returns the change of session state that was observed since the last call.
    #[inline]
    pub(super) fn take_change(&mut self) -> Option<SessionChange> {
        let changed = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.overflowed) {
            return Some(SessionChange::Unknown);
        }
        changed.then_some(SessionChange::Text)
    }
}
