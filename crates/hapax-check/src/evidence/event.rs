//! What clients saw, and what was done to the world meanwhile: one JSON object a line.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One thing that happened. Instants are microseconds of one monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// A client sends an attempt. Every attempt is an `op` of its own: a retry has another number.
    Invoke {
        /// When.
        at_us: u64,
        /// Who.
        client: u64,
        /// Which of its attempts.
        op: u64,
        /// The idempotency key.
        key: String,
        /// Who it says that it is: whatever makes up the scope.
        scope: String,
        /// A digest of all that makes two requests the same: method, target, content.
        payload: String,
        /// What was done to this attempt alone, if anything.
        #[serde(default)]
        fault: Option<String>,
    },
    /// A final answer: one of the operation itself, first or repeated.
    Ok {
        /// When it had arrived in full.
        at_us: u64,
        /// Who.
        client: u64,
        /// Which of its attempts.
        op: u64,
        /// The status.
        status: u16,
        /// Whether the answer says that it is a replay.
        replayed: bool,
        /// A digest of the content.
        body: String,
        /// The kept fields, in their order, names in lower case.
        #[serde(default)]
        fields: Vec<(String, String)>,
        /// Which gateway answered.
        #[serde(default)]
        node: Option<String>,
    },
    /// This attempt was surely not executed: a refusal, or the upstream's own word that nothing happened.
    Fail {
        /// When.
        at_us: u64,
        /// Who.
        client: u64,
        /// Which of its attempts.
        op: u64,
        /// The status.
        status: u16,
        /// The problem's name, or `released` for an answer of the upstream that gave the key back.
        kind: String,
    },
    /// Nobody knows whether this attempt was executed.
    Info {
        /// When.
        at_us: u64,
        /// Who.
        client: u64,
        /// Which of its attempts.
        op: u64,
        /// The status, if there was one.
        #[serde(default)]
        status: Option<u16>,
        /// `lost` (the connection died), `timed-out` (the client's own patience), or `outcome-unknown`
        /// (the answer said so, by problem or by `Idempotency-Status: unknown`).
        kind: String,
    },
    /// Something is done to the world.
    Fault {
        /// When.
        at_us: u64,
        /// What.
        fault: String,
        /// To which gateway.
        #[serde(default)]
        node: Option<String>,
    },
    /// It is over: the fault that is named, or all of them.
    Healed {
        /// When.
        at_us: u64,
        /// Which.
        #[serde(default)]
        fault: Option<String>,
        /// At which gateway.
        #[serde(default)]
        node: Option<String>,
    },
    /// A measurement: a metric, or the size of something.
    Figure {
        /// When.
        at_us: u64,
        /// Of what.
        name: String,
        /// The value.
        value: u64,
        /// At which gateway.
        #[serde(default)]
        node: Option<String>,
    },
}

impl Event {
    /// When it happened.
    pub fn at_us(&self) -> u64 {
        match self {
            Self::Invoke { at_us, .. }
            | Self::Ok { at_us, .. }
            | Self::Fail { at_us, .. }
            | Self::Info { at_us, .. }
            | Self::Fault { at_us, .. }
            | Self::Healed { at_us, .. }
            | Self::Figure { at_us, .. } => *at_us,
        }
    }
}

/// One effect. The upstream writes it down, durably, before it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// When, by the clock of the history.
    pub at_us: u64,
    /// The idempotency key that came with it.
    pub key: String,
    /// The scope it came from.
    pub scope: String,
    /// The digest of the request.
    pub payload: String,
    /// Its number.
    pub effect: u64,
    /// The digest of the content that the upstream answers with, where it says so: then an answer must be one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What clients saw, in the order in which it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
}

/// What the upstream did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// The effects, in any order.
    pub effects: Vec<Effect>,
}

/// A file that is no history.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// A line is not an event.
    #[error("line {line} is not one of these events")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
}

impl History {
    /// Reads a file of events.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is not an event.
    pub fn read(from: impl BufRead) -> Result<Self, ReadError> {
        let events = read_lines(from)?;
        Ok(Self { events })
    }

    /// Writes a file of events.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        write_lines(&self.events, to)
    }
}

impl Effects {
    /// Reads a file of effects.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is not an effect.
    pub fn read(from: impl BufRead) -> Result<Self, ReadError> {
        let effects = read_lines(from)?;
        Ok(Self { effects })
    }

    /// Writes a file of effects.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        write_lines(&self.effects, to)
    }
}

/// One value a line. A last line without its end that is no value was being written when its writer died.
fn read_lines<T: for<'de> Deserialize<'de>>(mut from: impl BufRead) -> Result<Vec<T>, ReadError> {
    let mut values = Vec::new();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if from.read_line(&mut text)? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&text) {
            Ok(value) => values.push(value),
            Err(_) if !text.ends_with('\n') => break,
            Err(source) => return Err(ReadError::Line { line, source }),
        }
    }
    Ok(values)
}

fn write_lines<T: Serialize>(values: &[T], mut to: impl Write) -> io::Result<()> {
    for value in values {
        serde_json::to_writer(&mut to, value)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"at_us":1,"client":7,"op":0,"type":"invoke","key":"k","scope":"s","payload":"aa","fault":null}
{"at_us":2,"type":"fault","fault":"kill-9","node":"a"}
{"at_us":3,"client":7,"op":0,"type":"info","status":null,"kind":"lost"}
{"type":"healed","at_us":4}
{"at_us":5,"client":7,"op":1,"type":"invoke","key":"k","scope":"s","payload":"aa"}
{"at_us":6,"client":7,"op":1,"type":"ok","status":201,"replayed":true,"body":"bb","fields":[["location","/1"]],"node":"a"}
{"at_us":7,"client":7,"op":2,"type":"fail","status":409,"kind":"in-progress"}
{"at_us":8,"type":"figure","name":"connections","value":3,"node":"a"}
"#;

    #[test]
    fn a_history_is_read_and_written() {
        let history = History::read(TEXT.as_bytes()).unwrap();
        assert_eq!(history.events.len(), 8);
        let mut again = Vec::new();
        history.write(&mut again).unwrap();
        assert_eq!(History::read(&again[..]).unwrap(), history);
    }

    #[test]
    fn a_line_that_is_no_event_is_named_unless_its_writer_died_in_it() {
        let text = "{\"type\":\"healed\",\"at_us\":1}\n{\"type\":\"hea";
        assert_eq!(History::read(text.as_bytes()).unwrap().events.len(), 1);
        let text = "{\"type\":\"healed\",\"at_us\":1}\n{\"type\":\"hea\n";
        let error = History::read(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ReadError::Line { line: 2, .. }), "{error}");
    }
}
