//! When something was wrong with the world.

use super::event::Event;

/// Spans of time, for questions about whether one overlaps another.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// By beginning: when each began, and the latest end of it and all before it.
    spans: Vec<(u64, u64)>,
}

impl Spans {
    /// Those of the faults of which `is_meant` says so. What was never healed lasts for ever.
    pub(super) fn of(events: &[Event], is_meant: impl Fn(&str) -> bool) -> Self {
        let mut spans = Vec::new();
        let mut open: Vec<(u64, &str, Option<&str>)> = Vec::new();
        for event in events {
            match event {
                Event::Fault { at_us, fault, node } if is_meant(fault) => {
                    open.push((*at_us, fault, node.as_deref()));
                }
                Event::Healed { at_us, fault, node } => open.retain(|(since, name, place)| {
                    let is_over = fault.as_deref().is_none_or(|fault| fault == *name)
                        && (node.is_none() || node.as_deref() == *place);
                    if is_over {
                        spans.push((*since, *at_us));
                    }
                    !is_over
                }),
                _ => {}
            }
        }
        spans.extend(open.iter().map(|(since, ..)| (*since, u64::MAX)));
        Self::new(spans)
    }

    fn new(mut spans: Vec<(u64, u64)>) -> Self {
        spans.sort_unstable();
        let mut latest = 0;
        for (_, end) in &mut spans {
            latest = latest.max(*end);
            *end = latest;
        }
        Self { spans }
    }

    /// Whether any of them has an instant in common with `from..=to`. O(log n).
    pub(super) fn overlap(&self, from: u64, to: u64) -> bool {
        self.last_end(to).is_some_and(|end| end >= from)
    }

    /// The latest end of those that began by `to`.
    pub(super) fn last_end(&self, to: u64) -> Option<u64> {
        let count = self.spans.partition_point(|(begin, _)| *begin <= to);
        let (_, end) = self.spans.get(count.checked_sub(1)?)?;
        Some(*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(at_us: u64, name: &str, node: &str) -> Event {
        Event::Fault {
            at_us,
            fault: name.to_owned(),
            node: Some(node.to_owned()),
        }
    }

    fn healed(at_us: u64, name: Option<&str>, node: Option<&str>) -> Event {
        Event::Healed {
            at_us,
            fault: name.map(str::to_owned),
            node: node.map(str::to_owned),
        }
    }

    #[test]
    fn a_long_span_overlaps_although_a_short_one_began_after_it() {
        let spans = Spans::new(vec![(10, 100), (20, 30)]);
        for (from, to, overlaps) in [
            (0, 9, false),
            (0, 10, true),
            (40, 50, true),
            (100, 200, true),
            (101, 200, false),
        ] {
            assert_eq!(spans.overlap(from, to), overlaps, "{from}..={to}");
        }
    }

    #[test]
    fn healing_ends_what_it_names() {
        let events = [
            fault(1, "kill-9", "a"),
            fault(2, "kill-9", "b"),
            healed(5, None, Some("a")),
            fault(6, "freeze", "a"),
            healed(9, Some("freeze"), None),
        ];
        let spans = Spans::of(&events, |_| true);
        assert!(spans.overlap(1_000, 1_001), "b was never healed");
        let spans = Spans::of(&events, |name| name == "freeze");
        assert!(spans.overlap(9, 9) && !spans.overlap(10, 20));
        assert!(!Spans::of(&events, |_| false).overlap(0, u64::MAX));
    }
}
