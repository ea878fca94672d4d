//! What a campaign is asked to do.

use std::path::PathBuf;
use std::time::Duration;

/// Where the gateways of a campaign keep their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// One gateway on the embedded store; as root on a disk that is filled and that power is cut from.
    Embedded,
    /// Three gateways on one PostgreSQL server, which crashes, or dies and is succeeded by its synchronous standby.
    Postgres,
}

impl Store {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
        }
    }
}

/// A gateway that is set up to break its promises: a campaign that does not notice is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The store is in memory: a restart forgets every key.
    Memory,
    /// A route that sends an operation of unknown outcome again.
    Resend,
    /// Records that are kept for a third of the time that they are said to be.
    Early,
}

impl Control {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Resend => "resend",
            Self::Early => "early",
        }
    }
}

/// A campaign.
#[derive(Debug, Clone)]
pub struct Options {
    /// The gateway's binary.
    pub hapax: PathBuf,
    /// The store.
    pub store: Store,
    /// No new round begins after this time, that of earlier runs of the same campaign included.
    pub time: Duration,
    /// No more rounds than this; 0: as many as there is time for.
    pub rounds: u64,
    /// One round alone, to see again what it showed.
    pub only_round: Option<u64>,
    /// Clients at the same time.
    pub clients: u64,
    /// Where everything that varies comes from, but for the scheduling of processes.
    pub seed: u64,
    /// Where rounds have their files, and where the campaign is written down after each round.
    pub state: PathBuf,
    /// A deliberately broken gateway.
    pub control: Option<Control>,
    /// Whether the files of rounds that found nothing are kept.
    pub keep: bool,
}
