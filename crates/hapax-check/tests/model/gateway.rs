//! Gateways that share a store, as a model: every interleaving of their steps, with crashes and lapsed leases between
//! any two of them.
//!
//! A model is not the code. It shows that the *rules* are enough, whatever the order of things, and which of them cannot be
//! left out; that the code follows them is for the simulation to show.

use std::collections::BTreeSet;

use stateright::{Model, Property};

/// What a gateway does when nobody can know what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnUnknown {
    /// Nothing is run again.
    Refuse,
    /// The upstream is asked, and "no such thing" lets the asker execute.
    Probe(Proof),
}

/// Why "no such thing" means that it did not happen, and will not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It does not: the first request may still be on its way.
    None,
    /// The question makes the upstream refuse every earlier claim.
    Fence,
    /// So much time has passed that nothing can be on its way: an assumption about time.
    Quiescence,
}

/// The rules of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// A lapsed lease makes the key free again, instead of its outcome unknown.
    pub(crate) runs_lapsed_again: bool,
    pub(crate) on_unknown: OnUnknown,
    /// A write is refused when the record is not under the writer's claim any more.
    pub(crate) compares_claims: bool,
}

/// Gateways, keys, and how much may happen.
#[derive(Debug, Clone)]
pub(crate) struct Gateways {
    pub(crate) policy: Policy,
    pub(crate) nodes: usize,
    pub(crate) keys: usize,
    /// Attempts that claim a key or ask the upstream.
    pub(crate) attempts: u8,
    pub(crate) crashes: u8,
}

type Claim = u8;
type Answer = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Vacant,
    Outstanding {
        claim: Claim,
        attempt: u8,
        is_lapsed: bool,
    },
    Unknown {
        claim: Claim,
        attempt: u8,
    },
    /// Under a fresh claim id, which no writer knows.
    Completed(Answer),
}

/// What a gateway is doing for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Idle,
    Claimed(Held),
    Waiting(Held),
    Answered(Held, Answer),
    /// The upstream cannot have acted: not sent, or refused by a fence.
    NothingHappened(Held),
    Broken(Held),
    /// The upstream was asked about the outcome of this claim.
    Asked {
        held: Held,
        saw: Option<Answer>,
        may_execute: bool,
    },
}

/// Under what a gateway works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Held {
    key: usize,
    claim: Claim,
    attempt: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) records: Vec<Record>,
    nodes: Vec<Node>,
    /// Requests on their way to the upstream.
    wire: BTreeSet<Held>,
    /// Answers on their way back.
    replies: BTreeSet<(Claim, Option<Answer>)>,
    pub(crate) effects: Vec<u8>,
    /// Claims up to this one are refused by the upstream.
    fences: Vec<Claim>,
    /// Nothing can be on its way any more.
    quiet: Vec<bool>,
    /// The answer that a client has.
    pub(crate) told: Vec<Option<Answer>>,
    has_two_answers: bool,
    has_refused_write: bool,
    claims: Claim,
    attempts: u8,
    crashes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Claim { node: usize, key: usize },
    Expire { key: usize },
    MarkUnknown { key: usize },
    RunLapsedAgain { node: usize, key: usize },
    Quiesce { key: usize },
    Ask { node: usize, key: usize },
    Conclude { node: usize },
    Dispatch { node: usize },
    IsNotSent { node: usize },
    Act(Held),
    Lose(Held),
    Receive { node: usize },
    Break { node: usize },
    Settle { node: usize },
    Crash { node: usize },
}

impl Gateways {
    /// Writes under a claim, if the record is still under it. Says whether it was.
    fn may_write(&self, world: &mut World, held: Held) -> bool {
        let holds = match world.records[held.key] {
            Record::Outstanding { claim, .. } | Record::Unknown { claim, .. } => {
                claim == held.claim
            }
            Record::Vacant | Record::Completed(_) => false,
        };
        world.has_refused_write |= !holds && self.policy.compares_claims;
        holds || !self.policy.compares_claims
    }

    fn node_actions(&self, world: &World, node: usize, actions: &mut Vec<Action>) {
        let policy = self.policy;
        let is_idle = world.nodes[node] == Node::Idle;
        for key in (0..self.keys).filter(|_| is_idle && world.attempts > 0) {
            match world.records[key] {
                Record::Vacant => actions.push(Action::Claim { node, key }),
                Record::Outstanding {
                    is_lapsed: true, ..
                } if policy.runs_lapsed_again => actions.push(Action::RunLapsedAgain { node, key }),
                Record::Unknown { .. } if policy.on_unknown != OnUnknown::Refuse => {
                    actions.push(Action::Ask { node, key });
                }
                // Conflicts, refusals and replays change nothing.
                _ => {}
            }
        }
        match world.nodes[node] {
            Node::Idle => return,
            Node::Claimed(_) => {
                actions.push(Action::Dispatch { node });
                actions.push(Action::IsNotSent { node });
            }
            Node::Waiting(held) => {
                actions.push(Action::Break { node });
                if world.replies.iter().any(|(claim, _)| *claim == held.claim) {
                    actions.push(Action::Receive { node });
                }
            }
            Node::Asked { .. } => actions.push(Action::Conclude { node }),
            Node::Answered(..) | Node::NothingHappened(_) | Node::Broken(_) => {
                actions.push(Action::Settle { node });
            }
        }
        if world.crashes > 0 {
            actions.push(Action::Crash { node });
        }
    }

    /// What a gateway writes when it knows how its execution ended.
    fn settle(&self, world: &mut World, node: usize) {
        let doing = std::mem::replace(&mut world.nodes[node], Node::Idle);
        let (held, record) = match doing {
            Node::Answered(held, answer) => (held, Record::Completed(answer)),
            // An operation that was sent before is never given back.
            Node::NothingHappened(held) if held.attempt == 1 => (held, Record::Vacant),
            Node::NothingHappened(held) | Node::Broken(held) => {
                let (claim, attempt) = (held.claim, held.attempt);
                (held, Record::Unknown { claim, attempt })
            }
            _ => return,
        };
        if self.may_write(world, held) {
            world.records[held.key] = record;
            world.quiet[held.key] = false;
        }
        // A refused holder answers with what the record says now.
        world.tell(held.key);
    }

    /// What a gateway does with the answer to its question.
    fn conclude(&self, world: &mut World, node: usize) {
        let Node::Asked {
            held,
            saw,
            may_execute,
        } = std::mem::replace(&mut world.nodes[node], Node::Idle)
        else {
            return;
        };
        if saw.is_none() && !may_execute || !self.may_write(world, held) {
            return;
        }
        match saw {
            Some(answer) => {
                world.records[held.key] = Record::Completed(answer);
                world.tell(held.key);
            }
            None => world.claim(node, held.key, held.attempt + 1),
        }
    }

    fn ask(&self, world: &mut World, node: usize, key: usize) {
        let Record::Unknown { claim, attempt } = world.records[key] else {
            return;
        };
        world.attempts -= 1;
        let saw = (world.effects[key] > 0).then_some(world.effects[key]);
        let may_execute = match self.policy.on_unknown {
            OnUnknown::Probe(Proof::Fence) => {
                world.fences[key] = world.fences[key].max(claim);
                true
            }
            OnUnknown::Probe(Proof::Quiescence) => world.quiet[key],
            OnUnknown::Probe(Proof::None) => true,
            OnUnknown::Refuse => false,
        };
        let held = Held {
            key,
            claim,
            attempt,
        };
        world.nodes[node] = Node::Asked {
            held,
            saw,
            may_execute,
        };
    }
}

impl World {
    fn claim(&mut self, node: usize, key: usize, attempt: u8) {
        self.claims += 1;
        let claim = self.claims;
        self.records[key] = Record::Outstanding {
            claim,
            attempt,
            is_lapsed: false,
        };
        self.quiet[key] = false;
        self.nodes[node] = Node::Claimed(Held {
            key,
            claim,
            attempt,
        });
    }

    /// A client is told what the record says.
    fn tell(&mut self, key: usize) {
        if let Record::Completed(answer) = self.records[key] {
            let first = *self.told[key].get_or_insert(answer);
            self.has_two_answers |= first != answer;
        }
    }

    /// The upstream gets a request.
    fn act(&mut self, held: Held) {
        self.wire.remove(&held);
        let is_fenced = held.claim <= self.fences[held.key];
        if !is_fenced {
            self.effects[held.key] += 1;
        }
        let answer = (!is_fenced).then_some(self.effects[held.key]);
        if self.nodes.contains(&Node::Waiting(held)) {
            self.replies.insert((held.claim, answer));
        }
    }

    /// Nobody waits for this reply any more.
    fn forget(&mut self, node: usize) {
        if let Node::Waiting(held) = self.nodes[node] {
            self.replies.retain(|(claim, _)| *claim != held.claim);
        }
    }

    fn receive(&mut self, node: usize) {
        let Node::Waiting(held) = self.nodes[node] else {
            return;
        };
        let reply = self.replies.iter().find(|(claim, _)| *claim == held.claim);
        if let Some((_, answer)) = reply.copied() {
            self.forget(node);
            self.nodes[node] = match answer {
                Some(answer) => Node::Answered(held, answer),
                None => Node::NothingHappened(held),
            };
        }
    }

    /// Whether a request for this key is on its way, or a gateway may still send one.
    fn may_act(&self, key: usize) -> bool {
        let is_claimed = |node: &Node| matches!(node, Node::Claimed(held) if held.key == key);
        self.wire.iter().any(|held| held.key == key) || self.nodes.iter().any(is_claimed)
    }
}

impl Model for Gateways {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            records: vec![Record::Vacant; self.keys],
            nodes: vec![Node::Idle; self.nodes],
            wire: BTreeSet::new(),
            replies: BTreeSet::new(),
            effects: vec![0; self.keys],
            fences: vec![0; self.keys],
            quiet: vec![false; self.keys],
            told: vec![None; self.keys],
            has_two_answers: false,
            has_refused_write: false,
            claims: 0,
            attempts: self.attempts,
            crashes: self.crashes,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for key in 0..self.keys {
            match world.records[key] {
                Record::Outstanding { is_lapsed, .. } => {
                    if !is_lapsed {
                        actions.push(Action::Expire { key });
                    } else if !self.policy.runs_lapsed_again {
                        actions.push(Action::MarkUnknown { key });
                    }
                }
                Record::Unknown { .. } => {
                    let is_asked = self.policy.on_unknown == OnUnknown::Probe(Proof::Quiescence);
                    if is_asked && !world.quiet[key] && !world.may_act(key) {
                        actions.push(Action::Quiesce { key });
                    }
                }
                _ => {}
            }
        }
        for node in 0..self.nodes {
            self.node_actions(world, node, actions);
        }
        for held in &world.wire {
            actions.push(Action::Act(*held));
            actions.push(Action::Lose(*held));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Claim { node, key } => {
                world.attempts -= 1;
                world.claim(node, key, 1);
            }
            Action::RunLapsedAgain { node, key } => {
                world.attempts -= 1;
                world.claim(node, key, 2);
            }
            Action::Expire { key } => {
                if let Record::Outstanding { is_lapsed, .. } = &mut world.records[key] {
                    *is_lapsed = true;
                }
            }
            Action::MarkUnknown { key } => {
                if let Record::Outstanding { claim, attempt, .. } = world.records[key] {
                    world.records[key] = Record::Unknown { claim, attempt };
                    world.quiet[key] = false;
                }
            }
            Action::Quiesce { key } => world.quiet[key] = true,
            Action::Ask { node, key } => self.ask(&mut world, node, key),
            Action::Conclude { node } => self.conclude(&mut world, node),
            Action::Dispatch { node } => {
                if let Node::Claimed(held) = world.nodes[node] {
                    world.wire.insert(held);
                    world.nodes[node] = Node::Waiting(held);
                }
            }
            Action::IsNotSent { node } => {
                if let Node::Claimed(held) = world.nodes[node] {
                    world.nodes[node] = Node::NothingHappened(held);
                }
            }
            Action::Act(held) => world.act(held),
            Action::Lose(held) => {
                world.wire.remove(&held);
            }
            Action::Receive { node } => world.receive(node),
            Action::Break { node } => {
                if let Node::Waiting(held) = world.nodes[node] {
                    world.forget(node);
                    world.nodes[node] = Node::Broken(held);
                }
            }
            Action::Settle { node } => self.settle(&mut world, node),
            Action::Crash { node } => {
                world.crashes -= 1;
                world.forget(node);
                world.nodes[node] = Node::Idle;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one effect", |_, world: &World| {
                world.effects.iter().all(|effects| *effects <= 1)
            }),
            Property::always("one answer", |_, world: &World| !world.has_two_answers),
            Property::always("no loss", |_, world: &World| {
                let mut both = world.told.iter().zip(&world.records);
                both.all(|(told, record)| {
                    told.is_none_or(|answer| *record == Record::Completed(answer))
                })
            }),
            Property::always("no phantom", |_, world: &World| {
                let mut both = world.told.iter().zip(&world.effects);
                both.all(|(told, effects)| told.is_none_or(|_| *effects > 0))
            }),
            // When nothing more can happen, nothing is outstanding.
            Property::always("liveness", |model: &Self, world: &World| {
                let mut actions = Vec::new();
                model.actions(world, &mut actions);
                let is_settled = |record: &Record| !matches!(record, Record::Outstanding { .. });
                !actions.is_empty() || world.records.iter().all(is_settled)
            }),
            // Against a model in which nothing happens.
            Property::sometimes("all keys are completed", |_, world: &World| {
                let is_completed = |record: &Record| matches!(record, Record::Completed(_));
                world.records.iter().all(is_completed)
            }),
            Property::sometimes("unknown with an effect", |_, world: &World| {
                let mut both = world.records.iter().zip(&world.effects);
                both.any(|(record, effects)| {
                    matches!(record, Record::Unknown { .. }) && *effects > 0
                })
            }),
            Property::sometimes("unknown without an effect", |_, world: &World| {
                let mut both = world.records.iter().zip(&world.effects);
                both.any(|(record, effects)| {
                    matches!(record, Record::Unknown { .. }) && *effects == 0
                })
            }),
            Property::sometimes("a stale write is refused", |model: &Self, world: &World| {
                // Without probes, nobody takes a key from a holder.
                world.has_refused_write || model.policy.on_unknown == OnUnknown::Refuse
            }),
        ]
    }
}
