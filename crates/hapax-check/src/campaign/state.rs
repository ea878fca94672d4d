//! What a campaign has come to: written down after each round, and gone on with after an interruption.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::deck::Fault;
use super::options::{Control, Options};

/// The rounds of a campaign so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// The seed of all of it.
    pub seed: u64,
    /// The kind of store.
    pub store: String,
    /// The deliberately broken gateway, if it is one.
    pub control: Option<String>,
    /// How long the rounds took.
    pub elapsed_s: f64,
    /// Rounds.
    pub rounds: u64,
    /// Attempts of clients.
    pub requests: u64,
    /// Keys, told apart by caller.
    pub keys: u64,
    /// Keys with a final answer.
    pub acknowledged: u64,
    /// Keys whose outcome is unknown at the end of their round.
    pub unknown: u64,
    /// Answers that said that they were replays.
    pub replays: u64,
    /// Effects at the upstream.
    pub effects: u64,
    /// Rounds in which records expire and are swept.
    #[serde(default)]
    pub short_rounds: u64,
    /// Effects of a record after its first: executed again once it had expired.
    #[serde(default)]
    pub again: u64,
    /// How often each fault fired, by name: those on the world and those of single requests.
    pub faults: BTreeMap<String, u64>,
    /// Why attempts got no final answer, by problem and the like.
    pub refusals: BTreeMap<String, u64>,
    /// How often each guarantee was looked at, by number.
    #[serde(default)]
    pub checked: BTreeMap<String, u64>,
    /// The largest value of each figure of a gateway: memory in MiB, open files.
    #[serde(default)]
    pub figures: BTreeMap<String, u64>,
    /// Broken guarantees, by name.
    pub violations: BTreeMap<String, u64>,
    /// The first violations in words, each with its round.
    pub findings: Vec<String>,
    /// Faults that cannot be had on this machine, and why.
    pub left_out: Vec<String>,
}

/// The most findings in words that are kept.
const MAX_FINDINGS: usize = 50;

impl Totals {
    /// A campaign without a round.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            seed: options.seed,
            store: options.store.name().to_owned(),
            control: options.control.map(|control| control.name().to_owned()),
            ..Self::default()
        }
    }

    /// The campaign that is written down in a folder, if there is one.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(folder.join("state.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it down in a folder, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join("state.json.new");
        std::fs::write(&new, self.json()?)?;
        std::fs::rename(new, folder.join("state.json"))
    }

    /// As JSON for people and programs.
    ///
    /// # Errors
    ///
    /// None that a program could do anything about.
    pub fn json(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, round: u64, of_it: &Self) {
        self.elapsed_s += of_it.elapsed_s;
        self.rounds += 1;
        self.requests += of_it.requests;
        self.keys += of_it.keys;
        self.acknowledged += of_it.acknowledged;
        self.unknown += of_it.unknown;
        self.replays += of_it.replays;
        self.effects += of_it.effects;
        self.short_rounds += of_it.short_rounds;
        self.again += of_it.again;
        for (sum, counts) in [
            (&mut self.faults, &of_it.faults),
            (&mut self.refusals, &of_it.refusals),
            (&mut self.checked, &of_it.checked),
            (&mut self.violations, &of_it.violations),
        ] {
            for (name, count) in counts {
                *sum.entry(name.clone()).or_default() += count;
            }
        }
        for (name, value) in &of_it.figures {
            let largest = self.figures.entry(name.clone()).or_default();
            *largest = (*largest).max(*value);
        }
        for finding in &of_it.findings {
            if self.findings.len() < MAX_FINDINGS {
                self.findings.push(format!("round {round}: {finding}"));
            }
        }
    }

    /// Broken guarantees, all together.
    pub fn violated(&self) -> u64 {
        self.violations.values().sum()
    }

    /// What keeps this from showing anything: faults that never fired, too few final answers.
    pub fn shortcomings(&self, faults: &[Fault]) -> Vec<String> {
        let mut found: Vec<String> = faults
            .iter()
            .filter(|fault| !self.faults.contains_key(fault.name()))
            .map(|fault| format!("{} never fired", fault.name()))
            .collect();
        for fault in REQUEST_FAULTS {
            if !self.faults.contains_key(fault) {
                found.push(format!("{fault} never happened"));
            }
        }
        if self.acknowledged * 2 < self.keys || self.keys == 0 {
            found.push(format!(
                "{} of {} keys have a final answer",
                self.acknowledged, self.keys
            ));
        }
        if self.again < self.short_rounds * 10 {
            found.push(format!(
                "{} records were executed again after they had expired, in {} rounds",
                self.again, self.short_rounds
            ));
        }
        if self.rounds > 2 && self.short_rounds == 0 {
            found.push("in no round did a record expire".to_owned());
        }
        found
    }

    /// Whether a control was noticed.
    pub fn is_caught(&self) -> bool {
        self.control.is_some() && self.violated() > 0
    }

    /// The control that this is, if it is one.
    pub(crate) fn is_of(&self, options: &Options) -> bool {
        self.seed == options.seed
            && self.store == options.store.name()
            && self.control.as_deref() == options.control.map(Control::name)
    }
}

/// What clients and an ordinary upstream do in every round with faults.
const REQUEST_FAULTS: [&str; 10] = [
    "cut-request",
    "client-leaves",
    "client-resets",
    "duplicates-at-once",
    "other-payload",
    "other-scope",
    "upstream-500",
    "upstream-refuses",
    "upstream-acts-and-resets",
    "upstream-acts-late",
];

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds, {} requests, {} keys, {} acknowledged, {} unknown, {} effects, {} faults, {} violations",
            self.rounds,
            self.requests,
            self.keys,
            self.acknowledged,
            self.unknown,
            self.effects,
            self.faults.values().sum::<u64>(),
            self.violated()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round in which everything happened that has to.
    fn full() -> Totals {
        let names = REQUEST_FAULTS.iter().map(|name| (*name).to_owned());
        let mut faults: BTreeMap<String, u64> = names.map(|name| (name, 1)).collect();
        faults.insert(Fault::Kill.name().to_owned(), 1);
        Totals {
            keys: 100,
            acknowledged: 80,
            faults,
            ..Totals::default()
        }
    }

    #[test]
    fn a_campaign_in_which_a_fault_never_fired_shows_nothing() {
        let mut totals = full();
        assert_eq!(totals.shortcomings(&[Fault::Kill]), Vec::<String>::new());
        assert_eq!(
            totals.shortcomings(&[Fault::Kill, Fault::Freeze]),
            ["sigstop never fired"]
        );
        totals.faults.remove("cut-request");
        assert_eq!(totals.shortcomings(&[]), ["cut-request never happened"]);
    }

    #[test]
    fn a_campaign_without_final_answers_shows_nothing() {
        let mut totals = full();
        totals.acknowledged = 49;
        assert_eq!(totals.shortcomings(&[]).len(), 1);
        totals.keys = 0;
        assert_eq!(totals.shortcomings(&[]).len(), 1);
    }

    #[test]
    fn a_campaign_in_which_nothing_is_executed_again_shows_nothing_of_retention() {
        let mut totals = full();
        (totals.rounds, totals.short_rounds, totals.again) = (3, 1, 9);
        assert_eq!(totals.shortcomings(&[]).len(), 1);
        totals.again = 10;
        assert_eq!(totals.shortcomings(&[]), Vec::<String>::new());
        (totals.short_rounds, totals.again) = (0, 0);
        assert_eq!(
            totals.shortcomings(&[]),
            ["in no round did a record expire"]
        );
    }

    #[test]
    fn rounds_add_up_and_findings_name_theirs() {
        let mut sum = Totals::default();
        sum.add(0, &full());
        let mut broken = full();
        broken.violations.insert("G1".to_owned(), 2);
        broken.findings.push("G1: two effects".to_owned());
        sum.add(1, &broken);
        assert_eq!((sum.rounds, sum.keys, sum.violated()), (2, 200, 2));
        assert_eq!(sum.faults.get("kill-9"), Some(&2));
        assert_eq!(sum.findings, ["round 1: G1: two effects"]);
    }

    #[test]
    fn what_was_written_down_is_gone_on_with() {
        let folder = std::env::temp_dir().join(format!("hapax-state-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(Totals::read(&folder).unwrap(), None);
        full().write(&folder).unwrap();
        let read = Totals::read(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read, Some(full()));
    }
}
