//! The judge: good histories pass, and every way of breaking one is caught.

use super::*;
use crate::history::{Counted, Identity, Span};
use crate::message::Message;
use crate::rules::Grade;
use crate::template::Values;
use crate::wire::Fate;

const IETF: Standard = Standard {
    profile: Profile::Ietf,
    requires_key: false,
};

fn answer(status: u16, id: &str) -> Answer {
    Answer {
        status,
        fields: vec![
            ("content-type".into(), "application/json".into()),
            ("location".into(), format!("/order/{id}")),
        ],
        body: format!("{{\"id\":\"{id}\"}}").into(),
    }
}

fn with(mut answer: Answer, name: &str, value: &str) -> Answer {
    answer.fields.push((name.into(), value.into()));
    answer
}

fn replay(id: &str) -> Answer {
    with(answer(201, id), "idempotent-replayed", "true")
}

fn refusal(status: u16) -> Answer {
    Answer {
        status,
        fields: vec![("content-type".into(), "application/problem+json".into())],
        body: b"{}".to_vec(),
    }
}

fn step(role: Role, fate: Fate) -> Step {
    let message = Message {
        method: "POST".into(),
        target: "/o".into(),
        fields: vec![("Idempotency-Key".into(), "\"k\"".into())],
        body: "{}".into(),
    };
    Step {
        role,
        message,
        fate,
        span: Span::default(),
    }
}

fn answered(role: Role, answer: Answer) -> Step {
    step(role, Fate::Answered(answer))
}

fn history(fault: Fault, steps: Vec<Step>) -> History {
    History {
        fault,
        kind: Kind::Field,
        values: Values::default(),
        steps,
        counted: Ok(Counted {
            of_incomplete: None,
            total: 1,
        }),
        killed_after: None,
        identities: vec![Identity::Location],
    }
}

/// A good history of every fault that is judged in its own way.
fn good(fault: Fault) -> History {
    let first = || answered(Role::First, answer(201, "a"));
    let repeat = || answered(Role::Repeat, replay("a"));
    match fault {
        Fault::LoseReply => history(fault, vec![step(Role::First, Fate::ReplyLost), repeat()]),
        Fault::CutBody => {
            let whole = answered(Role::Repeat, answer(201, "a"));
            let mut history = history(fault, vec![step(Role::First, Fate::RequestCut), whole]);
            history.counted = Ok(Counted {
                of_incomplete: Some(0),
                total: 1,
            });
            history
        }
        Fault::Concurrent => {
            let later = with(refusal(409), "retry-after", "1");
            history(
                fault,
                vec![first(), answered(Role::Repeat, later), repeat()],
            )
        }
        Fault::OtherPayload => history(fault, vec![first(), answered(Role::Other, refusal(422))]),
        Fault::OtherCaller => {
            let mut history = history(
                fault,
                vec![first(), answered(Role::Other, answer(201, "b"))],
            );
            history.counted = Ok(Counted {
                of_incomplete: None,
                total: 2,
            });
            history
        }
        Fault::OtherPath => history(fault, vec![first(), answered(Role::Other, refusal(404))]),
        Fault::NoKey => history(fault, vec![answered(Role::Other, answer(201, "a"))]),
        Fault::BadKey => history(
            fault,
            vec![
                answered(Role::Other, refusal(400)),
                answered(Role::Other, refusal(400)),
            ],
        ),
        _ => history(fault, vec![first(), repeat()]),
    }
}

fn broken(history: &History, standard: Standard) -> Vec<&'static str> {
    judge(history, standard)
        .into_iter()
        .filter(|judgement| matches!(judgement.verdict, Verdict::Broken(_)))
        .map(|judgement| judgement.rule.name)
        .collect()
}

fn open(history: &History) -> Vec<&'static str> {
    judge(history, IETF)
        .into_iter()
        .filter(|judgement| matches!(judgement.verdict, Verdict::Inconclusive(_)))
        .map(|judgement| judgement.rule.name)
        .collect()
}

#[test]
fn a_good_history_breaks_no_rule() {
    for fault in Fault::ALL {
        assert_eq!(broken(&good(fault), IETF), [""; 0], "{}", fault.name());
        assert_eq!(open(&good(fault)), [""; 0], "{}", fault.name());
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table, one row a mutation")]
fn every_mutation_of_a_good_history_is_caught() {
    type Mutation = fn(&mut History);
    let two: Mutation = |h| {
        h.counted = Ok(Counted {
            of_incomplete: None,
            total: 2,
        })
    };
    let none: Mutation = |h| {
        h.counted = Ok(Counted {
            of_incomplete: None,
            total: 0,
        })
    };
    let table: [(Fault, &str, Mutation); 25] = [
        (Fault::ReplayFidelity, "one-effect", two),
        (Fault::LoseReply, "one-effect", two),
        (Fault::AfterRestart, "one-effect", two),
        (Fault::KillTarget, "one-effect", two),
        (Fault::Concurrent, "one-effect", two),
        (Fault::CutBody, "one-effect", two),
        (Fault::ReplayFidelity, "acknowledged-effect", none),
        (Fault::LoseReply, "acknowledged-effect", none),
        (Fault::ReplayFidelity, "same-status", |h| {
            h.steps[1] = answered(
                Role::Repeat,
                Answer {
                    status: 200,
                    ..replay("a")
                },
            )
        }),
        (Fault::ReplayFidelity, "same-content", |h| {
            h.steps[1] = answered(
                Role::Repeat,
                Answer {
                    body: b"{}".to_vec(),
                    ..replay("a")
                },
            )
        }),
        (Fault::ReplayFidelity, "same-fields", |h| {
            h.steps[1] = answered(
                Role::Repeat,
                Answer {
                    fields: Vec::new(),
                    ..replay("a")
                },
            )
        }),
        (Fault::ReplayFidelity, "replay-is-marked", |h| {
            h.steps[1] = answered(Role::Repeat, answer(201, "a"))
        }),
        (Fault::ReplayFidelity, "replay-is-marked", |h| {
            h.steps[0] = answered(Role::First, replay("a"))
        }),
        (Fault::LoseReply, "repeat-gets-result", |h| {
            h.steps[1] = answered(Role::Repeat, refusal(409))
        }),
        (Fault::LoseReply, "repeat-gets-result", |h| {
            h.steps[1] = step(Role::Repeat, Fate::Failed("no answer in time".into()))
        }),
        (Fault::CutBody, "incomplete-has-no-effect", |h| {
            h.counted = Ok(Counted {
                of_incomplete: Some(1),
                total: 1,
            })
        }),
        (Fault::CutBody, "incomplete-uses-no-key", |h| {
            h.steps[1] = answered(Role::Repeat, refusal(409))
        }),
        (Fault::Concurrent, "concurrent-answer", |h| {
            h.steps[1] = answered(Role::Repeat, refusal(500))
        }),
        (Fault::Concurrent, "conflict-says-when", |h| {
            h.steps[1] = answered(Role::Repeat, refusal(409))
        }),
        (Fault::OtherPayload, "mismatch-has-no-effect", two),
        (Fault::OtherPayload, "mismatch-is-refused", |h| {
            h.steps[1] = answered(Role::Other, replay("a"))
        }),
        (Fault::OtherPayload, "refusals-are-explained", |h| {
            h.steps[1] = answered(
                Role::Other,
                Answer {
                    status: 422,
                    ..Answer::default()
                },
            )
        }),
        (Fault::OtherCaller, "callers-are-apart", |h| {
            h.steps[1] = answered(Role::Other, answer(201, "a"))
        }),
        (Fault::OtherPath, "paths-are-apart", |h| {
            h.steps[1] = answered(Role::Other, replay("a"))
        }),
        (Fault::BadKey, "bad-key-is-refused", |h| {
            h.steps[1] = answered(Role::Other, answer(201, "a"))
        }),
    ];
    for (fault, rule, mutate) in table {
        let mut history = good(fault);
        mutate(&mut history);
        let found = broken(&history, IETF);
        assert!(
            found.contains(&rule),
            "{}: {rule} is not among {found:?}",
            fault.name()
        );
    }
}

#[test]
fn without_a_count_two_identities_are_two_effects() {
    let mut history = good(Fault::Duplicate);
    history.counted = Err("nothing counts".into());
    assert_eq!(broken(&history, IETF), [""; 0]);
    history.steps[1] = answered(Role::Repeat, answer(201, "b"));
    assert!(broken(&history, IETF).contains(&"one-effect"));
    // A head that was read before the reset counts too.
    history.steps[0] = step(Role::First, Fate::Partial(answer(201, "c")));
    assert!(broken(&history, IETF).contains(&"one-effect"));
}

#[test]
fn what_cannot_be_told_is_never_passed() {
    let uncounted = |fault| {
        let mut history = good(fault);
        history.counted = Err("nothing counts".into());
        history
    };
    // The mark of a replay is the target's own word; without it, the lost answer could have been another.
    assert_eq!(open(&uncounted(Fault::LoseReply)), [""; 0]);
    let mut unmarked = uncounted(Fault::LoseReply);
    unmarked.steps[1] = answered(Role::Repeat, answer(201, "a"));
    assert_eq!(open(&unmarked), ["one-effect"]);
    assert!(open(&uncounted(Fault::CutBody)).contains(&"incomplete-has-no-effect"));
    let mut faceless = uncounted(Fault::Duplicate);
    faceless.identities.clear();
    assert_eq!(open(&faceless), ["one-effect"]);
    let mut refused = good(Fault::OtherCaller);
    refused.steps[0] = answered(Role::First, refusal(401));
    assert_eq!(open(&refused), ["callers-are-apart"]);
    let mut shrinking = good(Fault::Duplicate);
    shrinking.counted = Ok(Counted {
        of_incomplete: None,
        total: -1,
    });
    assert!(open(&shrinking).contains(&"one-effect"));
}

#[test]
fn a_profile_changes_what_is_expected() {
    let under = |profile| Standard {
        profile,
        requires_key: false,
    };
    let mut mismatch = good(Fault::OtherPayload);
    mismatch.steps[1] = answered(Role::Other, refusal(400));
    assert_eq!(broken(&mismatch, IETF), ["mismatch-is-refused"]);
    assert_eq!(broken(&mismatch, under(Profile::StripeV1)), [""; 0]);
    assert_eq!(broken(&mismatch, under(Profile::SuccessOnly)), [""; 0]);

    let mut current = good(Fault::ReplayFidelity);
    current.steps[1] = answered(
        Role::Repeat,
        Answer {
            status: 200,
            ..replay("a")
        },
    );
    assert_eq!(broken(&current, IETF), ["same-status"]);
    assert_eq!(broken(&current, under(Profile::CurrentState)), [""; 0]);

    let mut recovered = good(Fault::ReplayFidelity);
    recovered.steps[0] = answered(Role::First, refusal(400));
    assert!(broken(&recovered, under(Profile::StripeV1)).contains(&"same-status"));
    assert_eq!(broken(&recovered, under(Profile::SuccessOnly)), [""; 0]);
}

#[test]
fn outside_the_draft_any_short_text_may_be_a_key() {
    let mut history = good(Fault::BadKey);
    let with_key = |key: &str, answer| {
        let mut step = answered(Role::Other, answer);
        step.message.fields = vec![("Idempotency-Key".into(), key.into())];
        step
    };
    history.steps = vec![
        with_key("", refusal(400)),
        with_key("\"open", answer(201, "a")),
    ];
    let stripe = Standard {
        profile: Profile::StripeV1,
        requires_key: false,
    };
    assert_eq!(broken(&history, IETF), ["bad-key-is-refused"]);
    assert_eq!(broken(&history, stripe), [""; 0]);
    history.steps = vec![with_key(&"k".repeat(256), answer(201, "a"))];
    assert_eq!(broken(&history, stripe), ["bad-key-is-refused"]);
}

#[test]
fn a_key_that_is_required_is_missed() {
    let required = Standard {
        profile: Profile::Ietf,
        requires_key: true,
    };
    assert_eq!(
        broken(&good(Fault::NoKey), required),
        ["missing-key-is-refused"]
    );
    let mut refused = good(Fault::NoKey);
    refused.steps[0] = answered(Role::Other, refusal(400));
    assert_eq!(broken(&refused, required), [""; 0]);
}

#[test]
fn natural_idempotency_allows_another_answer_and_no_second_effect() {
    let mut put = good(Fault::Duplicate);
    put.kind = Kind::Natural;
    put.steps[1] = answered(Role::Repeat, answer(204, "a"));
    assert_eq!(broken(&put, IETF), [""; 0]);
    put.counted = Ok(Counted {
        of_incomplete: None,
        total: 2,
    });
    assert_eq!(broken(&put, IETF), ["one-effect"]);
}

#[test]
fn a_safe_method_with_an_effect_is_caught() {
    let mut get = good(Fault::ReplayFidelity);
    get.kind = Kind::Safe;
    assert_eq!(broken(&get, IETF), ["safe-has-no-effect"]);
    get.counted = Ok(Counted {
        of_incomplete: None,
        total: 0,
    });
    assert_eq!(broken(&get, IETF), [""; 0]);
    get.counted = Err("nothing counts".into());
    assert_eq!(open(&get), ["safe-has-no-effect"]);
}

#[test]
fn an_identity_copied_from_the_request_or_shared_by_all_is_none() {
    let usable = |one: &str, two: &str, same| {
        Identity::usable(
            (&answer(201, one), &["k1"]),
            (&answer(201, two), &["k2"]),
            same,
        )
    };
    assert_eq!(usable("a", "b", true), [Identity::Location, Identity::Id]);
    assert_eq!(usable("a", "a", true), []);
    assert_eq!(usable("k1", "k2", true), []);
    let tagged = |tag: &str| with(refusal(200), "etag", tag);
    let tags = |same| Identity::usable((&tagged("1"), &["k1"]), (&tagged("2"), &["k2"]), same);
    assert_eq!(tags(true), [Identity::ETag]);
    assert_eq!(tags(false), []);
}

#[test]
fn rules_have_names_of_their_own_and_sources() {
    let mut names: Vec<&str> = rules::ALL.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rules::ALL.len());
    assert!(rules::ALL.iter().all(|rule| !rule.source.is_empty()));
    assert!(Grade::Must > Grade::Should && Grade::Should > Grade::Practice);
}
