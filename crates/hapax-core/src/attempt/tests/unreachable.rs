//! A store that refuses, is damaged or full, or does not say whether it wrote.

use super::*;

/// Every error of a store. Only the last leaves open whether the write happened.
fn errors() -> [StoreError; 4] {
    [refused(), FULL, DAMAGED, uncertain()]
}

fn rejected() -> Held {
    let mut held = theirs(State::Rejected(response(422)));
    held.record.fingerprint = fingerprint(2);
    held
}

#[test]
fn a_claim_that_failed_for_certain_executes_nothing_and_writes_nothing() {
    for error in [refused(), FULL, DAMAGED] {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(error)), UNAVAILABLE)
            .told(&[])
            .ends();
    }
}

#[test]
fn a_claim_whose_reply_was_lost_is_used_when_it_is_there() {
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(Input::Inserted(Err(uncertain())), "read")
        .gives(
            found(held(OURS, outstanding(), Duration::ZERO)),
            "execute #1 every 20s",
        )
        .told(&["claimed #1"]);
}

#[test]
fn a_claim_whose_reply_was_lost_gives_way_to_the_record_that_is_there() {
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(Input::Inserted(Err(uncertain())), "read")
        .gives(
            found(theirs(State::Completed(response(201)))),
            "reply stored 201 replayed replayed",
        )
        // The record may go and the write still arrive: nobody would hold the key then.
        .gives(Input::Replied, "remove a")
        .gives(stale(), "done");
}

#[test]
fn a_claim_that_may_yet_arrive_is_used_by_a_duplicate_that_waits_and_taken_back_by_one_that_does_not()
 {
    let waiting = || {
        let mut life = life(|policy| policy.wait = Duration::from_secs(5));
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(uncertain())), "read")
            .gives(found(theirs(outstanding())), "wait 5s");
        life
    };
    waiting()
        .gives(Input::Waited, "insert a outstanding #1")
        .gives(
            occupied(held(OURS, outstanding(), Duration::ZERO)),
            "execute #1 every 20s",
        );
    for give_up in [Input::WaitRefused, Input::Waited] {
        let mut life = waiting();
        life.after(Duration::from_secs(5));
        if matches!(give_up, Input::Waited) {
            life.gives(give_up, "insert a outstanding #1")
                .gives(occupied(theirs(outstanding())), CONFLICT);
        } else {
            life.gives(give_up, CONFLICT);
        }
        life.gives(Input::Replied, "remove a");
    }
}

#[test]
fn a_claim_that_cannot_be_found_is_answered_and_then_taken_back() {
    let checks = errors().map(|error| Input::Found(Err(error)));
    for check in checks.into_iter().chain([found(None)]) {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(uncertain())), "read")
            .gives(check, UNAVAILABLE)
            .gives(Input::Replied, "remove a")
            .gives(applied(), "done");
    }
}

#[test]
fn taking_a_claim_back_is_tried_with_growing_pauses_until_the_lease_is_over() {
    let mut life = life(|_| {});
    life.gives(Input::Begin, "insert a outstanding #1")
        .gives(Input::Inserted(Err(uncertain())), "read")
        .gives(found(None), UNAVAILABLE)
        .gives(Input::Replied, "remove a");
    for (error, pause) in errors().into_iter().zip([20, 40, 80, 160]) {
        life.gives(Input::Written(Err(error)), &format!("pause {pause}ms"))
            .gives(Input::Waited, "remove a");
    }
    life.after(LEASE - Duration::from_millis(1))
        .gives(Input::Written(Err(refused())), "pause 320ms")
        .gives(Input::Waited, "remove a")
        .after(Duration::from_millis(1))
        .gives(Input::Written(Err(refused())), "done");
}

#[test]
fn taking_back_a_claim_that_was_never_written_ends() {
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(Input::Inserted(Err(uncertain())), "read")
        .gives(found(None), UNAVAILABLE)
        .gives(Input::Replied, "remove a")
        .gives(stale(), "done");
}

#[test]
fn a_takeover_that_failed_for_certain_executes_nothing_and_leaves_the_record() {
    for error in [refused(), FULL, DAMAGED] {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(occupied(rejected()), "replace c by a outstanding #1")
            .gives(Input::Written(Err(error)), UNAVAILABLE)
            .ends();
    }
}

#[test]
fn a_takeover_whose_reply_was_lost_is_used_when_it_is_there() {
    let mut ours = held(OURS, outstanding(), Duration::ZERO);
    ours.record.attempt = 2;
    life(|policy| policy.on_unknown = OnUnknown::Resend)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(theirs(unknown(None))),
            "replace c by a outstanding #2",
        )
        .gives(Input::Written(Err(uncertain())), "read")
        .gives(found(ours), "execute #2 every 20s");
}

#[test]
fn a_takeover_that_was_not_applied_decides_again() {
    for check in [found(rejected()), found(None)] {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(occupied(rejected()), "replace c by a outstanding #1")
            .gives(Input::Written(Err(uncertain())), "read")
            .gives(check, "insert a outstanding #1");
    }
}

#[test]
fn a_takeover_that_arrives_after_it_was_given_up_is_used() {
    let mut ours = held(OURS, outstanding(), Duration::ZERO);
    ours.record.attempt = 2;
    life(|policy| policy.on_unknown = OnUnknown::Resend)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(theirs(unknown(None))),
            "replace c by a outstanding #2",
        )
        .gives(Input::Written(Err(uncertain())), "read")
        .gives(found(theirs(unknown(None))), "insert a outstanding #1")
        .gives(occupied(ours), "execute #2 every 20s")
        .told(&["claimed #2"]);
}

#[test]
fn an_uncertain_rebind_that_cannot_be_looked_up_is_taken_back() {
    for error in errors() {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(occupied(rejected()), "replace c by a outstanding #1")
            .gives(Input::Written(Err(uncertain())), "read")
            .gives(Input::Found(Err(error)), UNAVAILABLE)
            .gives(Input::Replied, "remove a");
    }
}

#[test]
fn an_uncertain_resend_is_never_taken_back() {
    for error in errors() {
        life(|policy| policy.on_unknown = OnUnknown::Resend)
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(
                occupied(theirs(unknown(None))),
                "replace c by a outstanding #2",
            )
            .gives(Input::Written(Err(uncertain())), "read")
            .gives(Input::Found(Err(error)), UNAVAILABLE)
            .ends();
    }
    // Nor when it was not there at first, and a later claim is uncertain too.
    life(|policy| policy.on_unknown = OnUnknown::Resend)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(theirs(unknown(None))),
            "replace c by a outstanding #2",
        )
        .gives(Input::Written(Err(uncertain())), "read")
        .gives(found(theirs(unknown(None))), "insert a outstanding #1")
        .gives(Input::Inserted(Err(uncertain())), "read")
        .gives(Input::Found(Err(refused())), UNAVAILABLE)
        .ends();
}

#[test]
fn a_lapse_that_cannot_be_written_down_executes_nothing() {
    for error in errors() {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(
                occupied(lapsed()),
                "replace c by c unknown(lease_lapsed) #1",
            )
            .gives(Input::Written(Err(error)), UNAVAILABLE)
            .told(&[])
            .ends();
    }
}

fn open(policy: &mut Policy) {
    policy.on_store_failure = OnStoreFailure::FailOpen;
}

#[test]
fn a_route_that_fails_open_executes_unrecorded_when_the_store_is_unreachable() {
    for settle in [
        answered(201),
        answered(500),
        Input::Failed(NOT_SENT),
        Input::Failed(AFTER_DISPATCH),
    ] {
        let mut life = life(open);
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(refused())), "execute #1 unrecorded");
        let expected = match &settle {
            Input::Answered(_) => "reply upstream's - store_error",
            Input::Failed(AFTER_DISPATCH) => NOT_KNOWN,
            _ => "reply UpstreamUnreachable - upstream_error",
        };
        life.gives(settle, expected).told(&[]).ends();
    }
}

#[test]
fn a_route_that_fails_open_does_so_when_an_uncertain_claim_cannot_be_found() {
    for check in [found(None), Input::Found(Err(refused()))] {
        life(open)
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(uncertain())), "read")
            .gives(check, "execute #1 unrecorded");
    }
}

#[test]
fn a_full_store_and_a_damaged_record_never_fail_open() {
    for error in [FULL, DAMAGED] {
        life(open)
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(error)), UNAVAILABLE)
            .ends();
    }
    life(open)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(Input::Inserted(Err(uncertain())), "read")
        .gives(Input::Found(Err(DAMAGED)), UNAVAILABLE)
        .gives(Input::Replied, "remove a");
}

#[test]
fn an_attempt_that_has_seen_a_record_never_fails_open() {
    life(open)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(lapsed()),
            "replace c by c unknown(lease_lapsed) #1",
        )
        .gives(Input::Written(Err(refused())), UNAVAILABLE)
        .ends();
    life(|policy| {
        open(policy);
        policy.wait = Duration::from_secs(5);
    })
    .gives(Input::Begin, "insert a outstanding #1")
    .gives(occupied(theirs(outstanding())), "wait 5s")
    .gives(Input::Waited, "insert a outstanding #1")
    .gives(Input::Inserted(Err(refused())), UNAVAILABLE)
    .ends();
}

#[test]
fn an_unrecorded_execution_that_is_late_is_answered_once_and_writes_nothing() {
    for late in [
        answered(201),
        Input::Failed(NOT_SENT),
        Input::Failed(AFTER_DISPATCH),
    ] {
        life(open)
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(refused())), "execute #1 unrecorded")
            .gives(Input::TimedOut, "reply OutcomeUnknown unknown store_error")
            .gives(Input::Replied, "await")
            .gives(late, "done");
    }
}
