//! The alerts and the dashboard that are shipped: their rules hold, and they name metrics that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Words that begin with `hapax_`, without what the text format adds to a name.
fn names(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text
        .split(|c| !is_word(c))
        .filter(|word| word.starts_with("hapax_"));
    let plain = words.map(|word| {
        let ends = ["_bucket", "_sum", "_count", "_total"];
        let end = ends.iter().find_map(|end| word.strip_suffix(end));
        end.unwrap_or(word).to_owned()
    });
    plain.collect()
}

/// Names in `text` that are no metric.
fn strangers(text: &str) -> Vec<String> {
    let telemetry = read("crates/hapax/src/telemetry.rs");
    let quoted = telemetry
        .split('"')
        .filter(|part| part.starts_with("hapax_"));
    let known: BTreeSet<&str> = quoted.collect();
    assert!(known.len() > 20, "{known:?}");
    let found = names(text);
    assert!(!found.is_empty());
    found
        .into_iter()
        .filter(|name| !known.contains(name.as_str()))
        .collect()
}

fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new("promtool");
    let ran = command
        .current_dir(root().join("deploy/prometheus"))
        .args(arguments)
        .output();
    let output = ran.expect("promtool is there: Debian's package prometheus has it");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

fn alerts() -> Vec<String> {
    let rules = read("deploy/prometheus/alerts.yml");
    let lines = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_alert_fires_when_it_should_and_none_in_a_quiet_system() {
    let checked = promtool(&["check", "rules", "alerts.yml"]);
    assert!(
        checked.contains(&format!("{} rules found", alerts().len())),
        "{checked}"
    );
    promtool(&["test", "rules", "alerts_test.yml"]);
    let cases = read("deploy/prometheus/alerts_test.yml");
    for alert in alerts() {
        assert!(
            cases.contains(&format!("- name: {alert} fires\n")),
            "{alert} has no case"
        );
    }
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    for file in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        "deploy/grafana/hapax.json",
    ] {
        assert_eq!(strangers(&read(file)), [""; 0], "in {file}");
    }
    assert_eq!(
        strangers("rate(hapax_request_total[5m])"),
        ["hapax_request"]
    );
}

#[test]
fn every_alert_leads_to_its_runbook() {
    let rules = read("deploy/prometheus/alerts.yml");
    let page = read("docs/operating.md");
    for alert in alerts() {
        let link = format!("runbook_url: docs/operating.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} has no {link}");
        assert!(
            page.contains(&format!("\n### {alert}\n")),
            "{alert} has no runbook"
        );
    }
}

#[test]
fn the_dashboard_is_a_grafana_dashboard_whose_panels_all_ask_something() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/hapax.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    for panel in panels {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(
            targets
                .iter()
                .any(|target| names(target["expr"].as_str().expect("a text")).len() == 1),
            "{panel}"
        );
    }
}
