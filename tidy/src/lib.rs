//! Rules of the tree that the compiler does not check.
//!
//! Every check is a pure function from text to findings, one line each; `tests/tree.rs` runs them on the tree.
//! Beside every check stand tests that show it a bad text: a check that cannot fail proves nothing.

pub mod docs;
pub mod homes;
pub mod map;
pub mod packages;
pub mod source;
pub mod style;
pub mod tree;
