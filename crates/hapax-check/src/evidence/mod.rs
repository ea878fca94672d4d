//! Evidence that a gateway kept its guarantees: a history of what clients saw, a log of effects, and a judge of both.
//!
//! Unlike the judge of [`check`](crate::check), which looks at one API from outside and knows nothing about it, this one
//! holds whole runs with many clients, keys, nodes and faults against G1–G16, from files that the harness of a run wrote.
//! It is a pure function, takes O(n log n) steps, and says how often it looked at each guarantee: a zero is worth no more
//! than the number beside it.
//!
//! Where evidence leaves room (a clock that is a little off, a claim that nobody saw settle), the judge says nothing: what
//! it calls broken is broken.

mod ends;
mod event;
mod expect;
mod faults;
mod guarantee;
mod index;
mod record;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use event::{Effect, Effects, Event, History, ReadError};
pub use expect::{Expect, Floors};
pub use guarantee::Guarantee;
pub use verdict::{Counts, Finding, Tally, Verdict};

use faults::Spans;
use index::{Index, Said, Work};
use record::{Bench, Sweep};

/// Judges a run. Takes O(n log n) steps in the number of events and effects.
pub fn judge(history: &History, effects: &Effects, expect: &Expect) -> Verdict {
    let work = Work::default();
    let index = Index::new(history, effects, expect, &work);
    let is_named = |names: &BTreeSet<String>, name: &str| names.contains(name);
    let mut bench = Bench {
        expect,
        work: &work,
        faults: Spans::of(&history.events, |_| true),
        store_faults: Spans::of(&history.events, |name| is_named(&expect.store_faults, name)),
        damage: Spans::of(&history.events, |name| {
            is_named(&expect.damage_faults, name)
        }),
        verdict: Verdict::new(index.unfit.clone(), count(history, effects, &index)),
    };
    for story in &index.stories {
        Sweep::new(story, &index.attempts, &mut bench).run();
    }
    let figures = figures(history);
    bench.bounds(&figures);
    bench.told(&index, &figures);
    let mut verdict = bench.verdict;
    verdict.missed = missed(history, &verdict.counts, &figures, expect);
    verdict.work = work.done();
    verdict
}

/// The largest value of each figure at each gateway.
type Figures<'a> = BTreeMap<(&'a str, Option<&'a str>), u64>;

fn figures(history: &History) -> Figures<'_> {
    let mut figures = Figures::new();
    for event in &history.events {
        if let Event::Figure {
            name, value, node, ..
        } = event
        {
            let largest = figures.entry((name, node.as_deref())).or_default();
            *largest = (*largest).max(*value);
        }
    }
    figures
}

impl Bench<'_> {
    /// G13: no figure is above its bound.
    fn bounds(&mut self, figures: &Figures<'_>) {
        for ((name, _), value) in figures {
            if let Some(bound) = self.expect.bounds.get(*name) {
                let what = "a figure is above its bound";
                self.require_of_run(Guarantee::Bounds, value <= bound, name, what);
            }
        }
    }

    /// G16: whoever counts events has heard of every execution and replay that a client saw.
    fn told(&mut self, index: &Index<'_>, figures: &Figures<'_>) {
        let mut seen = [("executed", 0), ("replayed", 0)];
        for attempt in &index.attempts {
            if let Some(Said::Ok(answer)) = attempt.end.map(|end| end.said) {
                let [(_, executed), (_, replayed)] = &mut seen;
                *(if answer.is_replayed {
                    replayed
                } else {
                    executed
                }) += 1;
            }
        }
        for (name, seen) in seen {
            let told = figures.iter().filter(|((other, _), _)| *other == name);
            let told: Vec<u64> = told.map(|(_, value)| *value).collect();
            if !told.is_empty() {
                let what = "fewer events than clients saw";
                let is_told = told.iter().sum::<u64>() >= seen;
                self.require_of_run(Guarantee::Told, is_told, name, what);
            }
        }
    }
}

fn count(history: &History, effects: &Effects, index: &Index<'_>) -> Counts {
    let mut counts = Counts {
        attempts: length(&index.attempts),
        effects: length(&effects.effects),
        records: length(&index.stories),
        ..Counts::default()
    };
    for event in &history.events {
        match event {
            Event::Ok { replayed, .. } => {
                counts.ok += 1;
                counts.replayed += u64::from(*replayed);
            }
            Event::Fail { .. } => counts.fail += 1,
            Event::Info { .. } => counts.info += 1,
            Event::Fault { .. } => counts.faults += 1,
            Event::Invoke { fault, .. } => counts.faults += u64::from(fault.is_some()),
            Event::Healed { .. } | Event::Figure { .. } => {}
        }
    }
    counts
}

/// What did not happen often enough.
fn missed(
    history: &History,
    counts: &Counts,
    figures: &Figures<'_>,
    expect: &Expect,
) -> Vec<String> {
    let floors = &expect.floors;
    let mut missed = Vec::new();
    let mut least = |what: &str, least: u64, value: u64| {
        if value < least {
            missed.push(format!("{what}: {value}, at least {least}"));
        }
    };
    least("attempts", floors.attempts, counts.attempts);
    least("replays", floors.replays, counts.replayed);
    least("effects", floors.effects, counts.effects);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number far below 2^52, between 0 and that number"
    )]
    let ok = (counts.attempts as f64 * floors.ok_share.clamp(0.0, 1.0)).ceil() as u64;
    least("final answers", ok, counts.ok);
    let mut fired: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &history.events {
        if let Event::Fault { fault, .. }
        | Event::Invoke {
            fault: Some(fault), ..
        } = event
        {
            *fired.entry(fault).or_default() += 1;
        }
    }
    for (name, times) in &floors.faults {
        let value = fired.get(name.as_str()).copied().unwrap_or_default();
        least(&format!("fault {name}"), *times, value);
    }
    for (name, value) in &floors.figures {
        let reached = figures.iter().filter(|((other, _), _)| other == name);
        let largest = reached.map(|(_, value)| *value).max().unwrap_or_default();
        least(&format!("figure {name}"), *value, largest);
    }
    for name in expect.bounds.keys() {
        let seen = figures.keys().filter(|(other, _)| other == name).count();
        least(&format!("measurements of {name}"), 1, u64::from(seen > 0));
    }
    missed
}

fn length<T>(values: &[T]) -> u64 {
    u64::try_from(values.len()).unwrap_or(u64::MAX)
}

/// Microseconds; more than there can be for what lasts longer.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
