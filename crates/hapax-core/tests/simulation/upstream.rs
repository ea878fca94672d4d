//! An upstream that counts its effects and fails in every way around them.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use hapax_core::attempt::{Input, UpstreamAnswer, UpstreamFailure};
use hapax_core::record::Content;
use hapax_core::settle::settlement_of;

use crate::random::Random;

/// What one call will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// 201, with its effect.
    Completes,
    /// 422, and nothing happened.
    Rejects,
    /// 503, and nothing happened.
    Releases,
    /// Not a byte of the request was sent.
    IsNotSent,
    /// The connection breaks after dispatch.
    Breaks { has_effect: bool },
    /// 500.
    Fails { has_effect: bool },
    /// Nothing ever comes back.
    IsSilent { has_effect: bool },
}

impl Plan {
    pub(crate) fn random(random: &mut Random, is_troubled: bool) -> Self {
        let has_effect = random.once_in(2);
        match random.below(if is_troubled { 14 } else { 8 }) {
            0..5 => Self::Completes,
            5 | 6 => Self::Rejects,
            7 => Self::Releases,
            8 => Self::IsNotSent,
            9 | 10 => Self::Breaks { has_effect },
            11 | 12 => Self::Fails { has_effect },
            _ => Self::IsSilent { has_effect },
        }
    }

    fn has_effect(self) -> bool {
        match self {
            Self::Completes => true,
            Self::Rejects | Self::Releases | Self::IsNotSent => false,
            Self::Breaks { has_effect }
            | Self::Fails { has_effect }
            | Self::IsSilent { has_effect } => has_effect,
        }
    }

    /// Whether the upstream itself says that nothing happened.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::Rejects | Self::Releases | Self::IsNotSent)
    }
}

/// The content of an answer: one byte, which says of which call it is.
pub(crate) fn content_of(id: u8) -> Content {
    static IDS: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=u8::MAX).collect());
    let id = usize::from(id);
    // Borrowed: an allocation a call is too much here.
    Content::Stored(Bytes::from_static(IDS.get(id..=id).unwrap_or_default()))
}

/// One call, on its way whatever becomes of the caller.
pub(crate) struct Call {
    pub(crate) plan: Plan,
    /// Which fingerprint the request has.
    pub(crate) request: u8,
    /// When the effect happens.
    pub(crate) acts_at: Option<u64>,
    pub(crate) has_acted: bool,
    /// How often the record had expired before.
    pub(crate) epoch: u32,
    /// When the answer, or the failure, is there.
    pub(crate) answers_at: u64,
}

/// Silence is broken off after this many milliseconds.
const SILENCE: u64 = 200_000;

impl Call {
    pub(crate) fn new(
        plan: Plan,
        request: u8,
        now: u64,
        is_slow: bool,
        random: &mut Random,
    ) -> Self {
        let longest = match random.below(8) {
            // Beyond the lease, beyond the upstream's time-out, and across some heartbeats.
            0 if is_slow => 150_000,
            1 if is_slow => 50_000,
            2 if is_slow => 30_000,
            _ => 200,
        };
        let acts_at = now + random.below(longest);
        let answers_at = match plan {
            Plan::IsSilent { .. } => now + SILENCE,
            _ => acts_at + 1 + random.below(longest),
        };
        Self {
            plan,
            request,
            acts_at: plan.has_effect().then_some(acts_at),
            has_acted: false,
            epoch: 0,
            answers_at,
        }
    }

    /// What the caller gets in the end; `id` makes the content this call's own.
    pub(crate) fn result(&self, id: u8) -> Input {
        let status = match self.plan {
            Plan::Completes => StatusCode::CREATED,
            Plan::Rejects => StatusCode::UNPROCESSABLE_ENTITY,
            Plan::Releases => StatusCode::SERVICE_UNAVAILABLE,
            Plan::Fails { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Plan::IsNotSent => {
                return Input::Failed(UpstreamFailure::NotSent { timed_out: false });
            }
            Plan::Breaks { .. } | Plan::IsSilent { .. } => {
                return Input::Failed(UpstreamFailure::AfterDispatch);
            }
        };
        Input::Answered(UpstreamAnswer {
            status,
            settlement: settlement_of(status),
            headers: HeaderMap::new(),
            content: content_of(id),
        })
    }
}
