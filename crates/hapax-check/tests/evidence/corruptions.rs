//! Every way of corrupting a good history, and the guarantee that it breaks.

use hapax_check::evidence::{Event, Guarantee};

use Guarantee::{
    Bounds, ClaimFirst, ClientLeaves, Damage, FailClosed, HonestUnknown, Isolation, Liveness,
    NoLoss, NoPhantom, OneAnswer, OneEffect, OtherPayload, OwnerOnly, Retention,
};

use crate::corrupt::{Attempt, Corruption, Scene, Told};
use crate::good::SECOND;

pub(crate) const CORRUPTIONS: &[Corruption] = &[
    Corruption {
        name: "an effect lost",
        expected: NoPhantom,
        besides: &[OneAnswer],
        corrupt: drop_effect,
    },
    Corruption {
        name: "an effect twice",
        expected: OneEffect,
        besides: &[Damage],
        corrupt: duplicate_effect,
    },
    Corruption {
        name: "a second effect at the end of retention",
        expected: OneEffect,
        besides: &[NoPhantom],
        corrupt: act_late,
    },
    Corruption {
        name: "bodies of two keys swapped",
        expected: NoPhantom,
        besides: &[OneAnswer],
        corrupt: swap_keys,
    },
    Corruption {
        name: "bodies of two scopes swapped",
        expected: Isolation,
        besides: &[OneAnswer],
        corrupt: swap_scopes,
    },
    Corruption {
        name: "another status",
        expected: OneAnswer,
        besides: &[],
        corrupt: other_status,
    },
    Corruption {
        name: "another field",
        expected: OneAnswer,
        besides: &[],
        corrupt: other_field,
    },
    Corruption {
        name: "a field lost",
        expected: OneAnswer,
        besides: &[],
        corrupt: lost_field,
    },
    Corruption {
        name: "another body",
        expected: OneAnswer,
        besides: &[NoPhantom],
        corrupt: other_body,
    },
    Corruption {
        name: "a body that the upstream never said",
        expected: NoPhantom,
        besides: &[],
        corrupt: invented_body,
    },
    Corruption {
        name: "ok without an effect",
        expected: NoPhantom,
        besides: &[NoLoss],
        corrupt: ok_without_effect,
    },
    Corruption {
        name: "ok before its effect",
        expected: NoPhantom,
        besides: &[NoLoss],
        corrupt: act_after_ok,
    },
    Corruption {
        name: "a replay of nothing",
        expected: NoPhantom,
        besides: &[ClaimFirst],
        corrupt: replay_of_nothing,
    },
    Corruption {
        name: "a replay from another scope",
        expected: Isolation,
        besides: &[ClaimFirst],
        corrupt: replay_of_namesake,
    },
    Corruption {
        name: "a conflict with another scope",
        expected: Isolation,
        besides: &[ClaimFirst],
        corrupt: conflict_with_namesake,
    },
    Corruption {
        name: "a mismatch with another scope",
        expected: Isolation,
        besides: &[],
        corrupt: mismatch_with_namesake,
    },
    Corruption {
        name: "never settled",
        expected: Liveness,
        besides: &[],
        corrupt: never_ends,
    },
    Corruption {
        name: "a hanging waiter",
        expected: Liveness,
        besides: &[],
        corrupt: hangs,
    },
    Corruption {
        name: "outstanding for ever",
        expected: Liveness,
        besides: &[],
        corrupt: outstanding_for_ever,
    },
    Corruption {
        name: "unknown in a clean run",
        expected: HonestUnknown,
        besides: &[],
        corrupt: unknown_in_clean,
    },
    Corruption {
        name: "an effect of what was not sent",
        expected: HonestUnknown,
        besides: &[],
        corrupt: effect_of_unsent,
    },
    Corruption {
        name: "unknown because a client left",
        expected: ClientLeaves,
        besides: &[],
        corrupt: unknown_because_left,
    },
    Corruption {
        name: "a final answer became a conflict",
        expected: NoLoss,
        besides: &[],
        corrupt: lost_to_conflict,
    },
    Corruption {
        name: "a final answer became unknown",
        expected: NoLoss,
        besides: &[HonestUnknown, ClientLeaves],
        corrupt: lost_to_unknown,
    },
    Corruption {
        name: "a final answer expired early",
        expected: NoLoss,
        besides: &[],
        corrupt: lost_to_expiry,
    },
    Corruption {
        name: "a rejection forgotten",
        expected: NoLoss,
        besides: &[ClaimFirst],
        corrupt: lost_rejection,
    },
    Corruption {
        name: "an effect before the first attempt",
        expected: ClaimFirst,
        besides: &[],
        corrupt: act_early,
    },
    Corruption {
        name: "an effect of a refused request",
        expected: ClaimFirst,
        besides: &[NoPhantom],
        corrupt: effect_of_refused,
    },
    Corruption {
        name: "executed twice by its own word",
        expected: OwnerOnly,
        besides: &[],
        corrupt: two_owners,
    },
    Corruption {
        name: "another payload had an effect",
        expected: OtherPayload,
        besides: &[OneEffect, ClaimFirst],
        corrupt: effect_of_other,
    },
    Corruption {
        name: "another payload got the answer",
        expected: OtherPayload,
        besides: &[],
        corrupt: answer_to_other,
    },
    Corruption {
        name: "another payload got a conflict",
        expected: OtherPayload,
        besides: &[],
        corrupt: conflict_to_other,
    },
    Corruption {
        name: "an effect of a payload that nobody sent",
        expected: OtherPayload,
        besides: &[OneEffect],
        corrupt: effect_of_nobody,
    },
    Corruption {
        name: "another payload succeeds after all",
        expected: OtherPayload,
        besides: &[OneEffect, OneAnswer],
        corrupt: other_succeeds,
    },
    Corruption {
        name: "the first payload becomes the other one",
        expected: OtherPayload,
        besides: &[NoLoss, Isolation],
        corrupt: first_becomes_other,
    },
    Corruption {
        name: "everybody is the other one",
        expected: OtherPayload,
        besides: &[Isolation],
        corrupt: everybody_is_other,
    },
    Corruption {
        name: "an effect lost after retention",
        expected: NoPhantom,
        besides: &[],
        corrupt: drop_second_effect,
    },
    Corruption {
        name: "a mismatch with nobody",
        expected: OtherPayload,
        besides: &[],
        corrupt: mismatch_with_nobody,
    },
    Corruption {
        name: "an unknown record removed",
        expected: Retention,
        besides: &[],
        corrupt: removed_while_unknown,
    },
    Corruption {
        name: "an unknown record removed and executed",
        expected: Retention,
        besides: &[],
        corrupt: executed_while_unknown,
    },
    Corruption {
        name: "an effect while the store was down",
        expected: FailClosed,
        besides: &[],
        corrupt: effect_while_down,
    },
    Corruption {
        name: "a damaged answer",
        expected: Damage,
        besides: &[OneAnswer, NoPhantom],
        corrupt: damaged_answer,
    },
    Corruption {
        name: "a figure above its bound",
        expected: Bounds,
        besides: &[],
        corrupt: above_bound,
    },
    Corruption {
        name: "events untold",
        expected: Guarantee::Told,
        besides: &[],
        corrupt: untold,
    },
];

/// An execution in the clean time, long before faults.
fn clean_execution(scene: &mut Scene<'_>) -> Option<Attempt> {
    scene.pick(|scene, attempt| {
        attempt.is_executed() && scene.is_clean(attempt) && scene.has_one_payload(attempt)
    })
}

fn drop_effect(scene: &mut Scene<'_>) -> Option<()> {
    let of = clean_execution(scene)?;
    let at = *scene.effects(&of).first()?;
    scene.run.effects.effects.remove(at);
    Some(())
}

fn duplicate_effect(scene: &mut Scene<'_>) -> Option<()> {
    let count = scene.run.effects.effects.len() as u64;
    let at = scene.random.below(count) as usize;
    let mut effect = scene.run.effects.effects[at].clone();
    effect.at_us += scene.random.below(1_000);
    scene.run.effects.effects.push(effect);
    Some(())
}

fn act_late(scene: &mut Scene<'_>) -> Option<()> {
    let of = clean_execution(scene)?;
    let first = scene.run.effects.effects[*scene.effects(&of).first()?].at_us;
    let retention = scene.run.expect.retention.as_micros() as u64;
    scene.act(&of, first + retention - 1, &of.payload);
    Some(())
}

fn body(event: &mut Event) -> &mut String {
    match event {
        Event::Ok { body, .. } => body,
        _ => unreachable!("only answers are picked"),
    }
}

fn swap(scene: &mut Scene<'_>, is_same_scope: bool) -> Option<()> {
    let one = scene.pick(|_, attempt| attempt.is_replayed())?;
    let other = scene.pick(|_, attempt| {
        attempt.is_replayed()
            && !attempt.is_of(&one)
            && (attempt.scope == one.scope) == is_same_scope
    })?;
    let mut swapped = body(scene.end_mut(&one)).clone();
    std::mem::swap(body(scene.end_mut(&other)), &mut swapped);
    *body(scene.end_mut(&one)) = swapped;
    Some(())
}

fn swap_keys(scene: &mut Scene<'_>) -> Option<()> {
    swap(scene, true)
}

fn swap_scopes(scene: &mut Scene<'_>) -> Option<()> {
    swap(scene, false)
}

/// A replay of an answer that somebody else has, too.
fn second_answer(scene: &mut Scene<'_>) -> Option<Attempt> {
    scene.pick(|scene, attempt| attempt.is_replayed() && scene.knew(attempt))
}

fn other_status(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    scene.told(
        &of,
        Told::Ok {
            status: 200,
            replayed: true,
        },
    );
    Some(())
}

fn other_field(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    if let Event::Ok { fields, .. } = scene.end_mut(&of) {
        fields[0].1.push('0');
    }
    Some(())
}

fn lost_field(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    if let Event::Ok { fields, .. } = scene.end_mut(&of) {
        fields.clear();
    }
    Some(())
}

fn other_body(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    body(scene.end_mut(&of)).push('x');
    Some(())
}

fn invented_body(scene: &mut Scene<'_>) -> Option<()> {
    let is_lonely = |scene: &Scene<'_>, attempt: &Attempt| {
        attempt.is_executed() && scene.record(attempt).len() == 1
    };
    let of = scene.pick(is_lonely)?;
    let effect = *scene.effects(&of).first()?;
    scene.run.effects.effects[effect].answer.as_ref()?;
    body(scene.end_mut(&of)).push('x');
    Some(())
}

fn ok_without_effect(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.is_failed("released") && scene.effects(attempt).is_empty()
    })?;
    scene.told(
        &of,
        Told::Ok {
            status: 201,
            replayed: false,
        },
    );
    Some(())
}

fn act_after_ok(scene: &mut Scene<'_>) -> Option<()> {
    let of = clean_execution(scene)?;
    let effect = *scene.effects(&of).first()?;
    scene.run.effects.effects[effect].at_us = of.to + 1;
    Some(())
}

fn replay_alone(scene: &mut Scene<'_>, has_namesake: bool) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.is_executed()
            && scene.record(attempt).len() == 1
            && scene.has_namesake(attempt) == has_namesake
    })?;
    scene.told(
        &of,
        Told::Ok {
            status: 201,
            replayed: true,
        },
    );
    Some(())
}

fn replay_of_nothing(scene: &mut Scene<'_>) -> Option<()> {
    // In good histories nearly every key has namesakes.
    let of =
        scene.pick(|scene, attempt| attempt.is_executed() && scene.record(attempt).len() == 1)?;
    rename(scene, &of);
    scene.attempts.retain(|attempt| attempt.op != of.op);
    let of = Attempt {
        key: "of its own".to_owned(),
        ..of
    };
    scene.told(
        &of,
        Told::Ok {
            status: 201,
            replayed: true,
        },
    );
    Some(())
}

/// Gives the record of `of` a key that no other scope uses.
fn rename(scene: &mut Scene<'_>, of: &Attempt) {
    for event in &mut scene.run.history.events {
        if let Event::Invoke { scope, key, .. } = event
            && (&*scope, &*key) == (&of.scope, &of.key)
        {
            *key = "of its own".to_owned();
        }
    }
    for effect in &mut scene.run.effects.effects {
        if (&effect.scope, &effect.key) == (&of.scope, &of.key) {
            effect.key = "of its own".to_owned();
        }
    }
}

fn replay_of_namesake(scene: &mut Scene<'_>) -> Option<()> {
    replay_alone(scene, true)
}

fn conflict_with_namesake(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        scene.is_first(attempt)
            && scene.record(attempt).len() == 1
            && attempt.is_failed("released")
            && scene.has_namesake(attempt)
    })?;
    scene.fails(&of, "in-progress");
    Some(())
}

fn mismatch_with_namesake(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.is_failed("in-progress")
            && scene.has_one_payload(attempt)
            && scene.has_namesake(attempt)
            && !scene.knew(attempt)
    })?;
    scene.fails(&of, "key-reused");
    Some(())
}

fn mismatch_with_nobody(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.is_failed("in-progress") && scene.has_one_payload(attempt) && !scene.knew(attempt)
    })?;
    rename(scene, &of);
    scene.fails(&of, "key-reused");
    Some(())
}

fn never_ends(scene: &mut Scene<'_>) -> Option<()> {
    let of =
        scene.pick(|scene, attempt| scene.record(attempt).len() > 1 && attempt.is_replayed())?;
    scene.run.history.events.remove(of.end);
    Some(())
}

fn hangs(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| scene.is_clean(attempt) && attempt.is_replayed())?;
    scene.informs(&of, "timed-out");
    Some(())
}

fn outstanding_for_ever(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.fault.as_deref() == Some("upstream-resets")
            && !scene
                .record(attempt)
                .iter()
                .any(|other| other.is_replayed())
    })?;
    scene.come_again(&of, 5_000 * SECOND, "in-progress");
    Some(())
}

fn unknown_in_clean(scene: &mut Scene<'_>) -> Option<()> {
    let of = clean_execution(scene)?;
    scene.informs(&of, "outcome-unknown");
    Some(())
}

fn effect_of_unsent(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.is_failed("upstream-unreachable") && scene.effects(attempt).is_empty()
    })?;
    scene.act(&of, of.from + 100, &of.payload);
    Some(())
}

fn unknown_because_left(scene: &mut Scene<'_>) -> Option<()> {
    let left = scene.pick(|_, attempt| {
        attempt.fault.as_deref() == Some("client-leaves") && attempt.from < 800 * SECOND
    })?;
    let of = scene.pick(|scene, attempt| {
        attempt.is_of(&left) && attempt.is_replayed() && !scene.knew(attempt)
    })?;
    scene.informs(&of, "outcome-unknown");
    Some(())
}

fn lost_to_conflict(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    scene.fails(&of, "in-progress");
    Some(())
}

fn lost_to_unknown(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    scene.informs(&of, "outcome-unknown");
    Some(())
}

fn lost_to_expiry(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    scene.fails(&of, "key-expired");
    Some(())
}

fn lost_rejection(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        let is_rejected = matches!(
            attempt.told,
            Told::Ok {
                status: 422,
                replayed: false
            }
        );
        is_rejected && scene.has_one_payload(attempt)
    })?;
    scene.act(&of, of.to + 100, &of.payload);
    Some(())
}

fn act_early(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| attempt.is_executed() && scene.is_first(attempt))?;
    let effect = *scene.effects(&of).first()?;
    scene.run.effects.effects[effect].at_us = of.from - 1;
    Some(())
}

fn effect_of_refused(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene
        .pick(|scene, attempt| attempt.is_failed("released") && scene.record(attempt).len() == 1)?;
    scene.fails(&of, "key-invalid");
    scene.act(&of, of.from + 100, &of.payload);
    Some(())
}

fn two_owners(scene: &mut Scene<'_>) -> Option<()> {
    let of = second_answer(scene)?;
    let has_owner = scene
        .record(&of)
        .iter()
        .filter(|attempt| attempt.is_executed())
        .count()
        == 1;
    // Where it has another effect, that one may be anybody's.
    let is_shared = has_owner && scene.effects(&of).len() == 1;
    is_shared.then_some(())?;
    scene.told(
        &of,
        Told::Ok {
            status: 201,
            replayed: false,
        },
    );
    Some(())
}

fn effect_of_other(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| attempt.is_failed("key-reused") && scene.knew(attempt))?;
    scene.act(&of, of.from + 100, &of.payload);
    Some(())
}

fn effect_of_nobody(scene: &mut Scene<'_>) -> Option<()> {
    let of = clean_execution(scene)?;
    scene.act(&of, of.to + 100, "of nobody");
    Some(())
}

fn other_succeeds(scene: &mut Scene<'_>) -> Option<()> {
    scene.run.expect.has_releases = false;
    let of = scene.pick(|scene, attempt| attempt.payload == "other" && scene.knew(attempt))?;
    scene.act(&of, of.from + 10, &of.payload);
    let (status, replayed) = (201, false);
    scene.told(&of, Told::Ok { status, replayed });
    Some(())
}

fn first_becomes_other(scene: &mut Scene<'_>) -> Option<()> {
    scene.run.expect.has_releases = false;
    let of = second_answer(scene)?;
    scene.fails(&of, "key-reused");
    Some(())
}

fn everybody_is_other(scene: &mut Scene<'_>) -> Option<()> {
    scene.run.expect.has_releases = false;
    let of = scene.pick(|scene, attempt| attempt.payload == "other" && scene.knew(attempt))?;
    let record: Vec<Attempt> = scene.record(&of).into_iter().cloned().collect();
    for attempt in &record {
        if attempt.is_executed() {
            scene.informs(attempt, "lost");
        } else {
            scene.fails(attempt, "key-reused");
        }
    }
    Some(())
}

fn drop_second_effect(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        let is_again = !scene.is_first(attempt) && scene.effects(attempt).len() == 2;
        attempt.is_executed() && is_again && attempt.from > 50_000 * SECOND
    })?;
    let at = *scene.effects(&of).last()?;
    scene.run.effects.effects.remove(at);
    Some(())
}

fn answer_to_other(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| attempt.payload == "other" && scene.knew(attempt))?;
    let first = scene.pick(|_, attempt| attempt.is_of(&of) && attempt.is_executed())?;
    let mut answer = scene.end_mut(&first).clone();
    if let Event::Ok {
        at_us,
        client,
        op,
        replayed,
        ..
    } = &mut answer
    {
        (*at_us, *client, *op, *replayed) = (of.to, of.op % 7, of.op, true);
    }
    *scene.end_mut(&of) = answer;
    Some(())
}

fn conflict_to_other(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| attempt.payload == "other" && scene.knew(attempt))?;
    scene.fails(&of, "in-progress");
    Some(())
}

fn removed_while_unknown(scene: &mut Scene<'_>) -> Option<()> {
    let (of, expired) = unknown_until(scene)?;
    scene.act(&of, expired + 1, &of.payload);
    Some(())
}

fn executed_while_unknown(scene: &mut Scene<'_>) -> Option<()> {
    let (of, expired) = unknown_until(scene)?;
    scene.act(&of, expired + 500, &of.payload);
    scene.come_again(&of, expired + 1, "lost");
    Some(())
}

/// An attempt that is told that the outcome is unknown, and a retention after the effect, which was before that.
fn unknown_until(scene: &mut Scene<'_>) -> Option<(Attempt, u64)> {
    let of = scene.pick(|scene, attempt| {
        let first = scene.record(attempt)[0].clone();
        attempt.is_unknown()
            && scene.effects(attempt).len() == 1
            && attempt.from > first.to + SECOND
    })?;
    let first = scene.run.effects.effects[*scene.effects(&of).first()?].at_us;
    let retention = scene.run.expect.retention.as_micros() as u64;
    Some((of, first + retention))
}

fn effect_while_down(scene: &mut Scene<'_>) -> Option<()> {
    let of = scene.pick(|scene, attempt| {
        attempt.is_failed("store-unavailable") && scene.record(attempt).len() == 1
    })?;
    scene.act(&of, of.from + 100, &of.payload);
    Some(())
}

fn damaged_answer(scene: &mut Scene<'_>) -> Option<()> {
    let is_damaged = |attempt: &&Attempt| attempt.scope == "damaged" && attempt.is_replayed();
    let of = scene.attempts.iter().find(is_damaged).cloned()?;
    body(scene.end_mut(&of)).push('x');
    Some(())
}

/// Sets the figures of this name, at all gateways.
fn set_figures(scene: &mut Scene<'_>, meant: &str, to: u64) {
    for event in &mut scene.run.history.events {
        if let Event::Figure { name, value, .. } = event
            && name == meant
        {
            *value = to;
        }
    }
}

fn above_bound(scene: &mut Scene<'_>) -> Option<()> {
    let bound = *scene.run.expect.bounds.get("connections")?;
    set_figures(scene, "connections", bound + 1);
    Some(())
}

fn untold(scene: &mut Scene<'_>) -> Option<()> {
    let name = if scene.random.once_in(2) {
        "executed"
    } else {
        "replayed"
    };
    set_figures(scene, name, 1);
    Some(())
}
