//! A store in a directory of a local disk: a log and sorted tables behind one writer thread.
//!
//! - `directory`: the files around the engine: lock, format, secret,
//! - `witness`: what had been acknowledged when the previous process ended,
//! - `frame`: the bytes of the log; `log`: its files; `replay`: reads it back,
//! - `memory`: what the log has and the tables do not have yet,
//! - `tables`: sorted files, merged in the background, where what has expired is dropped,
//! - `manifest`: checks which files make up the tables,
//! - `engine`: log, memory and tables as one,
//! - `value`: the bytes of a record as they are stored,
//! - `index`: the records that are not settled, in memory,
//! - `space`: what is held, and what the limits and the disk leave room for,
//! - `restore`: fills a new store with the records of another,
//! - `open`: recovery; `writer`: the one thread that writes; `store`: the contract.

mod directory;
mod engine;
mod frame;
mod index;
mod log;
mod manifest;
mod memory;
mod open;
mod options;
mod recent;
mod replay;
mod restore;
mod space;
mod store;
mod tables;
mod value;
mod witness;
mod writer;

pub use open::OpenError;
pub use options::{Health, Options};
pub use restore::EmbeddedRestore;
pub use store::EmbeddedStore;

#[cfg(feature = "fault-injection")]
pub use options::Faults;
