//! The faults, by name.

use std::str::FromStr;

/// What goes wrong between the checker and the target, or is wrong with the repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// None: a request and its repeat, one after the other.
    ReplayFidelity,
    /// The same request twice, the second right behind the first.
    Duplicate,
    /// The same request eight times at once.
    Concurrent,
    /// Sent in full and answered; the connection ends before anything of the answer is read.
    LoseReply,
    /// Sent in full; the connection is closed soon, while the target works.
    HangUp,
    /// The connection is reset after some bytes of the answer.
    ResetMidReply,
    /// The request is held up in the middle, and its repeat overtakes it.
    Delay,
    /// The content arrives in small pieces.
    SlowBody,
    /// The connection ends within the head.
    LoseRequest,
    /// The connection ends within the content.
    CutBody,
    /// The same key with another payload.
    OtherPayload,
    /// The same key from another caller.
    OtherCaller,
    /// The same key at another path.
    OtherPath,
    /// No key.
    NoKey,
    /// Keys that are none.
    BadKey,
    /// The target restarts between a request and its repeat.
    AfterRestart,
    /// The target is killed while it is at work, and started again; several orders, each killed at another moment.
    KillTarget,
}

impl Fault {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 17] = [
        Self::ReplayFidelity,
        Self::Duplicate,
        Self::Concurrent,
        Self::LoseReply,
        Self::HangUp,
        Self::ResetMidReply,
        Self::Delay,
        Self::SlowBody,
        Self::LoseRequest,
        Self::CutBody,
        Self::OtherPayload,
        Self::OtherCaller,
        Self::OtherPath,
        Self::NoKey,
        Self::BadKey,
        Self::AfterRestart,
        Self::KillTarget,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplayFidelity => "replay_fidelity",
            Self::Duplicate => "duplicate",
            Self::Concurrent => "concurrent",
            Self::LoseReply => "lose_reply",
            Self::HangUp => "hang_up",
            Self::ResetMidReply => "reset_mid_reply",
            Self::Delay => "delay",
            Self::SlowBody => "slow_body",
            Self::LoseRequest => "lose_request",
            Self::CutBody => "cut_body",
            Self::OtherPayload => "other_payload",
            Self::OtherCaller => "other_caller",
            Self::OtherPath => "other_path",
            Self::NoKey => "no_key",
            Self::BadKey => "bad_key",
            Self::AfterRestart => "after_restart",
            Self::KillTarget => "kill_target",
        }
    }

    /// What happens, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::ReplayFidelity => "a request, then its repeat",
            Self::Duplicate => "the same request twice, back to back",
            Self::Concurrent => "the same request eight times at once",
            Self::LoseReply => "the answer is lost, the request repeated",
            Self::HangUp => "the caller hangs up while the target works",
            Self::ResetMidReply => "a reset in the middle of the answer",
            Self::Delay => "a request overtaken by its repeat",
            Self::SlowBody => "content in small pieces",
            Self::LoseRequest => "the connection ends within the head",
            Self::CutBody => "the connection ends within the content",
            Self::OtherPayload => "the same key, another payload",
            Self::OtherCaller => "the same key, another caller",
            Self::OtherPath => "the same key, another path",
            Self::NoKey => "no key",
            Self::BadKey => "keys that are none",
            Self::AfterRestart => "a restart before the repeat",
            Self::KillTarget => "killed at work and started again, then the repeat",
        }
    }

    /// Whether the first attempt never arrives in full.
    pub(crate) fn is_incomplete(self) -> bool {
        matches!(self, Self::LoseRequest | Self::CutBody)
    }

    /// How many requests it takes, each with a key of its own and all the rest of the case.
    pub(crate) fn orders(self) -> u32 {
        match self {
            Self::KillTarget => 8,
            _ => 1,
        }
    }

    /// Whether attempts of one request can meet.
    pub(crate) fn is_racing(self) -> bool {
        matches!(self, Self::Duplicate | Self::Concurrent | Self::Delay)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = text.trim().replace('-', "_");
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == wanted)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
                format!("there is no fault {text:?}; there are {}", names.join(", "))
            })
    }
}
