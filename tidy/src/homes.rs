//! Things that have one home: the decision, statuses, metric names, clocks.

use crate::source::{Source, is_word, line_of, words};

/// Where statuses of our own answers are chosen.
const STATUS_HOMES: [&str; 2] = [
    "crates/hapax-core/src/problem.rs",
    "crates/hapax-core/src/settle.rs",
];

/// Files that choose statuses of another kind.
pub const STATUS_EXCEPTIONS: [(&str, &str); 3] = [
    (
        "crates/hapax/src/admin/problem.rs",
        "speaks to operators and probes about itself, in their statuses",
    ),
    (
        "crates/hapax/src/demo/api.rs",
        "speaks to the demo's own page, not to a client of the gateway",
    ),
    (
        "examples/shop/src/answer.rs",
        "an application of its own, which answers for itself",
    ),
];

/// The one file that names metrics.
const METRICS_HOME: &str = "crates/hapax/src/telemetry.rs";

/// The files that read the machine's clocks: one for what is judged by the store's clock, one for what a client
/// takes from its own machine.
const CLOCK_HOMES: [&str; 2] = [
    "crates/hapax-store/src/clock.rs",
    "crates/hapax-client/src/timing.rs",
];

/// Where the decision is made, and the only one who asks for it.
const DECISION_HOMES: [&str; 3] = [
    "crates/hapax-core/src/decide.rs",
    "crates/hapax-core/src/attempt.rs",
    "crates/hapax-core/src/attempt/",
];

fn is_home(source: &Source, homes: &[&str]) -> bool {
    homes
        .iter()
        .any(|home| source.path == *home || (home.ends_with('/') && source.path.starts_with(home)))
}

fn finding(source: &Source, at: usize, what: &str) -> String {
    format!("{}:{}: {what}", source.path, line_of(&source.code, at))
}

/// Statuses chosen elsewhere than in `problem.rs` and `settle.rs`. Comparing with one is not choosing it.
pub fn statuses(source: &Source) -> Vec<String> {
    if is_home(source, &STATUS_HOMES)
        || STATUS_EXCEPTIONS
            .iter()
            .any(|(path, _)| *path == source.path)
    {
        return Vec::new();
    }
    let named = words(&source.code, "StatusCode::").filter(|at| {
        let name = source.code.get(at + "StatusCode::".len()..).unwrap_or("");
        let name: String = name.chars().take_while(|c| is_word(*c)).collect();
        let before = source.code.get(..*at).unwrap_or("").trim_end();
        let is_compared = before.ends_with("==") || before.ends_with("!=");
        let is_constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        is_constant && !name.is_empty() && !is_compared
    });
    let imported = words(&source.code, "StatusCode as").chain(words(&source.code, "StatusCode::{"));
    let numbered = ["status(", "from_u16("].into_iter().flat_map(|call| {
        words(&source.code, call).filter(move |at| {
            let argument = source.code.get(at + call.len()..).unwrap_or("");
            argument
                .trim_start()
                .starts_with(|c: char| c.is_ascii_digit())
        })
    });
    named
        .chain(imported)
        .chain(numbered)
        .map(|at| {
            finding(
                source,
                at,
                "a status is chosen here: that is for core's problem.rs and settle.rs",
            )
        })
        .collect()
}

/// Metric names elsewhere than in `telemetry.rs`.
pub fn metric_names(source: &Source) -> Vec<String> {
    if source.path == METRICS_HOME || !source.path.starts_with("crates/") {
        return Vec::new();
    }
    source
        .with_literals
        .match_indices("\"hapax_")
        .filter(|(at, _)| !is_crate_name(source.with_literals.get(at + 1..).unwrap_or("")))
        .map(|(at, _)| {
            finding(
                source,
                at,
                "a metric is named here: that is for telemetry.rs",
            )
        })
        .collect()
}

/// `hapax_core` and the like, as filters of log lines name them.
fn is_crate_name(text: &str) -> bool {
    let name: String = text.chars().take_while(|c| is_word(*c)).collect();
    [
        "hapax_core",
        "hapax_store",
        "hapax_tower",
        "hapax_sqlx",
        "hapax_client",
        "hapax_check",
    ]
    .contains(&name.as_str())
}

/// The decision asked for elsewhere than in the life of an attempt.
pub fn decisions(source: &Source) -> Vec<String> {
    if is_home(source, &DECISION_HOMES) {
        return Vec::new();
    }
    words(&source.code, "decide(")
        .map(|at| finding(source, at, "only an attempt asks for the decision"))
        .collect()
}

/// The machine's clocks read elsewhere than in `clock.rs`. tokio's instant measures work and
/// follows paused time; it is none of them.
pub fn clocks(source: &Source) -> Vec<String> {
    if is_home(source, &CLOCK_HOMES) {
        return Vec::new();
    }
    let wall =
        words(&source.code, "SystemTime::now").chain(words(&source.code, "UNIX_EPOCH.elapsed"));
    let imports_instant = imports_std_instant(&source.code);
    let monotonic = words(&source.code, "Instant::now").filter(|at| {
        let before = source.code.get(..*at).unwrap_or("");
        before.ends_with("std::time::") || (imports_instant && !before.ends_with("::"))
    });
    wall.chain(monotonic)
        .map(|at| {
            finding(
                source,
                at,
                "a clock is read here: that is for hapax-store's clock.rs or hapax-client's timing.rs",
            )
        })
        .collect()
}

fn imports_std_instant(code: &str) -> bool {
    code.match_indices("use std::").any(|(at, _)| {
        let statement = code
            .get(at..)
            .and_then(|rest| rest.split(';').next())
            .unwrap_or("");
        statement.contains("time::") && words(statement, "Instant").next().is_some()
    })
}

/// Asynchronous code in the core.
pub fn asynchronous_core(source: &Source) -> Vec<String> {
    if !source.path.starts_with("crates/hapax-core/src/") {
        return Vec::new();
    }
    ["async fn", "async move", "async {", ".await"]
        .into_iter()
        .flat_map(|word| words(&source.code, word))
        .map(|at| finding(source, at, "the core is not asynchronous"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    /// Each of `bad` is found in `path`, and not in `home`; none of `good` is found.
    fn check(
        find: fn(&Source) -> Vec<String>,
        path: &str,
        home: &str,
        bad: &[&str],
        good: &[&str],
    ) {
        for text in bad {
            assert_eq!(
                find(&Source::parse(&File::new(path, text))).len(),
                1,
                "{text}"
            );
            assert!(
                find(&Source::parse(&File::new(home, text))).is_empty(),
                "{text}"
            );
            let in_a_test = format!("#[cfg(test)]\nmod tests {{ {text} }}");
            assert!(
                find(&Source::parse(&File::new(path, &in_a_test))).is_empty(),
                "{text}"
            );
        }
        for text in good {
            assert!(
                find(&Source::parse(&File::new(path, text))).is_empty(),
                "{text}"
            );
        }
    }

    const OTHER: &str = "crates/hapax/src/gateway/other.rs";

    #[test]
    fn a_status_chosen_elsewhere_is_found() {
        let bad = [
            "fn f() { g(StatusCode::BAD_REQUEST) }",
            "fn f() { Response::builder().status(404) }",
            "fn f() { StatusCode::from_u16(502) }",
            "use http::StatusCode as S;",
        ];
        let good = [
            "fn f() { StatusCode::from_u16(number) }",
            "fn f() { response.status() == StatusCode::SWITCHING_PROTOCOLS }",
            "// StatusCode::OK",
        ];
        check(statuses, OTHER, STATUS_HOMES[0], &bad, &good);
    }

    #[test]
    fn a_metric_named_elsewhere_is_found() {
        let bad = ["fn f() { counter(\"hapax_requests_total\") }"];
        let good = [
            "fn f() { filter(\"hapax_core=debug\") }",
            "// \"hapax_requests_total\"",
        ];
        check(metric_names, OTHER, METRICS_HOME, &bad, &good);
    }

    #[test]
    fn a_decision_made_elsewhere_is_found() {
        let bad = [
            "fn f() { hapax_core::decide(p, a, h, n) }",
            "fn f() { decide(p, a, h, n) }",
        ];
        check(
            decisions,
            OTHER,
            "crates/hapax-core/src/attempt/mod.rs",
            &bad,
            &["fn f() { undecide(x) }"],
        );
    }

    #[test]
    fn a_clock_read_elsewhere_is_found() {
        let bad = [
            "fn f() { SystemTime::now() }",
            "fn f() { std::time::Instant::now() }",
            "use std::time::{Duration, Instant}; fn f() { Instant::now() }",
            "use std::{fmt, time::Instant}; fn f() { g(Instant::now) }",
        ];
        let good = [
            "use tokio::time::Instant; fn f() { Instant::now() }",
            "use std::time::Instant; fn f() { tokio::time::Instant::now() }",
        ];
        check(clocks, OTHER, CLOCK_HOMES[0], &bad, &good);
    }

    #[test]
    fn asynchronous_code_in_the_core_is_found() {
        let bad = ["async fn f() {}", "fn f() { g.await }"];
        check(
            asynchronous_core,
            "crates/hapax-core/src/a.rs",
            OTHER,
            &bad,
            &["fn f() -> impl Future {}"],
        );
    }
}
