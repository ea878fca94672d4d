//! The `hapax-check` binary: live campaigns against a built gateway. It is a tool of this tree and no part of the product.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use hapax_check::campaign::{self, Control, Options, Store, Totals};

/// Checks built gateways under real faults.
#[derive(Parser)]
#[command(name = "hapax-check", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kills, freezes, fills, cuts and crashes real gateways under load, and judges what clients and the upstream saw.
    ///
    /// Exit code 0: nothing was found, or the control was caught. 1: a guarantee was broken, or a control was not noticed.
    /// 2: wrong usage. 3: nothing is shown, because something did not happen often enough. 4: the machine does not let it run.
    Campaign(Campaign),
}

#[derive(clap::Args)]
struct Campaign {
    /// For how long, in hours, the time of interrupted runs included.
    #[arg(long, default_value = "1")]
    hours: f64,
    /// No more rounds than this.
    #[arg(long, default_value = "0")]
    rounds: u64,
    /// This round alone, again.
    #[arg(long)]
    round: Option<u64>,
    /// The store.
    #[arg(long, value_enum, default_value = "embedded")]
    store: StoreName,
    /// Clients at the same time.
    #[arg(long, default_value = "16")]
    clients: u64,
    /// Where everything that varies comes from; without it, one that is in the folder or a new one.
    #[arg(long)]
    seed: Option<u64>,
    /// The folder of the campaign. One that has been interrupted goes on.
    #[arg(long, default_value = "campaign-state")]
    state: PathBuf,
    /// Where the results are written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The gateway's binary; without it, the one beside this program.
    #[arg(long)]
    hapax: Option<PathBuf>,
    /// A gateway that is set up to break its promises; it must be caught.
    #[arg(long, value_enum)]
    control: Option<ControlName>,
    /// Keep the files of rounds that found nothing.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreName {
    Embedded,
    Postgres,
}

#[derive(Clone, Copy, ValueEnum)]
enum ControlName {
    Memory,
    Resend,
    Early,
}

/// How it ends.
enum End {
    Held,
    Broken,
    Vacuous,
}

fn main() -> ExitCode {
    let Command::Campaign(arguments) = Cli::parse().command;
    match run(&arguments) {
        Ok(End::Held) => ExitCode::SUCCESS,
        Ok(End::Broken) => ExitCode::from(1),
        Ok(End::Vacuous) => ExitCode::from(3),
        Err(error) => {
            say(&format!("hapax-check: {error}\n"));
            ExitCode::from(4)
        }
    }
}

/// Progress and findings are for people: they go to standard error.
fn say(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// One line that grows on a terminal, a line a round elsewhere.
fn progress(totals: &Totals) {
    match io::stderr().is_terminal() {
        true => say(&format!("\r\x1b[K{totals}")),
        false => say(&format!("{totals}\n")),
    }
}

fn run(arguments: &Campaign) -> io::Result<End> {
    let options = options(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let totals = runtime.block_on(async {
        tokio::select! {
            totals = campaign::run(&options, &progress) => totals,
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("interrupted; the same command goes on")),
        }
    })?;
    say("\n");
    let json = totals.json()?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, &json)?;
    }
    io::stdout().write_all(json.as_bytes())?;
    Ok(conclude(&options, &totals))
}

fn options(arguments: &Campaign) -> io::Result<Options> {
    let hapax = match &arguments.hapax {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("hapax"),
    };
    let missing = |_| io::Error::other(format!("{} is missing; --hapax", hapax.display()));
    let hapax = hapax.canonicalize().map_err(missing)?;
    Ok(Options {
        hapax,
        store: match arguments.store {
            StoreName::Embedded => Store::Embedded,
            StoreName::Postgres => Store::Postgres,
        },
        time: campaign::hours(arguments.hours)
            .ok_or_else(|| io::Error::other("that is no number of hours"))?,
        rounds: arguments.rounds,
        only_round: arguments.round,
        clients: arguments.clients,
        seed: match arguments.seed {
            Some(seed) => seed,
            None => campaign::seed_of(&arguments.state)?,
        },
        state: arguments.state.clone(),
        control: arguments.control.map(|control| match control {
            ControlName::Memory => Control::Memory,
            ControlName::Resend => Control::Resend,
            ControlName::Early => Control::Early,
        }),
        keep: arguments.keep,
    })
}

fn conclude(options: &Options, totals: &Totals) -> End {
    for left_out in &totals.left_out {
        say(&format!("left out: {left_out}\n"));
    }
    if let Some(control) = &totals.control {
        let is_caught = totals.is_caught();
        let word = if is_caught { "caught" } else { "NOT caught" };
        say(&format!(
            "control {control}: {word}: {:?}\n",
            totals.violations
        ));
        return if is_caught { End::Held } else { End::Broken };
    }
    if totals.violated() > 0 {
        for finding in &totals.findings {
            say(&format!("{finding}\n"));
        }
        let round = options
            .only_round
            .unwrap_or_else(|| totals.rounds.saturating_sub(1));
        say(&format!(
            "seed {}; its files are in {}; once more: {}\n",
            totals.seed,
            options.state.join(format!("round-{round}")).display(),
            campaign::repeat_command(options, round)
        ));
        return End::Broken;
    }
    let (faults, _) = campaign::faults(options);
    let shortcomings = totals.shortcomings(&faults);
    for shortcoming in &shortcomings {
        say(&format!("nothing is shown: {shortcoming}\n"));
    }
    if shortcomings.is_empty() || options.only_round.is_some() {
        End::Held
    } else {
        End::Vacuous
    }
}
