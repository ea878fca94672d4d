//! Plays the cases against the target and writes down what came of them.

mod case;

use std::time::Duration;

use tokio::time::Instant;

use crate::CheckError;
use crate::answer::Answer;
use crate::count::Counter;
use crate::fault::Fault;
use crate::history::{Counted, History, Identity};
use crate::message::Message;
use crate::random::Random;
use crate::start::Started;
use crate::template::{Kind, Template, Values};
use crate::wire::{Fate, Wire};

pub(crate) use case::AT_ONCE;
use case::Case;

/// What is checked, and with what.
pub(crate) struct Driver {
    pub(crate) seed: u64,
    pub(crate) wire: Wire,
    pub(crate) template: Template,
    pub(crate) counter: Option<Counter>,
    pub(crate) restart: Option<String>,
    /// The target, where the checker has started it.
    pub(crate) started: Option<Started>,
    pub(crate) other_authorization: Option<String>,
}

/// What the target does when nothing goes wrong.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// By how much the count goes up for one effect.
    unit: i64,
    /// How long it takes to answer.
    took: Duration,
    /// Why nothing is counted, if so.
    pub(crate) uncounted: Option<String>,
    pub(crate) identities: Vec<Identity>,
}

/// A case that was played, or why not.
pub(crate) enum Played {
    Yes(History),
    Skipped(String),
}

impl Driver {
    /// Sends the request as it should be sent; what does not work then cannot be judged under faults.
    pub(crate) async fn baseline(&self) -> Result<Result<Baseline, String>, CheckError> {
        let mut random = Random::for_case(self.seed, "baseline");
        let values = Values::draw(&mut random);
        let before = self.count().await;
        let first = self.template.fill(&values);
        // Only that nobody listens is known to be no answer of the target.
        drop(self.wire.open(&first).await.map_err(|error| {
            CheckError::Unreachable(self.wire.authority.clone(), error.to_string())
        })?);
        let began = Instant::now();
        let one = match self.accepted(&first).await {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        let took = began.elapsed();
        if self.template.kind == Kind::Safe {
            let uncounted = before.err();
            return Ok(Ok(Baseline {
                unit: 1,
                took,
                uncounted,
                identities: Vec::new(),
            }));
        }
        let after = self.count().await;
        let has_same_payload =
            self.template.kind == Kind::Field && !self.template.target().contains("{{uuid}}");
        let second_values = match has_same_payload {
            true => Values {
                key: random.uuid(),
                ..values.clone()
            },
            false => Values::draw(&mut random),
        };
        let two = match self.accepted(&self.template.fill(&second_values)).await {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        let identities = Identity::usable(
            (&one, &[&values.key, &values.uuid]),
            (&two, &[&second_values.key, &second_values.uuid]),
            has_same_payload,
        );
        let (unit, uncounted) = match (before, after) {
            (Ok(before), Ok(after)) if after > before => (after - before, None),
            (Ok(_), Ok(_)) if one.is_marked() => {
                return Ok(Err("the first request was answered with a replay: this seed's keys were used before; take another --seed".into()));
            }
            // A DELETE of what was never there has no effect to count.
            (Ok(_), Ok(_)) if self.template.method() == "DELETE" => (1, None),
            (Ok(_), Ok(_)) => (
                1,
                Some("the count does not go up for this request".to_owned()),
            ),
            (Err(why), _) | (_, Err(why)) => (1, Some(why)),
        };
        Ok(Ok(Baseline {
            unit,
            took,
            uncounted,
            identities,
        }))
    }

    async fn accepted(&self, message: &Message) -> Result<Answer, String> {
        let is_gone =
            |answer: &Answer| message.method == "DELETE" && [404, 410].contains(&answer.status);
        match self.wire.exchange(message).await {
            Fate::Answered(answer) if answer.is_success() || is_gone(&answer) => Ok(answer),
            Fate::Answered(answer) => Err(format!(
                "the plain request is not accepted: {}; describe one that is with --request",
                answer.status
            )),
            Fate::Failed(why) => Err(format!("the plain request gets no answer: {why}")),
            _ => Err("the answer to the plain request ends early".into()),
        }
    }

    async fn count(&self) -> Result<i64, String> {
        match &self.counter {
            None => Err("nothing counts the effects (--count-with)".into()),
            Some(counter) => counter.settled().await,
        }
    }

    /// Plays a case, or the `order`th request of it.
    pub(crate) async fn play(&self, fault: Fault, order: u32, baseline: &Baseline) -> Played {
        if let Some(why) = self.unfit(fault) {
            return Played::Skipped(why.into());
        }
        let mut random = match order {
            0 => Random::for_case(self.seed, fault.name()),
            _ => Random::for_case(self.seed, &format!("{} {order}", fault.name())),
        };
        let values = Values::draw(&mut random);
        let kill_after = match fault {
            Fault::KillTarget => kill_after(baseline.took, order, &mut random),
            _ => Duration::ZERO,
        };
        let before = self.count().await;
        let mut case = Case {
            driver: self,
            message: self.template.fill(&values),
            values,
            steps: Vec::new(),
            of_incomplete: None,
            kill_after,
            random,
            began: Instant::now(),
        };
        if let Err(why) = case.play(fault).await {
            return Played::Skipped(why);
        }
        let after = self.count().await;
        let unit = baseline.unit;
        // Rounded up: a part of an effect is one.
        let effects = |count: i64, before: i64| {
            let grown = count - before;
            if grown > 0 {
                (grown + unit - 1) / unit
            } else {
                grown
            }
        };
        let counted = match (before, after, &baseline.uncounted) {
            (_, _, Some(why)) => Err(why.clone()),
            (Ok(before), Ok(after), None) => Ok(Counted {
                of_incomplete: case
                    .of_incomplete
                    .and_then(Result::ok)
                    .map(|count| effects(count, before)),
                total: effects(after, before),
            }),
            (Err(why), _, None) | (_, Err(why), None) => Err(why),
        };
        Played::Yes(History {
            fault,
            kind: self.template.kind,
            values: case.values,
            steps: case.steps,
            killed_after: (fault == Fault::KillTarget).then_some(case.kill_after),
            counted,
            identities: baseline.identities.clone(),
        })
    }

    /// Ends the target, if the checker has started it: afterwards its address is free.
    pub(crate) async fn end(&self) {
        if let Some(started) = &self.started {
            // One that has ended by itself is what was wanted.
            drop(started.kill().await);
        }
    }

    /// Why a case says nothing about this request.
    fn unfit(&self, fault: Fault) -> Option<&'static str> {
        let has_body = !self
            .template
            .fill(&Values {
                key: String::new(),
                uuid: String::new(),
                n: 1,
            })
            .body
            .is_empty();
        let kind = self.template.kind;
        match fault {
            Fault::SlowBody | Fault::CutBody if !has_body => Some("the request has no content"),
            Fault::AfterRestart if self.restart.is_none() && self.started.is_none() => {
                Some("no --restart COMMAND, and no --start COMMAND")
            }
            Fault::KillTarget if self.started.is_none() => Some("no --start COMMAND"),
            Fault::NoKey | Fault::BadKey if kind != Kind::Field => {
                Some("the key is not in a field")
            }
            Fault::OtherPayload | Fault::OtherCaller | Fault::OtherPath
                if matches!(kind, Kind::Natural | Kind::Safe) =>
            {
                Some("the request has no key")
            }
            _ => None,
        }
    }
}

/// When a target is killed after it was sent the request: the orders are spread evenly from at once to a third beyond the time in
/// which it answers, and each falls somewhere in its share of that.
fn kill_after(took: Duration, order: u32, random: &mut Random) -> Duration {
    let share = took * 4 / 3 / Fault::KillTarget.orders();
    let within = usize::try_from(share.as_micros()).unwrap_or(usize::MAX);
    let within = u64::try_from(random.within(0, within)).unwrap_or_default();
    share * order + Duration::from_micros(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_killed_all_over_the_time_in_which_it_answers() {
        let took = Duration::from_millis(60);
        let orders = Fault::KillTarget.orders();
        for seed in 0..100 {
            let at = |order| kill_after(took, order, &mut Random::for_case(seed, "order"));
            let share = took * 4 / 3 / orders;
            for order in 0..orders {
                let (from, to) = (share * order, share * (order + 1));
                assert!((from..=to).contains(&at(order)), "{order}: {:?}", at(order));
            }
            assert!(at(5) < took, "most are killed before they answer");
            assert!(at(orders - 1) > took, "and one after that");
        }
        assert_eq!(
            kill_after(Duration::ZERO, 7, &mut Random::for_case(1, "")),
            Duration::ZERO
        );
    }
}
