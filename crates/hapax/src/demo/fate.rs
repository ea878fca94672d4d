//! What the bad network does to a request: a pure function of the seed and of which request it is.
//!
//! The till is no part of it, so that both tills meet the same faults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The seed when none is given: the same demo every time. Its first answers are lost at a loss of 60 %.
pub(crate) const DEFAULT_SEED: u64 = 21;

/// The longest delay that can be asked for, in milliseconds: a demo that hangs explains nothing.
const MAX_DELAY_MS: u64 = 3_000;

/// Which request it is: of which intent, of which click, the how-manieth of that click.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    intent: u32,
    click: u32,
    request: u32,
}

impl Place {
    /// Reads `intent.click.request`; `None` when it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        let place = Self {
            intent: numbers.next()?.ok()?,
            click: numbers.next()?.ok()?,
            request: numbers.next()?.ok()?,
        };
        numbers.next().is_none().then_some(place)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.intent, self.click, self.request)
    }
}

/// How bad the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Weather {
    /// How many of a hundred answers are lost.
    loss_percent: u8,
    /// The longest delay of a request and its answer together.
    delay_ms: u64,
    /// How many of a hundred requests arrive twice.
    duplicate_percent: u8,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            loss_percent: 60,
            delay_ms: 400,
            duplicate_percent: 20,
        }
    }
}

impl Weather {
    /// Whether all of it is within bounds.
    pub(super) fn is_possible(self) -> bool {
        self.loss_percent <= 100 && self.duplicate_percent <= 100 && self.delay_ms <= MAX_DELAY_MS
    }
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) loses_answer: bool,
    pub(super) delay: Duration,
    pub(super) is_duplicated: bool,
}

impl Fate {
    /// Nothing happens to it.
    pub(super) const CALM: Self = Self {
        loses_answer: false,
        delay: Duration::ZERO,
        is_duplicated: false,
    };
}

/// Draws a request's fate. More loss loses what less loss has lost, and more.
pub(super) fn fate(seed: u64, place: Place, weather: Weather) -> Fate {
    let words = [place.intent, place.click, place.request];
    let start = words
        .into_iter()
        .fold(mixed(seed), |state, word| mixed(state ^ u64::from(word)));
    let draw = |number: u64| mixed(start.wrapping_add(number));
    Fate {
        loses_answer: draw(1) % 100 < u64::from(weather.loss_percent),
        delay: Duration::from_millis(draw(2) % (weather.delay_ms + 1)),
        is_duplicated: draw(3) % 100 < u64::from(weather.duplicate_percent),
    }
}

/// One step of splitmix64.
fn mixed(state: u64) -> u64 {
    let mut word = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(intent: u32, click: u32, request: u32) -> Place {
        Place {
            intent,
            click,
            request,
        }
    }

    #[test]
    fn a_place_is_three_numbers() {
        assert_eq!(Place::parse("1.2.3"), Some(place(1, 2, 3)));
        for text in ["", "1.2", "1.2.3.4", "1.2.x", "1.2.-3", "99999999999.1.1"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn more_loss_loses_what_less_loss_has_lost() {
        let lost = |loss_percent, click| {
            let weather = Weather {
                loss_percent,
                ..Weather::default()
            };
            fate(7, place(1, click, 1), weather).loses_answer
        };
        for click in 0..500 {
            assert!(!lost(0, click) && lost(100, click), "{click}");
            for percent in 1..100 {
                assert!(!lost(percent, click) || lost(percent + 1, click), "{click}");
            }
        }
    }

    #[test]
    fn about_as_many_are_lost_as_was_asked_for_and_another_seed_loses_others() {
        let lost = |seed| -> Vec<u32> {
            let weather = Weather::default();
            (0..1_000)
                .filter(|click| fate(seed, place(1, *click, 1), weather).loses_answer)
                .collect()
        };
        assert!((550..650).contains(&lost(1).len()), "{}", lost(1).len());
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
    }
}
