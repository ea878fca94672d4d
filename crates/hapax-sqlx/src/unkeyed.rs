//! A request that is not keyed, or only observed: its handler runs in a transaction all the same.

use axum_core::body::Body;
use http::request::Parts;
use http::{Request, Response};
use sqlx::Transaction;
use sqlx::error::ErrorKind;
use tower_service::Service;

use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::settle::{self, Settlement};

use crate::Dialect;
use crate::execution::{self, BoxError, Ended};
use crate::layer::Shared;
use crate::records::begin;
use crate::statements::FailureKind;
use crate::transaction::Slot;

/// Runs the handler once and commits what its answer says is done.
pub(crate) async fn run<DB, I>(
    shared: &Shared<DB>,
    inner: I,
    parts: Parts,
    body: Body,
) -> Response<Body>
where
    DB: Dialect,
    I: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    I::Error: Into<BoxError>,
    I::Future: Send,
{
    let _turn = if DB::HAS_ONE_WRITER {
        shared.writer.acquire().await.ok()
    } else {
        None
    };
    let Ok(transaction) = begin(&shared.records.pool, shared.begin()).await else {
        let detail = "The database could not be asked. Nothing was executed.";
        return answer(&Problem::new(ProblemKind::StoreUnavailable, detail));
    };
    let slot = Slot::new(transaction);
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(slot.clone());
    let policy = &shared.policy;
    let ended = execution::run(
        inner,
        request,
        policy.max_stored_response,
        policy.upstream_timeout,
    );
    let ended = ended.await;
    let Some(transaction) = slot.close() else {
        return answer(&kept_problem());
    };
    let Ended::Answered {
        mut parts,
        content,
        rest,
    } = ended
    else {
        let _ = transaction.rollback().await;
        return answer(&failed_problem(&ended));
    };
    let settlement = settle::take_settlement(parts.status, &mut parts.headers);
    let is_done = settlement == Settlement::Complete && !slot.is_rolled_back();
    if !is_done {
        let _ = transaction.rollback().await;
    } else if let Err(problem) = commit(transaction).await {
        return answer(&problem);
    }
    Response::from_parts(*parts, execution::body(content, rest))
}

/// Commits. With a key, storing the record is what finds a transaction that is broken; here
/// nothing is stored, so it is asked.
async fn commit<DB: Dialect>(mut transaction: Transaction<'static, DB>) -> Result<(), Problem> {
    let broken = |_| {
        let detail = "A statement failed. It was rolled back; nothing has happened.";
        Problem::new(ProblemKind::RolledBack, detail)
    };
    DB::assure_unbroken(&mut transaction)
        .await
        .map_err(broken)?;
    transaction.commit().await.map_err(|error| {
        let is_refused = error
            .as_database_error()
            .is_some_and(|error| !matches!(error.kind(), ErrorKind::Other));
        if is_refused || crate::kind_of(&error) == FailureKind::Conflict {
            let detail = "The database refused the commit. Nothing has happened.";
            return Problem::new(ProblemKind::RolledBack, detail);
        }
        let detail = "The commit failed. Nobody can know whether the operation happened.";
        Problem::new(ProblemKind::OutcomeUnknown, detail)
    })
}

fn answer(problem: &Problem) -> Response<Body> {
    problem.response().map(Body::from)
}

/// A handler that did not come to an answer.
pub(crate) fn failed_problem(ended: &Ended) -> Problem {
    let detail = match ended {
        Ended::TimedOut => "The operation took too long. It was rolled back; nothing has happened.",
        _ => "The operation failed. It was rolled back; nothing has happened.",
    };
    Problem::new(ProblemKind::RolledBack, detail)
}

/// A handler that kept its transaction, in a task of its own or in a streaming answer.
pub(crate) fn kept_problem() -> Problem {
    let detail = "The operation kept its transaction beyond its answer. Nothing was committed.";
    Problem::new(ProblemKind::RolledBack, detail)
}

/// A request that goes through recovery points and did not come to its end.
pub(crate) fn stopped_problem() -> Problem {
    let detail = "The operation stopped on its way. Send this request again with the same key: it goes \
                  on after the last step that is done.";
    Problem::new(ProblemKind::OutcomeUnknown, detail).retryable()
}
