//! The spans of the callers that wait for a connection. The span of opening a connection follows from them, because the
//! task that opens it belongs to no caller.

use tracing::Span;

use crate::sync::{Mutex, lock};

/// Maximum number of spans that one opening follows from.
const LINKS: usize = 8;

/// The spans of the callers that wait, oldest first.
#[derive(Debug, Default)]
pub(crate) struct WaitingSpans(Mutex<Vec<Span>>);

/// A caller that waits. Dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct WaitingSpan<'a> {
    spans: &'a WaitingSpans,
    span: Span,
}

impl WaitingSpans {
    /// Adds the span of a caller that waits. Does nothing, and takes no lock, if no subscriber is interested in it.
    pub(crate) fn enter(&self, span: &Span) -> Option<WaitingSpan<'_>> {
        if span.is_disabled() {
            return None;
        }
        lock(&self.0).push(span.clone());
        Some(WaitingSpan { spans: self, span: span.clone() })
    }

    /// Makes a span follow from those of the oldest callers that wait.
    pub(crate) fn link(&self, span: &Span) {
        if span.is_disabled() {
            return;
        }
        // Linked outside of the lock, because that calls the subscriber.
        let waiting: Vec<_> = lock(&self.0).iter().take(LINKS).cloned().collect();
        for waiting in waiting {
            span.follows_from(&waiting);
        }
    }
}

impl Drop for WaitingSpan<'_> {
    fn drop(&mut self) {
        let span = {
            let mut spans = lock(&self.spans.0);
            let position = spans.iter().position(|span| span.id() == self.span.id());
            position.map(|position| spans.remove(position))
        };
        drop(span); // outside of the lock, because that may call the subscriber
    }
}
