//! Which faults a round gets: dealt from a shuffled deck, so that each has its turn whatever the seed.

use crate::random::Random;

/// A fault on the world. What clients do by themselves, and what an ordinary upstream does now and then, is in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// kill -9 of a gateway, and a restart on the same store.
    Kill,
    /// SIGSTOP of a gateway past its lease, then SIGCONT.
    Freeze,
    /// SIGTERM of a gateway under load, and a restart.
    Stop,
    /// SIGHUP: the configuration is read again under load.
    Reload,
    /// The power of the machine is cut: what had not reached the disk is gone.
    PowerCut,
    /// No room on the disk of the store.
    DiskFull,
    /// Every write to the disk of the store fails from now on (EIO), until it is mounted again.
    IoError,
    /// The machine's clock goes an hour forward.
    ClockForward,
    /// The machine's clock goes an hour back.
    ClockBack,
    /// The server of the store crashes and comes back.
    StoreCrash,
    /// The server of the store is killed for good, and its synchronous standby takes over.
    StorePromotion,
    /// The upstream is killed with all it was doing, and comes back.
    UpstreamKill,
    /// The upstream acts and resets the connection after k bytes of its answer.
    UpstreamReset,
    /// The upstream is slower than the gateway waits.
    UpstreamSlow,
    /// The upstream takes requests and says nothing.
    UpstreamHole,
}

impl Fault {
    /// Faults on the upstream: they overlap with those on gateways and stores.
    pub(crate) const UPSTREAM: [Self; 4] = [
        Self::UpstreamKill,
        Self::UpstreamReset,
        Self::UpstreamSlow,
        Self::UpstreamHole,
    ];

    /// Whether it moves the clock that retention is counted by.
    pub(crate) fn is_of_clocks(self) -> bool {
        matches!(self, Self::ClockForward | Self::ClockBack)
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill-9",
            Self::Freeze => "sigstop",
            Self::Stop => "sigterm",
            Self::Reload => "sighup",
            Self::PowerCut => "power-cut",
            Self::DiskFull => "disk-full",
            Self::IoError => "io-error",
            Self::ClockForward => "clock-forward",
            Self::ClockBack => "clock-back",
            Self::StoreCrash => "store-restart",
            Self::StorePromotion => "store-promotion",
            Self::UpstreamKill => "upstream-kill",
            Self::UpstreamReset => "upstream-reset",
            Self::UpstreamSlow => "upstream-slow",
            Self::UpstreamHole => "upstream-hole",
        }
    }
}

/// The cards of round `round`, `count` of them. Every card of `all` comes once before any comes again.
pub(crate) fn deal(seed: u64, round: u64, count: u64, all: &[Fault]) -> Vec<Fault> {
    let size = u64::try_from(all.len()).unwrap_or(1).max(1);
    (round * count..(round + 1) * count)
        .filter_map(|card| {
            let mut deck = all.to_vec();
            let mut random = Random::for_case(seed, &format!("deck-{}", card / size));
            for at in (1..deck.len()).rev() {
                deck.swap(at, random.within(0, at));
            }
            deck.get(usize::try_from(card % size).unwrap_or(0)).copied()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_dealt_once_before_any_comes_again() {
        for seed in 0..20 {
            let dealt: Vec<Fault> = (0..6)
                .flat_map(|round| deal(seed, round, 2, &Fault::UPSTREAM))
                .collect();
            for turn in dealt.chunks(4) {
                let mut turn = turn.to_vec();
                turn.sort_unstable();
                assert_eq!(turn, Fault::UPSTREAM);
            }
        }
    }

    #[test]
    fn a_round_is_dealt_the_same_whatever_came_before_it() {
        assert_eq!(
            deal(7, 5, 3, &Fault::UPSTREAM),
            deal(7, 5, 3, &Fault::UPSTREAM)
        );
        let seeds = (0..10).map(|seed| deal(seed, 0, 4, &Fault::UPSTREAM));
        assert!(seeds.collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
