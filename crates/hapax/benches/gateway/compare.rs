//! nginx and hapax by turns, in front of the same upstream.

use crate::load::{Keys, Load};
use crate::proxies::Proxy;
use crate::upstream::Upstream;

const WARM_UP: u64 = 4_000;
const REQUESTS: u64 = 40_000;
/// Pairs of runs a row; odd, for a median.
const ROUNDS: usize = 5;
const REPLAYED_KEYS: u64 = 1_000;

const QUIET: &str = "[telemetry]\nlog = \"warn\"\n";

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// A row's goal, as a share of nginx: requests a second at least, CPU at most.
struct Row {
    name: &'static str,
    keys: Keys,
    least_rate: f64,
    most_cpu: f64,
}

pub(crate) fn run(upstream: &Upstream) {
    let nginx = Proxy::nginx(upstream.address);
    let hapax = Proxy::hapax(upstream.address, QUIET);
    println!(
        "{REQUESTS} requests a run, {ROUNDS} pairs of runs a row, 64 connections, 300 bytes each way; \
         medians. hapax logs at warn,\nthe last row at info into a file; embedded store, both syncs on."
    );
    println!(
        "{:<24}{:>10}{:>12}{:>9}{:>9}   nginx: {:>8}{:>9}   rate x   CPU x",
        "hapax", "req/s", "CPU us/req", "p50 ms", "p99 ms", "req/s", "CPU us"
    );
    let rows = [
        row("pass-through, unkeyed", Keys::None, 0.9, f64::INFINITY),
        row("keyed, first time", Keys::Fresh, 0.4, 2.8),
        row(
            "keyed, replayed",
            Keys::Repeated(REPLAYED_KEYS),
            1.2,
            f64::INFINITY,
        ),
    ];
    for row in &rows {
        print_row(row, upstream, &nginx, &hapax);
    }
    let mean =
        hapax.metric("hapax_store_batch_size_sum") / hapax.metric("hapax_store_batch_size_count");
    drop(hapax);
    let hapax = Proxy::hapax(upstream.address, "[telemetry]\nlog = \"info\"\n");
    let row = row("keyed, log at info", Keys::Fresh, 0.0, f64::INFINITY);
    print_row(&row, upstream, &nginx, &hapax);
    println!(
        "Limits: the load, the upstream and the proxy share {} cores, so that the CPU of all three is what counts;\n\
         a first request waits for two syncs, each shared by {mean:.1} operations.",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
}

fn row(name: &'static str, keys: Keys, least_rate: f64, most_cpu: f64) -> Row {
    Row {
        name,
        keys,
        least_rate,
        most_cpu,
    }
}

fn print_row(row: &Row, upstream: &Upstream, nginx: &Proxy, hapax: &Proxy) {
    let keys = row.keys;
    for proxy in [nginx, hapax] {
        Load::new(proxy.address, keys, WARM_UP).run();
    }
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(measure(nginx, Load::new(nginx.address, keys, REQUESTS)).0);
        let before = upstream.served();
        let (figures, replayed) = measure(hapax, Load::new(hapax.address, keys, REQUESTS));
        let expected = match keys {
            Keys::Repeated(_) => (REQUESTS, 0),
            Keys::None | Keys::Fresh => (0, REQUESTS),
        };
        let seen = (replayed, upstream.served() - before);
        assert_eq!(
            seen, expected,
            "replays, and requests that reached the upstream"
        );
        ours.push(figures);
    }
    let pairs = || ours.iter().zip(&theirs);
    let rate = median(pairs().map(|(our, their)| our.per_second / their.per_second));
    let cpu = median(pairs().map(|(our, their)| our.cpu_us / their.cpu_us));
    let of = |all: &[Figures], figure: fn(&Figures) -> f64| median(all.iter().map(figure));
    println!(
        "{:<24}{:>10.0}{:>12.1}{:>9.2}{:>9.2}   {:>15.0}{:>9.1}{:>8.2}{}{:>7.2}{}",
        row.name,
        of(&ours, |run| run.per_second),
        of(&ours, |run| run.cpu_us),
        of(&ours, |run| run.p50_ms),
        of(&ours, |run| run.p99_ms),
        of(&theirs, |run| run.per_second),
        of(&theirs, |run| run.cpu_us),
        rate,
        if rate < row.least_rate { "!" } else { " " },
        cpu,
        if cpu > row.most_cpu { "!" } else { " " },
    );
}

/// Runs a load through a proxy; how many answers were replays, besides.
pub(crate) fn measure(proxy: &Proxy, load: Load) -> (Figures, u64) {
    let before = proxy.cpu_us();
    let report = load.run();
    let cpu_us = (proxy.cpu_us() - before) / report.requests() as f64;
    let figures = Figures {
        per_second: report.per_second(),
        cpu_us,
        p50_ms: report.quantile(0.50),
        p99_ms: report.quantile(0.99),
    };
    (figures, report.replayed)
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
