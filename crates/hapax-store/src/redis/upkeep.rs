//! What goes through all partitions: the sweep, pages for operators, figures.

use hapax_core::key::RecordKey;
use hapax_core::record::StateKind;
use hapax_core::store::{Cursor, Filter, Page, Stats, StoreError, Swept};
use hapax_core::time::Timestamp;

use super::cluster::{Ask, Asked};
use super::error::Intent;
use super::layout::{Partition, key_of};
use super::scripts::{DAMAGED, HELD, Program};
use super::store::RedisStore;
use super::value::{Answer, strange, timestamp};

/// Records that one page reads before it ends short: as many as it may have, within this.
const LIST_SCAN: std::ops::RangeInclusive<usize> = 32..=256;

/// Records that one script of a sweep removes: few, so that nobody waits for it.
const SWEEP_AT_ONCE: usize = 100;

/// Which records of a partition a page is made of.
#[derive(Debug, Clone, Copy)]
enum Kinds {
    Outstanding,
    Unknown,
    All,
}

impl Kinds {
    fn of(filter: &Filter) -> Self {
        match filter.state {
            Some(StateKind::Outstanding) => Self::Outstanding,
            Some(StateKind::Unknown) => Self::Unknown,
            _ => Self::All,
        }
    }

    fn word(self) -> &'static [u8] {
        match self {
            Self::Outstanding => b"outstanding",
            Self::Unknown => b"unknown",
            Self::All => b"all",
        }
    }
}

impl RedisStore {
    /// A call about the indexes of a partition.
    fn about(&self, program: &Program, partition: Partition, arguments: &[&[u8]]) -> Ask {
        let (index, unknown) = (partition.index(), partition.unknown());
        let asked = Asked {
            partition,
            keys: &[index.as_bytes(), unknown.as_bytes()],
            arguments,
        };
        self.cluster.ask(program, &asked)
    }

    async fn all(&self, intent: Intent, asks: &[Ask]) -> Result<Vec<Answer>, StoreError> {
        let answers = self.cluster.run_all(intent, asks).await;
        answers.map_err(|failure| self.noted(failure.into_store_error(intent)))
    }

    /// Removes up to `limit` expired records.
    pub(super) async fn sweep_all(&self, limit: usize) -> Result<Swept, StoreError> {
        let scripts = self.cluster.scripts();
        let at_once = limit.min(SWEEP_AT_ONCE).to_string();
        let asks: Vec<Ask> = Partition::all()
            .map(|partition| self.about(&scripts.due, partition, &[at_once.as_bytes()]))
            .collect();
        let mut drops = Vec::new();
        let (mut records, mut left, mut more_due) = (0_u64, limit, false);
        for (partition, answer) in Partition::all().zip(self.all(Intent::Read, &asks).await?) {
            records = records.saturating_add(answer.number(0)?);
            let mut due = answer.members(1)?;
            more_due |= due.len() > left || due.len() >= SWEEP_AT_ONCE;
            due.truncate(left);
            left -= due.len();
            if !due.is_empty() {
                drops.push(self.drop_due(partition, &due));
            }
        }
        let mut removed = 0_usize;
        for answer in self.all(Intent::Write, &drops).await? {
            removed += usize::try_from(answer.number(0)?).unwrap_or(0);
        }
        self.note_fullness(records).await?;
        Ok(Swept { removed, more_due })
    }

    fn drop_due(&self, partition: Partition, due: &[Vec<u8>]) -> Ask {
        let index = partition.index();
        let unknown = partition.unknown();
        let records: Vec<Vec<u8>> = due.iter().map(|member| partition.record(member)).collect();
        let mut keys = vec![index.as_bytes(), unknown.as_bytes()];
        keys.extend(records.iter().map(Vec::as_slice));
        let asked = Asked {
            partition,
            keys: &keys,
            arguments: &[],
        };
        self.cluster.ask(&self.cluster.scripts().drop, &asked)
    }

    /// A page of records behind `after`.
    pub(super) async fn page(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let at_most = limit.clamp(*LIST_SCAN.start(), *LIST_SCAN.end());
        let (keys, is_last) = self.keys_behind(Kinds::of(filter), after, at_most).await?;
        let read = &self.cluster.scripts().read;
        let asks: Vec<Ask> = keys
            .iter()
            .map(|key| {
                let partition = Partition::of(key);
                let record = partition.record(key.as_bytes());
                let asked = Asked {
                    partition,
                    keys: &[&record],
                    arguments: &[],
                };
                self.cluster.ask(read, &asked)
            })
            .collect();
        let answers = self.all(Intent::Read, &asks).await?;
        let mut page = Page::default();
        for (key, answer) in keys.iter().zip(answers) {
            if page.records.len() >= limit {
                return Ok(page);
            }
            page.next = Some(Cursor(*key));
            let now = answer.now;
            // Damage is for whoever asks for that very record; here it would hide the others.
            let held = match answer.outcome {
                HELD => answer.held(&self.keys, key),
                DAMAGED => Err(StoreError::Damaged {
                    what: "its head does not match its check",
                }),
                _ => continue,
            };
            match held.map_err(|error| self.noted(error)) {
                Err(StoreError::Damaged { .. }) => {}
                held => {
                    let held = held?;
                    if filter.matches(&held, now) {
                        page.records.push((*key, held));
                    }
                }
            }
        }
        if is_last {
            page.next = None;
        }
        Ok(page)
    }

    /// Up to `at_most` record keys behind `after` in their order, and whether these are all.
    async fn keys_behind(
        &self,
        kinds: Kinds,
        after: Option<Cursor>,
        at_most: usize,
    ) -> Result<(Vec<RecordKey>, bool), StoreError> {
        let from = after.map_or(Partition(0), |Cursor(key)| Partition::of(&key));
        let counted: Vec<Partition> = Partition::all().filter(|one| *one >= from).collect();
        let figures = &self.cluster.scripts().figures;
        let asks: Vec<Ask> = counted
            .iter()
            .map(|partition| self.about(figures, *partition, &[]))
            .collect();
        let mut keys = Vec::new();
        let answers = self.all(Intent::Read, &asks).await?;
        for (partition, answer) in counted.into_iter().zip(answers) {
            let count = answer.number(match kinds {
                Kinds::All => 0,
                Kinds::Outstanding => 1,
                Kinds::Unknown => 2,
            })?;
            if count == 0 {
                continue;
            }
            if keys.len() >= at_most {
                return Ok((keys, false));
            }
            let mut of_partition = self.keys_of(partition, kinds).await?;
            of_partition.retain(|key| after.is_none_or(|Cursor(after)| *key > after));
            of_partition.sort_unstable();
            // An index that is read in parts may name a key twice.
            of_partition.dedup();
            let room = at_most - keys.len();
            let is_cut = of_partition.len() > room;
            keys.extend(of_partition.into_iter().take(room));
            if is_cut {
                return Ok((keys, false));
            }
        }
        Ok((keys, true))
    }

    /// The record keys of a partition, read in parts that keep nobody waiting.
    async fn keys_of(
        &self,
        partition: Partition,
        kinds: Kinds,
    ) -> Result<Vec<RecordKey>, StoreError> {
        let mut keys = Vec::new();
        let mut cursor = b"0".to_vec();
        loop {
            let members = &self.cluster.scripts().members;
            let ask = self.about(members, partition, &[kinds.word(), &cursor]);
            let answer = self.cluster.run(Intent::Read, &ask).await;
            let answer = answer.map_err(|failure| failure.into_store_error(Intent::Read))?;
            let members = answer.members(1)?;
            keys.extend(members.iter().filter_map(|member| key_of(member)));
            cursor = answer.bytes(0)?.to_vec();
            if cursor == b"0" {
                return Ok(keys);
            }
        }
    }

    /// Figures of all partitions together. Unknown records that have expired count until the
    /// next sweep.
    pub(super) async fn figures(&self) -> Result<Stats, StoreError> {
        let figures = &self.cluster.scripts().figures;
        let asks: Vec<Ask> = Partition::all()
            .map(|partition| self.about(figures, partition, &[]))
            .collect();
        let mut stats = Stats {
            damaged: self.damaged(),
            ..Stats::default()
        };
        for answer in self.all(Intent::Read, &asks).await? {
            stats.records = stats.records.saturating_add(answer.number(0)?);
            stats.outstanding = stats.outstanding.saturating_add(answer.number(1)?);
            stats.unknown = stats.unknown.saturating_add(answer.number(2)?);
            stats.now = stats.now.max(answer.now);
            if let Some(oldest) = oldest(answer.bytes(3)?)? {
                let before = stats.oldest_unknown.unwrap_or(oldest);
                stats.oldest_unknown = Some(before.min(oldest));
            }
        }
        let used = self.cluster.used_memory().await;
        stats.bytes = used.map_err(|failure| failure.into_store_error(Intent::Read))?;
        Ok(stats)
    }
}

/// A score of the index of unknown records, which is an instant.
fn oldest(score: &[u8]) -> Result<Option<Timestamp>, StoreError> {
    if score.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(score).map_err(|_| strange())?;
    let ms: i64 = text.parse().map_err(|_| strange())?;
    Ok(Some(timestamp(ms)))
}
