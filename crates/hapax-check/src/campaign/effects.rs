//! The upstream's own account of what it did: a line an effect, on disk before anybody is answered.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::event::digest;
use super::upstream::content;
use crate::evidence::{Effect, Effects};

/// Writes effects down, many with one sync.
#[derive(Debug, Clone)]
pub(crate) struct EffectLog {
    path: PathBuf,
    sender: mpsc::Sender<(Effect, oneshot::Sender<u64>)>,
}

/// As many as wait for one sync.
const BATCH: usize = 256;

impl EffectLog {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (sender, receiver) = mpsc::channel(BATCH);
        tokio::spawn(write_down(Arc::new(file), receiver));
        Ok(Self {
            path: path.to_path_buf(),
            sender,
        })
    }

    /// The effect's number, when it is on disk.
    pub(crate) async fn add(&self, effect: Effect) -> io::Result<u64> {
        let (told, number) = oneshot::channel();
        let gone = || io::Error::other("the log of effects cannot be written");
        self.sender.send((effect, told)).await.map_err(|_| gone())?;
        number.await.map_err(|_| gone())
    }

    /// All effects, read from the disk.
    pub(crate) fn read(&self) -> io::Result<Effects> {
        Effects::read(BufReader::new(File::open(&self.path)?)).map_err(io::Error::other)
    }
}

async fn write_down(file: Arc<File>, mut receiver: mpsc::Receiver<(Effect, oneshot::Sender<u64>)>) {
    let mut count = 0;
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        for (mut effect, told) in batch.drain(..) {
            count += 1;
            effect.effect = count;
            let content = content(count, &effect.key, &effect.payload);
            effect.answer = Some(digest(content.as_bytes()));
            let Ok(line) = serde_json::to_string(&effect) else {
                return;
            };
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            waiting.push((told, count));
        }
        let file = Arc::clone(&file);
        let synced = tokio::task::spawn_blocking(move || {
            (&*file).write_all(&bytes)?;
            file.sync_data()
        });
        // Without the log there is no judging: everybody who waits hears that it is gone.
        let Ok(Ok(())) = synced.await else { return };
        for (told, number) in waiting {
            let _ = told.send(number);
        }
    }
}
