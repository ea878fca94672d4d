//! The `hapax-shop` binary: opens the shop, listens, and serves until told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use hapax_shop::{Mode, Shop, serve};

/// A reference order service: how an idempotent API is written.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The address to listen on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// An SQLite file, or postgres://…; without one, orders end with the process.
    #[arg(long, value_name = "FILE|URL")]
    database: Option<String>,
    /// Which ways of creating an order there are.
    #[arg(long, value_enum, default_value_t = ModeName::Naive)]
    mode: ModeName,
    /// Where `--mode keyed` keeps its keys; in memory without it.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// With `--mode transactional`: charges are made by the payment provider at this address
    /// (http://host:port), and an order is made in steps with recovery points.
    #[arg(long, value_name = "URL")]
    provider: Option<String>,
    /// After how many milliseconds the shop goes on with an order that was left between two steps.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    abandoned_after: u64,
    /// How long an order takes, in milliseconds: committed half way, answered at the end.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    work: u64,
}

/// The names of the modes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ModeName {
    /// `POST /create-order` unprotected, beside `PUT /order/{order-id}`.
    Naive,
    /// `PUT /order/{order-id}` alone.
    Put,
    /// `POST /create-order` behind an idempotency key with a store of its own.
    Keyed,
    /// `POST /create-order` behind an idempotency key in the order's own transaction.
    Transactional,
}

impl Cli {
    fn mode(&self) -> Result<Mode, &'static str> {
        Ok(match (self.mode, &self.provider) {
            (ModeName::Naive, None) => Mode::Naive,
            (ModeName::Put, None) => Mode::Put,
            (ModeName::Keyed, None) => Mode::Keyed {
                directory: self.keys.clone(),
            },
            (ModeName::Transactional, None) => Mode::Transactional,
            (ModeName::Transactional, Some(provider)) => Mode::Stepwise {
                provider: provider.clone(),
                abandoned_for: Duration::from_millis(self.abandoned_after),
            },
            (_, Some(_)) => return Err("--provider needs --mode transactional"),
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "hapax-shop: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    // Watched before anybody is told that we are here.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shop = match cli.database.as_deref() {
        None => Shop::in_memory().await?,
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Shop::connect(url).await?
        }
        Some(file) => Shop::open(file).await?,
    };
    let shop = shop.work(Duration::from_millis(cli.work));
    let shop = shop.mode(cli.mode()?).await?;
    let listener = TcpListener::bind(cli.listen).await?;
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    writeln!(out, "listening shop http://{address}")?;
    out.flush()?;
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(listener, shop, told).await?;
    Ok(())
}
