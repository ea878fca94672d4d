//! A store in a directory of a local disk: fjall behind one writer thread.
//!
//! - `directory`: the files around the engine: lock, format, secret,
//! - `journal`: looks through the engine's journals before the engine may repair them,
//! - `manifest`: checks which files make up the engine's tables,
//! - `witness`: what had been acknowledged when the previous process ended,
//! - `engine`: the engine, set up for this load, and the filter that drops what has expired,
//! - `value`: the bytes of a record as they are stored,
//! - `index`: the records that are not settled, in memory,
//! - `space`: what is held, and what the limits and the disk leave room for,
//! - `restore`: fills a new store with the records of another,
//! - `open`: recovery; `writer`: the one thread that writes; `store`: the contract.

mod directory;
mod engine;
mod index;
mod journal;
mod manifest;
mod open;
mod options;
mod recent;
mod restore;
mod space;
mod store;
mod value;
mod witness;
mod writer;

pub use open::OpenError;
pub use options::{Health, Options};
pub use restore::EmbeddedRestore;
pub use store::EmbeddedStore;

#[cfg(feature = "fault-injection")]
pub use options::Faults;
