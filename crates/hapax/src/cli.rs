//! The command line: what can be asked for.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use hapax_check::Outcome;

use crate::check::{self, CheckFlags};
use crate::config::{self, ConfigError, Diagnostic, Flags, Loaded, Origins, Sources};
use crate::demo::{self, ChildShop, DemoOptions};
use crate::doctor::{self, Verdict};
use crate::failure::{Exit, Failure};
use crate::keys::{self, KeysCommand};
use crate::manual;
use crate::remote::{Call, Remote};
use crate::serve;
use crate::status;
use crate::store_command::{self, StoreCommand};
use crate::tail::{self, TailFlags};

/// Makes HTTP APIs safe to retry: at most one execution per idempotency key.
#[derive(Debug, Parser)]
#[command(name = "hapax", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The configuration file; without it `hapax.toml`, when there is one.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(ServeFlags),
    /// Watch a bad network turn one purchase into several orders without hapax, and into one with it.
    Demo {
        /// The address of the page; port 0 picks a free one.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8088")]
        listen: SocketAddr,
        /// Where all of the network's faults come from: the same seed, the same faults.
        #[arg(long, value_name = "N", default_value_t = demo::DEFAULT_SEED)]
        seed: u64,
        /// Wait for a press of the button before the story is told.
        #[arg(long)]
        no_autoplay: bool,
    },
    /// Check from outside whether an HTTP API is safe to retry, under injected faults.
    Check(Box<CheckFlags>),
    /// A process of the demo; ends when its standard input does.
    #[command(hide = true, subcommand)]
    DemoChild(DemoChild),
    /// Ask a running gateway how it is, through its admin listener.
    Status {
        #[command(flatten)]
        remote: RemoteFlags,
    },
    /// Find records and settle unknown outcomes, through the admin listener.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
        #[command(flatten)]
        remote: RemoteFlags,
    },
    /// Look at a store, back it up, fill it, or prepare it.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print what happens in a running gateway, as it happens.
    Tail {
        #[command(flatten)]
        tail: TailFlags,
        #[command(flatten)]
        remote: RemoteFlags,
    },
    /// Make a running gateway read its configuration again, as SIGHUP does.
    Reload {
        /// Why; it is written into the audit log.
        #[arg(long, default_value = "hapax reload")]
        reason: String,
        #[command(flatten)]
        remote: RemoteFlags,
    },
    /// Check whether this machine keeps what a gateway here would promise.
    Doctor {
        /// Exit code 1 for warnings too.
        #[arg(long)]
        strict: bool,
        /// How to answer.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Write, check and explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory.
    Man {
        /// Which directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum DemoChild {
    /// A shop.
    Shop(ChildShop),
    /// The gateway, as `hapax serve`.
    Serve(ServeFlags),
}

/// Where a running gateway's admin listener is, and how it is spoken to.
#[derive(Debug, Args)]
struct RemoteFlags {
    /// The admin listener; without it the configured one.
    #[arg(long, value_name = "ADDR", global = true)]
    admin: Option<SocketAddr>,
    /// A file with a token; without it the configured one, unless --admin is given.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t = Output::Text, global = true)]
    output: Output,
}

impl RemoteFlags {
    fn remote(&self, file: Option<PathBuf>) -> Result<Remote, Failure> {
        let (admin, configured) = match self.admin {
            Some(admin) => (admin, None),
            None => {
                let admin = load(file, Flags::default())?.settings.admin;
                (admin.listen, admin.token_file)
            }
        };
        let token_file = self.token_file.as_deref().or(configured.as_deref());
        Ok(Remote::new(admin, token_file)?)
    }
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Where requests are forwarded to, such as http://127.0.0.1:3000.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The address callers connect to; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The address operators connect to; off loopback a token file is mandatory.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The directory of the embedded store, `memory:`, or the URL of a shared store.
    #[arg(long, value_name = "DIR|URL")]
    store: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Write a commented hapax.toml (or the file after -c).
    Init {
        /// Replace the file when it exists.
        #[arg(long)]
        force: bool,
        /// Write to standard output instead.
        #[arg(long, conflicts_with = "force")]
        stdout: bool,
    },
    /// Check the configuration; exit code 3 when it has errors.
    Validate {
        /// Refuse warnings too.
        #[arg(long)]
        strict: bool,
    },
    /// Print the settings in force.
    Show {
        /// Say where each comes from.
        #[arg(long)]
        origin: bool,
        /// TOML, or JSON.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print the JSON Schema of hapax.toml.
    Schema,
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    let file = cli.config;
    match cli.command {
        Command::Serve(flags) => serve(file, flags),
        Command::Demo {
            listen,
            seed,
            no_autoplay,
        } => {
            demo::run(DemoOptions {
                listen,
                seed,
                autoplay: !no_autoplay,
            })?;
            Ok(Exit::Ok)
        }
        Command::Check(flags) => {
            let checked = check::run(*flags)?;
            // First, so that a report that cannot be written does not cost the verdict.
            print(&checked.text())?;
            checked.write()?;
            Ok(match checked.report.outcome() {
                Outcome::Clean => Exit::Ok,
                Outcome::Finding => Exit::Finding,
                Outcome::Inconclusive => Exit::Inconclusive,
            })
        }
        Command::DemoChild(child) => {
            demo::end_with_the_parent();
            match child {
                DemoChild::Shop(options) => demo::serve_shop(options)?,
                DemoChild::Serve(flags) => return serve(file, flags),
            }
            Ok(Exit::Ok)
        }
        Command::Status { remote } => status(&remote.remote(file)?, remote.output),
        Command::Keys { command, remote } => {
            keys::run(&remote.remote(file)?, &command, remote.output)
        }
        Command::Store(command) => store_command::run(&command, &|store| {
            let flags = Flags {
                store: store.map(str::to_owned),
                ..Flags::default()
            };
            Ok(load(file.clone(), flags)?.settings.store)
        }),
        Command::Tail { tail, remote } => tail::run(&remote.remote(file)?, &tail, remote.output),
        Command::Reload { reason, remote } => reload(&remote.remote(file)?, &reason, remote.output),
        Command::Doctor { strict, output } => diagnose(file, strict, output),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::pages(&directory),
        Command::Config(ConfigCommand::Init { force, stdout }) => match stdout {
            true => print(&config::init()),
            false => init(file, force),
        },
        Command::Config(ConfigCommand::Validate { strict }) => validate(file, strict),
        Command::Config(ConfigCommand::Show { origin, output }) => {
            let settings = load(file, Flags::default())?.settings;
            let origins = if origin {
                Origins::Shown
            } else {
                Origins::Hidden
            };
            match output {
                Output::Text => print(&settings.to_toml(origins)),
                Output::Json => print_json(&settings.to_json(origins)),
            }
        }
        Command::Config(ConfigCommand::Schema) => print_json(&config::schema()),
        Command::Version => print(concat!("hapax ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn serve(file: Option<PathBuf>, flags: ServeFlags) -> Result<Exit, Failure> {
    let loaded = load(file, flags.into())?;
    loaded.upstream()?;
    serve::run(loaded)?;
    Ok(Exit::Ok)
}

fn status(remote: &Remote, output: Output) -> Result<Exit, Failure> {
    let answer = remote.get("/api/v1/status")?;
    match output {
        Output::Text => print(&status::as_text(&answer)),
        Output::Json => print_json(&answer),
    }
}

fn reload(remote: &Remote, reason: &str, output: Output) -> Result<Exit, Failure> {
    let answer = remote.call(&Call {
        target: "/api/v1/config:reload",
        content: Some(&serde_json::json!({ "reason": reason })),
        version: None,
    })?;
    match output {
        Output::Text => print("the configuration was reloaded\n"),
        Output::Json => print_json(&answer),
    }
}

fn diagnose(file: Option<PathBuf>, strict: bool, output: Output) -> Result<Exit, Failure> {
    let checks = doctor::examine(&load(file, Flags::default())?);
    match output {
        Output::Text => print(&doctor::as_text(&checks))?,
        Output::Json => print_json(&doctor::as_json(&checks))?,
    };
    let tolerated = if strict {
        Verdict::Ok
    } else {
        Verdict::Warning
    };
    Ok(match doctor::worst(&checks) <= tolerated {
        true => Exit::Ok,
        false => Exit::Finding,
    })
}

fn load(file: Option<PathBuf>, flags: Flags) -> Result<Loaded, ConfigError> {
    config::load(Sources {
        file,
        environment: std::env::vars_os().collect(),
        flags,
    })
}

fn init(file: Option<PathBuf>, force: bool) -> Result<Exit, Failure> {
    let path = file.unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE));
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    // `create_new` asks and makes in one step: no file appears in between.
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let written = options
        .open(&path)
        .and_then(|mut file| file.write_all(config::init().as_bytes()));
    match written {
        Ok(()) => print(&format!("wrote {}\n", path.display())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Exists(path)),
        Err(source) => Err(Failure::Write { path, source }),
    }
}

fn validate(file: Option<PathBuf>, strict: bool) -> Result<Exit, Failure> {
    let loaded = load(file, Flags::default())?;
    let name = loaded.file.as_deref().unwrap_or(Path::new("defaults"));
    let warnings = loaded.warnings.len();
    say(&loaded.warnings);
    if strict && warnings > 0 {
        return Ok(Exit::Configuration);
    }
    let routes = loaded.settings.routes.iter().skip(1).count();
    let mut text = format!("{}: ok; routes: {routes}", name.display());
    if warnings > 0 {
        let _ = write!(text, "; warnings: {warnings}");
    }
    text.push('\n');
    print(&text)
}

/// Writes findings to standard error. When that is closed, there is nobody to tell.
fn say(findings: &[Diagnostic]) {
    let mut stderr = io::stderr().lock();
    for finding in findings {
        let _ = writeln!(stderr, "{finding}");
    }
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<Exit, Failure> {
    print(&format!("{value:#}\n"))
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(Exit::Ok),
    }
}

impl From<ServeFlags> for Flags {
    fn from(flags: ServeFlags) -> Self {
        Self {
            upstream: flags.upstream,
            listen: flags.listen,
            admin: flags.admin,
            store: flags.store,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_takes_a_configuration_file_after_it() {
        for line in [
            "hapax serve -c f.toml --upstream http://a --listen 127.0.0.1:0 --admin 127.0.0.1:0 --store d",
            "hapax check http://a -c f.toml --faults duplicate,lose-reply --report json=r.json,html=r.html --seed 1",
            "hapax status -c f.toml --admin 127.0.0.1:1 -o json",
            "hapax config init -c f.toml --force",
            "hapax config validate -c f.toml --strict",
            "hapax config show -c f.toml --origin -o json",
            "hapax config schema -c f.toml",
            "hapax keys ls --state unknown -c f.toml -o json --admin 127.0.0.1:1",
            "hapax keys resolve abc --as not_executed --reason r --yes -c f.toml --token-file t",
            "hapax keys expire abc --reason r --dry-run -c f.toml",
            "hapax tail --types answered --limit 3 -c f.toml",
            "hapax reload --reason r -c f.toml",
            "hapax store verify -o json -c f.toml",
            "hapax doctor --strict -o json -c f.toml",
            "hapax completions bash -c f.toml",
            "hapax man d -c f.toml",
            "hapax store migrate -c f.toml --store postgres://a/b",
            "hapax version -c f.toml",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.config.as_deref(), Some(Path::new("f.toml")), "{line}");
        }
    }

    #[test]
    fn an_unknown_command_is_a_usage_error() {
        let error = Cli::try_parse_from(["hapax", "destroy"]).unwrap_err();
        assert_eq!(error.exit_code(), Exit::Usage as i32);
    }

    #[test]
    fn init_refuses_to_replace_a_file_unless_forced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hapax.toml");
        assert_eq!(init(Some(path.clone()), false).unwrap(), Exit::Ok);
        std::fs::write(&path, "mine").unwrap();
        let refused = init(Some(path.clone()), false).unwrap_err();
        assert_eq!(refused.exit(), Exit::Unreachable);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(init(Some(path.clone()), true).unwrap(), Exit::Ok);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), config::init());
    }
}
