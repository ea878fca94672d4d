//! With the upstream: heartbeats, time-outs, and answers that come too late for the client.

use super::*;

#[test]
fn every_answer_settles_the_record_before_the_client_sees_it() {
    for (status, write, reply, told) in [
        (
            201,
            "replace a by b completed 201 #1",
            EXECUTED,
            "settled completed 201",
        ),
        (
            402,
            "replace a by b completed 402 #1",
            EXECUTED,
            "settled completed 402",
        ),
        (
            422,
            "replace a by b rejected 422 #1",
            EXECUTED,
            "settled rejected 422",
        ),
        (409, "remove a", "reply upstream's - executed", "released"),
        (503, "remove a", "reply upstream's - executed", "released"),
        (
            500,
            "replace a by b unknown(upstream_answered) 500 #1",
            "reply upstream's unknown unknown",
            "unknown upstream_answered",
        ),
    ] {
        let mut life = life(|_| {});
        life.executing()
            .gives(answered(status), write)
            .gives(applied(), reply)
            .told(&["claimed #1", told]);
        let expires = told
            .starts_with("settled")
            .then(|| NOW.plus(Duration::from_secs(24 * 3600)));
        assert_eq!(life.reply().expires, expires, "{status}");
        assert_eq!(life.reply().attempt, Some(1));
        life.ends();
    }
}

#[test]
fn an_unknown_answer_that_was_not_kept_is_not_replayed_later() {
    let answer = UpstreamAnswer {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        settlement: Settlement::Unknown,
        headers: HeaderMap::new(),
        content: Content::Withheld,
    };
    life(|_| {}).executing().gives(
        Input::Answered(answer),
        "replace a by b unknown(upstream_answered) #1",
    );
}

#[test]
fn a_request_that_was_not_sent_gives_the_key_back() {
    for (timed_out, reply) in [
        (false, "reply UpstreamUnreachable - upstream_error"),
        (true, "reply UpstreamConnectTimeout - upstream_error"),
    ] {
        life(|_| {})
            .executing()
            .gives(
                Input::Failed(UpstreamFailure::NotSent { timed_out }),
                "remove a",
            )
            .gives(applied(), reply)
            .told(&["claimed #1", "released"])
            .ends();
    }
}

#[test]
fn a_failure_after_dispatch_is_unknown_and_closed_to_late_writes() {
    life(|_| {})
        .executing()
        .gives(
            Input::Failed(AFTER_DISPATCH),
            "replace a by b unknown(upstream_failed) #1",
        )
        .gives(applied(), NOT_KNOWN)
        .told(&["claimed #1", "unknown upstream_failed"])
        .ends();
}

#[test]
fn a_heartbeat_renews_the_lease_under_the_same_claim() {
    life(|_| {})
        .executing()
        .gives(Input::HeartbeatDue, "replace a by a outstanding #1")
        .gives(applied(), "await")
        .gives(Input::HeartbeatDue, "replace a by a outstanding #1")
        .gives(applied(), "await")
        .told(&["claimed #1"])
        .gives(answered(201), "replace a by b completed 201 #1");
}

#[test]
fn a_heartbeat_that_fails_is_tried_again_when_the_next_is_due() {
    let mut life = life(|_| {});
    life.executing();
    for error in [refused(), uncertain(), FULL, DAMAGED] {
        life.gives(Input::HeartbeatDue, "replace a by a outstanding #1")
            .gives(Input::Written(Err(error)), "await");
    }
    life.told(&["claimed #1"]);
}

#[test]
fn a_heartbeat_that_finds_the_claim_lost_tells_and_goes_on_waiting() {
    life(|_| {})
        .executing()
        .gives(Input::HeartbeatDue, "replace a by a outstanding #1")
        .gives(stale(), "await")
        .told(&["claimed #1", "lease lost"])
        .gives(answered(201), "replace a by b completed 201 #1");
}

/// Is told that the outcome is unknown, and waits for what comes after all.
fn timed_out() -> Life {
    let mut life = life(|_| {});
    life.executing()
        .gives(
            Input::TimedOut,
            "replace a by a unknown(upstream_timeout) #1",
        )
        .gives(applied(), NOT_KNOWN)
        .gives(Input::Replied, "await");
    life
}

#[test]
fn a_timeout_answers_and_keeps_the_claim_so_that_a_late_answer_can_complete_it() {
    for (status, write, told) in [
        (
            201,
            "replace a by b completed 201 #1",
            "settled completed 201",
        ),
        (
            422,
            "replace a by b rejected 422 #1",
            "settled rejected 422",
        ),
        (409, "remove a", "released"),
        (
            500,
            "replace a by b unknown(upstream_answered) 500 #1",
            "unknown upstream_answered",
        ),
    ] {
        timed_out()
            .gives(answered(status), write)
            .gives(applied(), "done")
            .told(&["claimed #1", "unknown upstream_timeout", told]);
    }
}

#[test]
fn a_late_failure_after_dispatch_leaves_the_record_unknown() {
    timed_out().gives(Input::Failed(AFTER_DISPATCH), "done");
}

#[test]
fn a_late_failure_before_dispatch_gives_the_key_back() {
    timed_out()
        .gives(Input::Failed(NOT_SENT), "remove a")
        .gives(applied(), "done");
}

#[test]
fn heartbeats_and_timeouts_after_the_timeout_change_nothing() {
    timed_out()
        .gives(Input::HeartbeatDue, "await")
        .gives(Input::TimedOut, "await")
        .gives(answered(201), "replace a by b completed 201 #1");
}

#[test]
fn a_timeout_that_cannot_be_written_down_is_answered_all_the_same() {
    for error in [refused(), uncertain(), FULL, DAMAGED] {
        let mut life = life(|_| {});
        life.executing()
            .gives(
                Input::TimedOut,
                "replace a by a unknown(upstream_timeout) #1",
            )
            .gives(Input::Written(Err(error)), NOT_KNOWN)
            .gives(Input::Replied, "await")
            .gives(answered(201), "replace a by b completed 201 #1")
            .gives(applied(), "done");
    }
}

#[test]
fn a_timeout_under_a_lost_claim_is_answered_as_unknown() {
    for check in [
        found(None),
        found(theirs(State::Completed(response(201)))),
        Input::Found(Err(refused())),
    ] {
        life(|_| {})
            .executing()
            .gives(
                Input::TimedOut,
                "replace a by a unknown(upstream_timeout) #1",
            )
            .gives(stale(), "read")
            .gives(check, NOT_KNOWN)
            .gives(Input::Replied, "await")
            .gives(answered(201), "replace a by b completed 201 #1")
            .gives(stale(), "read")
            .gives(found(theirs(State::Completed(response(201)))), "done")
            .told(&["claimed #1", "stale", "stale"]);
    }
}

#[test]
fn a_driver_that_reports_what_was_not_asked_for_ends_the_attempt() {
    life(|_| {})
        .gives(Input::Waited, "done")
        .gives(claimed(), "done");
}

#[test]
fn a_re_send_that_did_nothing_leaves_the_first_execution_unknown() {
    for (input, write, reply) in [
        (
            answered(503),
            "replace a by b unknown(upstream_answered) #2",
            "reply upstream's - executed",
        ),
        (
            Input::Failed(NOT_SENT),
            "replace a by b unknown(upstream_failed) #2",
            "reply UpstreamUnreachable - upstream_error",
        ),
    ] {
        life(|policy| policy.on_unknown = OnUnknown::Resend)
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(
                occupied(theirs(unknown(None))),
                "replace c by a outstanding #2",
            )
            .gives(applied(), "execute #2 every 20s")
            .gives(input, write)
            .gives(applied(), reply)
            .ends();
    }
}
