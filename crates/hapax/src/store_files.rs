//! `hapax store`: what is in an embedded store, and whether all of it is whole; while no gateway has it.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use hapax_core::record::StateKind;
use hapax_core::store::{Filter, Stats, Store, StoreError};
use hapax_store::{EmbeddedStore, Options};

use crate::cli::{Exit, Failure, Output, print, print_json};
use crate::config::{StoreKind, StoreSettings};
use crate::stores::StoreFailure;

/// Records of one step through the store.
const PAGE: usize = 1_000;

/// What can be asked of a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    #[command(flatten)]
    Files(FilesCommand),
    /// Bring the tables of a store in PostgreSQL to this version; can be run again, and from
    /// several machines at once.
    Migrate {
        /// The store's URL; without it the configured one.
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
}

/// What can be asked of a store's files. Opening them does what a start of the gateway does:
/// operations that were under way when it ended become unknown.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum FilesCommand {
    /// Count the records and the room they take.
    Stats(Answering),
    /// Read every record and check that it is what was written; exit code 6 when one is not.
    Verify(Answering),
}

/// How to answer.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Answering {
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Does what `hapax store` asks for.
pub(crate) fn run(settings: &StoreSettings, command: FilesCommand) -> Result<Exit, Failure> {
    if settings.kind != StoreKind::Embedded {
        let message = "this is for the embedded store; the configured one has no files";
        return Err(Failure::Usage(message.to_owned()));
    }
    if !settings.path.is_dir() {
        let message = format!("there is no store in {}", settings.path.display());
        return Err(Failure::Usage(message));
    }
    let opened = EmbeddedStore::open(&settings.path, Options::default());
    let store = opened.map_err(|source| StoreFailure::Embedded {
        path: settings.path.display().to_string(),
        source,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| StoreFailure::System {
        what: "a runtime",
        source,
    })?;
    let (output, states) = match command {
        FilesCommand::Stats(Answering { output }) => (output, None),
        FilesCommand::Verify(Answering { output }) => {
            let states = runtime.block_on(read_all(&store)).map_err(Failure::Store)?;
            (output, Some(states))
        }
    };
    let stats = runtime.block_on(store.stats()).map_err(Failure::Store)?;
    store.close();
    let found = view(&stats, states.as_ref());
    match output {
        Output::Text => print(&as_text(&found))?,
        Output::Json => print_json(&found)?,
    };
    Ok(if stats.damaged > 0 {
        Exit::StoreDamaged
    } else {
        Exit::Ok
    })
}

/// Reads every live record; damaged ones are counted by the store.
async fn read_all(store: &EmbeddedStore) -> Result<BTreeMap<&'static str, u64>, StoreError> {
    let (mut states, mut after) = (BTreeMap::new(), None);
    loop {
        let page = store.list(&Filter::default(), after, PAGE).await?;
        let now = store.stats().await?.now;
        for (_, held) in &page.records {
            let state = held.kind_at(now).map_or("expired", StateKind::as_str);
            *states.entry(state).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            return Ok(states);
        }
    }
}

fn view(stats: &Stats, states: Option<&BTreeMap<&'static str, u64>>) -> Value {
    json!({
        "records": stats.records,
        "bytes": stats.bytes,
        "outstanding": stats.outstanding,
        "unknown": stats.unknown,
        "damaged": stats.damaged,
        "read": states,
    })
}

fn as_text(found: &Value) -> String {
    let mut out = String::new();
    for (name, value) in found.as_object().into_iter().flatten() {
        // Writing to a string does not fail.
        let _ = match value {
            Value::Null => Ok(()),
            Value::Object(states) if states.is_empty() => writeln!(out, "read          no records"),
            Value::Object(states) => states
                .iter()
                .try_for_each(|(state, count)| writeln!(out, "read {state:<12} {count}")),
            value => writeln!(out, "{name:<17} {value}"),
        };
    }
    out
}
