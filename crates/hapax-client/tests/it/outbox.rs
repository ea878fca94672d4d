//! The outbox: on the disk before the first byte, resolved before new work, never twice.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hapax_client::outbox::{IntentError, Outbox, OutboxError, Recorder, Sender, Sent};
use hapax_client::{BoxError, OutcomeUnknown, Timing, Why};
use http::{Request, Response, StatusCode};

use crate::reqwest::{quick, safe};
use crate::server::{Act, MADE, NO_ENTRY, Server};

/// What a sender answers.
#[derive(Debug, Clone, Copy)]
enum Say {
    Final,
    Unknown,
    Refused,
    Nothing,
}

/// Answers in turn, keeps what it was given, and looks at the folder while the request is under way.
struct Script {
    says: Mutex<VecDeque<Say>>,
    sent: Mutex<Vec<(String, Bytes)>>,
    folder: Option<PathBuf>,
}

impl Script {
    fn new(says: &[Say]) -> Self {
        Self {
            says: Mutex::new(says.iter().copied().collect()),
            sent: Mutex::default(),
            folder: None,
        }
    }

    fn keys(&self) -> Vec<String> {
        self.sent
            .lock()
            .unwrap()
            .iter()
            .map(|(key, _)| key.clone())
            .collect()
    }
}

impl Sender for Script {
    async fn send(&self, request: Request<Bytes>) -> Sent {
        let key = request.headers()["idempotency-key"]
            .to_str()
            .unwrap()
            .to_owned();
        if let Some(folder) = &self.folder {
            let kept = files(folder).iter().any(|text| text.contains(&key));
            assert!(kept, "the key is on the disk before it is sent");
        }
        self.sent
            .lock()
            .unwrap()
            .push((key, request.body().clone()));
        let answer = |status| {
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = status;
            answer
        };
        match self
            .says
            .lock()
            .unwrap()
            .pop_front()
            .expect("one more answer")
        {
            Say::Final => Sent::Final(answer(StatusCode::CREATED)),
            Say::Refused => Sent::Refused(answer(StatusCode::UNAUTHORIZED)),
            Say::Nothing => Sent::NothingRan("refused".into()),
            Say::Unknown => Sent::Unknown(Box::new(OutcomeUnknown {
                why: Why::Attempts,
                attempts: 3,
                request,
                answer: None,
                source: None,
            })),
        }
    }
}

fn files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "intent"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

fn order(body: &'static str) -> Request<Bytes> {
    Request::post("http://shop.test/create-order")
        .header("content-type", "application/json")
        .header("authorization", "Bearer secret")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap()
}

async fn empty(folder: &Path) -> Outbox {
    let (outbox, resolved) = Outbox::open(folder)
        .unwrap()
        .resolve(&Script::new(&[]))
        .await;
    assert!(resolved.is_empty());
    outbox
}

#[tokio::test]
async fn key_and_bytes_are_on_the_disk_before_the_first_send_and_gone_after_a_final_answer() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = empty(folder.path()).await;
    let script = Script {
        folder: Some(folder.path().to_owned()),
        ..Script::new(&[Say::Final])
    };
    let answer = outbox.send("cart-1", order("{}"), &script).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert!(files(folder.path()).is_empty());
    assert!(outbox.pending().is_empty());
}

#[tokio::test]
async fn what_is_unknown_is_resolved_at_the_next_start_with_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let first = Script::new(&[Say::Unknown, Say::Unknown]);
    let outbox = empty(folder.path()).await;
    for (name, body) in [("cart-1", "one"), ("cart-2", "two")] {
        let error = outbox.send(name, order(body), &first).await.unwrap_err();
        assert!(matches!(error, IntentError::Unknown(_)));
    }
    assert!(
        !files(folder.path()).concat().contains("secret"),
        "credentials are not kept"
    );
    drop(outbox);
    let second = Script::new(&[Say::Final, Say::Unknown]);
    let unresolved = Outbox::open(folder.path()).unwrap();
    assert_eq!(unresolved.pending(), ["cart-1", "cart-2"]);
    let (outbox, resolved) = unresolved.resolve(&second).await;
    assert_eq!(*first.sent.lock().unwrap(), *second.sent.lock().unwrap());
    assert!(resolved[0].outcome.is_ok());
    assert!(matches!(resolved[1].outcome, Err(IntentError::Unknown(_))));
    assert_eq!(outbox.pending(), ["cart-2"]);
    let third = Script::new(&[Say::Final]);
    assert!(outbox.resume("cart-2", &third).await.unwrap().is_some());
    assert_eq!(third.keys()[0], second.keys()[1]);
}

#[tokio::test]
async fn other_bytes_are_refused_while_it_may_have_run_and_fine_when_nothing_ran() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = empty(folder.path()).await;
    let script = Script::new(&[Say::Nothing, Say::Refused, Say::Unknown, Say::Final]);
    assert!(matches!(
        outbox.send("cart", order("a"), &script).await,
        Err(IntentError::NothingRan(_))
    ));
    assert!(matches!(
        outbox.send("cart", order("a"), &script).await,
        Err(IntentError::Refused(_))
    ));
    assert!(matches!(
        outbox.send("cart", order("b"), &script).await,
        Err(IntentError::Unknown(_))
    ));
    let error = outbox.send("cart", order("a"), &script).await.unwrap_err();
    assert!(
        matches!(error, IntentError::Outbox(OutboxError::Pending)),
        "{error}"
    );
    assert!(outbox.send("cart", order("b"), &script).await.is_ok());
    let keys = script.keys();
    assert_eq!(keys[0], keys[1], "the same bytes keep their key");
    assert_ne!(keys[1], keys[2]);
    assert_eq!(keys[2], keys[3]);
}

#[tokio::test]
async fn a_key_older_than_its_time_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = empty(folder.path()).await;
    let script = Script::new(&[Say::Unknown]);
    assert!(outbox.send("cart", order("a"), &script).await.is_err());
    drop(outbox);
    let later = Timing {
        now: || SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into()),
        ..Timing::default()
    };
    let (outbox, resolved) = Outbox::open(folder.path())
        .unwrap()
        .with_timing(later)
        .resolve(&script)
        .await;
    let Err(IntentError::Unknown(unknown)) = &resolved[0].outcome else {
        panic!("{resolved:?}");
    };
    assert_eq!(unknown.why, Why::Expired);
    outbox.forget("cart").await.unwrap();
    assert!(files(folder.path()).is_empty());
}

#[tokio::test]
async fn a_folder_is_open_in_one_place_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Outbox::open(folder.path()).unwrap();
    assert!(matches!(
        Outbox::open(folder.path()),
        Err(OutboxError::InUse)
    ));
    drop(first);
    assert!(Outbox::open(folder.path()).is_ok());
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_of_a_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = empty(folder.path()).await;
    outbox.put("cart", &order("a")).await.unwrap();
    drop(outbox);
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "intent"))
        .unwrap();
    let good = std::fs::read(&file).unwrap();
    for bit in (0..good.len()).map(|byte| byte * 8 + byte % 8) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &bad).unwrap();
        let error = Outbox::open(folder.path()).err();
        assert!(
            matches!(error, Some(OutboxError::Damaged(_))),
            "bit {bit}: {error:?}"
        );
    }
    std::fs::write(&file, &good).unwrap();
    assert_eq!(Outbox::open(folder.path()).unwrap().pending(), ["cart"]);
}

#[tokio::test]
async fn a_write_that_never_came_to_its_place_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("half.draft"), "half").unwrap();
    let outbox = empty(folder.path()).await;
    assert!(outbox.pending().is_empty());
    assert!(!folder.path().join("half.draft").exists());
}

#[tokio::test]
async fn an_intent_under_way_is_not_sent_a_second_time() {
    struct Slow(tokio::sync::Notify, tokio::sync::Notify);
    impl Sender for Slow {
        async fn send(&self, _: Request<Bytes>) -> Sent {
            self.0.notify_one();
            self.1.notified().await;
            Sent::Final(Response::new(Bytes::new()))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let outbox = empty(folder.path()).await;
    let slow = Slow(tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let second = async {
        slow.0.notified().await;
        let error = outbox
            .send("cart", order("a"), &Script::new(&[]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, IntentError::Outbox(OutboxError::UnderWay)),
            "{error}"
        );
        slow.1.notify_one();
    };
    let (first, ()) = tokio::join!(outbox.send("cart", order("a"), &slow), second);
    assert!(first.is_ok());
}

#[tokio::test]
async fn over_reqwest_an_order_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[Act::Hangup, Act::Hangup, Act::Hangup, NO_ENTRY, MADE]).await;
    let request = Request::post(&server.url)
        .body(Bytes::from_static(b"{}"))
        .unwrap();
    let sender = safe(quick());
    let outbox = empty(folder.path()).await;
    assert!(matches!(
        outbox.send("cart", request.clone(), &sender).await,
        Err(IntentError::Unknown(_))
    ));
    drop(outbox);
    let (outbox, resolved) = Outbox::open(folder.path()).unwrap().resolve(&sender).await;
    assert!(
        matches!(&resolved[0].outcome, Err(IntentError::Refused(answer)) if answer.status() == 401)
    );
    assert_eq!(
        outbox.send("cart", request, &sender).await.unwrap().body(),
        "{\"order\":1}"
    );
    assert_eq!(server.asked().len(), 5);
    server.key();
    assert!(server.asked()[0].head.starts_with("POST /create-order"));
}

#[tokio::test]
async fn an_answer_is_recorded_before_its_key_is_forgotten() {
    /// Fails the first time, and looks whether the intent is still kept.
    struct Book(Mutex<Vec<String>>, PathBuf);
    impl Recorder for Book {
        fn record(&self, name: &str, _: &Response<Bytes>) -> Result<(), BoxError> {
            assert_eq!(files(&self.1).len(), 1);
            let mut names = self.0.lock().unwrap();
            names.push(name.to_owned());
            if names.len() == 1 {
                Err("the disk is full".into())
            } else {
                Ok(())
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let book = Arc::new(Book(Mutex::default(), folder.path().to_owned()));
    let script = Script::new(&[Say::Final, Say::Final]);
    let (outbox, _) = Outbox::open(folder.path())
        .unwrap()
        .with_recorder(Arc::clone(&book) as Arc<dyn Recorder>)
        .resolve(&script)
        .await;
    let error = outbox.send("cart", order("a"), &script).await.unwrap_err();
    assert!(matches!(error, IntentError::NotRecorded { .. }), "{error}");
    assert_eq!(outbox.pending(), ["cart"]);
    assert!(outbox.resume("cart", &script).await.unwrap().is_some());
    assert_eq!(*book.0.lock().unwrap(), ["cart", "cart"]);
    assert_eq!(script.keys()[0], script.keys()[1]);
    assert!(files(folder.path()).is_empty());
}
