//! Fills a vacant store in Redis with the records of another, all of them or none.
//!
//! Redis has no transaction as long as a copy, so the store's own entry says that it is
//! unfinished until the last record is there: no gateway opens such a store. The partitions have
//! no mark until then, and another one than before from then on, so that a gateway that is
//! connected all the while claims nothing there.

use std::fmt;

use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::secret::{HashKeys, Secret};
use redis::{Pipeline, Value};

use super::cluster::{Ask, Asked, Cluster};
use super::error::{Failure, Intent, RedisStoreError};
use super::lane::Server;
use super::layout::{HOME, PREFIX, Partition, STORE};
use super::options::RedisOptions;
use super::scripts::{DONE, Program, UNFINISHED};
use super::store::{VERSION, fresh_mark, of_opening};
use crate::shared;
use crate::transfer::TransferError;

/// How connections of this kind are called, so that they are not taken for a gateway's.
const NAME: &str = "hapax-store";

/// Keys of one look into a server.
const SCAN_AT_ONCE: u32 = 1_000;

/// A store that is being filled.
pub struct RedisRestore {
    cluster: Cluster,
    keys: HashKeys,
    secret: Secret,
    mark: String,
    /// By which the store's entry knows this copy.
    filler: String,
}

impl RedisRestore {
    /// Begins to fill the store at `url`.
    ///
    /// # Errors
    /// [`TransferError::NotVacant`] when it has records, or another copy was begun;
    /// [`TransferError::InUse`] when gateways are connected, as far as the servers say who is;
    /// and [`TransferError::Redis`].
    pub async fn create(
        url: &str,
        options: RedisOptions,
        secret: &Secret,
    ) -> Result<Self, TransferError> {
        let options = RedisOptions {
            client_name: NAME,
            ..options
        };
        let (cluster, _) = Cluster::open(url, options).await?;
        match cluster.connected_gateways().await {
            Some(0) | None => {}
            Some(connected) => return Err(TransferError::InUse(connected)),
        }
        let restore = Self {
            cluster,
            keys: HashKeys::derive(secret),
            secret: Secret::from_bytes(*secret.as_bytes()),
            mark: fresh_mark()?,
            filler: fresh_mark()?,
        };
        restore.look_for_records().await?;
        let mark = restore.begin().await?;
        restore.remove_marks().await?;
        // Who was connected and did not say so may have claimed a key until now.
        match restore.look_for_records().await {
            Err(error) if !mark.is_empty() => {
                restore.give_back(&mark).await?;
                Err(error)
            }
            found => found.map(|()| restore),
        }
    }

    pub(crate) async fn put(&mut self, records: &[(RecordKey, Held)]) -> Result<(), TransferError> {
        let mut asks = Vec::new();
        for partition in Partition::all() {
            let mut of_partition = Vec::new();
            for (key, held) in records {
                if Partition::of(key) == partition {
                    of_partition.push((key, held));
                }
            }
            if !of_partition.is_empty() {
                asks.push(self.fill(partition, &of_partition)?);
            }
        }
        let answers = self.cluster.run_all(Intent::Write, &asks).await;
        match answers
            .map_err(failed)?
            .iter()
            .all(|all| all.outcome == DONE)
        {
            true => Ok(()),
            false => Err(not_vacant("somebody else writes to the target")),
        }
    }

    fn fill(
        &self,
        partition: Partition,
        records: &[(&RecordKey, &Held)],
    ) -> Result<Ask, TransferError> {
        let (index, unknown) = (partition.index(), partition.unknown());
        let (mut places, mut parts) = (Vec::new(), Vec::new());
        for (key, held) in records {
            let value = shared::encode(&self.keys, key, &held.record);
            let value = value.map_err(TransferError::Record)?;
            places.push(partition.record(key.as_bytes()));
            parts.push((head(held), value));
        }
        let mut keys = vec![index.as_bytes(), unknown.as_bytes()];
        keys.extend(places.iter().map(Vec::as_slice));
        let mut arguments: Vec<&[u8]> = Vec::new();
        for (head, value) in &parts {
            arguments.extend([head.as_slice(), value]);
        }
        let asked = Asked {
            partition,
            keys: &keys,
            arguments: &arguments,
        };
        Ok(self.cluster.ask(&self.cluster.scripts().fill, &asked))
    }

    pub(crate) async fn finish(self) -> Result<(), TransferError> {
        self.set_marks(&self.mark).await?;
        let words = [
            self.filler.as_bytes(),
            VERSION.as_bytes(),
            self.secret.as_bytes(),
            self.mark.as_bytes(),
        ];
        match self.home(&self.cluster.scripts().end, &words).await? {
            (DONE, _) => Ok(()),
            _ => Err(not_vacant("somebody else has emptied or filled the target")),
        }
    }

    /// Leaves the target vacant. What cannot be removed belongs to a store that is unfinished.
    pub(crate) async fn abandon(self) {
        // The copy has failed for another reason, which is told.
        let _ = self.remove_all().await;
    }

    /// Refuses a target with records in it, or with what a copy has left.
    async fn look_for_records(&self) -> Result<(), TransferError> {
        let of_a_store = |key: &[u8]| {
            key == STORE.as_bytes() || Partition::all().any(|one| one.mark().as_bytes() == key)
        };
        let mut found = false;
        for server in self.cluster.servers() {
            server_keys(&server, &mut |key| found |= !of_a_store(key)).await?;
        }
        match found {
            false => Ok(()),
            true => Err(not_vacant("the target has records")),
        }
    }

    /// Says in the store's entry that it is unfinished. The mark that it had, or nothing.
    async fn begin(&self) -> Result<String, TransferError> {
        let begin = &self.cluster.scripts().begin;
        match self.home(begin, &[self.filler.as_bytes()]).await? {
            (DONE, mark) => Ok(mark),
            (_, version) if version == UNFINISHED => Err(RedisStoreError::Unfinished.into()),
            (_, version) => Err(RedisStoreError::Newer(version).into()),
        }
    }

    /// What was there before it was begun.
    async fn give_back(&self, mark: &str) -> Result<(), TransferError> {
        self.set_marks(mark).await?;
        let back = &self.cluster.scripts().back;
        self.home(back, &[self.filler.as_bytes(), VERSION.as_bytes()])
            .await?;
        Ok(())
    }

    async fn home(
        &self,
        program: &Program,
        arguments: &[&[u8]],
    ) -> Result<(i64, String), TransferError> {
        let asked = Asked {
            partition: HOME,
            keys: &[STORE.as_bytes()],
            arguments,
        };
        let ask = self.cluster.ask(program, &asked);
        let answer = self.cluster.run(Intent::Write, &ask).await;
        let answer = answer.map_err(failed)?;
        let said = answer.bytes(0).map_err(|_| RedisStoreError::Damaged)?;
        Ok((answer.outcome, String::from_utf8_lossy(said).into_owned()))
    }

    async fn set_marks(&self, mark: &str) -> Result<(), TransferError> {
        let asks: Vec<Ask> = Partition::all()
            .map(|partition| {
                let place = partition.mark();
                let asked = Asked {
                    partition,
                    keys: &[place.as_bytes()],
                    arguments: &[mark.as_bytes()],
                };
                self.cluster.ask(&self.cluster.scripts().mark, &asked)
            })
            .collect();
        let answers = self.cluster.run_all(Intent::Write, &asks).await;
        match answers
            .map_err(failed)?
            .iter()
            .all(|all| all.outcome == DONE)
        {
            true => Ok(()),
            false => Err(RedisStoreError::Mixed.into()),
        }
    }

    async fn remove_marks(&self) -> Result<(), TransferError> {
        let is_mark = |key: &[u8]| Partition::all().any(|one| one.mark().as_bytes() == key);
        self.remove(&is_mark).await
    }

    /// Everything of a store; its entry last, which says until then that it is unfinished.
    async fn remove_all(&self) -> Result<(), TransferError> {
        self.remove(&|key| key != STORE.as_bytes()).await?;
        self.remove(&|_| true).await
    }

    async fn remove(
        &self,
        is_wanted: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<(), TransferError> {
        for server in self.cluster.servers() {
            let mut keys = Vec::new();
            server_keys(&server, &mut |key| {
                if is_wanted(key) {
                    keys.push(key.to_vec());
                }
            })
            .await?;
            for some in keys.chunks(SCAN_AT_ONCE as usize) {
                let mut unlink = Pipeline::new();
                for key in some {
                    unlink.cmd("UNLINK").arg(key);
                }
                let (answers, _) = server.exchange(&unlink).await.map_err(failed)?;
                for answer in answers {
                    answer.extract_error().map_err(RedisStoreError::from)?;
                }
            }
        }
        Ok(())
    }
}

/// Shows every key of a store that a server has.
async fn server_keys(
    server: &Server,
    see: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), TransferError> {
    let mut cursor = b"0".to_vec();
    loop {
        let mut scan = Pipeline::new();
        scan.cmd("SCAN")
            .arg(&cursor)
            .arg("MATCH")
            .arg(format!("{PREFIX}*"))
            .arg("COUNT")
            .arg(SCAN_AT_ONCE);
        let (answers, _) = server.exchange(&scan).await.map_err(failed)?;
        let part = answers.into_iter().next().unwrap_or(Value::Nil);
        let part = part.extract_error().map_err(RedisStoreError::from)?;
        let part: (Vec<u8>, Vec<Vec<u8>>) =
            redis::from_redis_value(part).map_err(|_| RedisStoreError::Damaged)?;
        part.1.iter().for_each(|key| see(key));
        cursor = part.0;
        if cursor == b"0" {
            return Ok(());
        }
    }
}

/// A record's head, but for its check, which the script adds.
fn head(held: &Held) -> Vec<u8> {
    let record = &held.record;
    let written_at = held.written_at.as_millis();
    let lifetime = shared::lifetime_ms(record).and_then(|ms| u64::try_from(ms).ok());
    let expires_at = lifetime.map_or(0, |lifetime| written_at.saturating_add(lifetime));
    let mut head = vec![1, u8::try_from(shared::state(record)).unwrap_or(u8::MAX)];
    head.extend_from_slice(record.claim.as_bytes());
    for instant in [held.claimed_at.as_millis(), written_at, expires_at] {
        head.extend_from_slice(&instant.to_be_bytes());
    }
    head
}

fn failed(failure: Failure) -> TransferError {
    of_opening(failure).into()
}

fn not_vacant(what: &str) -> TransferError {
    TransferError::NotVacant(what.to_owned())
}

impl fmt::Debug for RedisRestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisRestore(..)")
    }
}
