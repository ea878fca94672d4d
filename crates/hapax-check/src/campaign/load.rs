//! What the clients of a round do: new keys, repeats, duplicates at once, other payloads, and leaving at every point.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::caller::{Ask, Caller, Fate, Leave};
use super::event::Recorder;
use super::node::Node;
use crate::random::Random;

/// Callers differ in their credentials, and share the names of some of their keys.
const SCOPES: usize = 3;
/// The most attempts of a client that wants to know.
const ATTEMPTS: usize = 8;
/// The client numbers of duplicates begin here.
const DUPLICATES: u64 = 1_000_000;

/// What all clients of a round share.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) nodes: Arc<Vec<Node>>,
    pub(crate) is_over: Arc<AtomicBool>,
    /// What keys of this round begin with.
    pub(crate) round: u64,
    pub(crate) seed: u64,
    pub(crate) is_calm: bool,
}

/// A client's state.
struct Client {
    load: Load,
    caller: Caller,
    random: Random,
    /// Keys that it has used.
    used: Vec<Ask>,
    turn: u64,
}

impl Load {
    /// One client, until told to stop. What it asked for.
    pub(crate) async fn run(self, client: u64) -> Vec<Ask> {
        let random = Random::for_case(self.seed, &format!("client-{client}"));
        let caller = Caller::new(client, &self.recorder, &self.nodes, self.is_calm);
        let turn = client;
        let mut client = Client {
            load: self,
            caller,
            random,
            used: Vec::new(),
            turn,
        };
        while !client.load.is_over.load(Ordering::Acquire) {
            client.step().await;
            client.pause(5, 40).await;
        }
        client.used
    }
}

impl Client {
    /// Everything has its turn: a short round must not lack something by chance.
    async fn step(&mut self) {
        self.turn += 1;
        match self.turn * 7 % 20 {
            0..9 => {
                let ask = self.fresh();
                self.insist(&ask).await;
            }
            9..12 => self.duplicates().await,
            12..14 => self.other_payload().await,
            14 => {
                let at = self.random.within(0, 240);
                self.leave(Leave::Cut(at)).await;
            }
            15 => {
                let ms = u64::try_from(self.random.within(0, 60)).unwrap_or(0);
                self.leave(Leave::After(Duration::from_millis(ms))).await;
            }
            16 => self.leave(Leave::After(Duration::ZERO)).await,
            17 => {
                let bytes = self.random.within(1, 500);
                self.leave(Leave::Read(bytes)).await;
            }
            18 => self.other_scope().await,
            _ => self.repeat().await,
        }
    }

    /// A key that nobody has used.
    fn fresh(&mut self) -> Ask {
        let number = self.used.len();
        let ask = Ask {
            key: format!("{}-{}-{number}", self.load.round, self.caller.client),
            scope: format!("Bearer {}", self.random.within(1, SCOPES)),
            payload: format!("{{\"amount\":{}}}", self.random.within(1, 1_000_000)),
        };
        self.used.push(ask.clone());
        ask
    }

    fn other_caller(&self, client: u64) -> Caller {
        let load = &self.load;
        Caller::new(client, &load.recorder, &load.nodes, load.is_calm)
    }

    /// As a careful client does it: the same request with the same key until there is an answer.
    async fn insist(&mut self, ask: &Ask) {
        let mut unknown = 0;
        for _ in 0..ATTEMPTS {
            let fate = self
                .caller
                .attempt(ask, Leave::Never, &mut self.random)
                .await;
            match fate {
                Fate::Final(_) => return,
                Fate::Refused(_, kind) if kind == "key-reused" => return,
                // It may become known when the upstream answers late: looked at once more, and then given up.
                Fate::Unknown(_, kind) if kind == "outcome-unknown" && unknown > 0 => return,
                Fate::Unknown(_, kind) if kind == "outcome-unknown" => {
                    unknown += 1;
                    self.pause(100, 600).await;
                }
                _ if self.load.is_over.load(Ordering::Acquire) => return,
                _ => self.pause(20, 200).await,
            }
        }
    }

    /// The same request several times at once, over whichever gateways.
    async fn duplicates(&mut self) {
        let ask = self.fresh();
        self.load.recorder.count("duplicates-at-once");
        let mut others = JoinSet::new();
        for other in 0..self.random.within(1, 6) {
            let number = u64::try_from(other).unwrap_or(0);
            let client = DUPLICATES + self.caller.client * 16 + number;
            let mut caller = self.other_caller(client);
            let seed = self.random.next();
            let ask = ask.clone();
            others.spawn(async move {
                let mut random = Random::for_case(seed, "duplicate");
                caller.attempt(&ask, Leave::Never, &mut random).await
            });
        }
        self.insist(&ask).await;
        while others.join_next().await.is_some() {}
    }

    /// Another request under a key that is taken, or is being taken.
    async fn other_payload(&mut self) {
        let ask = self.fresh();
        let other = Ask {
            payload: format!("{{\"amount\":{},\"other\":true}}", ask.payload.len()),
            ..ask.clone()
        };
        self.used.push(other.clone());
        self.load.recorder.count("other-payload");
        if self.random.within(0, 1) == 0 {
            self.insist(&ask).await;
            self.caller
                .attempt(&other, Leave::Never, &mut self.random)
                .await;
            return;
        }
        let client = DUPLICATES + self.caller.client * 16;
        let mut caller = self.other_caller(client);
        let seed = self.random.next();
        let at_once = async move {
            let mut random = Random::for_case(seed, "other");
            caller.attempt(&other, Leave::Never, &mut random).await
        };
        tokio::join!(at_once, self.insist(&ask));
    }

    /// Leaves at some point; most come back.
    async fn leave(&mut self, leave: Leave) {
        let ask = self.fresh();
        self.caller.attempt(&ask, leave, &mut self.random).await;
        if self.random.within(0, 2) > 0 {
            self.insist(&ask).await;
        }
    }

    /// The key of one caller, used by another one too: two operations.
    async fn other_scope(&mut self) {
        let ask = self.fresh();
        let other = Ask {
            scope: format!("{}, other", ask.scope),
            ..ask.clone()
        };
        self.used.push(other.clone());
        self.load.recorder.count("other-scope");
        self.insist(&ask).await;
        self.insist(&other).await;
    }

    /// A key that this client has used before, whatever became of it.
    async fn repeat(&mut self) {
        let turn = self.random.within(0, self.used.len().saturating_sub(1));
        if let Some(ask) = self.used.get(turn).cloned() {
            self.insist(&ask).await;
        }
    }

    async fn pause(&mut self, low_ms: usize, high_ms: usize) {
        let ms = self.random.within(low_ms, high_ms);
        sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).await;
    }
}
