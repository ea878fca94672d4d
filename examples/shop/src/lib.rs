//! A reference order service: how an idempotent API is written.
//!
//! Read it in this order:
//!
//! 1. `order`: what a request may say, parsed into types at the edge;
//! 2. `orders`: the SQL, with the unique constraint that is the last line of defence;
//! 3. `shop`: what the service does: order and charge are written in one transaction;
//! 4. `api`: the methods of HTTP on top, each with its semantics;
//! 5. `protect`: the ways in which `POST /create-order` can be made safe to repeat;
//! 6. `steps`: an order whose charge is made by somebody else (`provider`), step by step;
//! 7. `answer`: every status and problem that the service answers with.
//!
//! Two ways of creating an order stand side by side. `POST /create-order` is the naive one: the
//! server makes the id, so that it cannot tell a repeat from a second order. `PUT
//! /order/{order-id}` lets the client name the order before the first attempt, so that a repeat
//! finds it.

mod answer;
mod api;
mod order;
mod orders;
mod protect;
mod provider;
mod serve;
mod shop;
mod steps;

pub use api::router;
pub use protect::Mode;
pub use serve::{MAX_CONNECTIONS, serve};
pub use shop::{OpenError, Shop};
