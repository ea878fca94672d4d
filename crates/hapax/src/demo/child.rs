//! The inside of a child process: the shop, and the end together with the parent.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, getpid, kill_process};
use tokio::net::TcpListener;

/// What a shop is started with.
#[derive(Debug, Args)]
pub(crate) struct ChildShop {
    /// The SQLite file.
    #[arg(long)]
    database: PathBuf,
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// How long an order takes.
    #[arg(long)]
    work_ms: u64,
}

/// Why a shop did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// The system refuses a socket, a thread or its output.
    #[error("the shop: {0}")]
    System(#[from] std::io::Error),
    /// The database cannot be opened.
    #[error("the shop: {0}")]
    Open(#[from] hapax_shop::OpenError),
}

/// Kills this process as soon as the other end of its standard input is closed.
///
/// A parent that was killed closes it too, and cannot be asked to clean up first.
pub(crate) fn end_with_the_parent() {
    std::thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        let mut byte = [0; 1];
        while matches!(stdin.read(&mut byte), Ok(1..)) {}
        let _ = kill_process(getpid(), Signal::KILL);
    });
}

/// Serves the shop until this process is killed.
pub(crate) fn serve_shop(options: ChildShop) -> Result<(), ChildError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shop = hapax_shop::Shop::open(options.database)
            .await?
            .work(Duration::from_millis(options.work_ms));
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "listening shop http://{address}")?;
        stdout.flush()?;
        hapax_shop::serve(listener, shop, std::future::pending()).await?;
        Ok(())
    })
}
