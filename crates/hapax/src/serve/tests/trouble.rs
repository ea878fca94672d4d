//! What is done to the world, and when.

use super::random::Random;

/// One thing that is wrong for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No message passes between the two.
    Partition(String, String),
    /// No message passes from the one to the other.
    OneWay(String, String),
    /// Messages wait, and all come at the end.
    Hold(String, String),
    /// `kill -9`: the process is gone and the machine says so to its peers.
    Killed(String),
    /// The machine is gone without a word.
    PowerCut(String),
    /// The store refuses.
    StoreDown,
    /// The store takes longer than anybody waits.
    StoreSlow,
    /// The store's own process crashes, and is down for a while.
    StoreRestarts,
}

impl Trouble {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Partition(..) => "partition",
            Self::OneWay(..) => "partition-one-way",
            Self::Hold(..) => "hold",
            Self::Killed(_) => "kill-9",
            Self::PowerCut(_) => "power-cut",
            Self::StoreDown => "store-down",
            Self::StoreSlow => "store-slow",
            Self::StoreRestarts => "store-restarts",
        }
    }

    /// Where.
    pub(super) fn node(&self) -> Option<String> {
        match self {
            Self::Partition(one, other) | Self::OneWay(one, other) | Self::Hold(one, other) => {
                Some(format!("{one} {other}"))
            }
            Self::Killed(name) | Self::PowerCut(name) => Some(name.clone()),
            Self::StoreDown | Self::StoreSlow | Self::StoreRestarts => None,
        }
    }

    fn draw(random: &mut Random, gateways: &[String], clients: &[String]) -> Self {
        let gateway = gateways[random.index(gateways.len())].clone();
        let upstream = || "upstream".to_owned();
        let (one, other) = if random.once_in(2) {
            (
                clients[random.index(clients.len())].clone(),
                gateway.clone(),
            )
        } else {
            (gateway.clone(), upstream())
        };
        match random.below(12) {
            0 => Self::Partition(one, other),
            1 => Self::OneWay(one, other),
            2 => Self::OneWay(other, one),
            3 | 4 => Self::Hold(one, other),
            5 | 6 => Self::Killed(gateway),
            7 => Self::Killed(upstream()),
            8 => Self::PowerCut(if random.once_in(4) {
                upstream()
            } else {
                gateway
            }),
            9 => Self::StoreDown,
            10 => Self::StoreSlow,
            // The embedded store goes down with its gateway only.
            _ if gateways.len() == 1 => Self::Killed(gateway),
            _ => Self::StoreRestarts,
        }
    }
}

/// How much goes wrong in a run, besides clients that leave.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// How many faults were drawn: 0 in one run of six, 1 or 2 in two of six each.
    pub(super) faults: u64,
    /// In the sixth anything may go wrong, all of it at once.
    pub(super) is_storm: bool,
    /// Troubles with a beginning and an end.
    pub(super) troubles: u64,
    /// Of so many connections, requests of the upstream and operations of the store one goes wrong; 0 for none.
    pub(super) one_cut_in: u64,
    pub(super) one_upstream_in: u64,
    pub(super) one_lost_in: u64,
    /// Messages get lost.
    pub(super) is_lossy: bool,
    /// The upstream takes almost as long as its gateway waits.
    pub(super) is_slow: bool,
}

impl Weather {
    pub(super) fn draw(random: &mut Random) -> Self {
        let faults = match random.below(6) {
            0 => 0,
            1 | 2 => 1,
            3 | 4 => 2,
            _ => return Self::storm(random),
        };
        let mut weather = Self {
            faults,
            ..Self::default()
        };
        for _ in 0..faults {
            match random.below(10) {
                0 => weather.one_cut_in = random.between(4, 16),
                // Few requests reach it, and there are many ways to fail.
                1 | 2 => weather.one_upstream_in = random.between(1, 3),
                3 => weather.one_lost_in = random.between(12, 50),
                4 => weather.is_lossy = true,
                5 => weather.is_slow = true,
                _ => weather.troubles += 1,
            }
        }
        weather
    }

    fn storm(random: &mut Random) -> Self {
        let mut maybe = |low, high| {
            if random.once_in(3) {
                0
            } else {
                random.between(low, high)
            }
        };
        let (one_cut_in, one_upstream_in) = (maybe(3, 12), maybe(2, 6));
        let one_lost_in = maybe(8, 40);
        let (is_lossy, is_slow) = (random.once_in(4), random.once_in(3));
        let troubles = random.between(1, 4);
        let kinds = [
            one_cut_in != 0,
            one_upstream_in != 0,
            one_lost_in != 0,
            is_lossy,
            is_slow,
        ];
        let kinds = kinds.into_iter().filter(|is_there| *is_there).count() as u64;
        Self {
            faults: troubles + kinds,
            is_storm: true,
            troubles,
            one_cut_in,
            one_upstream_in,
            one_lost_in,
            is_lossy,
            is_slow,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults == 0
    }
}

/// Troubles with their times.
pub(super) struct Plan {
    planned: Vec<(u64, u64, Trouble)>,
    under_way: Vec<(u64, Trouble)>,
    mended_at: u64,
    is_mended: bool,
}

impl Plan {
    pub(super) fn draw(
        random: &mut Random,
        count: u64,
        gateways: &[String],
        clients: &[String],
        mended_at: u64,
    ) -> Self {
        let planned = (0..count).map(|_| {
            let from = random.below(mended_at * 3 / 5);
            let until = (from + random.between(30, 1_400)).min(mended_at);
            (from, until, Trouble::draw(random, gateways, clients))
        });
        Self {
            planned: planned.collect(),
            under_way: Vec::new(),
            mended_at,
            is_mended: false,
        }
    }

    /// Says what begins (true) or ends now. The same trouble never overlaps itself.
    pub(super) fn advance(&mut self, now: u64, mut turn: impl FnMut(&Trouble, bool)) {
        self.under_way.retain(|(until, trouble)| {
            let is_over = *until <= now;
            if is_over {
                turn(trouble, false);
            }
            !is_over
        });
        let under_way = &mut self.under_way;
        self.planned.retain(|(from, until, trouble)| {
            let is_due = *from <= now;
            if is_due && !under_way.iter().any(|(_, other)| other == trouble) {
                turn(trouble, true);
                under_way.push((*until, trouble.clone()));
            }
            !is_due
        });
    }

    /// True once, when everything shall be well.
    pub(super) fn is_over(&mut self, now: u64) -> bool {
        let is_over = !self.is_mended && now >= self.mended_at;
        self.is_mended |= is_over;
        is_over
    }
}
