//! `hapax store`: what is in a store, whether all of it is whole, and taking it elsewhere; while no gateway has it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use hapax_core::record::StateKind;
use hapax_core::secret::Secret;
use hapax_core::store::{Filter, Stats, Store, StoreError};
use hapax_store::transfer::{
    BackupReader, BackupWriter, Source, Target, TransferError, Transferred, transfer,
};
use hapax_store::{AnyStore, EmbeddedRestore, PostgresRestore, RedisRestore};

use crate::cli::{Output, print, print_json};
use crate::config::{StoreKind, StoreSettings};
use crate::failure::{Exit, Failure};
use crate::stores::{self, StoreFailure};

/// Records of one step through the store.
const PAGE: usize = 1_000;

/// What can be asked of a store. An embedded one is opened as a start of the gateway opens it:
/// operations that were under way when that ended become unknown.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Count the records and the room they take.
    Stats(Looking),
    /// Read every record and check that it is what was written; exit code 6 when one is not.
    Verify(Looking),
    /// Write every record, and the store's secret, into one file. No gateway may have the store
    /// meanwhile.
    Backup {
        /// The file, which must not be there yet. Keep it as safe as the store: it has the secret and the
        /// stored answers in it.
        file: PathBuf,
        #[command(flatten)]
        looking: Looking,
    },
    /// Fill a vacant store with a backup's records, all of them or none. Keys that were used since
    /// the backup was made are forgotten: a retry of theirs runs a second time.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        looking: Looking,
    },
    /// Bring the tables of a store in PostgreSQL to this version; can be run again, and from
    /// several machines at once. With --from and --to: take every record to another store.
    Migrate {
        /// The store whose tables are meant; without it the configured one.
        #[arg(long, value_name = "URL", conflicts_with_all = ["from", "to"])]
        store: Option<String>,
        /// The store to take the records from: a directory or a URL. No gateway may have it.
        #[arg(long, value_name = "STORE", requires = "to")]
        from: Option<String>,
        /// The store to take them to, which must be vacant: a directory or a URL.
        #[arg(long, value_name = "STORE", requires = "from")]
        to: Option<String>,
        /// For people or for programs.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// Which store, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct Looking {
    /// The store: a directory or a URL; without it the configured one.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Does what `hapax store` asks for. `settings` gives the settings of a store by the flag's text, or
/// of the configured one.
pub(crate) fn run(
    command: &StoreCommand,
    settings: &dyn Fn(Option<&str>) -> Result<StoreSettings, Failure>,
) -> Result<Exit, Failure> {
    let of = |looking: &Looking| settings(looking.store.as_deref());
    match command {
        StoreCommand::Stats(looking) => stats(&of(looking)?, looking.output, Depth::Counted),
        StoreCommand::Verify(looking) => stats(&of(looking)?, looking.output, Depth::Read),
        StoreCommand::Backup { file, looking } => {
            let store = of(looking)?;
            let runtime = runtime()?;
            let opened = open(&store, &runtime)?;
            let backup = BackupWriter::create(file, opened.secret())?;
            let to = Target::Backup(backup);
            let done = take(&runtime, Source::Store(&opened), to)?;
            say(&done, &file.display().to_string(), looking.output)
        }
        StoreCommand::Restore { file, looking } => {
            let store = of(looking)?;
            let runtime = runtime()?;
            let backup = BackupReader::open(file)?;
            let to = target(&store, backup.secret(), &runtime)?;
            let done = take(&runtime, Source::Backup(Box::new(backup)), to)?;
            say(&done, &place(&store), looking.output)
        }
        StoreCommand::Migrate {
            from: Some(from),
            to: Some(to),
            output,
            ..
        } => {
            let (from, to) = (settings(Some(from))?, settings(Some(to))?);
            let runtime = runtime()?;
            let opened = open(&from, &runtime)?;
            let filled = target(&to, opened.secret(), &runtime)?;
            let done = take(&runtime, Source::Store(&opened), filled)?;
            say(&done, &place(&to), *output)
        }
        StoreCommand::Migrate { store, output, .. } => {
            tables(&settings(store.as_deref())?, *output)
        }
    }
}

fn tables(settings: &StoreSettings, output: Output) -> Result<Exit, Failure> {
    let migrated = stores::migrate(settings)?;
    let text = match migrated.from == migrated.to {
        true => format!("the store has version {} already\n", migrated.to),
        false => format!(
            "the store has version {}, had {}\n",
            migrated.to, migrated.from
        ),
    };
    match output {
        Output::Text => print(&text),
        Output::Json => print_json(&json!({ "from": migrated.from, "to": migrated.to })),
    }
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    Ok(runtime.map_err(|source| StoreFailure::System {
        what: "a runtime",
        source,
    })?)
}

/// Opens a store that is there already, and that no gateway is connected to.
fn open(settings: &StoreSettings, runtime: &Runtime) -> Result<AnyStore, Failure> {
    if settings.kind == StoreKind::Embedded && !is_a_store(&settings.path) {
        let message = format!("there is no store in {}", settings.path.display());
        return Err(Failure::Usage(message));
    }
    let store = stores::open_for_command(settings, runtime)?;
    let connected = match &store {
        AnyStore::Postgres(postgres) => {
            let connected = runtime.block_on(postgres.connected_gateways());
            connected.map_err(StoreFailure::Postgres)?
        }
        // Where the servers do not say, the manual asks for it.
        AnyStore::Redis(redis) => runtime.block_on(redis.connected_gateways()).unwrap_or(0),
        AnyStore::Embedded(_) | AnyStore::Memory(_) => 0,
    };
    match connected {
        0 => Ok(store),
        connected => Err(TransferError::InUse(connected).into()),
    }
}

/// Whether a store was made there, however much of it is left: an empty directory would be made one.
fn is_a_store(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

fn target(settings: &StoreSettings, secret: &Secret, runtime: &Runtime) -> Result<Target, Failure> {
    Ok(match settings.kind {
        StoreKind::Memory => return Err(StoreFailure::InMemory.into()),
        StoreKind::Embedded => Target::Embedded(EmbeddedRestore::create(&settings.path, secret)?),
        StoreKind::Redis => {
            let (url, options) = stores::redis_for_command(settings)?;
            let creating = RedisRestore::create(url.secret(), options, secret);
            Target::Redis(Box::new(runtime.block_on(creating)?))
        }
        StoreKind::Postgres => {
            let (url, options) = stores::postgres_for_command(settings)?;
            let creating = PostgresRestore::create(url.secret(), &options, secret);
            Target::Postgres(runtime.block_on(creating)?)
        }
    })
}

/// Where a store is, without what is secret about it.
fn place(settings: &StoreSettings) -> String {
    match (settings.kind, &settings.url) {
        (StoreKind::Embedded, _) => settings.path.display().to_string(),
        (_, Some(url)) => url.to_string(),
        (_, None) => "the configured store".to_owned(),
    }
}

/// Takes the records, with how far that is on a terminal.
fn take(runtime: &Runtime, from: Source<'_>, to: Target) -> Result<Transferred, Failure> {
    let is_watched = io::stderr().is_terminal();
    let mut progress = |done: &Transferred| {
        if is_watched {
            // What cannot be shown is not worth ending for.
            let _ = write!(io::stderr(), "\r{} records", done.records);
        }
    };
    let done = runtime.block_on(transfer(from, to, &mut progress));
    if is_watched {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(done?)
}

fn say(done: &Transferred, place: &str, output: Output) -> Result<Exit, Failure> {
    let Transferred {
        records,
        content_bytes,
        outstanding,
    } = *done;
    let mut text =
        format!("{records} records, {content_bytes} bytes of stored content, are in {place}\n");
    if outstanding > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{outstanding} of them were under way: their outcome is unknown when their lease is over"
        );
    }
    match output {
        Output::Text => print(&text),
        Output::Json => print_json(&json!({
            "records": records,
            "content_bytes": content_bytes,
            "outstanding": outstanding,
        })),
    }
}

/// How thoroughly a store is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Its figures.
    Counted,
    /// Every record.
    Read,
}

fn stats(settings: &StoreSettings, output: Output, depth: Depth) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let store = match settings.kind {
        // Looking at it disturbs nobody.
        StoreKind::Postgres | StoreKind::Redis => stores::open_for_command(settings, &runtime)?,
        StoreKind::Embedded | StoreKind::Memory => open(settings, &runtime)?,
    };
    let states = match depth {
        Depth::Counted => None,
        Depth::Read => Some(runtime.block_on(read_all(&store)).map_err(Failure::Store)?),
    };
    let stats = runtime.block_on(store.stats()).map_err(Failure::Store)?;
    drop(store);
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
async fn read_all(store: &AnyStore) -> Result<BTreeMap<&'static str, u64>, StoreError> {
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
