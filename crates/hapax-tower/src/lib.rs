//! hapax as a tower layer: at most one execution per idempotency key, for any HTTP service.
//!
//! Contract of [`HapaxLayer`], in the order in which it holds for a request:
//!
//! 1. Safe methods, CONNECT, and requests whose route is off or whose method is not keyed pass
//!    through untouched (P1, P2).
//! 2. The key is read and judged before the store is touched (P3–P5); the content is read in
//!    full, within bounds, before the key is claimed (P20).
//! 3. The inner service is called only after the claim is durable (P13), in a task of its own:
//!    a client that leaves cancels nothing (P18).
//! 4. The answer is durable before its first byte is sent, up to the route's
//!    `max_stored_response` (P19).
//! 5. A repeat gets the stored answer (P27–P32); a duplicate of a running operation waits or gets
//!    409; another payload gets 422.
//! 6. An inner service that panics, or fails without saying [`NotSent`], leaves the outcome
//!    *unknown*: it is never called again for that key by itself (P22, P23).
//! 7. On a route that probes, a retry of an *unknown* operation asks the inner service whether it happened;
//!    [`HapaxLayer::complete_unknown`] asks without a retry (P47).
//!
//! Every rule is in `hapax-core`; this crate performs its steps.

mod body;
mod coding;
mod completer;
mod digest;
mod drive;
mod exchange;
mod layer;
mod places;
mod probes;
mod quotas;
mod service;
mod waiters;

pub use body::{BoxError, RequestBody, ResponseBody};
pub use exchange::{AnswerTimeout, NotSent, problem_of};
pub use layer::{HapaxLayer, Limits, Options, RandomNumbers, Routed, Routing};
pub use service::HapaxService;
