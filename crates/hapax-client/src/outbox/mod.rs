//! An outbox in files: key, bytes and target of an intent are on the disk before the first byte is sent.
//!
//! [`Outbox::open`] gives an [`Unresolved`] outbox, and only [`Unresolved::resolve`] gives one that takes new work: what a
//! crash left behind is sent again first, with its own keys. A process that dies at any point loses no intent and makes
//! none twice, as long as the server honours the keys and keeps them for `ttl`.
//!
//! A file an entry, not a database: an outbox holds what is under way and what could not be settled, tens of entries; a folder that
//! an operator can read serves that better than an engine with its threads and compactions.

mod entry;
mod folder;
mod send;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};

use crate::error::{BoxError, OutcomeUnknown};
use crate::policy::Why;
use crate::timing::{Timing, random_key};
use entry::Entry;
use folder::Folder;

pub use send::{Sender, Sent};

/// How long a key is good by default: hapax's default retention.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What goes wrong with an outbox itself.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The folder or a file cannot be read or written. Nothing was sent on its account.
    #[error("the outbox cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// Another process has it open.
    #[error("the outbox is open in another process")]
    InUse,
    /// A file is damaged, or of another version. It is never taken for an absent one.
    #[error("the outbox's file {0} is damaged")]
    Damaged(String),
    /// A field of the request cannot be kept as text.
    #[error("the field {0} cannot be kept: it is no text")]
    NotStorable(http::HeaderName),
    /// The intent is pending with other bytes, and may have run: resume or forget it first.
    #[error("the intent is pending with another request: resume or forget it first")]
    Pending,
    /// The intent is being sent at this moment.
    #[error("the intent is being sent at this moment")]
    UnderWay,
    /// The system has no randomness for a key.
    #[error("there is no randomness for a key: {0}")]
    NoKey(#[from] getrandom::Error),
}

/// How an intent's send ends without a final answer.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// It may have run. The intent stays in the outbox: [`Outbox::resume`] sends it again.
    #[error(transparent)]
    Unknown(Box<OutcomeUnknown<Request<Bytes>>>),
    /// Nothing ran, and there is an answer that says so (401, 429 and the like). The intent stays, and may be changed.
    #[error("nothing ran: the answer was {}", .0.status())]
    Refused(Box<Response<Bytes>>),
    /// Nothing ran. The intent stays, and may be changed.
    #[error("nothing ran: {0}")]
    NothingRan(#[source] BoxError),
    /// It ran, and the [`Recorder`] could not keep the answer. The intent stays; sent again, it gets the same answer.
    #[error("the answer could not be recorded: {source}")]
    NotRecorded {
        /// The final answer.
        answer: Box<Response<Bytes>>,
        /// What the recorder said.
        source: BoxError,
    },
    /// The outbox failed.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Keeps final answers **before** their keys are forgotten: a process that dies in between is told the same answer again at its
/// next start, instead of not knowing that its order was placed.
pub trait Recorder: Send + Sync {
    /// Keeps the answer to the intent of this name; may be called again with the same. Runs on a thread that may wait for a disk.
    ///
    /// # Errors
    /// It could not be kept: the intent stays.
    fn record(&self, name: &str, answer: &Response<Bytes>) -> Result<(), BoxError>;
}

/// What became of an entry that was resolved.
#[derive(Debug)]
pub struct Resolved {
    /// The intent's name.
    pub name: String,
    /// A final answer: the entry is gone. Or why it stays.
    pub outcome: Result<Response<Bytes>, IntentError>,
}

/// An outbox that may hold entries of an earlier process. Takes no new work yet.
#[derive(Debug)]
pub struct Unresolved {
    outbox: Outbox,
}

impl Unresolved {
    /// Names of what is pending, oldest first.
    pub fn pending(&self) -> Vec<String> {
        self.outbox.pending()
    }

    /// How long a key is good: not longer than the server keeps its records; 24 h by default.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.outbox.ttl = ttl;
        self
    }

    /// Who keeps final answers before their keys are forgotten.
    #[must_use]
    pub fn with_recorder(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.outbox.recorder = Some(recorder);
        self
    }

    /// Where clock and dice come from.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.outbox.timing = timing;
        self
    }

    /// Sends what is pending again, oldest first, each with its own key. What is not settled stays and is told of.
    pub async fn resolve<S: Sender>(self, sender: &S) -> (Outbox, Vec<Resolved>) {
        let mut resolved = Vec::new();
        for name in self.pending() {
            let outcome = match self.outbox.resume(&name, sender).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            resolved.push(Resolved { name, outcome });
        }
        (self.outbox, resolved)
    }
}

/// Intents that are kept until they are settled. One process at a time has a folder open.
pub struct Outbox {
    folder: Arc<Folder>,
    recorder: Option<Arc<dyn Recorder>>,
    ttl: Duration,
    timing: Timing,
    under_way: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("folder", &self.folder)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Opens a folder, which is made if it is missing, with access for its owner only: bodies are kept as they are.
    ///
    /// # Errors
    /// It cannot be read or written, is open elsewhere, or holds a damaged file.
    pub fn open(folder: &Path) -> Result<Unresolved, OutboxError> {
        let folder = Folder::open(folder)?;
        Ok(Unresolved {
            outbox: Self {
                folder: Arc::new(folder),
                recorder: None,
                ttl: TTL,
                timing: Timing::default(),
                under_way: Mutex::default(),
            },
        })
    }

    /// Names of what is pending, oldest first.
    pub fn pending(&self) -> Vec<String> {
        self.folder.names()
    }

    /// Sends an intent once. `name` says what it is, such as `purchase:cart-42`. Pending under that name with the same method,
    /// target, content type and content: resumed with its key. The entry is gone after a final answer.
    ///
    /// Credentials (`Authorization`, `Proxy-Authorization`, `Cookie`) are not kept: let the client add them.
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn send<S: Sender>(
        &self,
        name: &str,
        request: Request<Bytes>,
        sender: &S,
    ) -> Result<Response<Bytes>, IntentError> {
        let turn = self.turn(name)?;
        let entry = self.begin(name, &request).await?;
        let answer = self.run(entry, sender).await;
        drop(turn);
        answer
    }

    /// Keeps an intent without sending it. Returns its key. It is on the disk when this returns.
    ///
    /// # Errors
    /// It is pending with other bytes or under way, or cannot be kept.
    pub async fn put(&self, name: &str, request: &Request<Bytes>) -> Result<String, OutboxError> {
        let turn = self.turn(name)?;
        let entry = self.begin(name, request).await?;
        drop(turn);
        Ok(entry.key)
    }

    /// Sends what is pending under the name again, with its key and its bytes. None if nothing is.
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn resume<S: Sender>(
        &self,
        name: &str,
        sender: &S,
    ) -> Result<Option<Response<Bytes>>, IntentError> {
        let turn = self.turn(name)?;
        let answer = match self.folder.entry(name) {
            Some(entry) => self.run(entry, sender).await.map(Some),
            None => Ok(None),
        };
        drop(turn);
        answer
    }

    /// Drops an intent. The next send under its name is a new operation, and this one may have run: only the caller may
    /// decide that.
    ///
    /// # Errors
    /// It is under way, or cannot be removed.
    pub async fn forget(&self, name: &str) -> Result<(), OutboxError> {
        let turn = self.turn(name)?;
        let name = name.to_owned();
        self.on_disk(move |folder| folder.remove(&name)).await?;
        drop(turn);
        Ok(())
    }

    /// What is to be sent: what is pending, or a new entry, which is on the disk.
    async fn begin(&self, name: &str, request: &Request<Bytes>) -> Result<Entry, OutboxError> {
        let wanted = Entry::new(name, request, self.now_ms())?;
        if let Some(held) = self.folder.entry(name) {
            let is_free = !held.may_have_run && self.is_old(&held);
            if held.is_same(&wanted) && !is_free {
                return Ok(held);
            }
            if held.may_have_run {
                return Err(OutboxError::Pending);
            }
        }
        let entry = Entry {
            key: random_key()?,
            may_have_run: true,
            ..wanted
        };
        let kept = entry.clone();
        self.on_disk(move |folder| folder.write(kept)).await?;
        Ok(entry)
    }

    async fn run<S: Sender>(
        &self,
        entry: Entry,
        sender: &S,
    ) -> Result<Response<Bytes>, IntentError> {
        let request = entry.request()?;
        if self.is_old(&entry) {
            // The server may have forgotten the key: to send it now could run it a second time.
            return Err(IntentError::Unknown(Box::new(OutcomeUnknown {
                why: Why::Expired,
                attempts: 0,
                request,
                answer: None,
                source: None,
            })));
        }
        if !entry.may_have_run {
            self.note(&entry, true).await?;
        }
        match sender.send(request).await {
            Sent::Final(answer) => {
                self.record(&entry.name, &answer).await?;
                let name = entry.name.clone();
                // An entry that cannot be removed is sent again at the next start, and gets the same answer.
                self.on_disk(move |folder| folder.remove(&name)).await?;
                Ok(answer)
            }
            Sent::Unknown(unknown) => Err(IntentError::Unknown(unknown)),
            Sent::Refused(answer) => {
                self.note(&entry, false).await?;
                Err(IntentError::Refused(Box::new(answer)))
            }
            Sent::NothingRan(error) => {
                self.note(&entry, false).await?;
                Err(IntentError::NothingRan(error))
            }
        }
    }

    async fn record(&self, name: &str, answer: &Response<Bytes>) -> Result<(), IntentError> {
        let Some(recorder) = self.recorder.clone() else {
            return Ok(());
        };
        let (owned, copy) = (name.to_owned(), answer.clone());
        self.on_disk(move |_| Ok(recorder.record(&owned, &copy)))
            .await?
            .map_err(|source| IntentError::NotRecorded {
                answer: Box::new(answer.clone()),
                source,
            })
    }

    async fn note(&self, entry: &Entry, may_have_run: bool) -> Result<(), OutboxError> {
        let entry = Entry {
            may_have_run,
            ..entry.clone()
        };
        self.on_disk(move |folder| folder.write(entry)).await
    }

    /// Runs on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || work(&folder))
            .await
            .map_err(|error| OutboxError::Io(std::io::Error::other(error)))?
    }

    fn is_old(&self, entry: &Entry) -> bool {
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        self.now_ms() > entry.born_ms.saturating_add(ttl_ms)
    }

    fn now_ms(&self) -> u64 {
        let since = (self.timing.now)()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// One send at a time under a name. The turn ends when the guard is dropped, also with a caller that goes away.
    fn turn(&self, name: &str) -> Result<Turn<'_>, OutboxError> {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !under_way.insert(name.to_owned()) {
            return Err(OutboxError::UnderWay);
        }
        Ok(Turn {
            outbox: self,
            name: name.to_owned(),
        })
    }
}

struct Turn<'a> {
    outbox: &'a Outbox,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut under_way = self
            .outbox
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.name);
    }
}
