//! Interrupts an action after a given number of polls.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use podpool::Client;
use tokio::{sync::oneshot, time::timeout};

use crate::actions;

/// Payload of the panics that [`Interruption::Panic`] causes.
const PANIC: &str = "interrupted on purpose";
/// Time after which a waiting action is interrupted, even if it has been polled fewer times than requested.
const WAIT: Duration = Duration::from_millis(60);

/// A way to interrupt an action.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Interruption {
    /// The future is dropped during its last poll.
    Drop,
    /// The task is aborted after the last poll.
    Abort,
    /// The task panics during its last poll.
    Panic,
    /// A timeout drops the future, regardless of the number of polls.
    Timeout,
}

pub(crate) const INTERRUPTIONS: [Interruption; 4] =
    [Interruption::Drop, Interruption::Abort, Interruption::Panic, Interruption::Timeout];

/// A future that is interrupted after a limited number of polls.
struct PollLimit<F> {
    work: Option<Pin<Box<F>>>,
    polls_left: usize,
    at_limit: AtLimit,
}

/// Effect of the last poll of a [`PollLimit`].
enum AtLimit {
    Finish,
    Notify(Option<oneshot::Sender<()>>),
    Panic,
}

impl<F: Future> Future for PollLimit<F> {
    /// `None` if the future was interrupted.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left > 0 {
            self.polls_left -= 1;
            let work = self.work.as_mut().expect("not polled after completion");
            let poll = work.as_mut().poll(cx);
            if poll.is_ready() || self.polls_left > 0 {
                return poll.map(Some);
            }
        }
        match &mut self.at_limit {
            AtLimit::Finish => {
                self.work = None;
                Poll::Ready(None)
            }
            AtLimit::Notify(sender) => {
                sender.take().map(|sender| sender.send(()));
                Poll::Pending
            }
            AtLimit::Panic => std::panic::panic_any(PANIC),
        }
    }
}

/// Runs an action and interrupts it after `polls` polls, or after [`WAIT`] if it is polled fewer times.
/// [`Interruption::Timeout`] interrupts it after `limit` instead.
///
/// Returns true if the action was interrupted after exactly `polls` polls or after `limit`.
pub(crate) async fn interrupt(
    client: Client,
    action: usize,
    polls: usize,
    interruption: Interruption,
    limit: Duration,
) -> bool {
    let action = actions::run(action, client);
    let limited = |action, at_limit| PollLimit { work: Some(Box::pin(action)), polls_left: polls, at_limit };
    match interruption {
        Interruption::Drop => matches!(timeout(WAIT, limited(action, AtLimit::Finish)).await, Ok(None)),
        Interruption::Panic => {
            let mut task = tokio::spawn(limited(action, AtLimit::Panic));
            let ended = timeout(WAIT, &mut task).await;
            task.abort();
            matches!(ended, Ok(Err(error)) if error.is_panic())
        }
        Interruption::Abort => {
            let (sender, receiver) = oneshot::channel();
            let task = tokio::spawn(limited(action, AtLimit::Notify(Some(sender))));
            // The sender is dropped without a message if the action completed before the last poll.
            let notified = timeout(WAIT, receiver).await;
            task.abort();
            task.await.is_err_and(|error| error.is_cancelled()) && matches!(notified, Ok(Ok(())))
        }
        Interruption::Timeout => timeout(limit, action).await.is_err(),
    }
}

/// Suppresses the output of panics that [`Interruption::Panic`] causes.
pub(crate) fn silence_intended_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PANIC) {
            hook(info);
        }
    }));
}
