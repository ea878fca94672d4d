//! Scripted lives: what comes in and which step must come out, through one helper.

mod claiming;
mod executing;
mod observing;
mod probing;
mod settling;
mod unreachable;

use super::*;
use crate::event::Event;
use crate::policy::{Mode, OnStoreFailure, OnUnknown};
use crate::record::{State, UnknownReason};

const LEASE: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp::from_millis(10_000_000);
const OURS: ClaimId = ClaimId::from_bytes([0xa; 16]);
const SEAL: ClaimId = ClaimId::from_bytes([0xb; 16]);
const THEIRS: ClaimId = ClaimId::from_bytes([0xc; 16]);

/// An attempt under test, with the time since it arrived and what it told.
struct Life {
    attempt: Attempt,
    elapsed: Duration,
    told: Vec<String>,
    replies: u32,
    last: Option<Step>,
}

/// Begins a life under the default policy with `change` made to it.
fn life(change: impl FnOnce(&mut Policy)) -> Life {
    let mut policy = Policy {
        lease: LEASE,
        ..Policy::default()
    };
    change(&mut policy);
    let ticket = Ticket {
        key: RecordKey::from_bytes([1; 16]),
        scope: ScopeId::from_bytes([2; 16]),
        fingerprint: fingerprint(1),
        policy: Arc::new(policy),
        route: "POST /".into(),
        claim: OURS,
        seal: SEAL,
        trace: None,
        asked_by: None,
    };
    Life {
        attempt: Attempt::new(ticket),
        elapsed: Duration::ZERO,
        told: Vec::new(),
        replies: 0,
        last: None,
    }
}

impl Life {
    /// Hands `input` in and checks the step that comes out, by its short form.
    #[track_caller]
    fn gives(&mut self, input: Input, expected: &str) -> &mut Self {
        let said = format!("{input:?}");
        let told = &mut self.told;
        let step = self.attempt.advance(input, self.elapsed, &mut |event| {
            told.push(short_event(&event));
        });
        self.replies += u32::from(matches!(step, Step::Reply(_)));
        assert!(self.replies <= 1, "a second reply after {said}");
        assert_eq!(short(&step), expected, "after {said}");
        self.last = Some(step);
        self
    }

    /// Lets time pass.
    fn after(&mut self, time: Duration) -> &mut Self {
        self.elapsed += time;
        self
    }

    /// Claims a vacant key and is with the upstream.
    #[track_caller]
    fn executing(&mut self) -> &mut Self {
        self.gives(Input::Begin, "insert a outstanding #1")
            .gives(claimed(), "execute #1 every 20s")
    }

    /// Is answered and ends; exactly one reply was said.
    #[track_caller]
    fn ends(&mut self) {
        self.gives(Input::Replied, "done");
        assert_eq!(self.replies, 1, "one reply an attempt");
    }

    #[track_caller]
    fn told(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.told, expected);
        self
    }

    /// The reply that was just said.
    #[track_caller]
    fn reply(&self) -> &Reply {
        match &self.last {
            Some(Step::Reply(reply)) => reply,
            step => panic!("not a reply: {step:?}"),
        }
    }
}

/// A step in a few words, claim ids by their letter.
fn short(step: &Step) -> String {
    match step {
        Step::Insert(record) => format!("insert {}", short_record(record)),
        Step::Replace { expected, record } => {
            format!("replace {} by {}", letter(*expected), short_record(record))
        }
        Step::Remove { expected } => format!("remove {}", letter(*expected)),
        Step::Read => "read".into(),
        Step::Probe => "probe".into(),
        Step::Wait(time) => format!("wait {time:?}"),
        Step::Pause(time) => format!("pause {time:?}"),
        Step::Execute(Execution { attempt, heartbeat }) => match heartbeat {
            Some(every) => format!("execute #{attempt} every {every:?}"),
            None => format!("execute #{attempt} unrecorded"),
        },
        Step::Await => "await".into(),
        Step::Reply(reply) => short_reply(reply),
        Step::Done => "done".into(),
    }
}

fn short_record(record: &Record) -> String {
    let mut text = format!("{} {}", letter(record.claim), record.state.kind().as_str());
    if let State::Unknown { reason, .. } = &record.state {
        text += &format!("({})", reason.as_str());
    }
    if let Some(response) = record.state.response() {
        text += &format!(" {}", response.status.as_u16());
    }
    format!("{text} #{}", record.attempt)
}

fn short_reply(reply: &Reply) -> String {
    let content = match &reply.content {
        ReplyContent::Upstream => "upstream's".to_owned(),
        ReplyContent::Stored(stored) => format!("stored {}", stored.status.as_u16()),
        ReplyContent::Problem(problem) => format!("{:?}", problem.kind),
        ReplyContent::Mismatch { .. } => "mismatch".to_owned(),
    };
    let status = reply.status.map_or("-", IdempotencyStatus::as_str);
    format!("reply {content} {status} {}", reply.outcome.as_str())
}

fn short_event(event: &Event<'_>) -> String {
    match event {
        Event::Claimed { attempt, .. } => format!("claimed #{attempt}"),
        Event::Released { .. } => "released".into(),
        Event::Settled { state, status, .. } => {
            format!("settled {} {}", state.as_str(), status.as_u16())
        }
        Event::BecameUnknown { reason, .. } => format!("unknown {}", reason.as_str()),
        Event::Probed { outcome, .. } => format!("probed {}", outcome.as_str()),
        Event::LeaseLost { .. } => "lease lost".into(),
        Event::StaleWriteRefused { .. } => "stale".into(),
        Event::SettlementAbandoned { .. } => "abandoned".into(),
        Event::QuotaExceeded { .. } => "over quota".into(),
        Event::WouldHave { outcome, .. } => format!("would have {}", outcome.as_str()),
        event => panic!("not the core's to tell: {event:?}"),
    }
}

fn letter(claim: ClaimId) -> String {
    format!("{:x}", claim.as_bytes()[0])
}

fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint {
        digest: [byte; 16],
        outline: [].into(),
    }
}

fn response(status: u16) -> StoredResponse {
    StoredResponse {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::new(),
        content: Content::Stored("theirs".into()),
    }
}

fn unknown(response: Option<StoredResponse>) -> State {
    State::Unknown {
        reason: UnknownReason::UpstreamAnswered,
        response,
    }
}

fn outstanding() -> State {
    State::Outstanding { lease: LEASE }
}

/// What the store holds under the claim `claim`, written `age` ago, by the same request.
fn held(claim: ClaimId, state: State, age: Duration) -> Held {
    let written_at = Timestamp::from_millis(
        NOW.as_millis() - u64::try_from(age.as_millis()).expect("a short time"),
    );
    Held {
        record: Record {
            claim,
            scope: ScopeId::from_bytes([2; 16]),
            fingerprint: fingerprint(1),
            attempt: 1,
            route: "POST /".into(),
            trace: None,
            asked_by: None,
            retention: Duration::from_secs(3600),
            tombstone: Duration::ZERO,
            state,
        },
        claimed_at: written_at,
        written_at,
    }
}

fn theirs(state: State) -> Held {
    held(THEIRS, state, Duration::ZERO)
}

/// What somebody else's lapsed claim looks like.
fn lapsed() -> Held {
    held(THEIRS, outstanding(), LEASE)
}

fn claimed() -> Input {
    Input::Inserted(Ok(Insert::Claimed { now: NOW }))
}

fn occupied(held: Held) -> Input {
    let held = Box::new(held);
    Input::Inserted(Ok(Insert::Occupied { held, now: NOW }))
}

fn applied() -> Input {
    Input::Written(Ok(Write::Applied { now: NOW }))
}

fn stale() -> Input {
    Input::Written(Ok(Write::Stale))
}

fn found(held: impl Into<Option<Held>>) -> Input {
    Input::Found(Ok((held.into(), NOW)))
}

fn answered(status: u16) -> Input {
    let status = StatusCode::from_u16(status).expect("a status");
    Input::Answered(UpstreamAnswer {
        status,
        settlement: crate::settle::settlement_of(status),
        headers: HeaderMap::new(),
        content: Content::Stored("ours".into()),
    })
}

const NOT_SENT: UpstreamFailure = UpstreamFailure::NotSent { timed_out: false };
const AFTER_DISPATCH: UpstreamFailure = UpstreamFailure::AfterDispatch;

fn refused() -> StoreError {
    let reason = "test";
    StoreError::Refused {
        reason,
        source: None,
    }
}

fn uncertain() -> StoreError {
    let reason = "test";
    StoreError::Uncertain {
        reason,
        source: None,
    }
}

const FULL: StoreError = StoreError::Full { what: "test" };
const DAMAGED: StoreError = StoreError::Damaged { what: "test" };

const UNAVAILABLE: &str = "reply StoreUnavailable - store_error";
const CONFLICT: &str = "reply InProgress - in_progress";
const NOT_KNOWN: &str = "reply OutcomeUnknown unknown unknown";
const EXECUTED: &str = "reply upstream's executed executed";
