//! The bad network between the page and the tills: it loses answers, delays and duplicates, as the seed says.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Demo;
use super::children::Role;
use super::courier::{Letter, NoAnswer};
use super::fate::{Fate, Place, fate};
use super::record::{Entry, Outcome};

/// The most bytes of a request.
const MAX_CONTENT: usize = 64 * 1024;

/// The most bytes of an answer's content that the drawer shows.
const MAX_SHOWN: usize = 2_048;

/// How far a copy is behind.
const COPY_DELAY: Duration = Duration::from_millis(60);

/// How often the ledger is looked at for the commit after which a shop is killed, and how long.
const COMMIT_LOOK: Duration = Duration::from_millis(10);
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a shop that was killed amid an order stays away.
const SHOP_AWAY: Duration = Duration::from_millis(1_500);

/// Says which request of the page's it is. One without it is a stranger's, and nothing happens to it.
const DEMO_PLACE: HeaderName = HeaderName::from_static("demo-place");

/// Where an order is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Till {
    /// Straight at the shop.
    #[serde(rename = "bare")]
    Bare,
    /// At the shop behind hapax.
    #[serde(rename = "hapax")]
    WithHapax,
}

impl Till {
    /// The till of a path and the target behind it.
    pub(super) fn of(path_and_query: &str) -> Option<(Self, &str)> {
        let tills = [("/bare", Self::Bare), ("/hapax", Self::WithHapax)];
        tills.into_iter().find_map(|(prefix, till)| {
            let target = path_and_query.strip_prefix(prefix)?;
            target.starts_with('/').then_some((till, target))
        })
    }

    /// Who listens there.
    const fn front(self) -> Role {
        match self {
            Self::Bare => Role::BareShop,
            Self::WithHapax => Role::Hapax,
        }
    }

    /// Who has the ledger.
    pub(super) const fn shop(self) -> Role {
        match self {
            Self::Bare => Role::BareShop,
            Self::WithHapax => Role::Shop,
        }
    }
}

/// The page gets no answer: its connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub(super) struct Cut;

/// Carries a request to a till, and the answer back if it is not lost.
pub(super) async fn carry(
    demo: Arc<Demo>,
    till: Till,
    target: String,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let (parts, content) = request.into_parts();
    let content = Limited::new(content, MAX_CONTENT).collect().await;
    let content = content.map_err(|_| Cut)?.to_bytes();
    let mut headers = parts.headers;
    let place = headers.remove(DEMO_PLACE);
    let place = place.as_ref().and_then(|value| value.to_str().ok());
    let place = place.and_then(Place::parse);
    // A browser sends a request again by itself when a connection that it had opened in advance is closed
    // without an answer. What a click does hangs on the seed alone, so that such a repeat goes nowhere.
    if let Some(place) = place
        && !demo.record.is_first(till, place)
    {
        return Err(Cut);
    }
    let fate = place.map_or(Fate::CALM, |place| {
        fate(demo.options.seed, place, demo.weather())
    });
    let letter = Letter {
        method: parts.method,
        target,
        headers,
        content,
    };
    let transit = Transit {
        demo,
        till,
        place,
        fate,
    };
    // In a task of its own: what is on the wire is not taken back when the page is left.
    let arrival = tokio::spawn(transit.deliver(letter));
    arrival.await.unwrap_or(Err(Cut))
}

/// One request under way.
#[derive(Clone)]
struct Transit {
    demo: Arc<Demo>,
    till: Till,
    place: Option<Place>,
    fate: Fate,
}

impl Transit {
    async fn deliver(self, letter: Letter) -> Result<Response<Body>, Cut> {
        if self.fate.is_duplicated {
            tokio::spawn(self.clone().deliver_copy(letter.clone()));
        }
        sleep(self.fate.delay / 2).await;
        let answer = self.send(letter.clone()).await;
        sleep(self.fate.delay / 2).await;
        let outcome = match &answer {
            Ok(_) if self.fate.loses_answer => Outcome::Lost,
            Ok(_) => Outcome::Delivered,
            Err(NoAnswer::Unreachable) => Outcome::Unreachable,
            Err(NoAnswer::Cut) => Outcome::Cut,
        };
        self.note(&letter, outcome, answer.as_ref().ok());
        match answer {
            Ok(answer) if outcome == Outcome::Delivered => Ok(answer.map(Body::from)),
            _ => Err(Cut),
        }
    }

    async fn deliver_copy(self, letter: Letter) {
        sleep(self.fate.delay / 2 + COPY_DELAY).await;
        let answer = self.send(letter.clone()).await;
        self.note(&letter, Outcome::Discarded, answer.as_ref().ok());
    }

    async fn send(&self, letter: Letter) -> Result<Response<Bytes>, NoAnswer> {
        let front = self.demo.children.address(self.till.front());
        let front = front.ok_or(NoAnswer::Unreachable)?;
        if self.demo.disarm(self.till) {
            let before = charges(&self.demo, self.till).await.unwrap_or(0);
            tokio::spawn(kill_after_commit(Arc::clone(&self.demo), self.till, before));
        }
        letter.send(front).await
    }

    fn note(&self, letter: &Letter, outcome: Outcome, answer: Option<&Response<Bytes>>) {
        let delay_ms = u64::try_from(self.fate.delay.as_millis()).unwrap_or(u64::MAX);
        self.demo.record.add(Entry {
            serial: 0,
            till: self.till,
            place: self.place.map(|place| place.to_string()),
            is_copy: outcome == Outcome::Discarded,
            method: letter.method.to_string(),
            target: letter.target.clone(),
            key: text_of(&letter.headers, "idempotency-key"),
            delay_ms,
            is_duplicated: self.fate.is_duplicated,
            loses_answer: self.fate.loses_answer,
            outcome,
            status: answer.map(|answer| answer.status().as_u16()),
            fields: answer.map_or_else(Vec::new, |answer| shown(answer.headers())),
            content: answer.map_or_else(String::new, |answer| {
                let shown = answer.body().get(..MAX_SHOWN).unwrap_or(answer.body());
                String::from_utf8_lossy(shown).into_owned()
            }),
        });
    }
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let fields = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    fields.collect()
}

/// What the till's shop has in its books: asked for at the shop itself, never at hapax. `None` while it is away.
pub(super) async fn ledger(demo: &Demo, till: Till) -> Option<serde_json::Value> {
    ask_shop(demo, till, "/ledger").await
}

/// Asks the till's shop itself, over a network that is in order.
pub(super) async fn ask_shop(demo: &Demo, till: Till, target: &str) -> Option<serde_json::Value> {
    let shop = demo.children.address(till.shop())?;
    let answer = Letter::get(target).send(shop).await.ok()?;
    serde_json::from_slice(answer.body()).ok()
}

async fn charges(demo: &Demo, till: Till) -> Option<i64> {
    ledger(demo, till).await?.get("charges")?.as_i64()
}

/// Kills the till's shop as soon as an order is in its books, which is before it answers; and starts it again.
async fn kill_after_commit(demo: Arc<Demo>, till: Till, before: i64) {
    let began = Instant::now();
    loop {
        match charges(&demo, till).await {
            Some(now) if now > before => break,
            _ if began.elapsed() > COMMIT_PATIENCE => return,
            _ => sleep(COMMIT_LOOK).await,
        }
    }
    demo.children.kill(till.shop()).await;
    sleep(SHOP_AWAY).await;
    // One that does not come back is shown as away, with a button to start it.
    let _ = demo.children.start(till.shop()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_till_is_the_first_part_of_a_path() {
        assert_eq!(
            Till::of("/bare/orders?request=k"),
            Some((Till::Bare, "/orders?request=k"))
        );
        assert_eq!(Till::of("/hapax/"), Some((Till::WithHapax, "/")));
        for path in ["/", "/bare", "/hapaxx/orders", "/demo/state"] {
            assert_eq!(Till::of(path), None, "{path}");
        }
    }
}
