//! Live chaos: real gateways as processes, under faults that a seed deals, judged from outside.
//!
//! A campaign is a sequence of rounds. In each, clients send keyed requests through the gateways to an upstream that writes
//! its effects down; meanwhile processes are killed and frozen, power is cut, disks run full, clocks jump, stores
//! crash and the upstream misbehaves. Then all of that ends, every key is asked for again, and the whole history is held against the
//! guarantees. A campaign can be interrupted and gone on with at any time.

mod caller;
mod deck;
mod disk;
mod effects;
mod event;
mod load;
mod nemesis;
mod node;
mod options;
mod round;
mod state;
mod store;
mod upstream;
mod verdict;

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

pub use deck::Fault;
pub use options::{Control, Options, Store};
pub use state::Totals;

use round::Round;

/// Cards of each of the two decks that a round gets.
const CARDS: u64 = 3;
/// How long settled records are kept in rounds in which they expire.
const SHORT_RETENTION: Duration = Duration::from_secs(3);
/// One round in so many is without faults: there nothing may be unknown.
const CALM_EVERY: u64 = 10;

/// The faults on gateways and stores that can be had on this machine, and why others cannot.
pub fn faults(options: &Options) -> (Vec<Fault>, Vec<String>) {
    let mut faults = vec![Fault::Kill, Fault::Freeze, Fault::Stop, Fault::Reload];
    let mut left_out = Vec::new();
    match options.store {
        Store::Postgres => faults.extend([Fault::StoreCrash, Fault::StorePromotion]),
        // What is in memory is on no disk, and a restart loses it in any case.
        Store::Embedded if options.control == Some(Control::Memory) => {}
        Store::Embedded => {
            if disk::is_possible() {
                faults.extend([Fault::PowerCut, Fault::DiskFull, Fault::IoError]);
            } else {
                left_out.push(
                    "power-cut, disk-full, io-error: mounting an image needs root".to_owned(),
                );
            }
        }
    }
    if options.store == Store::Embedded {
        // The control is about the retention that this clock counts.
        let is_possible = nemesis::faketime().is_some();
        let is_wanted = options.control != Some(Control::Early);
        if is_possible && is_wanted {
            faults.extend([Fault::ClockForward, Fault::ClockBack]);
        } else if is_wanted {
            left_out.push(
                "clock-forward, clock-back: libfaketime is missing (apt-get install faketime)"
                    .to_owned(),
            );
        }
    }
    (faults, left_out)
}

/// Whether records expire in a round, and are swept. Not where an hour goes by on the gateway's clock; where that cannot be, in
/// three rounds of four on the embedded store, in every other one on PostgreSQL.
fn is_short(options: &Options, number: u64, faults: &[Fault]) -> bool {
    let is_its_turn = match options.store {
        Store::Embedded => number % 4 != 3,
        Store::Postgres => number.is_multiple_of(2),
    };
    match options.control {
        Some(control) => control == Control::Early,
        None => is_its_turn && !faults.iter().any(|fault| fault.is_of_clocks()),
    }
}

/// Plays rounds until the time is over, or until one finds something. `progress` hears of every round.
///
/// # Errors
///
/// The campaign in the folder is another one, or a world cannot be started at all.
pub async fn run(options: &Options, progress: &dyn Fn(&Totals)) -> io::Result<Totals> {
    std::fs::create_dir_all(&options.state)?;
    let options = Options {
        state: options.state.canonicalize()?,
        ..options.clone()
    };
    disk::clean_up(&options.state).await?;
    let (faults, left_out) = faults(&options);
    if let Some(number) = options.only_round {
        let mut totals = Totals::new(&options);
        let of_it = play(&options, number, &faults).await?;
        totals.add(number, &of_it);
        return Ok(totals);
    }
    let mut totals = match Totals::read(&options.state)? {
        None => Totals::new(&options),
        Some(totals) if totals.is_of(&options) => totals,
        Some(totals) => {
            return Err(io::Error::other(format!(
                "{} has a campaign with seed {} on {}; go on with that one, or use another folder",
                options.state.display(),
                totals.seed,
                totals.store
            )));
        }
    };
    totals.left_out = left_out;
    let is_over = |totals: &Totals| {
        totals.elapsed_s >= options.time.as_secs_f64()
            || (options.rounds > 0 && totals.rounds >= options.rounds)
            || totals.violated() > 0
    };
    while !is_over(&totals) {
        let number = totals.rounds;
        let of_it = play(&options, number, &faults).await?;
        totals.add(number, &of_it);
        totals.write(&options.state)?;
        progress(&totals);
    }
    Ok(totals)
}

async fn play(options: &Options, number: u64, faults: &[Fault]) -> io::Result<Totals> {
    let folder = options.state.join(format!("round-{number}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let is_calm = number % CALM_EVERY == CALM_EVERY - 1 && options.control.is_none();
    let deal = |faults: &[Fault]| match is_calm {
        true => Vec::new(),
        false => deck::deal(options.seed, number - number / CALM_EVERY, CARDS, faults),
    };
    let faults = deal(faults);
    let round = Round {
        options,
        number,
        folder: folder.clone(),
        retention: (!is_calm && is_short(options, number, &faults)).then_some(SHORT_RETENTION),
        faults,
        upstream_faults: deal(&Fault::UPSTREAM),
    };
    let of_it = round.play().await?;
    if of_it.violated() == 0 {
        tidy_up(&folder, options.keep)?;
    }
    Ok(of_it)
}

/// Removes the files of a round that found nothing; with `keep` all but what is large.
fn tidy_up(folder: &Path, keep: bool) -> io::Result<()> {
    if !keep {
        return std::fs::remove_dir_all(folder);
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_name().to_string_lossy().starts_with("image") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The command that plays a round again.
pub fn repeat_command(options: &Options, round: u64) -> String {
    let control = options
        .control
        .map(|control| format!(" --control {}", control.name()))
        .unwrap_or_default();
    format!(
        "hapax-check campaign --store {} --seed {} --clients {}{control} --round {round}",
        options.store.name(),
        options.seed,
        options.clients
    )
}

/// The seed of the campaign in a folder, or a new one.
///
/// # Errors
///
/// The folder has something else, or the system has no random numbers.
pub fn seed_of(folder: &Path) -> io::Result<u64> {
    if let Some(totals) = Totals::read(folder)? {
        return Ok(totals.seed);
    }
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from(u32::from_ne_bytes(bytes)))
}

/// An hour and the like.
pub fn hours(hours: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(hours * 3600.0).ok()
}
