//! Writing down the end: failures (P24), lost replies, and claims that somebody else has.

use super::*;

const COMPLETE: &str = "replace a by b completed 201 #1";

fn completed_by_us() -> Held {
    held(SEAL, State::Completed(response(201)), Duration::ZERO)
}

#[test]
fn a_settlement_that_fails_is_answered_first_and_then_retried_with_growing_pauses() {
    for error in [refused(), uncertain(), FULL, DAMAGED] {
        let mut life = life(|_| {});
        life.executing()
            .gives(answered(201), COMPLETE)
            .gives(Input::Written(Err(error)), EXECUTED)
            .gives(Input::Replied, "pause 20ms");
        for pause in [40, 80, 160, 320, 640, 1280] {
            life.gives(Input::Waited, COMPLETE).gives(
                Input::Written(Err(refused())),
                &format!("pause {:?}", Duration::from_millis(pause)),
            );
        }
        life.gives(Input::Waited, COMPLETE)
            .gives(Input::Written(Err(refused())), "pause 2s")
            .gives(Input::Waited, COMPLETE)
            .gives(Input::Written(Err(refused())), "pause 2s")
            .gives(Input::Waited, COMPLETE)
            .gives(applied(), "done")
            .told(&["claimed #1", "settled completed 201"]);
    }
}

#[test]
fn a_settlement_is_given_up_when_it_has_failed_for_a_lease() {
    let mut life = life(|_| {});
    life.after(Duration::from_secs(1000))
        .executing()
        .gives(answered(201), COMPLETE)
        .gives(Input::Written(Err(refused())), EXECUTED)
        .gives(Input::Replied, "pause 20ms")
        .after(LEASE - Duration::from_millis(1))
        .gives(Input::Waited, COMPLETE)
        .gives(Input::Written(Err(refused())), "pause 40ms")
        .after(Duration::from_millis(1))
        .gives(Input::Waited, COMPLETE)
        .gives(Input::Written(Err(refused())), "done")
        .told(&["claimed #1", "abandoned"]);
}

#[test]
fn a_release_that_fails_is_retried_too() {
    life(|_| {})
        .executing()
        .gives(answered(503), "remove a")
        .gives(
            Input::Written(Err(refused())),
            "reply upstream's - executed",
        )
        .gives(Input::Replied, "pause 20ms")
        .gives(Input::Waited, "remove a")
        .gives(applied(), "done")
        .told(&["claimed #1", "released"]);
}

#[test]
fn a_settlement_that_was_applied_but_whose_reply_was_lost_is_found_by_its_seal() {
    life(|_| {})
        .executing()
        .gives(answered(201), COMPLETE)
        .gives(Input::Written(Err(uncertain())), EXECUTED)
        .gives(Input::Replied, "pause 20ms")
        .gives(Input::Waited, COMPLETE)
        .gives(stale(), "read")
        .gives(found(completed_by_us()), "done")
        .told(&["claimed #1", "settled completed 201"]);
}

#[test]
fn a_release_that_was_applied_but_whose_reply_was_lost_is_found_by_the_absence() {
    life(|_| {})
        .executing()
        .gives(Input::Failed(NOT_SENT), "remove a")
        .gives(
            Input::Written(Err(uncertain())),
            "reply UpstreamUnreachable - upstream_error",
        )
        .gives(Input::Replied, "pause 20ms")
        .gives(Input::Waited, "remove a")
        .gives(stale(), "read")
        .gives(found(None), "done")
        .told(&["claimed #1", "released"]);
}

#[test]
fn the_look_for_a_lost_reply_is_itself_retried() {
    life(|_| {})
        .executing()
        .gives(answered(201), COMPLETE)
        .gives(Input::Written(Err(uncertain())), EXECUTED)
        .gives(Input::Replied, "pause 20ms")
        .gives(Input::Waited, COMPLETE)
        .gives(stale(), "read")
        .gives(Input::Found(Err(refused())), "pause 40ms")
        .gives(Input::Waited, COMPLETE)
        .gives(stale(), "read")
        .gives(found(completed_by_us()), "done");
}

#[test]
fn a_settlement_whose_store_applied_it_twice_over_is_taken_as_written() {
    // A store that retries by itself can call its own first write a stale one.
    life(|_| {})
        .executing()
        .gives(answered(201), COMPLETE)
        .gives(stale(), "read")
        .gives(found(completed_by_us()), EXECUTED)
        .told(&["claimed #1", "settled completed 201"])
        .ends();
}

#[test]
fn a_stale_settlement_is_answered_with_what_the_record_says_now() {
    let mut other_request = theirs(State::Completed(response(200)));
    other_request.record.fingerprint = fingerprint(2);
    for (check, expected) in [
        (
            found(theirs(State::Completed(response(200)))),
            "reply stored 200 replayed replayed",
        ),
        (
            found(theirs(State::Rejected(response(404)))),
            "reply stored 404 replayed rejected_replayed",
        ),
        (
            found(theirs(unknown(Some(response(502))))),
            "reply stored 502 unknown unknown",
        ),
        (found(theirs(unknown(None))), NOT_KNOWN),
        (found(theirs(outstanding())), CONFLICT),
        (found(lapsed()), NOT_KNOWN),
        // Nobody else's answer is there to be contradicted.
        (found(None), EXECUTED),
        (found(other_request), EXECUTED),
        // Somebody has the key; whether they have answered is not known.
        (Input::Found(Err(refused())), NOT_KNOWN),
        (Input::Found(Err(DAMAGED)), NOT_KNOWN),
    ] {
        life(|_| {})
            .executing()
            .gives(answered(201), COMPLETE)
            .gives(stale(), "read")
            .gives(check, expected)
            .told(&["claimed #1", "stale"])
            .ends();
    }
}

#[test]
fn a_stale_settlement_is_never_sent_again_by_itself() {
    for state in [unknown(None), unknown(Some(response(500)))] {
        life(|policy| policy.on_unknown = OnUnknown::Resend)
            .executing()
            .gives(answered(201), COMPLETE)
            .gives(stale(), "read")
            .gives(found(theirs(state)), NOT_KNOWN)
            .ends();
    }
}

fn rolled_back(outcome: Outcome) -> Input {
    let problem = Problem::new(crate::problem::ProblemKind::RolledBack, "");
    Input::RolledBack { problem, outcome }
}

#[test]
fn what_was_rolled_back_on_a_route_that_only_observes_is_said_to_be_observed() {
    let mut attempt = life(|policy| policy.mode = Mode::Observe);
    attempt.executing().gives(
        rolled_back(Outcome::UpstreamError),
        "reply RolledBack observed upstream_error",
    );
}

#[test]
fn what_was_rolled_back_is_told_and_nothing_is_written_for_it() {
    let mut attempt = life(|_| {});
    attempt.executing().gives(
        rolled_back(Outcome::UpstreamError),
        "reply RolledBack - upstream_error",
    );
    attempt.told(&["claimed #1", "released"]).ends();

    // Where the commit itself failed.
    let mut attempt = life(|_| {});
    attempt
        .executing()
        .gives(answered(201), "replace a by b completed 201 #1")
        .gives(
            rolled_back(Outcome::StoreError),
            "reply RolledBack - store_error",
        );
    attempt.told(&["claimed #1", "released"]).ends();

    // And where nobody can be asked: then nothing is said to be released.
    let mut attempt = life(|_| {});
    attempt
        .executing()
        .gives(answered(201), "replace a by b completed 201 #1")
        .gives(rolled_back(Outcome::Unknown), "reply RolledBack - unknown");
    attempt.told(&["claimed #1"]).ends();
}
