//! `hapax check`: the command line of the checker, its files and its exit code.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::SignalKind;

use hapax_check::{CheckError, Fault, Grade, OpenApi, Options, Profile, Report, Tone};

use crate::paint::{Colour, paint};

/// The largest file of the command line that is read, in bytes; the checker has narrower limits of its own.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// What `hapax check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    /// The target, such as <http://127.0.0.1:3000/order/{{uuid}}>.
    #[arg(value_name = "URL")]
    url: String,
    /// The request to send: an HTTP message, JSON or TOML, with {{key}}, {{uuid}} and {{n}}.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// An OpenAPI document (JSON or YAML) that the request is made from, with --operation.
    #[arg(
        long,
        value_name = "FILE|URL",
        requires = "operation",
        conflicts_with = "request"
    )]
    openapi: Option<String>,
    /// Which operation: its operationId, or method and path as in 'POST /orders'.
    #[arg(long, value_name = "ID", requires = "openapi")]
    operation: Option<String>,
    /// The method, in place of POST or the file's.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// The field that carries the key.
    #[arg(long, value_name = "NAME", default_value = "Idempotency-Key")]
    key_field: String,
    /// What the API is held to: ietf, stripe-v1, success-only or current-state.
    #[arg(long, value_name = "NAME", default_value = "ietf")]
    profile: Profile,
    /// The faults to inject, separated by commas; without it all of them.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Where the target counts effects; #/POINTER says where in the JSON.
    #[arg(long, value_name = "URL")]
    count_with: Option<String>,
    /// Where keys, payloads, order and cut points come from; without it a fresh one.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Reports to write: json=FILE, junit=FILE, html=FILE, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = report_file)]
    report: Vec<(Format, PathBuf)>,
    /// The least grade of a broken rule that makes the check fail: must, should or practice.
    #[arg(long, value_name = "GRADE", default_value = "should")]
    fail_on: Grade,
    /// Allow a target off loopback. Send faults only where you may.
    #[arg(long)]
    allow_remote: bool,
    /// The operation requires a key: one without is to be refused.
    #[arg(long)]
    key_required: bool,
    /// A shell command that restarts the target and ends; for after_restart.
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    /// A shell command that is the target: it is started, killed at work, and started again; for kill_target and after_restart.
    #[arg(long, value_name = "COMMAND", conflicts_with = "restart")]
    start: Option<String>,
    /// A file with the Authorization of the caller, in place of the request file's.
    #[arg(long, value_name = "FILE")]
    authorization_file: Option<PathBuf>,
    /// Certificate authorities in PEM that are trusted besides the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A file with the Authorization of another caller; for other_caller.
    #[arg(long, value_name = "FILE")]
    other_authorization_file: Option<PathBuf>,
}

/// The form of a report file.
#[derive(Debug, Clone, Copy)]
enum Format {
    Json,
    Junit,
    Html,
}

fn report_file(text: &str) -> Result<(Format, PathBuf), String> {
    let (name, file) = text
        .split_once('=')
        .filter(|(_, file)| !file.is_empty())
        .ok_or_else(|| format!("{text:?} is not FORMAT=FILE"))?;
    let format = match name {
        "json" => Format::Json,
        "junit" => Format::Junit,
        "html" => Format::Html,
        _ => return Err(format!("{name:?} is not json, junit or html")),
    };
    Ok((format, PathBuf::from(file)))
}

/// Why a check did not come to a verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckFailure {
    /// The target cannot be checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A file of the command line cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A report cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody wants it to end.
    #[error("interrupted; the target was stopped")]
    Interrupted,
    /// The system gives no randomness, or no runtime.
    #[error("the system: {0}")]
    System(#[source] io::Error),
}

impl CheckFailure {
    /// Whether it is the command line's fault.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Check(error) => error.is_usage(),
            Self::Read { .. } => true,
            Self::File { .. } | Self::Interrupted | Self::System(_) => false,
        }
    }
}

/// A verdict, and where it is to be written.
pub(crate) struct Checked {
    pub(crate) report: Report,
    files: Vec<(Format, PathBuf)>,
}

/// Checks. What is left is to print the report and to write its files.
pub(crate) fn run(flags: CheckFlags) -> Result<Checked, CheckFailure> {
    let seed = match flags.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| CheckFailure::System(io::Error::other(error)))?,
    };
    let options = Options {
        request_name: flags
            .request
            .as_ref()
            .map(|path| path.display().to_string()),
        request: flags.request.map(read).transpose()?,
        openapi: openapi(flags.openapi, flags.operation)?,
        authorization: flags.authorization_file.map(read_line).transpose()?,
        ca: flags.ca_file.map(read).transpose()?,
        method: flags.method,
        key_field: flags.key_field,
        profile: flags.profile,
        faults: flags.faults,
        count_with: flags.count_with,
        fail_on: flags.fail_on,
        allow_remote: flags.allow_remote,
        requires_key: flags.key_required,
        restart: flags.restart,
        start: flags.start,
        other_authorization: flags.other_authorization_file.map(read_line).transpose()?,
        ..Options::new(flags.url, seed)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CheckFailure::System)?;
    let is_watched = io::stderr().is_terminal();
    let played = Cell::new(0);
    let all = match options.faults.len() {
        0 => Fault::ALL.len(),
        some => some,
    };
    let progress = |fault: Fault| {
        played.set(played.get() + 1);
        if is_watched {
            let line = format!("{}/{all} {}", played.get(), fault.title());
            tell(&format!("\r\x1b[K{line} …"));
        }
    };
    let report = runtime.block_on(async {
        let check = hapax_check::check(&options, &progress);
        // A target that was started here does not hear the terminal's interrupt, and must not be left behind.
        tokio::select! {
            report = check => report.map_err(CheckFailure::Check),
            () = interrupted(), if options.start.is_some() => Err(CheckFailure::Interrupted),
        }
    });
    if is_watched {
        tell("\r\x1b[K");
    }
    Ok(Checked {
        report: report?,
        files: flags.report,
    })
}

impl Checked {
    /// The report for a terminal, in colour where standard output shows it.
    pub(crate) fn text(&self) -> String {
        self.report.to_text(&|tone, text| {
            let colour = match tone {
                Tone::Good => Colour::Good,
                Tone::Open => Colour::Warning,
                Tone::Bad => Colour::Bad,
                Tone::Quiet => Colour::Plain,
            };
            paint(colour, text)
        })
    }

    /// Writes the report files.
    pub(crate) fn write(&self) -> Result<(), CheckFailure> {
        for (format, path) in &self.files {
            let text = match format {
                Format::Json => self.report.to_json(),
                Format::Junit => self.report.to_junit(),
                Format::Html => self.report.to_html(),
            };
            std::fs::write(path, text).map_err(|source| CheckFailure::File {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// A document on this machine is read, one at a URL is fetched by the checker.
fn openapi(
    location: Option<String>,
    operation: Option<String>,
) -> Result<Option<OpenApi>, CheckFailure> {
    let (Some(location), Some(operation)) = (location, operation) else {
        return Ok(None);
    };
    let is_url = location.starts_with("http://") || location.starts_with("https://");
    let text = match is_url {
        true => None,
        false => Some(read(PathBuf::from(&location))?),
    };
    Ok(Some(OpenApi {
        location,
        text,
        operation,
    }))
}

fn read_line(path: PathBuf) -> Result<String, CheckFailure> {
    Ok(read(path)?.trim().to_owned())
}

fn read(path: PathBuf) -> Result<String, CheckFailure> {
    let mut text = String::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(CheckFailure::Read { path, source }),
    }
}

/// Returns at SIGINT or SIGTERM.
async fn interrupted() {
    let signal = |kind| tokio::signal::unix::signal(kind).ok();
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Some(mut interrupt), Some(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Progress; when standard error is closed, nobody waits for it.
fn tell(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}
