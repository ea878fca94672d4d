//! Random operations against a map: the contract as a model, for every store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hapax_core::record::{Held, Record};
use hapax_core::store::{Insert, Store, Write};
use hapax_core::time::{Clock, Timestamp};
use hapax_store::conformance::sample;
use hapax_store::{
    EmbeddedStore, ManualClock, MemoryStore, PostgresOptions, PostgresStore, random_secret,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio_postgres::Client;

use crate::postgres::{execute, migrated};
use crate::support::{START, options};

const KEYS: u64 = 4;

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, Record),
    /// By the present holder or by an old one, with a record of the same or another claim.
    Replace(u64, bool, Record),
    Remove(u64, bool),
    Advance(u64),
    Sweep,
    Reopen,
}

fn record() -> impl Strategy<Value = Record> {
    let kinds = (0..4_u8, 0..1_000_000_u64, 0..5_u64, 0..3_u64);
    kinds.prop_map(|(kind, claim, retention, tombstone)| {
        let mut record = match kind {
            0 => sample::outstanding(claim),
            1 => sample::unknown(claim),
            2 => sample::completed(claim, claim.to_string()),
            _ => {
                let state = hapax_core::record::State::Rejected(sample::response("no"));
                sample::record(claim, state)
            }
        };
        record.retention = Duration::from_millis(retention);
        record.tombstone = Duration::from_millis(tombstone);
        record
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS, record()).prop_map(|(key, record)| Step::Insert(key, record)),
        4 => (0..KEYS, any::<bool>(), record())
            .prop_map(|(key, holder, record)| Step::Replace(key, holder, record)),
        2 => (0..KEYS, any::<bool>()).prop_map(|(key, holder)| Step::Remove(key, holder)),
        2 => (0..8_u64).prop_map(Step::Advance),
        1 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model(BTreeMap<u64, Held>);

impl Model {
    fn live(&self, key: u64, now: Timestamp) -> Option<&Held> {
        self.0.get(&key).filter(|held| !held.is_expired(now))
    }

    fn put(&mut self, key: u64, record: Record, claimed_at: Timestamp, written_at: Timestamp) {
        let held = Held {
            record,
            claimed_at,
            written_at,
        };
        self.0.insert(key, held);
    }
}

/// The clock of the store and of the model.
trait ModelClock {
    fn now(&self) -> Timestamp;
    async fn advance(&self, millis: u64);
}

impl ModelClock for ManualClock {
    fn now(&self) -> Timestamp {
        Clock::now(self)
    }

    async fn advance(&self, millis: u64) {
        Self::advance(self, Duration::from_millis(millis));
    }
}

/// The instant of a server whose clock is a row in a table.
struct TableClock<'a> {
    here: ManualClock,
    there: &'a Client,
}

impl<'a> TableClock<'a> {
    /// In an empty store.
    async fn anew(there: &'a Client) -> Self {
        let anew = format!(
            "TRUNCATE hapax_store_records, test_clock; INSERT INTO test_clock VALUES ({})",
            START.as_millis()
        );
        execute(there, &anew).await;
        Self {
            here: ManualClock::new(START),
            there,
        }
    }
}

impl ModelClock for TableClock<'_> {
    fn now(&self) -> Timestamp {
        Clock::now(&self.here)
    }

    async fn advance(&self, millis: u64) {
        self.here.advance(Duration::from_millis(millis));
        let set = format!("UPDATE test_clock SET ms = {}", self.now().as_millis());
        execute(self.there, &set).await;
    }
}

/// Does one step on both and compares what they say, and what is there afterwards.
async fn check(store: &impl Store, model: &mut Model, clock: &impl ModelClock, step: Step) {
    let now = clock.now();
    let id = |number| sample::key(number);
    match step {
        Step::Insert(key, record) => {
            let insert = store.insert(&id(key), &record).await.expect("it works");
            match model.live(key, now) {
                Some(held) => {
                    let held = Box::new(held.clone());
                    assert_eq!(insert, Insert::Occupied { held, now });
                }
                None => {
                    assert_eq!(insert, Insert::Claimed { now });
                    model.put(key, record, now, now);
                }
            }
        }
        Step::Replace(key, by_holder, record) => {
            let live = model.live(key, now).cloned();
            let holder = live.as_ref().map(|held| held.record.claim);
            let stranger = sample::claim_id(u64::MAX);
            let expected = holder.filter(|_| by_holder).unwrap_or(stranger);
            let write = store.replace(&id(key), expected, &record).await;
            let write = write.expect("it works");
            match live.filter(|held| held.record.claim == expected) {
                None => assert_eq!(write, Write::Stale),
                Some(held) => {
                    assert_eq!(write, Write::Applied { now });
                    let is_same = record.claim == expected;
                    let claimed_at = if is_same { held.claimed_at } else { now };
                    model.put(key, record, claimed_at, now);
                }
            }
        }
        Step::Remove(key, by_holder) => {
            let holder = model.live(key, now).map(|held| held.record.claim);
            let stranger = sample::claim_id(u64::MAX);
            let expected = holder.filter(|_| by_holder).unwrap_or(stranger);
            let write = store.remove(&id(key), expected).await.expect("it works");
            if holder == Some(expected) {
                assert_eq!(write, Write::Applied { now });
                model.0.remove(&key);
            } else {
                assert_eq!(write, Write::Stale);
            }
        }
        Step::Advance(millis) => clock.advance(millis).await,
        Step::Sweep => drop(store.sweep(3).await.expect("it works")),
        Step::Reopen => {}
    }
    let now = clock.now();
    for key in 0..KEYS {
        let (held, seen_at) = store.read(&id(key)).await.expect("it works");
        assert_eq!(held.as_ref(), model.live(key, now));
        assert_eq!(seen_at, now);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64 * u32::try_from(crate::support::campaign()).unwrap_or(u32::MAX),
        ..ProptestConfig::default()
    }
}

#[test]
fn two_gateways_on_a_store_in_postgresql_do_together_what_a_map_does() {
    let runtime = runtime();
    let (server, client) = runtime.block_on(migrated());
    let stores = runtime.block_on(async {
        execute(&client, "CREATE TABLE test_clock (ms BIGINT NOT NULL)").await;
        let options = PostgresOptions {
            clock: "(SELECT ms FROM test_clock)".to_owned(),
            ..PostgresOptions::default()
        };
        let url = server.url();
        let one = PostgresStore::open(&url, options.clone()).await;
        let other = PostgresStore::open(&url, options).await;
        [one.expect("it opens"), other.expect("it opens")]
    });
    let config = ProptestConfig {
        failure_persistence: None,
        ..config()
    };
    let mut runner = TestRunner::new(config);
    let ran = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        runtime.block_on(async {
            let clock = TableClock::anew(&client).await;
            let mut model = Model::default();
            // Each takes over from the other where a gateway of its own would begin anew.
            let mut turn = 0;
            for step in steps {
                turn += usize::from(matches!(step, Step::Reopen));
                check(&stores[turn % 2], &mut model, &clock, step).await;
            }
        });
        Ok(())
    });
    ran.expect("it does what the map does");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_memory_store_does_what_a_map_does(steps in prop::collection::vec(step(), 1..60)) {
        let clock = Arc::new(ManualClock::new(START));
        let secret = random_secret().expect("randomness");
        let store = MemoryStore::new(Arc::clone(&clock) as _, Default::default(), secret);
        let mut model = Model::default();
        runtime().block_on(async {
            for step in steps {
                check(&store, &mut model, &*clock, step).await;
            }
        });
    }

    #[test]
    fn the_embedded_store_does_what_a_map_does_over_restarts(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(ManualClock::new(START));
        let open = || EmbeddedStore::open(directory.path(), options(&clock)).expect("a store");
        let mut store = Some(open());
        let mut model = Model::default();
        runtime().block_on(async {
            for step in steps {
                if matches!(step, Step::Reopen) {
                    store = None;
                    let now = Clock::now(&*clock);
                    for held in model.0.values_mut() {
                        if held.expires_at().is_none() {
                            held.written_at = now;
                            held.record.state = sample::unknown(0).state;
                            if let hapax_core::record::State::Unknown { reason, .. } =
                                &mut held.record.state
                            {
                                *reason = hapax_core::record::UnknownReason::Restarted;
                            }
                        }
                    }
                }
                let store = store.get_or_insert_with(open);
                check(store, &mut model, &*clock, step).await;
            }
        });
    }
}
