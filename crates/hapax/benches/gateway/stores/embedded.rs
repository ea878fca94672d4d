//! The least a log on disk can be: what waits together is written together and synced once.

use std::io::Write;
use std::sync::mpsc;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{Bare, CLAIM_BYTES, RECORD_BYTES};

type Entry = (Vec<u8>, oneshot::Sender<()>);

/// A file that one thread appends to.
pub(super) struct Log {
    entries: mpsc::Sender<Entry>,
    _directory: TempDir,
}

impl Log {
    pub(super) fn new() -> Self {
        let directory = crate::proxies::directory();
        let mut file = std::fs::File::create(directory.path().join("log")).unwrap();
        let (entries, waiting) = mpsc::channel::<Entry>();
        // Ends with the last sender.
        std::thread::spawn(move || {
            while let Ok(first) = waiting.recv() {
                let (mut bytes, mut replies) = (Vec::new(), Vec::new());
                for (entry, reply) in std::iter::once(first).chain(waiting.try_iter()) {
                    bytes.extend_from_slice(&entry);
                    replies.push(reply);
                }
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
                for reply in replies {
                    // Who asked waits for it.
                    let _ = reply.send(());
                }
            }
        });
        Self {
            entries,
            _directory: directory,
        }
    }
}

impl Bare for Log {
    type Worker = mpsc::Sender<Entry>;

    async fn workers(&self, count: u64) -> Vec<Self::Worker> {
        (0..count).map(|_| self.entries.clone()).collect()
    }

    async fn pair(worker: &mut Self::Worker, _: u64) {
        for bytes in [CLAIM_BYTES, RECORD_BYTES] {
            let (reply, written) = oneshot::channel();
            worker.send((vec![7; bytes], reply)).unwrap();
            written.await.unwrap();
        }
    }
}
