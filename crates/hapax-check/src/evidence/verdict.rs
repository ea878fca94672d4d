//! What the judge says: what was broken, how often each guarantee was looked at, and what is missing from the evidence.

use std::fmt;

use super::Guarantee;

/// Findings of one guarantee that are kept in full; the rest is counted.
const KEPT_FINDINGS: u64 = 20;

/// One broken guarantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub guarantee: Guarantee,
    /// How.
    pub what: &'static str,
    /// Of which key, in which scope; empty where it is about none.
    pub record: (String, String),
    /// The attempt that shows it: client and op.
    pub attempt: Option<(u64, u64)>,
    /// When it showed.
    pub at_us: u64,
}

/// How often a guarantee was looked at, and how often it was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Looked at.
    pub checked: u64,
    /// Broken.
    pub broken: u64,
}

/// How much there was of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts.
    pub attempts: u64,
    /// Attempts with a final answer.
    pub ok: u64,
    /// Those of them that say that they are replays.
    pub replayed: u64,
    /// Attempts that were surely not executed.
    pub fail: u64,
    /// Attempts of which nobody knows.
    pub info: u64,
    /// Effects.
    pub effects: u64,
    /// Records.
    pub records: u64,
    /// Faults, on the world and on single attempts.
    pub faults: u64,
}

/// The judge's word on a history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What was broken, the first of each guarantee.
    pub findings: Vec<Finding>,
    /// Why the evidence cannot be trusted: ends without a beginning, a clock that went backwards.
    pub unfit: Vec<String>,
    /// What did not happen often enough for the run to show anything.
    pub missed: Vec<String>,
    /// How much there was of everything.
    pub counts: Counts,
    /// Comparisons and steps that judging took.
    pub work: u64,
    tallies: [Tally; 16],
}

impl Verdict {
    pub(super) fn new(unfit: Vec<String>, counts: Counts) -> Self {
        Self {
            unfit,
            counts,
            ..Self::default()
        }
    }

    /// Whether every guarantee held, on evidence that can show it.
    pub fn is_upheld(&self) -> bool {
        self.findings.is_empty() && self.unfit.is_empty() && self.missed.is_empty()
    }

    /// How often a guarantee was looked at and broken.
    pub fn tally(&self, guarantee: Guarantee) -> Tally {
        self.tallies
            .get(guarantee.position())
            .copied()
            .unwrap_or_default()
    }

    /// The guarantees that were broken, in their order.
    pub fn broken(&self) -> Vec<Guarantee> {
        let is_broken = |guarantee: &Guarantee| self.tally(*guarantee).broken > 0;
        Guarantee::ALL.into_iter().filter(is_broken).collect()
    }

    /// Looks at a guarantee once.
    pub(super) fn check(&mut self, guarantee: Guarantee) {
        if let Some(tally) = self.tallies.get_mut(guarantee.position()) {
            tally.checked += 1;
        }
    }

    /// Writes down that it was broken.
    pub(super) fn find(&mut self, finding: Finding) {
        let Some(tally) = self.tallies.get_mut(finding.guarantee.position()) else {
            return;
        };
        tally.broken += 1;
        if tally.broken <= KEPT_FINDINGS {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{} attempts on {} records: {} ok ({} replayed), {} fail, {} info; {} effects, {} faults",
            counts.attempts,
            counts.records,
            counts.ok,
            counts.replayed,
            counts.fail,
            counts.info,
            counts.effects,
            counts.faults
        )?;
        for guarantee in Guarantee::ALL {
            let tally = self.tally(guarantee);
            if tally.checked > 0 || tally.broken > 0 {
                writeln!(f, "{guarantee}: {} in {}", tally.broken, tally.checked)?;
            }
        }
        for finding in &self.findings {
            let (scope, key) = &finding.record;
            write!(f, "broken: {}: {}", finding.guarantee, finding.what)?;
            write!(f, "; key {key:?}, scope {scope:?}, at {} us", finding.at_us)?;
            match finding.attempt {
                Some((client, op)) => writeln!(f, ", client {client} op {op}")?,
                None => writeln!(f)?,
            }
        }
        for line in &self.unfit {
            writeln!(f, "unfit: {line}")?;
        }
        for line in &self.missed {
            writeln!(f, "missed: {line}")?;
        }
        Ok(())
    }
}
