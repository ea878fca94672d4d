//! A waker that stays quiet while its connection is being polled.
//!
//! Who reads an answer also drives its connection, so the two wake each other, which is to say themselves: a task that
//! wakes itself while it runs is queued again and often wakes another worker for it, a system call for nothing. Inside
//! a turn such calls are only noted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// Stands between a connection and the task that drives it.
#[derive(Default)]
pub(crate) struct Relay {
    inside: AtomicBool,
    noted: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Relay {
    /// Begins a turn of the task behind `waker`.
    pub(crate) fn enter(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
        drop(task);
        self.inside.store(true, Ordering::SeqCst);
        self.noted.store(false, Ordering::SeqCst);
    }

    /// Ends a turn; whether a wake-up came during it. One that comes at this very moment is either reported here or
    /// passed on: it is noted before `inside` is asked, and here `inside` is cleared before the note is read.
    pub(crate) fn leave(&self) -> bool {
        self.inside.store(false, Ordering::SeqCst);
        self.noted.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.noted.store(true, Ordering::SeqCst);
        if !self.inside.load(Ordering::SeqCst) {
            let task = self
                .task
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(task) = task {
                task.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_up_inside_a_turn_is_noted_and_outside_it_is_passed_on() {
        let (count, relay) = (Arc::new(Count::default()), Arc::new(Relay::default()));
        let (task, waker) = (
            Waker::from(Arc::clone(&count)),
            Waker::from(Arc::clone(&relay)),
        );
        let woken = || count.0.load(Ordering::SeqCst);
        waker.wake_by_ref();
        relay.enter(&task);
        assert!(!relay.leave());
        relay.enter(&task);
        waker.wake_by_ref();
        assert_eq!(woken(), 0);
        assert!(relay.leave());
        waker.wake_by_ref();
        assert_eq!(woken(), 1);
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        for _ in 0..2000 {
            let (count, relay) = (Arc::new(Count::default()), Arc::new(Relay::default()));
            let (task, waker) = (
                Waker::from(Arc::clone(&count)),
                Waker::from(Arc::clone(&relay)),
            );
            relay.enter(&task);
            let other = std::thread::spawn(move || waker.wake());
            let noted = relay.leave();
            other.join().unwrap();
            assert!(noted || count.0.load(Ordering::SeqCst) == 1);
        }
    }
}
