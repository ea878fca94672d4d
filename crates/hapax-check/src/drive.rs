//! Plays the cases against the target and writes down what came of them.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::CheckError;
use crate::answer::Answer;
use crate::count::Counter;
use crate::fault::Fault;
use crate::history::{Counted, History, Identity, Role, Step};
use crate::message::Message;
use crate::random::Random;
use crate::template::{Kind, Template, Values};
use crate::wire::{Fate, Wire};

/// How many attempts meet in `concurrent`.
const AT_ONCE: usize = 8;
/// How often a request is repeated until it has a final answer.
const MAX_REPEATS: usize = 40;
/// The wait between two repeats, unless the target names a shorter one.
const PAUSE: Duration = Duration::from_millis(250);
/// The wait between two pieces of a slow body.
const PIECE_PAUSE: Duration = Duration::from_millis(25);
/// How long a restart may take: the command, and then the target's coming back.
const RESTART: Duration = Duration::from_secs(30);

/// What is checked, and with what.
pub(crate) struct Driver {
    pub(crate) seed: u64,
    pub(crate) wire: Wire,
    pub(crate) template: Template,
    pub(crate) counter: Option<Counter>,
    pub(crate) restart: Option<String>,
    pub(crate) other_authorization: Option<String>,
}

/// What the target does when nothing goes wrong.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// By how much the count goes up for one effect.
    unit: i64,
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
        let one = match self.accepted(&first).await {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        if self.template.kind == Kind::Safe {
            let uncounted = before.err();
            return Ok(Ok(Baseline {
                unit: 1,
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

    /// Plays a case.
    pub(crate) async fn play(&self, fault: Fault, baseline: &Baseline) -> Played {
        if let Some(why) = self.unfit(fault) {
            return Played::Skipped(why.into());
        }
        let mut random = Random::for_case(self.seed, fault.name());
        let values = Values::draw(&mut random);
        let before = self.count().await;
        let mut case = Case {
            driver: self,
            message: self.template.fill(&values),
            values,
            random,
            steps: Vec::new(),
            of_incomplete: None,
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
            steps: case.steps,
            counted,
            identities: baseline.identities.clone(),
        })
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
            Fault::AfterRestart if self.restart.is_none() => Some("no --restart COMMAND"),
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

/// A case while it is played.
struct Case<'a> {
    driver: &'a Driver,
    message: Message,
    values: Values,
    random: Random,
    steps: Vec<Step>,
    of_incomplete: Option<Result<i64, String>>,
}

impl Case<'_> {
    async fn play(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::ReplayFidelity => self.first().await,
            Fault::Duplicate => self.burst(2).await,
            Fault::Concurrent => self.burst(AT_ONCE).await,
            Fault::LoseReply | Fault::HangUp => self.lose_reply(fault).await,
            Fault::ResetMidReply => self.reset_mid_reply().await,
            Fault::Delay => self.overtaken().await,
            Fault::SlowBody => self.slow_body().await,
            Fault::LoseRequest | Fault::CutBody => self.cut(fault).await,
            Fault::AfterRestart => {
                self.first().await;
                self.restart().await?;
            }
            Fault::OtherPayload => {
                let other = self
                    .driver
                    .template
                    .fill_other(&self.values, &mut self.random);
                let other = other
                    .ok_or("there is no other payload; give other_body in the request file")?;
                self.first().await;
                self.other(other).await;
                return Ok(());
            }
            Fault::OtherCaller => {
                self.other_caller().await;
                return Ok(());
            }
            Fault::OtherPath => {
                self.first().await;
                self.other(at_other_path(&self.message)).await;
                return Ok(());
            }
            Fault::NoKey => {
                let name = self.driver.template.key_field().to_owned();
                self.other(self.message.with_field(&name, None)).await;
                return Ok(());
            }
            Fault::BadKey => {
                self.bad_keys().await;
                return Ok(());
            }
        }
        self.repeat_until_final().await;
        Ok(())
    }

    fn note(&mut self, role: Role, message: Message, fate: Fate) {
        self.steps.push(Step {
            role,
            message,
            fate,
        });
    }

    fn note_attempt(&mut self, fate: Fate) {
        let role = if self.steps.is_empty() {
            Role::First
        } else {
            Role::Repeat
        };
        self.note(role, self.message.clone(), fate);
    }

    async fn first(&mut self) {
        let fate = self.driver.wire.exchange(&self.message).await;
        self.note_attempt(fate);
    }

    async fn other(&mut self, message: Message) {
        let fate = self.driver.wire.exchange(&message).await;
        self.note(Role::Other, message, fate);
    }

    /// Repeats until the target no longer says "not now".
    async fn repeat_until_final(&mut self) {
        for _ in 0..MAX_REPEATS {
            let fate = self.driver.wire.exchange(&self.message).await;
            let pause = match &fate {
                Fate::Answered(answer) if answer.is_not_now() => Some(pause_of(answer)),
                _ => None,
            };
            self.note_attempt(fate);
            match pause {
                None => return,
                Some(pause) => sleep(pause).await,
            }
        }
    }

    /// All connections first, then all requests, then all answers.
    async fn burst(&mut self, attempts: usize) {
        let mut open = Vec::new();
        for _ in 0..attempts {
            open.push(self.driver.wire.open(&self.message).await);
        }
        for pending in open.iter_mut().flatten() {
            pending.send_rest().await;
        }
        for pending in open {
            let fate = match pending {
                Ok(pending) => pending.finish().await,
                Err(error) => Fate::Failed(format!("cannot connect: {error}")),
            };
            self.note_attempt(fate);
        }
    }

    async fn lose_reply(&mut self, fault: Fault) {
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                pending.send_rest().await;
                match fault {
                    Fault::HangUp => pending.close(),
                    _ => pending.lose_reply().await,
                }
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt(fate);
    }

    async fn reset_mid_reply(&mut self) {
        let bytes = self.random.within(1, 200);
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                pending.send_rest().await;
                pending.reset_after(bytes).await
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt(fate);
    }

    async fn overtaken(&mut self) {
        let held = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                let cut = self.random.within(1, pending.len().saturating_sub(1));
                pending.send_to(cut).await;
                Ok(pending)
            }
            Err(error) => Err(error),
        };
        let overtaking = self.driver.wire.exchange(&self.message).await;
        let fate = match held {
            Ok(mut pending) => {
                pending.send_rest().await;
                pending.finish().await
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        // In the order in which they arrived in full.
        self.note_attempt(overtaking);
        self.note_attempt(fate);
    }

    async fn slow_body(&mut self) {
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                let mut at = pending.len() - self.message.body.len();
                let piece = self.message.body.len().div_ceil(8).max(1);
                while at < pending.len() {
                    pending.send_to(at).await;
                    sleep(PIECE_PAUSE).await;
                    at += piece;
                }
                pending.send_rest().await;
                pending.finish().await
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt(fate);
    }

    async fn cut(&mut self, fault: Fault) {
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                let head = pending.len() - self.message.body.len();
                let cut = match fault {
                    Fault::CutBody => self.random.within(head, pending.len().saturating_sub(1)),
                    _ => self.random.within(1, head.saturating_sub(3)),
                };
                pending.send_to(cut).await;
                pending.close()
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt(fate);
        if self.driver.counter.is_some() {
            self.of_incomplete = Some(self.driver.count().await);
        }
    }

    async fn restart(&mut self) -> Result<(), String> {
        let Some(command) = &self.driver.restart else {
            return Err("no --restart COMMAND".into());
        };
        let mut shell = tokio::process::Command::new("sh");
        shell
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let status = match timeout(RESTART, shell.status()).await {
            Err(_) => return Err("--restart did not end in time".into()),
            Ok(Err(error)) => return Err(format!("--restart cannot be run: {error}")),
            Ok(Ok(status)) => status,
        };
        if !status.success() {
            return Err(format!("--restart failed: {status}"));
        }
        let deadline = Instant::now() + RESTART;
        while self.driver.wire.open(&self.message).await.is_err() {
            if Instant::now() >= deadline {
                return Err("the target did not come back after --restart".into());
            }
            sleep(PIECE_PAUSE).await;
        }
        Ok(())
    }

    async fn other_caller(&mut self) {
        const FIELD: &str = "Authorization";
        let synthetic = |random: &mut Random| format!("Bearer hapax-check-{}", random.uuid());
        let (one, two) = (synthetic(&mut self.random), synthetic(&mut self.random));
        if self.message.field(FIELD).is_none() {
            self.message = self.message.with_field(FIELD, Some(&one));
        }
        self.first().await;
        let two = self.driver.other_authorization.clone().unwrap_or(two);
        self.other(self.message.with_field(FIELD, Some(&two))).await;
    }

    async fn bad_keys(&mut self) {
        let name = self.driver.template.key_field().to_owned();
        let long = format!("\"{}\"", "k".repeat(300));
        let open = format!("\"{}", self.values.key);
        for key in ["", &long, &open] {
            self.other(self.message.with_field(&name, Some(key))).await;
        }
    }
}

fn at_other_path(message: &Message) -> Message {
    let (path, query) = match message.target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (message.target.as_str(), String::new()),
    };
    Message {
        target: format!("{path}-hapax-check{query}"),
        ..message.clone()
    }
}

fn pause_of(answer: &Answer) -> Duration {
    let asked = answer
        .field("retry-after")
        .and_then(|text| text.trim().parse().ok());
    asked.map_or(PAUSE, Duration::from_secs).min(PAUSE)
}
