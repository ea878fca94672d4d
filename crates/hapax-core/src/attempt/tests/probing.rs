//! What a probe does to an unknown record, and to the attempt that asked.

use super::*;
use crate::probe::{Answer, Template};

const QUIESCENCE: Duration = Duration::from_secs(30);
const STALE: Duration = Duration::from_secs(29);

fn probing() -> Life {
    life(|policy| {
        let template = Template::parse("GET /orders?request={key}").expect("a template");
        policy.on_unknown = OnUnknown::Probe(Arc::new(template));
        policy.probe_after = QUIESCENCE;
    })
}

fn told(status: u16) -> Answer {
    let status = StatusCode::from_u16(status).expect("a status");
    Answer {
        status,
        settlement: crate::settle::settlement_of(status),
        headers: HeaderMap::new(),
        content: Content::Stored("found".into()),
        is_first_under_way: false,
    }
}

fn probed(status: u16) -> Input {
    Input::Probed(Probed::Answered(told(status)))
}

fn unknown_for(age: Duration) -> Input {
    occupied(held(THEIRS, unknown(None), age))
}

fn settled() -> Input {
    occupied(held(SEAL, State::Completed(response(200)), Duration::ZERO))
}

#[test]
fn what_the_upstream_knows_completes_the_record_and_is_replayed() {
    for age in [Duration::ZERO, QUIESCENCE] {
        let mut life = probing();
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(unknown_for(age), "probe")
            .gives(probed(200), "replace c by b completed 200 #1")
            .gives(applied(), "insert a outstanding #1")
            .gives(settled(), "reply stored 200 replayed replayed")
            .told(&["probed happened", "settled completed 200"])
            .ends();
    }
}

#[test]
fn what_the_upstream_does_not_know_is_executed_once_it_is_quiet_and_not_before() {
    for status in [404, 410] {
        probing()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(unknown_for(STALE), "probe")
            .gives(probed(status), NOT_KNOWN)
            .told(&["probed too_early"])
            .ends();
        let mut life = probing();
        life.gives(Input::Begin, "insert a outstanding #1")
            .gives(unknown_for(QUIESCENCE), "probe")
            .gives(probed(status), "replace c by a outstanding #2")
            .gives(applied(), "execute #2 every 20s")
            .gives(answered(201), "replace a by b completed 201 #2")
            .gives(applied(), EXECUTED)
            .ends();
    }
}

#[test]
fn the_quiet_is_judged_when_the_question_is_asked_not_when_it_is_answered() {
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(STALE), "probe")
        .after(QUIESCENCE)
        .gives(probed(404), NOT_KNOWN);
}

#[test]
fn a_first_request_that_is_known_to_be_under_way_is_never_absent() {
    let mut answer = told(404);
    answer.is_first_under_way = true;
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(10 * QUIESCENCE), "probe")
        .gives(Input::Probed(Probed::Answered(answer)), NOT_KNOWN)
        .told(&["probed too_early"])
        .ends();
}

#[test]
fn any_other_answer_and_none_leave_the_outcome_unknown() {
    let late = 10 * QUIESCENCE;
    for status in [301, 400, 401, 403, 409, 422, 429, 500, 503] {
        probing()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(unknown_for(late), "probe")
            .gives(probed(status), NOT_KNOWN)
            .told(&["probed undecided"])
            .ends();
    }
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(late), "probe")
        .gives(Input::Probed(Probed::Failed), NOT_KNOWN)
        .told(&["probed failed"])
        .ends();
    // The upstream's own 5xx is still the best answer there is.
    let stored = held(THEIRS, unknown(Some(response(500))), late);
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(occupied(stored), "probe")
        .gives(
            Input::Probed(Probed::Failed),
            "reply stored 500 unknown unknown",
        )
        .ends();
}

#[test]
fn the_application_can_say_that_it_does_not_know_yet() {
    for status in [200, 404] {
        let mut answer = told(status);
        answer.settlement = crate::settle::Settlement::Unknown;
        probing()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(unknown_for(QUIESCENCE), "probe")
            .gives(Input::Probed(Probed::Answered(answer)), NOT_KNOWN)
            .told(&["probed undecided"]);
    }
}

#[test]
fn an_attempt_asks_once_and_looks_again_when_another_has_asked() {
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(QUIESCENCE), "probe")
        .gives(Input::Probed(Probed::ByAnother), "insert a outstanding #1")
        .gives(unknown_for(QUIESCENCE), NOT_KNOWN)
        .told(&[])
        .ends();
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(QUIESCENCE), "probe")
        .gives(Input::Probed(Probed::ByAnother), "insert a outstanding #1")
        .gives(settled(), "reply stored 200 replayed replayed")
        .ends();
}

#[test]
fn who_settled_it_meanwhile_is_believed() {
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(QUIESCENCE), "probe")
        .gives(probed(200), "replace c by b completed 200 #1")
        .gives(stale(), "insert a outstanding #1")
        .gives(theirs_completed(), "reply stored 201 replayed replayed")
        .told(&["probed happened"])
        .ends();
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(unknown_for(QUIESCENCE), "probe")
        .gives(probed(404), "replace c by a outstanding #2")
        .gives(stale(), "insert a outstanding #1")
        .gives(theirs_completed(), "reply stored 201 replayed replayed")
        .ends();
}

fn theirs_completed() -> Input {
    occupied(theirs(State::Completed(response(201))))
}

#[test]
fn a_store_that_fails_amid_a_probe_answers_unavailable_and_executes_nothing() {
    for error in [refused(), uncertain(), FULL, DAMAGED] {
        probing()
            .gives(Input::Begin, "insert a outstanding #1")
            .gives(unknown_for(QUIESCENCE), "probe")
            .gives(probed(200), "replace c by b completed 200 #1")
            .gives(Input::Written(Err(error)), UNAVAILABLE)
            .ends();
    }
}

#[test]
fn a_lapsed_lease_is_marked_first_so_that_the_quiet_begins_then() {
    probing()
        .gives(Input::Begin, "insert a outstanding #1")
        .gives(
            occupied(lapsed()),
            "replace c by c unknown(lease_lapsed) #1",
        )
        .gives(applied(), "insert a outstanding #1")
        .gives(unknown_for(Duration::ZERO), "probe")
        .gives(probed(404), NOT_KNOWN)
        .ends();
}

#[test]
fn what_a_probe_needs_is_kept_until_the_record_is_settled() {
    let mut life = probing();
    let values = crate::probe::Values {
        key: "k".to_owned(),
        params: Vec::new(),
    };
    life.attempt.ticket.asked_by = Some(Arc::new(values));
    let asked_by = |step: &Option<Step>| match step {
        Some(Step::Insert(record) | Step::Replace { record, .. }) => record.asked_by.is_some(),
        step => panic!("not a write: {step:?}"),
    };
    life.gives(Input::Begin, "insert a outstanding #1");
    assert!(asked_by(&life.last));
    life.gives(claimed(), "execute #1 every 20s").gives(
        answered(500),
        "replace a by b unknown(upstream_answered) 500 #1",
    );
    assert!(asked_by(&life.last));
    let mut life = probing();
    life.executing()
        .gives(answered(201), "replace a by b completed 201 #1");
    assert!(!asked_by(&life.last));
}
