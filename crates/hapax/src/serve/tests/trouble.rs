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
        is_clean: bool,
        gateways: &[String],
        clients: &[String],
        mended_at: u64,
    ) -> Self {
        let count = if is_clean { 0 } else { random.below(5) };
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
