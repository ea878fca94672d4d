//! What may be committed here and not be on the standby.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts the occasions on which a commit may have become visible without the standby's word,
/// and up to which of them a later commit has reached it: the log is in one order, so that one
/// has taken all before it along.
///
/// Where commits wait for a standby, every look is such an occasion: what it has found may be a commit
/// of another gateway whose wait was cancelled, of which nothing at the server tells.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    raised: AtomicU64,
    resolved: AtomicU64,
    has_standby: AtomicBool,
}

impl Doubts {
    /// Notes whether commits wait for a standby, as a new connection finds.
    pub(super) fn note_standby(&self, has_standby: bool) {
        self.has_standby.store(has_standby, Ordering::Release);
        if has_standby {
            // A server that was restarted while commits waited shows them to everybody.
            self.raise();
        }
    }

    /// Notes that something was found that is to be shown. Called after it was read.
    pub(super) fn look(&self) {
        if self.has_standby.load(Ordering::Acquire) {
            self.raise();
        }
    }

    pub(super) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn raised(&self) -> u64 {
        self.raised.load(Ordering::Acquire)
    }

    /// Whether the first `raised` of them are over.
    pub(super) fn are_resolved(&self, raised: u64) -> bool {
        self.resolved.load(Ordering::Acquire) >= raised
    }

    pub(super) fn resolve(&self, raised: u64) {
        self.resolved.fetch_max(raised, Ordering::AcqRel);
    }

    /// Raises a doubt when it is dropped before it is told that the write's end is known.
    pub(super) const fn write(&self) -> Writing<'_> {
        Writing {
            doubts: self,
            is_over: false,
        }
    }
}

/// A write under way.
pub(super) struct Writing<'a> {
    doubts: &'a Doubts,
    is_over: bool,
}

impl Writing<'_> {
    pub(super) const fn is_over(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.doubts.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_a_doubt_only_where_commits_wait_for_a_standby() {
        let doubts = Doubts::default();
        doubts.look();
        assert!(doubts.are_resolved(doubts.raised()));
        doubts.note_standby(true);
        doubts.resolve(doubts.raised());
        doubts.look();
        assert!(!doubts.are_resolved(doubts.raised()));
        doubts.resolve(doubts.raised());
        doubts.note_standby(false);
        doubts.look();
        assert!(doubts.are_resolved(doubts.raised()));
    }

    #[test]
    fn a_write_whose_end_is_not_known_is_a_doubt_until_a_later_commit_is_through() {
        let doubts = Doubts::default();
        doubts.write().is_over();
        assert!(doubts.are_resolved(doubts.raised()));
        drop(doubts.write());
        let raised = doubts.raised();
        assert!(!doubts.are_resolved(raised));
        drop(doubts.write());
        doubts.resolve(raised);
        assert!(doubts.are_resolved(raised));
        assert!(!doubts.are_resolved(doubts.raised()), "the second is later");
    }
}
