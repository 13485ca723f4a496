use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Network;

/// The task that processes the events of a network at their times.
pub(super) struct Driver {
    network: Network,
    sleep: Pin<Box<Sleep>>,
}

impl Driver {
    pub(super) fn new(network: Network) -> Self {
        Self { network, sleep: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            // While events are processed, new events do not wake the driver.
            self.network.with(|core| (core.driver, core.sleeps_until) = (None, Some(now)));
            let next = self.network.process(now);
            self.network.with(|core| (core.driver, core.sleeps_until) = (Some(cx.waker().clone()), next));
            let Some(next) = next else { return Poll::Pending };
            if self.sleep.deadline() != next {
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
