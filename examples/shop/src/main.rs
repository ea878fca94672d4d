//! The `hapax-shop` binary: opens the shop, listens, and serves until told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use hapax_shop::{Shop, serve};

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
    /// How long an order takes, in milliseconds: committed half way, answered at the end.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    work: u64,
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
