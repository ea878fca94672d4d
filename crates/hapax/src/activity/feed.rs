//! The feed: the last events with their numbers, in a ring that never grows.

use std::collections::VecDeque;

use super::Happening;

/// How many events are held: 1.6 s of them at 10,000 a second, in about 1 MiB.
pub(crate) const FEED_EVENTS: usize = 16_384;

/// The ring. Events are numbered from 1.
#[derive(Debug)]
pub(crate) struct Feed {
    events: VecDeque<Happening>,
    /// The number of the oldest event held, or of the next when there is none.
    first: u64,
}

/// A piece of the feed.
#[derive(Debug)]
pub(crate) struct Read {
    /// Events with their numbers, oldest first.
    pub(crate) events: Vec<(u64, Happening)>,
    /// Events between the one that was named and the first of these, which are gone.
    pub(crate) missed: u64,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            events: VecDeque::new(),
            first: 1,
        }
    }

    pub(super) fn push(&mut self, event: Happening) {
        if self.events.len() >= FEED_EVENTS {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back(event);
    }

    /// The number of the last event; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }

    pub(super) fn read(&self, after: u64, most: usize) -> Read {
        let wanted = after.saturating_add(1);
        let missed = self.first.saturating_sub(wanted);
        let skip = usize::try_from(wanted.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let numbers = wanted.max(self.first)..;
        let events = self.events.iter().skip(skip).take(most).cloned();
        Read {
            events: numbers.zip(events).collect(),
            missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use hapax_core::time::Timestamp;

    use super::super::What;
    use super::*;

    fn feed(events: u64) -> Feed {
        let mut feed = Feed::new();
        for number in 1..=events {
            feed.push(Happening {
                at: Timestamp::from_millis(number),
                record: None,
                route: None,
                what: What::Released,
            });
        }
        feed
    }

    fn check(feed: &Feed, after: u64, most: usize, numbers: &[u64], missed: u64) {
        let read = feed.read(after, most);
        let found: Vec<u64> = read.events.iter().map(|(number, _)| *number).collect();
        assert_eq!(
            (found.as_slice(), read.missed),
            (numbers, missed),
            "{after}"
        );
        for (number, event) in &read.events {
            assert_eq!(event.at.as_millis(), *number, "a number is its event's");
        }
    }

    #[test]
    fn a_reader_gets_what_came_after_what_it_has() {
        let feed = feed(5);
        assert_eq!(feed.last(), 5);
        check(&feed, 0, 10, &[1, 2, 3, 4, 5], 0);
        check(&feed, 3, 10, &[4, 5], 0);
        check(&feed, 3, 1, &[4], 0);
        check(&feed, 5, 10, &[], 0);
        check(&feed, 99, 10, &[], 0);
        check(&Feed::new(), 0, 10, &[], 0);
        assert_eq!(Feed::new().last(), 0);
    }

    #[test]
    fn a_reader_that_lags_is_told_how_much_it_missed() {
        let held = FEED_EVENTS as u64;
        let feed = feed(held + 7);
        check(&feed, 0, 2, &[8, 9], 7);
        check(&feed, 6, 2, &[8, 9], 1);
        check(&feed, 7, 2, &[8, 9], 0);
    }
}
