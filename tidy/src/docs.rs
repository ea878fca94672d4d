//! What the documents say about the tree: links, paths, tests, problems and metrics.

use std::collections::BTreeSet;

use crate::source::{is_word, line_of};
use crate::tree::File;

/// Folders whose paths in a document must exist.
const FOLDERS: [&str; 9] = [
    "crates/",
    "docs/",
    "scripts/",
    "tidy/",
    "examples/",
    "clients/",
    "deploy/",
    ".ci/",
    ".config/",
];

/// Relative links that lead nowhere, anchors included. `target` gives the text of a file of the tree, or
/// an empty text for a folder.
pub fn links(file: &File, target: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let text = without_fences(&file.text);
    let mut findings = Vec::new();
    for (at, _) in text.match_indices("](") {
        let link = text
            .get(at + 2..)
            .and_then(|rest| rest.split(')').next())
            .unwrap_or("");
        if link.is_empty() || link.contains(':') {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let found = if path.is_empty() {
            Some(file.text.clone())
        } else {
            target(&resolve(&file.path, path))
        };
        let is_good = found.is_some_and(|text| anchor.is_empty() || has_anchor(&text, anchor));
        if !is_good {
            findings.push(format!(
                "{}:{}: {link} leads nowhere",
                file.path,
                line_of(&text, at)
            ));
        }
    }
    findings
}

/// Paths in backticks that do not exist. `exists` is told a path from the root.
pub fn paths(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    code_spans(&file.text)
        .filter(|(_, span)| FOLDERS.iter().any(|folder| span.starts_with(folder)))
        .filter(|(_, span)| {
            !span.contains([' ', '*', '<', '{']) && !exists(span.trim_end_matches('/'))
        })
        .map(|(at, span)| {
            format!(
                "{}:{}: {span} does not exist",
                file.path,
                line_of(&file.text, at)
            )
        })
        .collect()
}

/// Tests that a document names and that do not exist: names in backticks of five words or more, such as
/// `a_record_is_kept`. `sources` is all code.
pub fn tests(file: &File, sources: &str) -> Vec<String> {
    code_spans(&file.text)
        .filter(|(_, span)| span.matches('_').count() >= 4 && span.chars().all(is_word))
        .filter(|(_, span)| span.chars().all(|c| !c.is_uppercase()) && !span.starts_with("hapax_"))
        .filter(|(_, span)| {
            ["(", "<"]
                .iter()
                .all(|next| !sources.contains(&format!("fn {span}{next}")))
        })
        .map(|(at, span)| {
            format!(
                "{}:{}: no test is called {span}",
                file.path,
                line_of(&file.text, at)
            )
        })
        .collect()
}

/// Rows that a document should have and does not.
pub fn rows(file: &File, rows: &[String]) -> Vec<String> {
    rows.iter()
        .filter(|row| !file.text.lines().any(|line| line.starts_with(row.as_str())))
        .map(|row| format!("{}: no line begins with {row}", file.path))
        .collect()
}

/// Metrics that are in the code and not in the document, or the other way round. Code may name a counter
/// without `_total` and a prefix once, as the client library wants it.
pub fn metrics(document: &File, telemetry: &str) -> Vec<String> {
    let documented = metric_names(&document.text, '`');
    let named = metric_names(telemetry, '"');
    let missing = named
        .difference(&documented)
        .map(|name| format!("{}: lacks {name}", document.path));
    let stale = documented
        .difference(&named)
        .map(|name| format!("{}: {name} is no metric", document.path));
    missing.chain(stale).collect()
}

/// Names that begin with `hapax_` right behind a quote, without a counter's ending.
fn metric_names(text: &str, quote: char) -> BTreeSet<String> {
    text.match_indices(&format!("{quote}hapax_"))
        .filter_map(|(at, _)| text.get(at + 1..))
        .map(|rest| rest.chars().take_while(|c| is_word(*c)).collect::<String>())
        .map(|name| name.trim_end_matches("_total").to_owned())
        .collect()
}

/// Spans in backticks, outside of fenced code.
fn code_spans(text: &str) -> impl Iterator<Item = (usize, String)> {
    let text = without_fences(text);
    let mut spans = Vec::new();
    let mut at = 0;
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            spans.push((at, part.to_owned()));
        }
        at += part.len() + 1;
    }
    spans.into_iter()
}

/// The text with fenced code blanked out; places stay.
fn without_fences(text: &str) -> String {
    let mut is_fenced = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let is_fence = line.trim_start().starts_with("```");
        if is_fence || is_fenced {
            out.extend(
                line.bytes()
                    .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
            );
        } else {
            out.push_str(line);
        }
        is_fenced ^= is_fence;
    }
    out
}

/// A link's path from the root.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Whether a heading of `text` has this anchor, made as code hosts make it.
fn has_anchor(text: &str, anchor: &str) -> bool {
    without_fences(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let slug: String = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            slug == anchor
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_link(link: &str, is_good: bool) {
        let file = File::new(
            "docs/a.md",
            &format!("# A b, c\nsee [x]({link})\n```\n[y](nowhere)\n```\n"),
        );
        let target = |path: &str| match path {
            "README.md" => Some("## Two words\n".to_owned()),
            "docs/b.md" => Some(String::new()),
            _ => None,
        };
        assert_eq!(links(&file, target).is_empty(), is_good, "{link}");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        for (link, is_good) in [
            ("b.md", true),
            ("../README.md", true),
            ("../README.md#two-words", true),
            ("#a-b-c", true),
            ("https://example.com/", true),
            ("c.md", false),
            ("README.md", false),
            ("../README.md#three-words", false),
            ("#nothing", false),
        ] {
            check_link(link, is_good);
        }
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let file = File::new(
            "a.md",
            "`crates/a.rs` and `crates/b.rs`, `docs/` and\n`docs/{x}`",
        );
        let exists = |path: &str| ["crates/a.rs", "docs"].contains(&path);
        assert_eq!(paths(&file, exists), ["a.md:1: crates/b.rs does not exist"]);
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let file = File::new(
            "a.md",
            "`it_does_what_it_says`, `it_holds_for_every_store`, `it_does_not_exist_any_more`, `max_body_of_one`",
        );
        let code = "fn it_does_what_it_says() {} fn it_holds_for_every_store<S: Store>() {}";
        assert_eq!(
            tests(&file, code),
            ["a.md:1: no test is called it_does_not_exist_any_more"]
        );
    }

    #[test]
    fn a_row_that_is_missing_is_found() {
        let file = File::new("a.md", "| `one` | 400 | no |\n");
        assert!(rows(&file, &["| `one` | 400 |".to_owned()]).is_empty());
        assert_eq!(rows(&file, &["| `one` | 409 |".to_owned()]).len(), 1);
    }

    #[test]
    fn a_metric_that_is_missing_or_stale_is_found() {
        let document = File::new("a.md", "`hapax_one_total{route}` `hapax_old`");
        let findings = metrics(&document, "counter(\"hapax_one\"); gauge(\"hapax_two\")");
        assert_eq!(
            findings,
            ["a.md: lacks hapax_two", "a.md: hapax_old is no metric"]
        );
    }
}
