//! Accounts on their own, on a clock that the tests move.

use bytes::Bytes;
use hapax_core::fingerprint::Fingerprint;
use hapax_core::record::{ClaimId, Content, Held, MIN_UNKNOWN_RETENTION, State, StoredResponse};
use hapax_core::time::Timestamp;
use http::{HeaderMap, StatusCode};
use tokio::time::advance;

use super::*;

const RETENTION: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(60);
const CLAIMED: Result<Insert, StoreError> = Ok(Insert::Claimed {
    now: Timestamp::from_millis(0),
});
const APPLIED: Result<Write, StoreError> = Ok(Write::Applied {
    now: Timestamp::from_millis(0),
});

fn scope(byte: u8) -> ScopeId {
    ScopeId::from_bytes([byte; 16])
}

fn record(by: u8, state: State) -> Record {
    Record {
        claim: ClaimId::from_bytes([1; 16]),
        scope: scope(by),
        fingerprint: Fingerprint {
            digest: [1; 16],
            outline: [].into(),
        },
        attempt: 1,
        route: "r".into(),
        trace: None,
        asked_by: None,
        retention: RETENTION,
        tombstone: Duration::ZERO,
        state,
    }
}

fn completed(by: u8, content: usize) -> Record {
    let response = StoredResponse {
        status: StatusCode::CREATED,
        headers: HeaderMap::new(),
        content: Content::Stored(Bytes::from(vec![0; content])),
    };
    record(by, State::Completed(response))
}

fn quotas(records: u64, bytes: u64) -> Quotas {
    Quotas::new(&Limits {
        records_per_scope: records,
        bytes_per_scope: bytes,
        ..Limits::default()
    })
}

/// A claim of a vacant key, if there is room.
fn claim(quotas: &Quotas, by: u8) -> Result<Charge, Room> {
    let mut charge = Charge::default();
    match charge.room(quotas, scope(by)) {
        Room::Full { until } => return Err(Room::Full { until }),
        Room::Charged | Room::NotCounted => {}
    }
    charge.inserted(&record(by, State::Outstanding { lease: LEASE }), &CLAIMED);
    Ok(charge)
}

fn complete(quotas: &Quotas, by: u8, content: usize) -> Result<(), Room> {
    let mut charge = claim(quotas, by)?;
    charge.replaced(quotas, &completed(by, content), &APPLIED);
    Ok(())
}

fn accounts(quotas: &Quotas) -> usize {
    quotas
        .0
        .as_ref()
        .map_or(0, |ledger| ledger.accounts().of.len())
}

#[tokio::test(start_paused = true)]
async fn a_scope_has_as_many_records_as_it_may_until_their_time_is_over_and_others_go_on() {
    let quotas = quotas(3, u64::MAX);
    for _ in 0..3 {
        complete(&quotas, 1, 0).expect("room");
    }
    let Err(Room::Full { until }) = complete(&quotas, 1, 0) else {
        panic!("there was room");
    };
    // Never early, and a sixteenth late at most.
    assert!(until >= RETENTION, "{until:?}");
    assert!(
        until <= RETENTION + RETENTION / 16 + Duration::from_secs(3),
        "{until:?}"
    );
    complete(&quotas, 2, 0).expect("another scope");
    advance(RETENTION).await;
    assert!(complete(&quotas, 1, 0).is_err(), "it was let in early");
    advance(until - RETENTION).await;
    complete(&quotas, 1, 0).expect("room again");
}

#[tokio::test(start_paused = true)]
async fn bytes_count_when_they_are_stored() {
    let quotas = quotas(u64::MAX, 10_000);
    complete(&quotas, 1, 9_000).expect("room");
    // One more begins below the limit, and may end above it.
    complete(&quotas, 1, 9_000).expect("room");
    assert!(complete(&quotas, 1, 0).is_err());
    complete(&quotas, 2, 0).expect("another scope");
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_counts_and_what_is_released_or_was_held_does_not() {
    let quotas = quotas(1, u64::MAX);
    let mut first = claim(&quotas, 1).expect("room");
    assert_eq!(
        claim(&quotas, 1).err(),
        Some(Room::Full {
            until: Duration::from_secs(1)
        })
    );
    first.removed(&APPLIED);
    drop(first);
    assert_eq!(accounts(&quotas), 0, "an empty account is kept");
    // A duplicate asks for room, too, and gives it back.
    let mut duplicate = Charge::default();
    assert_eq!(duplicate.room(&quotas, scope(1)), Room::Charged);
    let theirs = Record {
        claim: ClaimId::from_bytes([9; 16]),
        ..completed(1, 0)
    };
    let held = Held {
        record: theirs,
        claimed_at: Timestamp::default(),
        written_at: Timestamp::default(),
    };
    let occupied = Ok(Insert::Occupied {
        held: Box::new(held),
        now: Timestamp::default(),
    });
    duplicate.inserted(&record(1, State::Outstanding { lease: LEASE }), &occupied);
    complete(&quotas, 1, 0).expect("room");
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_holder_ends_counts_as_long_as_an_unknown_outcome_is_kept() {
    let quotas = quotas(1, u64::MAX);
    drop(claim(&quotas, 1).expect("room"));
    advance(MIN_UNKNOWN_RETENTION).await;
    assert!(claim(&quotas, 1).is_err());
    advance(MIN_UNKNOWN_RETENTION / 8).await;
    assert!(claim(&quotas, 1).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_write_of_uncertain_end_counts() {
    let quotas = quotas(1, u64::MAX);
    let mut charge = Charge::default();
    charge.room(&quotas, scope(1));
    let uncertain = Err(StoreError::Uncertain {
        reason: "late",
        source: None,
    });
    charge.inserted(&record(1, State::Outstanding { lease: LEASE }), &uncertain);
    drop(charge);
    assert!(claim(&quotas, 1).is_err());
    let refused = Err(StoreError::Refused {
        reason: "gone",
        source: None,
    });
    let mut charge = Charge::default();
    charge.room(&quotas, scope(2));
    charge.inserted(&record(2, State::Outstanding { lease: LEASE }), &refused);
    assert!(claim(&quotas, 2).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_claimed_anew_is_let_in_and_counts() {
    let quotas = quotas(2, u64::MAX);
    complete(&quotas, 1, 0).expect("room");
    let mut rebind = Charge::default();
    rebind.replaced(&quotas, &completed(1, 0), &APPLIED);
    drop(rebind);
    assert!(complete(&quotas, 1, 0).is_err());
    let mut another = Charge::default();
    another.replaced(&quotas, &completed(1, 0), &APPLIED);
}

#[tokio::test(start_paused = true)]
async fn an_account_is_small_however_many_records_it_has() {
    let quotas = quotas(u64::MAX - 1, u64::MAX);
    for _ in 0..10_000 {
        complete(&quotas, 1, 0).expect("room");
        advance(Duration::from_secs(1)).await;
    }
    let ledger = quotas.0.as_ref().expect("it counts");
    let accounts = ledger.accounts();
    let account = accounts.of.get(&scope(1)).expect("it has records");
    let steps = account.leaving.len() as u64;
    assert!(steps <= STEPS + 2, "{steps}");
    assert!(account.sum.records >= 3_600);
    assert!(
        account.sum.records <= 3_600 + 3_600 / STEPS + 3,
        "{:?}",
        account.sum
    );
}

#[tokio::test(start_paused = true)]
async fn beyond_the_most_scopes_nobody_is_refused_and_memory_is_bounded() {
    let limits = Limits {
        records_per_scope: 1,
        ..Limits::default()
    };
    let quotas = Quotas::counting(&limits, 2);
    complete(&quotas, 1, 0).expect("room");
    complete(&quotas, 2, 0).expect("room");
    let mut third = Charge::default();
    assert_eq!(third.room(&quotas, scope(3)), Room::NotCounted);
    assert!(
        complete(&quotas, 1, 0).is_err(),
        "a counted scope stays counted"
    );
    assert_eq!(accounts(&quotas), 2);
    advance(RETENTION * 2).await;
    assert_eq!(third.room(&quotas, scope(3)), Room::Charged);
    assert_eq!(accounts(&quotas), 1, "what has run out is forgotten");
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let quotas = Quotas::new(&Limits::default());
    for _ in 0..3 {
        assert!(complete(&quotas, 1, 0).is_ok());
    }
    assert_eq!(accounts(&quotas), 0);
}
