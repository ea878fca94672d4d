//! Who may depend on whom, from what cargo says about the workspace.

use serde_json::Value;

/// What a crate may depend on.
struct Rule {
    name: &'static str,
    /// Crates of the workspace.
    ours: &'static [&'static str],
    /// Crates from outside; `None` where that is left to the crate.
    outside: Option<&'static [&'static str]>,
}

const RULES: [Rule; 10] = [
    // No I/O, no clock, no randomness, no async runtime, no tracing.
    Rule {
        name: "hapax-core",
        ours: &[],
        outside: Some(&["blake3", "bytes", "http", "postcard", "serde", "thiserror"]),
    },
    Rule {
        name: "hapax-store",
        ours: &["hapax-core"],
        outside: Some(&[
            "blake3",
            "bytes",
            "deadpool",
            "getrandom",
            "http",
            "lsm-tree",
            "redis",
            "rustix",
            "rustls",
            "rustls-native-certs",
            "thiserror",
            "tokio",
            "tokio-postgres",
            "tokio-rustls",
            "xxhash-rust",
        ]),
    },
    // Usable in anybody's server: nothing that opens a socket or brings a server along.
    Rule {
        name: "hapax-tower",
        ours: &["hapax-core"],
        outside: Some(&[
            "base64",
            "bytes",
            "flate2",
            "getrandom",
            "http",
            "http-body",
            "http-body-util",
            "pin-project-lite",
            "sha2",
            "thiserror",
            "tokio",
            "tower-layer",
            "tower-service",
        ]),
    },
    // Usable in anybody's program: one HTTP client, and that behind a feature.
    Rule {
        name: "hapax-client",
        ours: &["hapax-core"],
        outside: Some(&[
            "async-trait",
            "base64",
            "blake3",
            "bytes",
            "getrandom",
            "http",
            "http-body",
            "http-body-util",
            "httpdate",
            "reqwest",
            "reqwest-middleware",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tower-layer",
            "tower-service",
            "tracing",
        ]),
    },
    // Used inside an application's own server, on its own pool.
    Rule {
        name: "hapax-sqlx",
        ours: &["hapax-core"],
        outside: Some(&[
            "axum",
            "axum-core",
            "bytes",
            "getrandom",
            "http",
            "http-body",
            "http-body-util",
            "sha2",
            "sqlx",
            "thiserror",
            "tokio",
            "tower-layer",
            "tower-service",
        ]),
    },
    // Sees targets from outside only: nothing of ours that could know better.
    Rule {
        name: "hapax-check",
        ours: &[],
        outside: Some(&[
            "rustls-native-certs",
            "serde",
            "serde-saphyr",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio-rustls",
            // To kill a target, and what a campaign starts.
            "rustix",
            // For campaigns alone, behind their feature.
            "clap",
            "toml",
        ]),
    },
    Rule {
        name: "hapax",
        ours: &[
            "hapax-check",
            "hapax-core",
            "hapax-shop",
            "hapax-store",
            "hapax-tower",
        ],
        outside: None,
    },
    // Tests that are run from two places. It compiles in parts of the binary, so it needs what they need.
    Rule {
        name: "hapax-fuzz",
        ours: &["hapax-core"],
        outside: None,
    },
    // What an application would use; nothing of ours depends on it but the binary's demo.
    Rule {
        name: "hapax-shop",
        ours: &["hapax-core", "hapax-sqlx", "hapax-store", "hapax-tower"],
        outside: Some(&[
            "axum",
            "clap",
            "getrandom",
            "http-body-util",
            "hyper",
            "hyper-util",
            "serde",
            "serde_json",
            "sqlx",
            "thiserror",
            "tokio",
            "tower",
            "utoipa",
        ]),
    },
    Rule {
        name: "tidy",
        ours: &[],
        outside: Some(&["serde_json"]),
    },
];

/// Features that exist for tests and must not be in a product.
const TEST_FEATURES: [&str; 3] = ["campaign", "conformance", "fault-injection"];

/// Dependencies that break the rules. `metadata` is what `cargo metadata --no-deps` prints.
///
/// Tests may use any crate below the binary: a front is tested on a store.
pub fn dependencies(metadata: &Value) -> Vec<String> {
    let packages = list(metadata, "packages");
    let names: Vec<&str> = packages
        .iter()
        .map(|package| text(package, "name"))
        .collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = text(package, "name");
        let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
            findings.push(format!(
                "{name}: there is no rule for this crate; add one to {}",
                file!()
            ));
            continue;
        };
        for dependency in list(package, "dependencies") {
            findings.extend(judge(rule, &names, dependency));
        }
    }
    findings
}

fn judge(rule: &Rule, workspace: &[&str], dependency: &Value) -> Option<String> {
    let (name, needed) = (rule.name, text(dependency, "name"));
    if text(dependency, "kind") == "dev" {
        let is_upward = needed == "hapax" || (name == "hapax-core" && workspace.contains(&needed));
        return is_upward.then(|| format!("{name}: its tests may not depend on {needed}"));
    }
    let is_allowed = if workspace.contains(&needed) {
        rule.ours.contains(&needed)
    } else {
        rule.outside.is_none_or(|outside| outside.contains(&needed))
    };
    (!is_allowed).then(|| format!("{name}: may not depend on {needed}"))
}

/// Features for tests in a product. `tree` is what `cargo tree -e features,no-dev` prints.
pub fn test_features(tree: &str) -> Vec<String> {
    tree.lines()
        .filter(|line| {
            TEST_FEATURES
                .iter()
                .any(|feature| line.contains(&format!("feature \"{feature}\"")))
        })
        .map(|line| {
            line.trim_start_matches(['│', '├', '─', '└', ' '])
                .to_owned()
        })
        .collect()
}

/// A crate that does not take over the workspace's lints.
pub fn lints(path: &str, manifest: &str) -> Option<String> {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    let has_lints = lines.next() == Some("workspace = true");
    let is_crate = manifest.lines().any(|line| line.trim() == "[package]");
    (is_crate && !has_lints).then(|| format!("{path}: does not take over the workspace's lints"))
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value
        .get(member)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(name: &str, dependency: &Value, is_allowed: bool) {
        let metadata = json!({ "packages": [
            { "name": name, "dependencies": [dependency] },
            { "name": "hapax", "dependencies": [] },
            { "name": "hapax-store", "dependencies": [] },
            { "name": "hapax-tower", "dependencies": [] },
            { "name": "hapax-core", "dependencies": [] },
        ]});
        assert_eq!(
            dependencies(&metadata).is_empty(),
            is_allowed,
            "{name}: {dependency}"
        );
    }

    #[test]
    fn a_dependency_that_breaks_the_rules_is_found() {
        for (name, dependency, is_allowed) in [
            ("hapax-core", json!({ "name": "http" }), true),
            ("hapax-core", json!({ "name": "tokio" }), false),
            ("hapax-core", json!({ "name": "rand" }), false),
            ("hapax-core", json!({ "name": "hapax-store" }), false),
            (
                "hapax-core",
                json!({ "name": "proptest", "kind": "dev" }),
                true,
            ),
            (
                "hapax-core",
                json!({ "name": "hapax-store", "kind": "dev" }),
                false,
            ),
            ("hapax-tower", json!({ "name": "hapax-store" }), false),
            (
                "hapax-tower",
                json!({ "name": "hapax-store", "kind": "dev" }),
                true,
            ),
            ("hapax-tower", json!({ "name": "hyper" }), false),
            ("hapax-store", json!({ "name": "hapax-tower" }), false),
            (
                "hapax-store",
                json!({ "name": "hapax", "kind": "dev" }),
                false,
            ),
            ("hapax", json!({ "name": "anything" }), true),
        ] {
            check(name, &dependency, is_allowed);
        }
    }

    #[test]
    fn a_crate_without_a_rule_is_found() {
        let metadata = json!({ "packages": [{ "name": "hapax-new", "dependencies": [] }] });
        assert_eq!(dependencies(&metadata).len(), 1);
    }

    #[test]
    fn a_feature_for_tests_is_found() {
        let tree =
            "hapax v0.1.0\n└── hapax-store feature \"fault-injection\"\n    └── hapax-store v0.1.0";
        assert_eq!(
            test_features(tree),
            ["hapax-store feature \"fault-injection\""]
        );
        assert!(test_features("hapax v0.1.0\n└── hapax-store feature \"default\"").is_empty());
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert!(lints("a", "[package]\nname = \"a\"\n").is_some());
        assert!(lints("a", "[package]\n[lints]\nrust = {}\n").is_some());
        assert_eq!(lints("a", "[package]\n\n[lints]\nworkspace = true\n"), None);
        assert_eq!(lints("a", "[workspace]\n"), None);
    }
}
