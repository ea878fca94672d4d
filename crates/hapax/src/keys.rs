//! `hapax keys`: finding records and settling unknown outcomes, through the admin API.
//!
//! Keys and credentials are never arguments: those end up in a shell's history and in the list
//! of processes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::{Output, print, print_json};
use crate::failure::{Exit, Failure};
use crate::paint::{Colour, paint};
use crate::remote::{Call, Remote, encoded};

/// The largest file with a key, a scope or an answer.
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List records.
    Ls(Ls),
    /// Show a record with what happened to it.
    Show(Show),
    /// Find the record of a key; the key comes from a file or from standard input.
    Lookup(Lookup),
    /// Say what came of an unknown outcome.
    Resolve(Resolve),
    /// Forget a record: the next attempt executes, whatever ran before.
    Release(Change),
    /// End a record's retention now.
    Expire(Change),
}

/// `hapax keys ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// outstanding, completed, rejected, unknown or tombstone.
    #[arg(long)]
    state: Option<String>,
    /// A route as it is configured, such as "POST /v1/orders".
    #[arg(long)]
    route: Option<String>,
    /// Written since then: an instant, or how long ago (15m).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// The most records that are shown.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Go on after this cursor.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

/// `hapax keys show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// What log lines call `record`.
    id: String,
    /// With the stored answer's fields and content; the gateway writes down who asked.
    #[arg(long)]
    content: bool,
}

/// `hapax keys lookup`.
#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// A file with the key; without it the key is read from standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A file with the scope, a part a line: `header:authorization Bearer abc`.
    #[arg(long, value_name = "FILE")]
    scope_file: Option<PathBuf>,
}

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ResolveAs {
    /// It ran: it is never sent again.
    Completed,
    /// It did not run: the next attempt executes it.
    NotExecuted,
}

/// `hapax keys resolve`.
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// What came of the operation.
    #[arg(long = "as", value_enum, value_name = "OUTCOME")]
    outcome: ResolveAs,
    /// A JSON file with the answer that repeats get: {"status", "headers", "body"}.
    #[arg(long, value_name = "FILE")]
    response_file: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// What every change of a record takes.
#[derive(Debug, Args)]
pub(crate) struct Change {
    /// What log lines call `record`.
    id: String,
    /// Why; it is written into the audit log.
    #[arg(long)]
    reason: String,
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Only if the record still has this version; without it, the one that is there now.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
}

/// Does what `hapax keys` asks for.
pub(crate) fn run(remote: &Remote, command: &KeysCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        KeysCommand::Ls(ls) => list(remote, ls, output),
        KeysCommand::Show(Show { id, content }) => {
            let query = if *content { "?content=show" } else { "" };
            let record = remote.get(&format!("{}{query}", path_of(id)?))?;
            show(&record, output, as_text)
        }
        KeysCommand::Lookup(lookup) => look_up(remote, lookup, output),
        KeysCommand::Resolve(resolve) => {
            let outcome = match resolve.outcome {
                ResolveAs::Completed => "completed",
                ResolveAs::NotExecuted => "not_executed",
            };
            let mut body = Map::new();
            body.insert("as".to_owned(), outcome.into());
            if let Some(path) = &resolve.response_file {
                body.insert("response".to_owned(), json_file(path)?);
            }
            change(remote, "resolve", body, &resolve.change, output)
        }
        KeysCommand::Release(asked) => change(remote, "release", Map::new(), asked, output),
        KeysCommand::Expire(asked) => change(remote, "expire", Map::new(), asked, output),
    }
}

fn list(remote: &Remote, ls: &Ls, output: Output) -> Result<Exit, Failure> {
    let mut target = format!("/api/v1/records?limit={}", ls.limit);
    for (name, value) in [
        ("state", &ls.state),
        ("route", &ls.route),
        ("since", &ls.since),
        ("after", &ls.after),
    ] {
        if let Some(value) = value {
            let _ = write!(target, "&{name}={}", encoded(value));
        }
    }
    show(&remote.get(&target)?, output, |page| {
        let mut out = table(page);
        if let Some(next) = page.get("next").and_then(Value::as_str) {
            let _ = writeln!(out, "more: --after {next}");
        }
        out
    })
}

fn look_up(remote: &Remote, lookup: &Lookup, output: Output) -> Result<Exit, Failure> {
    let key = match &lookup.key_file {
        Some(path) => text_file(path)?,
        None => {
            let mut text = String::new();
            let read = io::stdin().take(MAX_FILE).read_to_string(&mut text);
            read.map_err(|source| Failure::Read {
                path: PathBuf::from("standard input"),
                source,
            })?;
            text
        }
    };
    let scope = match &lookup.scope_file {
        Some(path) => scope_of(&text_file(path)?)?,
        None => Vec::new(),
    };
    let content = json!({ "key": key.trim_end_matches(['\n', '\r']), "scope": scope });
    let found = remote.call(&Call {
        target: "/api/v1/records:lookup",
        content: Some(&content),
        version: None,
    })?;
    let is_found = found.pointer("/records/0").is_some();
    show(&found, output, table)?;
    Ok(if is_found { Exit::Ok } else { Exit::Finding })
}

/// `PART VALUE` a line; a line without a value is a part that the request did not have.
fn scope_of(text: &str) -> Result<Vec<Value>, Failure> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (part, value) = match line.split_once(char::is_whitespace) {
                Some((part, value)) => (part, Some(value.trim())),
                None => (line, None),
            };
            if !part.contains(':') {
                let message = "a line of the scope file is PART VALUE, such as \
                               `header:authorization Bearer abc`";
                return Err(Failure::Usage(message.to_owned()));
            }
            Ok(json!({ "part": part, "value": value }))
        })
        .collect()
}

fn change(
    remote: &Remote,
    action: &str,
    mut body: Map<String, Value>,
    asked: &Change,
    output: Output,
) -> Result<Exit, Failure> {
    let path = path_of(&asked.id)?;
    let target = format!("{path}:{action}");
    let version = match &asked.if_version {
        Some(version) => version.clone(),
        None => text_of(&remote.get(&path)?, "version"),
    };
    body.insert("reason".to_owned(), asked.reason.clone().into());
    let mut send = |dry_run: bool| {
        body.insert("dry_run".to_owned(), dry_run.into());
        remote.call(&Call {
            target: &target,
            content: Some(&Value::Object(body.clone())),
            version: Some(&version),
        })
    };
    let preview = send(true)?;
    if asked.dry_run {
        return show(&preview, output, |outcome| told(outcome, "would be"));
    }
    if !asked.yes && !confirmed(&preview)? {
        return Ok(Exit::Finding);
    }
    show(&send(false)?, output, |outcome| told(outcome, "is now"))
}

fn told(outcome: &Value, verb: &str) -> String {
    let state = text_of(outcome, "state");
    let vacant = if state == "vacant" {
        ": the next attempt executes"
    } else {
        ""
    };
    let mut out = format!(
        "{} was {} and {verb} {}{vacant}\n",
        text_of(outcome, "id"),
        text_of(outcome, "was"),
        paint(Colour::of_state(&state), &state),
    );
    if let Some(warning) = outcome.get("warning").and_then(Value::as_str) {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

/// Asks on the terminal. Where there is none, `--yes` has to be said.
fn confirmed(preview: &Value) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message = "nobody is there to ask: say --yes, or --dry-run to look first";
        return Err(Failure::Usage(message.to_owned()));
    }
    let question = format!("{}do it? [y/N] ", told(preview, "would be"));
    let mut answer = String::new();
    let asked = io::stderr()
        .write_all(question.as_bytes())
        .and_then(|()| io::stdin().read_line(&mut answer));
    asked.map_err(Failure::Output)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn show(
    value: &Value,
    output: Output,
    as_text: impl Fn(&Value) -> String,
) -> Result<Exit, Failure> {
    match output {
        Output::Text => print(&as_text(value)),
        Output::Json => print_json(value),
    }
}

/// A record's path. An id has hexadecimal digits only: anything else is a slip, or worse a key.
fn path_of(id: &str) -> Result<String, Failure> {
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(format!("/api/v1/records/{}", id.to_ascii_lowercase()));
    }
    let message = "an id has 32 hexadecimal digits, as in log lines; to find a key's record: \
                   hapax keys lookup";
    Err(Failure::Usage(message.to_owned()))
}

fn text_file(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text)
}

fn json_file(path: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&text_file(path)?)
        .map_err(|error| Failure::Usage(format!("{} is no JSON: {error}", path.display())))
}

fn text_of(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn table(page: &Value) -> String {
    let records = page.get("records").and_then(Value::as_array);
    let records = records.map(Vec::as_slice).unwrap_or_default();
    if records.is_empty() {
        return "no records\n".to_owned();
    }
    let mut out = format!(
        "{:<32}  {:<11}  {:<24}  {:>3}  {:<17}  ROUTE\n",
        "ID", "STATE", "WRITTEN", "N", "REASON"
    );
    for record in records {
        let state = text_of(record, "state");
        let _ = writeln!(
            out,
            "{:<32}  {}  {:<24}  {:>3}  {:<17}  {}",
            text_of(record, "id"),
            paint(Colour::of_state(&state), &format!("{state:<11}")),
            text_of(record, "written_at"),
            text_of(record, "attempt"),
            text_of(record, "reason"),
            text_of(record, "route"),
        );
    }
    out
}

/// A record for people.
fn as_text(record: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<21} {value}");
    };
    for name in [
        "id",
        "state",
        "reason",
        "route",
        "attempt",
        "version",
        "claimed_at",
        "written_at",
        "lease_until",
        "retained_until",
        "expires_at",
        "trace_id",
    ] {
        let value = text_of(record, name);
        if value != "-" {
            line(name, &value);
        }
    }
    if let Some(response) = record
        .get("response")
        .filter(|response| !response.is_null())
    {
        let (status, kept) = (text_of(response, "status"), text_of(response, "content"));
        let bytes = text_of(response, "bytes");
        line(
            "response",
            &format!("{status}, content {kept}, {bytes} bytes"),
        );
    }
    if let Some(content) = record.get("content").filter(|content| !content.is_null()) {
        line("content", &format!("{content:#}"));
    }
    for (name, preview) in record
        .get("actions")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let what = match preview.get("leads_to").and_then(Value::as_str) {
            Some(state) => format!("-> {state}"),
            None => format!("no: {}", text_of(preview, "because")),
        };
        line(name, &what);
    }
    out.push_str(&timeline(record.get("timeline").unwrap_or(&Value::Null)));
    out
}

fn timeline(timeline: &Value) -> String {
    let mut out = String::from("timeline\n");
    let entries = timeline.get("entries").and_then(Value::as_array);
    for entry in entries.into_iter().flatten() {
        let mut line = format!(
            "  {}  {:<20}",
            text_of(entry, "at"),
            text_of(entry, "event")
        );
        for name in [
            "attempt", "outcome", "status", "state", "reason", "action", "took_ms",
        ] {
            let value = text_of(entry, name);
            if value != "-" {
                let _ = write!(line, " {name}={value}");
            }
        }
        if entry
            .get("count")
            .and_then(Value::as_u64)
            .is_some_and(|count| count > 1)
        {
            let _ = write!(
                line,
                " x{} until {}",
                text_of(entry, "count"),
                text_of(entry, "last_at")
            );
        }
        if text_of(entry, "source") == "record" {
            line.push_str(" (from the record)");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if timeline.get("is_complete") == Some(&Value::Bool(false)) {
        let since = text_of(timeline, "memory_since");
        let _ = writeln!(
            out,
            "  not complete: remembered since {since}, {} left out",
            text_of(timeline, "omitted")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_as_an_id_is_not_sent_anywhere() {
        for text in [
            "my-secret-key",
            "",
            "../status",
            "eb165ebeba978c5b50fdfc1b64e27b0",
        ] {
            let refused = path_of(text).expect_err("no id");
            assert_eq!(refused.exit(), Exit::Usage);
            assert!(text.is_empty() || !refused.to_string().contains(text));
        }
        assert!(path_of("EB165ebeba978c5b50fdfc1b64e27b0d").is_ok());
    }

    #[test]
    fn a_scope_file_has_a_part_a_line() {
        let text = "header:authorization Bearer a b\n\nheader:x-tenant\n";
        let expected = [
            json!({ "part": "header:authorization", "value": "Bearer a b" }),
            json!({ "part": "header:x-tenant", "value": null }),
        ];
        assert_eq!(scope_of(text).expect("a scope"), expected);
        assert!(scope_of("Bearer abc\n").is_err());
    }
}
