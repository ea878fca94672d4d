//! What a history is held to: the settings it was made under, and floors against runs in which nothing happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Guarantee;

/// What a history is held to.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    /// How long a settled record is kept.
    pub retention: Duration,
    /// After the last fault, and after the last attempt of a record that may hold its claim, nothing is outstanding
    /// for longer: lease, plus the upstream's longest answer.
    pub settles_within: Duration,
    /// How far the clock of the effect log may be off that of the history.
    pub clock_slack: Duration,
    /// Two effects are never answered with the same content (the upstream says the effect's number, say).
    pub has_unique_bodies: bool,
    /// The upstream may give a key back (401, 429, 503 …), or may not be reached at all. Without, a payload that was
    /// called another one can have no answer of its own, whenever that was.
    pub has_releases: bool,
    /// Names of faults that are nothing but a client that left or cut its request.
    pub client_faults: BTreeSet<String>,
    /// Names of faults under which an answer may not have been written down (P24).
    pub store_faults: BTreeSet<String>,
    /// Names of faults that damage what is stored.
    pub damage_faults: BTreeSet<String>,
    /// Guarantees that the configuration gives up by name (`resend`, `fail_open`): they are not judged.
    pub given_up: BTreeSet<Guarantee>,
    /// Figures that may not be larger (G13).
    pub bounds: BTreeMap<String, u64>,
    /// What must have happened, or the run shows nothing.
    pub floors: Floors,
}

/// What must have happened at least.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Floors {
    /// Attempts.
    pub attempts: u64,
    /// Of all attempts, those that got a final answer: 0 to 1.
    pub ok_share: f64,
    /// Replays.
    pub replays: u64,
    /// Effects.
    pub effects: u64,
    /// How often each fault fired, on the world or on single attempts.
    pub faults: BTreeMap<String, u64>,
    /// The largest value that each figure reached.
    pub figures: BTreeMap<String, u64>,
}

impl Default for Expect {
    /// The defaults of the gateway, unique content, and no floors.
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Self {
            retention: Duration::from_secs(24 * 3600),
            settles_within: Duration::from_secs(90),
            clock_slack: Duration::ZERO,
            has_unique_bodies: true,
            has_releases: true,
            client_faults: names(&[
                "client-leaves",
                "client-resets",
                "cut-head",
                "cut-body",
                "half-close",
                "hang-up",
            ]),
            store_faults: names(&[
                "store-down",
                "store-slow",
                "store-full",
                "store-read-only",
                "store-restart",
                "store-promotion",
                "sync-error",
                "io-error",
                "disk-full",
            ]),
            damage_faults: names(&["bit-flip", "torn-file", "damage"]),
            given_up: BTreeSet::new(),
            bounds: BTreeMap::new(),
            floors: Floors::default(),
        }
    }
}
