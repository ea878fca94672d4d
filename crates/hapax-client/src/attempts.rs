//! The attempts of one request: keeps count, time and budget. The fronts send and wait.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;
use tracing::Span;

use crate::budget::Budget;
use crate::config::Config;
use crate::observe::Seen;
use crate::policy::{Attempt, Decision, Failure, Outcome, Why, judge};

/// One request's attempts so far.
pub(crate) struct Attempts<'a> {
    config: &'a Config,
    method: Method,
    is_keyed: bool,
    host: String,
    budget: Arc<Budget>,
    begun: Instant,
    attempt_begun: Instant,
    pub(crate) made: u32,
    may_have_run: bool,
    paid: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(config: &'a Config, method: Method, host: String, is_keyed: bool) -> Self {
        let begun = Instant::now();
        Self {
            config,
            method,
            is_keyed,
            budget: config.budgets.of(&host),
            host,
            begun,
            attempt_begun: begun,
            made: 0,
            may_have_run: false,
            paid: 0,
        }
    }

    /// Begins an attempt: how long it may take, and the span it runs in.
    pub(crate) fn begin(&mut self) -> (Duration, Span) {
        self.attempt_begun = Instant::now();
        let left = self
            .config
            .limits
            .deadline
            .saturating_sub(self.begun.elapsed());
        let span = tracing::info_span!(
            "request attempt",
            otel.kind = "client",
            http.request.method = %self.method,
            server.address = %self.host,
            http.request.resend_count = self.made,
            http.response.status_code = tracing::field::Empty,
            error.r#type = tracing::field::Empty,
        );
        (self.config.limits.attempt.min(left), span)
    }

    /// Whether the answer must be whole before it counts: of keyed requests, but streams and what is too large.
    pub(crate) fn reads(&self, fields: &HeaderMap) -> bool {
        let text = |name| {
            fields
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        let is_stream = text(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let length: Option<usize> =
            text(http::header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let is_large = length.is_some_and(|length| length > self.config.limits.max_answer);
        (self.is_keyed || crate::problem::is_problem(fields)) && !is_stream && !is_large
    }

    /// Counts the attempt, pays for the next, tells the observer, and says what follows.
    pub(crate) fn judge(&mut self, span: &Span, outcome: &Outcome<'_>) -> Decision {
        self.made = self.made.saturating_add(1);
        let mut decision = judge(
            outcome,
            &Attempt {
                method: &self.method,
                is_keyed: self.is_keyed,
                number: self.made,
                attempts: self.config.limits.attempts,
                may_have_run: self.may_have_run,
                tokens: self.budget.tokens(),
                elapsed: self.begun.elapsed(),
                deadline: self.config.limits.deadline,
                now: (self.config.timing.now)(),
                random: (self.config.timing.random)(),
            },
        );
        match decision {
            Decision::Final => self.budget.success(self.paid),
            Decision::Retry {
                cost, may_have_run, ..
            } => {
                if self.budget.take(cost) {
                    self.paid = cost;
                    self.may_have_run = may_have_run;
                } else if may_have_run {
                    // Another request was faster with the last tokens.
                    decision = Decision::Unknown(Why::Budget);
                } else {
                    decision = Decision::GiveUp(Why::Budget);
                }
            }
            Decision::Unknown(_) | Decision::GiveUp(_) => {}
        }
        self.tell(span, outcome, decision);
        decision
    }

    fn tell(&self, span: &Span, outcome: &Outcome<'_>, decision: Decision) {
        let came: Result<StatusCode, Failure> = match outcome {
            Outcome::Answered { status, .. } => Ok(*status),
            Outcome::Failed(failure) => Err(*failure),
        };
        match came {
            Ok(status) => span.record("http.response.status_code", status.as_u16()),
            Err(failure) => span.record("error.type", tracing::field::debug(failure)),
        };
        if let Some(observer) = &self.config.observer {
            observer.attempt(&Seen {
                host: &self.host,
                number: self.made,
                came,
                decision,
                took: self.attempt_begun.elapsed(),
                tokens: self.budget.tokens(),
            });
        }
    }
}
