//! A deadline that is moved rarely: a later one waits until the earlier one has struck.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for the waits that follow each other. A timer that is set and taken back for every wait costs two visits to
/// the runtime's wheel, under its lock; this one is there about once in the length of a wait.
///
/// It may wake its task once for a wait that has ended.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

impl Timer {
    /// Ready once `deadline` has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            match self.armed {
                Some(armed) if armed <= deadline => {}
                _ => {
                    sleep.as_mut().reset(deadline);
                    self.armed = Some(deadline);
                }
            }
            ready!(sleep.as_mut().poll(cx));
            if self.armed.take() == Some(deadline) {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_lasts_until_its_own_deadline_whatever_was_waited_for_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timer = Timer::default();
        // The first is given up, the second is later, the third earlier than what is armed.
        for (given_up, deadline) in [(Some(5), 7), (None, 9), (Some(30), 20), (None, 21)] {
            if let Some(given_up) = given_up {
                let polled = poll_fn(|cx| Poll::Ready(timer.poll(cx, at(given_up)))).await;
                assert!(polled.is_pending());
            }
            poll_fn(|cx| timer.poll(cx, at(deadline))).await;
            assert_eq!(Instant::now(), at(deadline));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_is_ready_at_once() {
        let mut timer = Timer::default();
        poll_fn(|cx| timer.poll(cx, Instant::now())).await;
        poll_fn(|cx| timer.poll(cx, Instant::now())).await;
    }
}
