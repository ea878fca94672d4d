//! Commit, then send.

use std::sync::{Arc, Mutex};

use hapax_sqlx::{Delivered, Outbox, OutboxEvent, Records};

use crate::app::Base;

/// An outbox, its pool, and what was sent from it.
struct Sender<DB: Base> {
    pool: sqlx::Pool<DB>,
    outbox: Outbox<DB>,
    sent: Arc<Mutex<Vec<OutboxEvent>>>,
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl<DB: Base> Sender<DB> {
    async fn start() -> Self {
        let (pool, folder) = DB::pool().await;
        let records = Records::open(pool.clone()).await.expect("records");
        Self {
            pool,
            outbox: Outbox::new(records),
            sent: Arc::default(),
            _folder: folder,
        }
    }

    async fn write(&self, payload: &str, is_committed: bool) -> String {
        let mut transaction = self.pool.begin().await.expect("a transaction");
        DB::add_line(&mut *transaction, payload)
            .await
            .expect("a line");
        let id = Outbox::<DB>::put(&mut *transaction, "lines", payload.as_bytes()).await;
        if is_committed {
            transaction.commit().await.expect("committed");
        } else {
            transaction.rollback().await.expect("rolled back");
        }
        id.expect("an event")
    }

    async fn deliver(&self, works: bool) -> Delivered {
        let delivered = self.outbox.deliver(100, async |event| {
            self.sent.lock().expect("no panic within").push(event);
            works.then_some(()).ok_or("as told")
        });
        delivered.await.expect("a database")
    }

    fn sent(&self) -> Vec<OutboxEvent> {
        self.sent.lock().expect("no panic within").clone()
    }
}

pub(crate) async fn an_event_is_sent_if_and_only_if_its_cause_was_committed<DB: Base>() {
    let sender = Sender::<DB>::start().await;
    let first = sender.write("a", true).await;
    sender.write("b", false).await;
    let second = sender.write("c", true).await;
    assert_eq!(sender.deliver(true).await, Delivered { sent: 2, failed: 0 });
    assert_eq!(sender.deliver(true).await, Delivered::default());
    let sent = sender.sent();
    let ids: Vec<&String> = sent.iter().map(|event| &event.id).collect();
    assert_eq!(ids, [&first, &second]);
    assert_eq!(
        (sent[0].topic.as_str(), sent[0].payload.as_slice()),
        ("lines", b"a".as_slice())
    );
    assert_eq!(
        (sent[1].attempt, DB::count(&sender.pool, "outbox").await),
        (1, 0)
    );
}

pub(crate) async fn an_event_that_was_not_sent_is_due_again_with_the_same_id<DB: Base>() {
    let sender = Sender::<DB>::start().await;
    let id = sender.write("a", true).await;
    assert_eq!(
        sender.deliver(false).await,
        Delivered { sent: 0, failed: 1 }
    );
    // Not at once: it is left to whoever took it.
    assert_eq!(sender.deliver(true).await, Delivered::default());
    DB::run(
        &sender.pool,
        "UPDATE hapax_outbox SET not_before = not_before - 60000",
    )
    .await;
    assert_eq!(sender.deliver(true).await, Delivered { sent: 1, failed: 0 });
    let sent = sender.sent();
    assert_eq!((sent.len(), &sent[0].id, &sent[1].id), (2, &id, &id));
    assert_eq!((sent[0].attempt, sent[1].attempt), (1, 2));
}

pub(crate) async fn two_at_once_send_each_event_once<DB: Base>() {
    let sender = Sender::<DB>::start().await;
    for number in 0..30 {
        sender.write(&number.to_string(), true).await;
    }
    let (one, other) = tokio::join!(sender.deliver(true), sender.deliver(true));
    assert_eq!(one.sent + other.sent, 30);
    let mut ids: Vec<String> = sender.sent().into_iter().map(|event| event.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 30);
}
