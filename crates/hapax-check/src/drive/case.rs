//! A case while it is played: one fault, and every request that belongs to it.

use std::process::Stdio;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Driver;
use crate::answer::Answer;
use crate::fault::Fault;
use crate::history::{Role, Span, Step};
use crate::message::Message;
use crate::random::Random;
use crate::template::Values;
use crate::wire::Fate;

/// How many attempts meet in `concurrent`.
pub(crate) const AT_ONCE: usize = 8;
/// How often a request is repeated until it has a final answer.
const MAX_REPEATS: usize = 40;
/// The wait between two repeats, unless the target names a shorter one.
const PAUSE: Duration = Duration::from_millis(250);
/// The wait between two pieces of a slow body.
const PIECE_PAUSE: Duration = Duration::from_millis(25);
/// The wait after a hang-up, so that the target is at work on the first request when the repeat arrives.
const HANG_UP_PAUSE: Duration = Duration::from_millis(50);
/// How long a restart may take: the command, and then the target's coming back.
const RESTART: Duration = Duration::from_secs(30);

/// A timer is at most this much late; what is shorter is waited for awake.
const COARSE: Duration = Duration::from_millis(2);

/// A case while it is played.
pub(super) struct Case<'a> {
    pub(super) driver: &'a Driver,
    pub(super) message: Message,
    pub(super) values: Values,
    pub(super) random: Random,
    pub(super) steps: Vec<Step>,
    pub(super) of_incomplete: Option<Result<i64, String>>,
    /// For `kill_target`: how long after the request was sent.
    pub(super) kill_after: Duration,
    /// When the case began: what its times are counted from.
    pub(super) began: Instant,
}

impl Case<'_> {
    pub(super) async fn play(&mut self, fault: Fault) -> Result<(), String> {
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
            Fault::KillTarget => self.kill_target().await?,
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

    /// How long the case has been going on.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn note(&mut self, role: Role, message: Message, fate: Fate, span: Span) {
        self.steps.push(Step {
            role,
            message,
            fate,
            span,
        });
    }

    fn note_attempt(&mut self, fate: Fate, span: Span) {
        let role = if self.steps.is_empty() {
            Role::First
        } else {
            Role::Repeat
        };
        self.note(role, self.message.clone(), fate, span);
    }

    /// An attempt that ends now.
    fn note_attempt_since(&mut self, from: Duration, fate: Fate) {
        let to = self.now();
        self.note_attempt(fate, Span { from, to });
    }

    async fn first(&mut self) {
        let from = self.now();
        let fate = self.driver.wire.exchange(&self.message).await;
        self.note_attempt_since(from, fate);
    }

    async fn other(&mut self, message: Message) {
        let from = self.now();
        let fate = self.driver.wire.exchange(&message).await;
        let to = self.now();
        self.note(Role::Other, message, fate, Span { from, to });
    }

    /// Repeats until the target no longer says "not now".
    async fn repeat_until_final(&mut self) {
        for _ in 0..MAX_REPEATS {
            let from = self.now();
            let fate = self.driver.wire.exchange(&self.message).await;
            let pause = match &fate {
                Fate::Answered(answer) if answer.is_not_now() => Some(pause_of(answer)),
                _ => None,
            };
            self.note_attempt_since(from, fate);
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
        let from = self.now();
        for pending in open.iter_mut().flatten() {
            pending.send_rest().await;
        }
        let mut answers = JoinSet::new();
        for (at, pending) in open.into_iter().enumerate() {
            answers.spawn(async move {
                let fate = match pending {
                    Ok(pending) => pending.finish().await,
                    Err(error) => Fate::Failed(format!("cannot connect: {error}")),
                };
                (at, fate)
            });
        }
        let mut fates = Vec::new();
        while let Some(ended) = answers.join_next().await {
            let to = self.now();
            fates.extend(ended.ok().map(|(at, fate)| (at, fate, Span { from, to })));
        }
        fates.sort_by_key(|(at, ..)| *at);
        for (_, fate, span) in fates {
            self.note_attempt(fate, span);
        }
    }

    async fn lose_reply(&mut self, fault: Fault) {
        // A target that is left before it began may as well have heard nothing.
        let at_work = self.random.within(10, 40);
        let at_work = Duration::from_millis(u64::try_from(at_work).unwrap_or(10));
        let from = self.now();
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                pending.send_rest().await;
                if fault == Fault::HangUp {
                    sleep(at_work).await;
                    pending.close()
                } else {
                    pending.lose_reply().await
                }
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt_since(from, fate);
        if fault == Fault::HangUp {
            sleep(HANG_UP_PAUSE).await;
        }
    }

    async fn reset_mid_reply(&mut self) {
        let bytes = self.random.within(1, 200);
        let from = self.now();
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                pending.send_rest().await;
                pending.reset_after(bytes).await
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt_since(from, fate);
    }

    async fn overtaken(&mut self) {
        let held_from = self.now();
        let held = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                let cut = self.random.within(1, pending.len().saturating_sub(1));
                pending.send_to(cut).await;
                Ok(pending)
            }
            Err(error) => Err(error),
        };
        let from = self.now();
        let overtaking = self.driver.wire.exchange(&self.message).await;
        let overtaking_span = Span {
            from,
            to: self.now(),
        };
        let fate = match held {
            Ok(mut pending) => {
                pending.send_rest().await;
                pending.finish().await
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        // In the order in which they arrived in full.
        self.note_attempt(overtaking, overtaking_span);
        self.note_attempt_since(held_from, fate);
    }

    async fn slow_body(&mut self) {
        let from = self.now();
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
        self.note_attempt_since(from, fate);
    }

    async fn cut(&mut self, fault: Fault) {
        let from = self.now();
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
        self.note_attempt_since(from, fate);
        if self.driver.counter.is_some() {
            self.of_incomplete = Some(self.driver.count().await);
        }
    }

    /// The target is killed some time after it has been sent all of the request; what it answers until then is lost.
    async fn kill_target(&mut self) -> Result<(), String> {
        let Some(target) = &self.driver.started else {
            return Err("no --start COMMAND".into());
        };
        let from = self.now();
        let fate = match self.driver.wire.open(&self.message).await {
            Ok(mut pending) => {
                pending.send_rest().await;
                let due = Instant::now() + self.kill_after;
                if self.kill_after > COARSE {
                    sleep(self.kill_after - COARSE).await;
                }
                while Instant::now() < due {
                    tokio::task::yield_now().await;
                }
                target.kill().await?;
                pending.close()
            }
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
        };
        self.note_attempt_since(from, fate);
        // Where it does not come back, the repeat shows it, and is judged.
        drop(target.start_again().await);
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), String> {
        let Some(command) = &self.driver.restart else {
            let target = self.driver.started.as_ref();
            let target = target.ok_or("no --restart COMMAND, and no --start COMMAND")?;
            target.kill().await?;
            return target.start_again().await;
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
