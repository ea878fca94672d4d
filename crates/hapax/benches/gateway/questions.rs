//! What takes longer to find out.

use std::time::Duration;

use bytes::Bytes;
use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Content, Record, State, StoredResponse};
use hapax_core::scope::ScopeId;
use hapax_core::store::Store;
use hapax_store::{EmbeddedStore, Options};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::compare::{measure, median};
use crate::load::{Keys, Load};
use crate::proxies::{Proxy, directory, wait_for};
use crate::upstream::{Upstream, content};

const QUIET: &str = "[telemetry]\nlog = \"warn\"\n";
const MIB: f64 = 1024.0 * 1024.0;
/// Requests between two looks at a long run.
const SLICE: u64 = 50_000;

/// Memory over a number of keys, each used once.
pub(crate) fn long(upstream: &Upstream, keys: u64) {
    let hapax = Proxy::hapax(upstream.address, QUIET);
    println!(
        "{:>10} {:>10} {:>10} {:>10}",
        "keys", "RSS MiB", "req/s", "p99 ms"
    );
    for slice in 1..=keys.div_ceil(SLICE) {
        let (run, _) = measure(&hapax, Load::new(hapax.address, Keys::Fresh, SLICE));
        println!(
            "{:>10} {:>10.1} {:>10.0} {:>10.2}",
            slice * SLICE,
            hapax.resident() as f64 / MIB,
            run.per_second,
            run.p99_ms
        );
    }
}

/// Memory for each operation under way. What a connection takes is seen by holding as many
/// requests without a key, which hapax does not keep.
pub(crate) fn held(upstream: &Upstream, requests: u64) {
    let mut each = Vec::new();
    for (name, keys) in [("unkeyed", Keys::None), ("keyed", Keys::Fresh)] {
        let limits = "[limits]\nmax_outstanding = 20000\n";
        let hapax = Proxy::hapax(upstream.address, &format!("{limits}{QUIET}"));
        // Pools, caches and thread stacks are there before the first look.
        Load::new(hapax.address, keys, 4_000).run();
        let (before, arrived) = (hapax.resident(), upstream.held());
        upstream.open(false);
        let load = Load {
            path: "/hold",
            connections: requests,
            ..Load::new(hapax.address, keys, requests)
        };
        let running = std::thread::spawn(move || load.run());
        wait_for("every request to be held", || {
            upstream.held() - arrived == requests
        });
        let grown = hapax.resident().saturating_sub(before) as f64 / requests as f64;
        println!("{requests} {name} requests held: {grown:.0} bytes each, connections included");
        each.push(grown);
        upstream.open(true);
        running.join().unwrap();
    }
    println!(
        "an outstanding record: {:.0} bytes beyond its two connections, its 300 bytes of content included",
        each[1] - each[0]
    );
}

/// The cost of a request over a store of ten thousand records, and over a full one.
pub(crate) fn records(upstream: &Upstream, many: u64) {
    for count in [10_000, many] {
        let directory = directory();
        fill(&directory.path().join("store"), count);
        let hapax = Proxy::hapax_in(directory, upstream.address, QUIET);
        for keys in [Keys::Fresh, Keys::Repeated(1_000)] {
            Load::new(hapax.address, keys, 4_000).run();
            let runs: Vec<_> = (0..3)
                .map(|_| measure(&hapax, Load::new(hapax.address, keys, 20_000)).0)
                .collect();
            println!(
                "{count:>10} records, {keys:?}: {:>8.0} req/s, {:>6.1} CPU us/req, p99 {:.2} ms",
                median(runs.iter().map(|run| run.per_second)),
                median(runs.iter().map(|run| run.cpu_us)),
                median(runs.iter().map(|run| run.p99_ms)),
            );
        }
    }
}

/// Live traffic whose records expire after a minute, until `keys` have been used: the latency
/// of stretches in which the store grew, and of those in which it shrank.
pub(crate) fn sweep(upstream: &Upstream, keys: u64) {
    let rest = format!("[defaults]\nretention = \"15s\"\n{QUIET}");
    let hapax = Proxy::hapax(upstream.address, &rest);
    let (mut growing, mut shrinking) = (Vec::new(), Vec::new());
    let (mut held, mut removed) = (0.0, 0.0);
    const STRETCH: u64 = 10_000;
    for _ in 0..keys.div_ceil(STRETCH) {
        let (run, _) = measure(&hapax, Load::new(hapax.address, Keys::Fresh, STRETCH));
        let now = hapax.metric("hapax_store_records");
        let gone: f64 = held + STRETCH as f64 - now;
        held = now;
        // The figure is an estimate: a few records fewer are noise.
        if gone > STRETCH as f64 / 4.0 {
            removed += gone;
            shrinking.push(run.p99_ms);
        } else {
            growing.push(run.p99_ms);
        }
    }
    println!(
        "{keys} keys used, {removed:.0} records swept, {held:.0} left, {:.1} MiB on disk, RSS {:.1} MiB",
        hapax.metric("hapax_store_bytes") / MIB,
        hapax.resident() as f64 / MIB
    );
    for (name, p99) in [("without", &growing), ("with", &shrinking)] {
        if !p99.is_empty() {
            println!(
                "p99 of {} stretches of {STRETCH} requests {name} sweeping: median {:.2} ms, worst {:.2} ms",
                p99.len(),
                median(p99.iter().copied()),
                p99.iter().copied().fold(0.0, f64::max)
            );
        }
    }
}

/// Fills a store with settled records, many at a time.
fn fill(path: &std::path::Path, count: u64) {
    const AT_ONCE: u64 = 512;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = std::sync::Arc::new(EmbeddedStore::open(path, Options::default()).unwrap());
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..AT_ONCE {
            let store = std::sync::Arc::clone(&store);
            tasks.spawn(async move {
                for number in (first..count).step_by(AT_ONCE as usize) {
                    // An odd multiplier is a bijection: keys spread over the key space.
                    let spread = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let id = (spread << 64 | u128::from(number)).to_be_bytes();
                    let record = settled(ClaimId::from_bytes(id));
                    store
                        .insert(&RecordKey::from_bytes(id), &record)
                        .await
                        .unwrap();
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
}

fn settled(claim: ClaimId) -> Record {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    Record {
        claim,
        scope: ScopeId::from_bytes([3; 16]),
        fingerprint: Fingerprint {
            digest: [4; 16],
            outline: [(1, 2); 4].into(),
        },
        attempt: 1,
        route: "default".into(),
        trace: None,
        asked_by: None,
        retention: Duration::from_secs(24 * 3600),
        tombstone: Duration::ZERO,
        state: State::Completed(StoredResponse {
            status: StatusCode::OK,
            headers,
            content: Content::Stored(Bytes::from(content())),
        }),
    }
}
