//! The audit log: who did what to which record, and why. Appended, synced, never rewritten.
//!
//! Every action is written twice: as `requested` before it is tried and as `done` or `refused`
//! afterwards. A log that cannot be written refuses the action; one that failed to sync refuses
//! all until a restart, because nobody knows any more what is on the disk.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use hapax_core::time::Clock;

use crate::admin::tokens::Caller;

/// How many entries are held where there is no file.
const HELD_IN_MEMORY: usize = 10_000;
/// How much of the file one page reads at most.
const PAGE_BYTES: u64 = 1024 * 1024;

/// How far an action has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It is about to be tried.
    Requested,
    /// It was done.
    Done,
    /// It was not done.
    Refused,
    /// The store did not say whether it was done: look at the record.
    Uncertain,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Entry {
    /// When, by the clock of the gateway: RFC 3339, UTC.
    pub(crate) at: String,
    /// How far the action has come.
    pub(crate) phase: Phase,
    /// The same for all entries of one action.
    pub(crate) action_id: String,
    /// Whose token it was; `local` where none is needed.
    pub(crate) who: String,
    /// The caller's role.
    pub(crate) role: String,
    /// `resolve`, `release`, `expire`, `show_content` or `reload`.
    pub(crate) action: String,
    /// The record it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) record: Option<String>,
    /// The record's version that the action was for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) version: Option<String>,
    /// What the record was to become, or became.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) leads_to: Option<String>,
    /// Why, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) because: Option<String>,
}

impl Entry {
    /// An entry of a new action; it gets its instant when it is written.
    pub(crate) fn new(phase: Phase, caller: &Caller, action: &str) -> Self {
        let mut id = [0; 8];
        // Only ties lines together: without randomness the record and instant still do.
        let _ = getrandom::fill(&mut id);
        Self {
            at: String::new(),
            phase,
            action_id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            who: caller.name.to_string(),
            role: caller.role.as_str().to_owned(),
            action: action.to_owned(),
            record: None,
            version: None,
            leads_to: None,
            reason: None,
            because: None,
        }
    }
}

/// Why an entry could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// The file cannot be opened, read or written.
    #[error("the audit log {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A sync failed earlier.
    #[error("the audit log failed to sync earlier ({0}); restart to try again")]
    Failed(String),
    /// The task that was to write it is gone.
    #[error("the audit log's writer ended")]
    Ended,
}

/// A page of entries, newest first.
#[derive(Debug, Default)]
pub(crate) struct AuditPage {
    pub(crate) entries: Vec<Entry>,
    /// Where the page before this in time ends; `None` at the log's beginning.
    pub(crate) next: Option<u64>,
    /// Lines of this page that are not entries: torn by a crash, or changed.
    pub(crate) damaged: u64,
}

/// The log.
pub(crate) struct AuditLog {
    clock: Arc<dyn Clock>,
    log: Arc<Mutex<Log>>,
    path: Option<PathBuf>,
}

enum Log {
    Memory {
        lines: VecDeque<String>,
        /// Entries that fell out.
        dropped: u64,
    },
    File {
        file: File,
        path: PathBuf,
        failed: Option<String>,
    },
}

impl AuditLog {
    /// A log that is gone when the process ends, as the records of a memory store are.
    pub(crate) fn in_memory(clock: Arc<dyn Clock>) -> Self {
        let log = Log::Memory {
            lines: VecDeque::new(),
            dropped: 0,
        };
        Self {
            clock,
            log: Arc::new(Mutex::new(log)),
            path: None,
        }
    }

    /// Opens a file, or makes it: for its owner only.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        let file = open(path).map_err(|source| AuditError::Io {
            path: path.to_owned(),
            source,
        })?;
        let log = Log::File {
            file,
            path: path.to_owned(),
            failed: None,
        };
        Ok(Self {
            clock,
            log: Arc::new(Mutex::new(log)),
            path: Some(path.to_owned()),
        })
    }

    /// The file; `None` for a log in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Writes entries, all of them or none; durable on return.
    pub(crate) async fn append(&self, mut entries: Vec<Entry>) -> Result<(), AuditError> {
        let now = self.clock.now();
        for entry in &mut entries {
            entry.at = crate::admin::instant(now);
        }
        let log = Arc::clone(&self.log);
        let written = tokio::task::spawn_blocking(move || {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(&entries)
        });
        written.await.map_err(|_| AuditError::Ended)?
    }

    /// Up to `most` entries that end before `before` (the log's end when `None`), newest first.
    pub(crate) async fn read(
        &self,
        before: Option<u64>,
        most: usize,
    ) -> Result<AuditPage, AuditError> {
        let log = Arc::clone(&self.log);
        let read = tokio::task::spawn_blocking(move || {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(before, most)
        });
        read.await.map_err(|_| AuditError::Ended)?
    }
}

fn open(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path)?;
    if is_new {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    // A line that a crash tore is ended, so that the next one is whole.
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            file.sync_data()?;
        }
    }
    Ok(file)
}

fn line_of(entry: &Entry) -> String {
    // An entry has texts and names only: it always has a JSON form.
    serde_json::to_string(entry).unwrap_or_default()
}

impl Log {
    fn append(&mut self, entries: &[Entry]) -> Result<(), AuditError> {
        match self {
            Self::Memory { lines, dropped } => {
                for entry in entries {
                    if lines.len() >= HELD_IN_MEMORY {
                        lines.pop_front();
                        *dropped += 1;
                    }
                    lines.push_back(line_of(entry));
                }
                Ok(())
            }
            Self::File {
                failed: Some(why), ..
            } => Err(AuditError::Failed(why.clone())),
            Self::File { file, path, failed } => {
                let text: String = entries.iter().map(|entry| line_of(entry) + "\n").collect();
                append(file, text.as_bytes(), failed).map_err(|source| AuditError::Io {
                    path: path.clone(),
                    source,
                })
            }
        }
    }

    fn read(&mut self, before: Option<u64>, most: usize) -> Result<AuditPage, AuditError> {
        match self {
            Self::Memory { lines, dropped } => {
                let end = dropped.saturating_add(lines.len() as u64);
                let end = before.unwrap_or(end).min(end);
                let count = usize::try_from(end.saturating_sub(*dropped)).unwrap_or(usize::MAX);
                let mut page = AuditPage::default();
                let newest_first = lines.iter().take(count).rev().take(most);
                newest_first.for_each(|line| page.push(line.as_bytes()));
                let read = page.entries.len() as u64 + page.damaged;
                page.next = Some(end.saturating_sub(read)).filter(|next| next > dropped);
                Ok(page)
            }
            Self::File { file, path, .. } => {
                read(file, before, most).map_err(|source| AuditError::Io {
                    path: path.clone(),
                    source,
                })
            }
        }
    }
}

/// Appends and syncs. What was written of a failed append is taken back; where that fails, or
/// the sync, the log is marked as failed.
fn append(file: &mut File, bytes: &[u8], failed: &mut Option<String>) -> io::Result<()> {
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(bytes) {
        if file.set_len(before).is_err() {
            *failed = Some(error.to_string());
        }
        return Err(error);
    }
    file.sync_data()
        .inspect_err(|error| *failed = Some(error.to_string()))
}

/// Reads backwards from `before`.
fn read(file: &mut File, before: Option<u64>, most: usize) -> io::Result<AuditPage> {
    let len = file.metadata()?.len();
    let end = before.unwrap_or(len).min(len);
    let start = end.saturating_sub(PAGE_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    let mut page = AuditPage::default();
    let mut at = end;
    let mut lines = bytes
        .strip_suffix(b"\n")
        .unwrap_or(&bytes)
        .rsplit(|byte| *byte == b'\n');
    let lines: Vec<&[u8]> = lines.by_ref().collect();
    // The first line of a piece that does not begin the file may be the end of a longer one.
    let whole = lines.len().saturating_sub(usize::from(start > 0));
    for line in lines.iter().take(whole) {
        if page.entries.len() >= most {
            break;
        }
        at = at.saturating_sub(line.len() as u64 + 1);
        if !line.is_empty() {
            page.push(line);
        }
    }
    page.next = Some(at).filter(|at| *at > 0 && *at < end);
    Ok(page)
}

impl AuditPage {
    fn push(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(entry) => self.entries.push(entry),
            Err(_) => self.damaged += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use hapax_core::time::Timestamp;
    use hapax_store::ManualClock;

    use super::*;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(ManualClock::new(Timestamp::from_millis(5)))
    }

    fn entry(number: usize) -> Entry {
        let caller = Caller {
            name: "ann".into(),
            role: crate::admin::tokens::Role::Operator,
        };
        Entry {
            reason: Some(format!("reason {number}")),
            ..Entry::new(Phase::Done, &caller, "resolve")
        }
    }

    async fn fill(log: &AuditLog, count: usize) {
        for number in 0..count {
            log.append(vec![entry(number)]).await.expect("room");
        }
    }

    /// All reasons, read in pages of `most`.
    async fn reasons(log: &AuditLog, most: usize) -> Vec<String> {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = log.read(before, most).await.expect("a page");
            assert!(page.entries.len() <= most);
            found.extend(page.entries.into_iter().filter_map(|entry| entry.reason));
            if page.next.is_none() {
                return found;
            }
            before = page.next;
        }
    }

    #[tokio::test]
    async fn entries_are_read_newest_first_page_by_page_from_a_file_and_from_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = AuditLog::open(&folder.path().join("a.log"), clock()).expect("it opens");
        for log in [file, AuditLog::in_memory(clock())] {
            assert!(reasons(&log, 3).await.is_empty());
            fill(&log, 10).await;
            let expected: Vec<_> = (0..10).rev().map(|n| format!("reason {n}")).collect();
            for most in [1, 3, 10, 100] {
                assert_eq!(reasons(&log, most).await, expected, "{most}");
            }
        }
    }

    #[tokio::test]
    async fn a_torn_line_is_counted_and_costs_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        fill(&AuditLog::open(&path, clock()).expect("it opens"), 2).await;
        let mut text = std::fs::read(&path).expect("it is there");
        text.extend_from_slice(b"{\"at\":\"19");
        std::fs::write(&path, text).expect("room");
        let log = AuditLog::open(&path, clock()).expect("it opens");
        fill(&log, 1).await;
        let page = log.read(None, 10).await.expect("a page");
        assert_eq!((page.entries.len(), page.damaged), (3, 1));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_says_so() {
        let log = AuditLog::open(Path::new("/dev/full"), clock()).expect("it opens");
        for _ in 0..2 {
            log.append(vec![entry(1)]).await.expect_err("it is full");
        }
    }

    #[tokio::test]
    async fn memory_is_bounded_and_forgets_the_oldest() {
        let log = AuditLog::in_memory(clock());
        log.append((0..HELD_IN_MEMORY + 5).map(entry).collect())
            .await
            .expect("room");
        let all = reasons(&log, 500).await;
        assert_eq!(all.len(), HELD_IN_MEMORY);
        assert_eq!(all.last().map(String::as_str), Some("reason 5"));
    }
}
