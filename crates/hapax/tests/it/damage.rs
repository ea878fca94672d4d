//! A damaged record is an alarm, never an answer and never a vacant key.

use std::path::{Path, PathBuf};

use crate::client::post;
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, answer};

const CANARY: &[u8] = b"the canary of the damaged record";

/// Every place in the directory's files where the canary is.
fn places(folder: &Path) -> Vec<(PathBuf, usize)> {
    let mut places = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            places.extend(self::places(&path));
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        for at in 0..bytes.len().saturating_sub(CANARY.len() - 1) {
            if bytes[at..].starts_with(CANARY) {
                places.push((path.clone(), at));
            }
        }
    }
    places
}

/// Flips one bit of one byte of every copy of the canary.
fn damage(folder: &Path, offset: usize) {
    let places = places(folder);
    assert!(!places.is_empty(), "the canary is nowhere");
    for (path, at) in places {
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes[at + offset] ^= 0x10;
        std::fs::write(&path, bytes).expect("written");
    }
}

fn check(offset: usize, others_after: bool) {
    let upstream = Upstream::scripted(|effect| match effect.key() {
        "k" => Act::Answer(answer(201, &[], CANARY)),
        _ => Act::Answer(answer(201, &[], b"another")),
    });
    let mut gateway = Gateway::start(&upstream.url(), "");
    assert_eq!(post("before").send(gateway.address()).status, 201);
    assert_eq!(post("k").send(gateway.address()).body, CANARY);
    if others_after {
        assert_eq!(post("after").send(gateway.address()).status, 201);
    }
    let effects = upstream.count();
    gateway.stop();
    damage(&gateway.setup.data, offset);
    if let Err(refused) = gateway.try_restart() {
        assert_eq!(refused.status.code(), Some(6), "{refused:?}");
        assert!(refused.log.contains("damaged"), "{refused:?}");
        return;
    }
    for _ in 0..2 {
        let retry = post("k").send(gateway.address());
        assert_eq!(retry.problem(), "store-unavailable", "{retry:?}");
        assert_eq!(retry.status, 503);
    }
    assert!(post("before").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), effects);
    gateway.wait_for_log("of the damage", |log| log.contains("damaged"));
    assert!(gateway.metric("hapax_store_damaged_records", &[]) >= 1.0);
}

#[test]
fn a_damaged_answer_in_the_middle_is_never_an_answer_nor_a_vacant_key() {
    check(0, true);
    check(CANARY.len() / 2, true);
}

#[test]
fn a_damaged_answer_at_the_very_end_is_never_an_answer_nor_a_vacant_key() {
    check(0, false);
    check(CANARY.len() - 1, false);
}

#[test]
fn an_undamaged_store_with_the_same_content_replays() {
    let upstream = Upstream::scripted(|_| Act::Answer(answer(201, &[], CANARY)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    assert_eq!(post("k").send(gateway.address()).status, 201);
    gateway.stop();
    assert!(!places(&gateway.setup.data).is_empty());
    gateway.restart();
    let retry = post("k").send(gateway.address());
    assert!(retry.is_replay());
    assert_eq!(retry.body, CANARY);
}
