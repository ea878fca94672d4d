//! What the gateway costs, with nginx in the same run as the yardstick.
//!
//! `cargo bench -p hapax --bench gateway` compares the two in front of one upstream, in under a
//! minute. Longer questions have their own words, each with an optional count:
//!
//! - `-- long [1000000]`: does memory grow with the number of keys seen?
//! - `-- held [5000]`: what does an operation under way take in memory?
//! - `-- records [10000000]`: does a full store make requests dearer?
//! - `-- sweep [1000000]`: do requests notice that expired records go?
//! - `-- events [4]`: do requests notice so many readers of live events?
//! - `-- stores [embedded] [postgres] [redis]`: first requests over each store, beside bare loops
//!
//! nginx comes from the system's packages and is started by this program with a configuration
//! of its own. All traffic stays on 127.0.0.1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a measurement, not a product: it stops at the first thing that is not as it should be"
)]

mod compare;
mod events;
mod load;
mod proxies;
mod questions;
#[path = "../../../hapax-store/tests/it/redis_servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod redis_servers;
#[path = "../../../hapax-store/tests/it/servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod servers;
mod stores;
mod upstream;

use upstream::Upstream;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let says = |word: &str| words.iter().any(|said| said == word);
    let count = words.iter().find_map(|word| word.parse::<u64>().ok());
    // Bench filters and `--test`, which `cargo test --benches` adds, are not for us.
    if says("--test") {
        return;
    }
    raise_file_limit();
    let upstream = Upstream::start();
    if says("long") {
        questions::long(&upstream, count.unwrap_or(1_000_000));
    } else if says("held") {
        questions::held(&upstream, count.unwrap_or(5_000));
    } else if says("records") {
        questions::records(&upstream, count.unwrap_or(10_000_000));
    } else if says("sweep") {
        questions::sweep(&upstream, count.unwrap_or(1_000_000));
    } else if says("events") {
        events::run(&upstream, count.unwrap_or(4));
    } else if says("stores") {
        stores::run(&upstream, &says);
    } else {
        compare::run(&upstream);
    }
}

/// Thousands of connections on both sides need more files than a shell gives; children inherit.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    // Refused means as many as before, and a run that needs more says so.
    let _ = setrlimit(Resource::Nofile, all);
}
