//! A route that only observes: whatever happens, the request goes through.

use super::*;

fn observed() -> Life {
    life(|policy| {
        policy.mode = Mode::Observe;
        policy.wait = Duration::from_secs(5);
    })
}

/// Every record that would refuse or answer, and the outcome it would have had.
fn refusals() -> Vec<(Held, &'static str)> {
    let mut other = theirs(State::Completed(response(201)));
    other.record.fingerprint = fingerprint(2);
    let mut buried = held(
        THEIRS,
        State::Completed(response(201)),
        Duration::from_secs(3600),
    );
    buried.record.tombstone = Duration::from_secs(60);
    vec![
        (theirs(State::Completed(response(201))), "replayed"),
        (theirs(State::Rejected(response(422))), "rejected_replayed"),
        (theirs(unknown(None)), "unknown"),
        (theirs(unknown(Some(response(500)))), "unknown"),
        (theirs(outstanding()), "in_progress"),
        (other, "mismatch"),
        (buried, "expired"),
    ]
}

#[test]
fn a_duplicate_goes_through_and_what_would_have_happened_is_told() {
    for (held, outcome) in refusals() {
        observed()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(occupied(held), "execute #1 unrecorded")
            .gives(answered(201), "reply upstream's observed observed")
            .told(&[&format!("would have {outcome}")])
            .ends();
    }
}

#[test]
fn a_store_that_fails_refuses_nothing() {
    for error in [refused(), FULL, DAMAGED] {
        observed()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(error)), "execute #1 unrecorded")
            .gives(answered(500), "reply upstream's observed observed")
            .told(&["would have store_error"])
            .ends();
    }
    for check in [found(None), Input::Found(Err(refused()))] {
        observed()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(Input::Inserted(Err(uncertain())), "read")
            .gives(check, "execute #1 unrecorded");
    }
    observed()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(lapsed()),
            "replace c by c unknown(lease_lapsed) #1",
        )
        .gives(Input::Written(Err(refused())), "execute #1 unrecorded");
}

#[test]
fn a_first_request_is_recorded_and_gets_the_upstreams_answer_in_any_case() {
    let writes = [
        applied(),
        Input::Written(Err(refused())),
        Input::Written(Err(uncertain())),
    ];
    for write in writes {
        observed()
            .executing()
            .gives(answered(201), "replace a by b completed 201 #1")
            .gives(write, "reply upstream's observed observed");
    }
    for check in [
        found(None),
        found(theirs(State::Completed(response(200)))),
        found(theirs(outstanding())),
        Input::Found(Err(refused())),
    ] {
        observed()
            .executing()
            .gives(answered(201), "replace a by b completed 201 #1")
            .gives(stale(), "read")
            .gives(check, "reply upstream's observed observed")
            .ends();
    }
}

#[test]
fn a_race_that_is_lost_for_good_goes_through() {
    let mut life = life(|policy| {
        policy.mode = Mode::Observe;
        policy.on_unknown = OnUnknown::Resend;
    });
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
    .gives(stale(), "execute #1 unrecorded");
}
