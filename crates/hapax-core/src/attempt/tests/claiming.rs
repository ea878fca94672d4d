//! From arrival to the claim, or to what another attempt has earned.

use super::*;

#[test]
fn a_record_that_has_an_answer_gives_it_without_executing() {
    let unknown_500 = unknown(Some(response(500)));
    for (state, by, expected) in [
        (
            State::Completed(response(201)),
            1,
            "reply stored 201 replayed replayed",
        ),
        (
            State::Rejected(response(422)),
            1,
            "reply stored 422 replayed rejected_replayed",
        ),
        (unknown_500.clone(), 1, "reply stored 500 unknown unknown"),
        (unknown(None), 1, NOT_KNOWN),
        (outstanding(), 1, CONFLICT),
        (
            State::Completed(response(201)),
            2,
            "reply mismatch - mismatch",
        ),
        (unknown_500, 2, "reply mismatch - mismatch"),
        (outstanding(), 2, "reply mismatch - mismatch"),
    ] {
        let mut held = held(THEIRS, state, Duration::from_secs(7));
        held.record.fingerprint = fingerprint(by);
        held.record.attempt = 3;
        let mut life = life(|_| {});
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(occupied(held), expected);
        let reply = life.reply();
        if expected != CONFLICT {
            assert_eq!(reply.attempt, Some(3), "{expected}");
            assert_eq!(reply.age, Some(Duration::from_secs(7)), "{expected}");
        }
        life.told(&[]).ends();
    }
}

#[test]
fn a_replay_says_until_when_it_can_be_had_and_an_unknown_answer_does_not() {
    for (state, expires) in [
        (
            State::Completed(response(201)),
            Some(NOW.plus(Duration::from_secs(3600))),
        ),
        (unknown(Some(response(500))), None),
    ] {
        let mut life = life(|_| {});
        let kind = state.response().map_or(0, |kept| kept.status.as_u16());
        let expected = match kind {
            201 => "reply stored 201 replayed replayed",
            _ => "reply stored 500 unknown unknown",
        };
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(occupied(theirs(state)), expected);
        assert_eq!(life.reply().expires, expires);
    }
}

#[test]
fn a_tombstone_is_told_as_expired() {
    let mut buried = held(
        THEIRS,
        State::Completed(response(201)),
        Duration::from_secs(3600),
    );
    buried.record.tombstone = Duration::from_secs(60);
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(buried), "reply KeyExpired - expired")
        .ends();
}

#[test]
fn a_duplicate_waits_as_long_as_the_route_says_and_then_gives_way() {
    let mut life = life(|policy| policy.wait = Duration::from_secs(5));
    life.gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), "wait 5s")
        .after(Duration::from_secs(2))
        .gives(Input::Waited, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), "wait 3s")
        .after(Duration::from_secs(3))
        .gives(Input::Waited, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), CONFLICT)
        .ends();
}

#[test]
fn a_duplicate_that_waited_gets_the_answer_that_came_meanwhile() {
    life(|policy| policy.wait = Duration::from_secs(5))
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), "wait 5s")
        .after(Duration::from_secs(5))
        .gives(Input::Waited, "insert a outstanding #1")
        .gives(
            occupied(theirs(State::Completed(response(201)))),
            "reply stored 201 replayed replayed",
        )
        .ends();
}

#[test]
fn a_duplicate_that_may_not_wait_gives_way_at_once() {
    life(|policy| policy.wait = Duration::from_secs(5))
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), "wait 5s")
        .gives(Input::WaitRefused, CONFLICT)
        .ends();
}

#[test]
fn a_key_that_was_given_back_during_the_wait_is_claimed() {
    life(|policy| policy.wait = Duration::from_secs(5))
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), "wait 5s")
        .gives(Input::Waited, "insert a outstanding #1")
        .gives(claimed(), "execute #1 every 20s")
        .told(&["claimed #1"]);
}

#[test]
fn a_lapsed_claim_becomes_unknown_under_its_own_claim_id_and_is_not_executed() {
    for (write, told) in [
        (applied(), vec!["unknown lease_lapsed"]),
        (stale(), Vec::new()),
    ] {
        let mut life = life(|_| {});
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(
                occupied(lapsed()),
                "replace c by c unknown(lease_lapsed) #1",
            )
            .gives(write, "insert a outstanding #1")
            .gives(occupied(theirs(unknown(None))), NOT_KNOWN)
            .told(&told)
            .ends();
    }
}

#[test]
fn a_holder_that_came_back_wins_against_the_mark_of_unknown() {
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(lapsed()),
            "replace c by c unknown(lease_lapsed) #1",
        )
        .gives(stale(), "insert a outstanding #1")
        .gives(
            occupied(theirs(State::Completed(response(201)))),
            "reply stored 201 replayed replayed",
        )
        .ends();
}

#[test]
fn a_rejected_key_is_claimed_anew_by_a_corrected_request() {
    let mut rejected = theirs(State::Rejected(response(422)));
    rejected.record.fingerprint = fingerprint(2);
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(rejected), "replace c by a outstanding #1")
        .gives(applied(), "execute #1 every 20s");
}

#[test]
fn an_unknown_operation_is_sent_again_where_the_route_says_so_and_is_counted() {
    life(|policy| policy.on_unknown = OnUnknown::Resend)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(theirs(unknown(Some(response(500))))),
            "replace c by a outstanding #2",
        )
        .gives(applied(), "execute #2 every 20s")
        .told(&["claimed #2"]);
}

#[test]
fn a_takeover_that_lost_its_race_decides_again() {
    life(|policy| policy.on_unknown = OnUnknown::Resend)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(theirs(unknown(None))),
            "replace c by a outstanding #2",
        )
        .gives(stale(), "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), CONFLICT)
        .ends();
}

#[test]
fn races_are_bounded_and_end_in_a_conflict() {
    let mut life = life(|policy| policy.on_unknown = OnUnknown::Resend);
    life.gives(Input::Begin, "insert a outstanding #1");
    for _ in 0..8 {
        life.gives(
            occupied(theirs(unknown(None))),
            "replace c by a outstanding #2",
        )
        .gives(stale(), "insert a outstanding #1");
    }
    life.gives(
        occupied(theirs(unknown(None))),
        "replace c by a outstanding #2",
    )
    .gives(stale(), CONFLICT)
    .ends();
}

#[test]
fn a_record_that_expired_after_the_look_is_run_for_again() {
    let expired = held(
        THEIRS,
        State::Completed(response(201)),
        Duration::from_secs(3600),
    );
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(expired), "insert a outstanding #1")
        .gives(claimed(), "execute #1 every 20s");
}

#[test]
fn a_claim_that_may_have_lapsed_before_it_was_used_is_given_up() {
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .after(LEASE - Duration::from_millis(1))
        .gives(claimed(), "execute #1 every 20s");
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .after(LEASE)
        .gives(claimed(), UNAVAILABLE)
        .gives(Input::Replied, "remove a");
    // The lease counts from the write: a long wait before it is nothing.
    life(|policy| policy.wait = 3 * LEASE)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(theirs(outstanding())), "wait 180s")
        .after(2 * LEASE)
        .gives(Input::Waited, "insert a outstanding #1")
        .gives(claimed(), "execute #1 every 20s");
    // A re-send's claim is left to lapse: an earlier execution may have had its effect.
    life(|policy| policy.on_unknown = OnUnknown::Resend)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(theirs(unknown(None))),
            "replace c by a outstanding #2",
        )
        .after(LEASE)
        .gives(applied(), UNAVAILABLE)
        .ends();
}

#[test]
fn a_claim_that_is_found_lapsed_or_unknown_is_given_up() {
    let unknown = State::Unknown {
        reason: UnknownReason::LeaseLapsed,
        response: None,
    };
    for ours in [
        held(OURS, outstanding(), LEASE),
        held(OURS, unknown, Duration::ZERO),
    ] {
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(uncertain())), "read")
            .gives(found(ours), UNAVAILABLE)
            .gives(Input::Replied, "remove a");
    }
}

fn no_room() -> Input {
    let until = Duration::from_millis(61_500);
    Input::NoRoom { until }
}

#[test]
fn without_room_a_vacant_key_is_refused_and_nothing_is_claimed() {
    let mut life = life(|_| {});
    life.gives(Input::Begin, "insert a outstanding #1")
        .gives(no_room(), "read")
        .gives(
            Input::Found(Ok((None, NOW))),
            "reply QuotaExceeded - refused",
        );
    let ReplyContent::Problem(problem) = &life.reply().content else {
        panic!("no problem");
    };
    assert_eq!(problem.response().headers()["retry-after"], "62");
    life.told(&["over quota"]).ends();
}

#[test]
fn without_room_a_held_key_is_answered_as_ever() {
    for (state, by, expected) in [
        (
            State::Completed(response(201)),
            1,
            "reply stored 201 replayed replayed",
        ),
        (
            State::Completed(response(201)),
            2,
            "reply mismatch - mismatch",
        ),
        (outstanding(), 1, CONFLICT),
        (unknown(None), 1, NOT_KNOWN),
    ] {
        let mut held = theirs(state);
        held.record.fingerprint = fingerprint(by);
        life(|_| {})
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(no_room(), "read")
            .gives(Input::Found(Ok((Some(held), NOW))), expected)
            .told(&[])
            .ends();
    }
}

#[test]
fn without_room_a_corrected_request_may_still_take_its_rejected_key_over() {
    let mut held = theirs(State::Rejected(response(422)));
    held.record.fingerprint = fingerprint(2);
    life(|_| {})
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(no_room(), "read")
        .gives(
            Input::Found(Ok((Some(held), NOW))),
            "replace c by a outstanding #1",
        );
}

#[test]
fn without_room_a_route_that_only_observes_executes() {
    life(|policy| policy.mode = Mode::Observe)
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(no_room(), "read")
        .gives(Input::Found(Ok((None, NOW))), "execute #1 unrecorded");
}
