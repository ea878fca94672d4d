//! The `hapax` binary: reads the command line, does what it says, answers with an exit code.

mod activity;
mod admin;
mod audit;
mod check;
mod cli;
mod config;
mod demo;
mod doctor;
mod failure;
mod gateway;
mod keys;
mod manual;
mod paint;
mod remote;
mod serve;
mod status;
mod store_command;
mod stores;
mod tail;
mod telemetry;
mod timer;
mod traces;
mod upstream;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use failure::{Exit, Failure};

/// Measured cheaper on this data path than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too: clap knows the stream, we know the code.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            }
            .into();
        }
    };
    // A panic has written its message already; what is left is to call it by its code.
    match std::panic::catch_unwind(|| cli::run(cli)) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => fail(&failure),
        Err(_) => Exit::Bug.into(),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    let text = failure.to_string();
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    failure.exit().into()
}
