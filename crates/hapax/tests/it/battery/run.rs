//! Plays one case: sends its bytes, compares what comes back, then looks at what the upstream got.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{Answer, Connection};

use super::recorder::{PROBE, Recorder, serial};
use super::table::{Case, Expected, Step};

/// What a run says of a case that went wrong.
type Wrong = String;

/// Why another request over a connection failed.
enum Probed {
    /// The connection had ended.
    Ended(Wrong),
    /// It got somebody else's answer.
    Otherwise(Wrong),
}

/// Plays cases against one address.
pub(super) struct Runner<'a> {
    to: SocketAddr,
    recorder: &'a Recorder,
    patience: Duration,
}

impl<'a> Runner<'a> {
    pub(super) fn new(to: SocketAddr, recorder: &'a Recorder, patience: Duration) -> Self {
        Self {
            to,
            recorder,
            patience,
        }
    }

    /// Plays a case; `sip` sends small texts byte by byte.
    pub(super) fn play(&self, case: &Case, run: &str, sip: bool) -> Result<(), Wrong> {
        let connection = Connection::try_open(self.to).map_err(|error| error.to_string())?;
        connection.set_patience(self.patience);
        let mut connection = Some(connection);
        for (number, step) in case.steps.iter().enumerate() {
            let told = |why: String| {
                let (id, clause) = (&case.id, &case.clause);
                format!("{id} ({clause}), {run}, step {}: {why}", number + 1)
            };
            self.step(case, run, sip, step, &mut connection)
                .map_err(told)?;
        }
        self.compare(case, run).map_err(|why| {
            format!(
                "{} ({}), {run}, at the upstream: {why}",
                case.id, case.clause
            )
        })
    }

    fn step(
        &self,
        case: &Case,
        run: &str,
        sip: bool,
        step: &Step,
        slot: &mut Option<Connection>,
    ) -> Result<(), Wrong> {
        let Some(connection) = slot else {
            return Err("the connection is gone already".to_owned());
        };
        match step {
            // What is refused early is not read to its end.
            Step::Send(text) => {
                let bytes = case.bytes(text, run);
                let size = if sip && bytes.len() < 600 {
                    1
                } else {
                    bytes.len().max(1)
                };
                bytes
                    .chunks(size)
                    .for_each(|part| connection.send_anyway(part));
            }
            Step::Sip(text) => {
                let bytes = case.bytes(text, run);
                bytes
                    .chunks(1)
                    .for_each(|part| connection.send_anyway(part));
            }
            Step::Interim(status) => {
                let answer = connection
                    .read_next("POST")
                    .map_err(|error| error.to_string())?;
                if answer.status != *status {
                    return Err(format!("not {status}: {answer:?}"));
                }
            }
            Step::Read(expected) => {
                let expected = expected.written_out(case, run);
                let says = |wanted: &str| expected.words.iter().any(|word| word == wanted);
                let method = if says("head") { "HEAD" } else { "POST" };
                let mut read = || {
                    connection
                        .read_next(method)
                        .map_err(|error| error.to_string())
                };
                let mut answer = read()?;
                if answer.status == 100 && says("interim-or-not") {
                    answer = read()?;
                }
                expected.compare(&answer)?;
            }
            Step::Half => connection.half_close(),
            Step::Leave => drop(slot.take()),
            Step::Reset => {
                if let Some(connection) = slot.take() {
                    connection.reset();
                }
            }
            Step::Open => self.probe(connection).map_err(|probed| match probed {
                Probed::Ended(why) | Probed::Otherwise(why) => why,
            })?,
            Step::Settled => {
                // Whether it goes on is the gateway's choice; that it ends with other words is not.
                match self.probe(connection) {
                    Err(Probed::Otherwise(answer)) => return Err(answer),
                    Ok(()) | Err(Probed::Ended(_)) => {}
                }
            }
            Step::Closed => connection.read_end().map_err(|error| error.to_string())?,
        }
        Ok(())
    }

    /// Another request over the same connection.
    fn probe(&self, connection: &mut Connection) -> Result<(), Probed> {
        let target = format!("{PROBE}/{}", serial());
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let ended = |error: io::Error| Probed::Ended(format!("the next request: {error}"));
        connection.send(bytes.as_bytes()).map_err(ended)?;
        let answer = connection.read().map_err(ended)?;
        if answer.status == 201 && answer.field("x-seen") == Some(&target) {
            return Ok(());
        }
        Err(Probed::Otherwise(format!(
            "the next request got {answer:?}"
        )))
    }

    /// The upstream got what was meant, in this order, and nothing else.
    fn compare(&self, case: &Case, run: &str) -> Result<(), Wrong> {
        let meant = case.up(run);
        let is_own = |line: &[u8]| {
            line.windows(case.name(run).len())
                .any(|part| part == case.name(run).as_bytes())
        };
        if !meant.iter().all(|awaited| is_own(&awaited.line)) {
            // `*` and the like name no case: the sum at the end counts them.
            return Ok(());
        }
        if !self.recorder.wait_for(&case.name(run), meant.len()) {
            return Err("a request never came".to_owned());
        }
        let seen = self.recorder.seen_of(&case.name(run));
        let lines: Vec<String> = seen.iter().map(super::reader::Seen::line).collect();
        if seen.len() != meant.len() {
            return Err(format!(
                "{} requests instead of {}: {lines:?}",
                seen.len(),
                meant.len()
            ));
        }
        for (seen, awaited) in seen.iter().zip(&meant) {
            if seen.bytes() != awaited.line {
                let wanted = String::from_utf8_lossy(&awaited.line);
                return Err(format!("{lines:?} instead of {wanted:?}"));
            }
            let is_missing = |field: &&Vec<u8>| seen.has(field) != 1;
            let is_other = |field: &&Vec<u8>| !seen.fields.contains(field);
            let missing = awaited.with.iter().find(is_missing);
            if let Some(field) = missing.or_else(|| awaited.exactly.iter().find(is_other)) {
                let field = String::from_utf8_lossy(field);
                return Err(format!("no one {field:?} in {}", seen.head()));
            }
            let is_there = |name: &&String| seen.lines_of(name) > 0;
            if let Some(name) = awaited.without.iter().find(is_there) {
                return Err(format!("{name} in {}", seen.head()));
            }
        }
        Ok(())
    }
}

impl Expected {
    fn written_out(&self, case: &Case, run: &str) -> Self {
        let text = |word: &String| String::from_utf8_lossy(&case.bytes(word, run)).into_owned();
        let words = self.words.iter().map(text).collect();
        Self {
            statuses: self.statuses.clone(),
            words,
        }
    }

    fn compare(&self, answer: &Answer) -> Result<(), Wrong> {
        let is_so = |word: &String| match word.as_str() {
            "head" | "interim-or-not" => true,
            "executed" | "replayed" => answer.idempotency() == word,
            word if word.starts_with('-') => answer.field(&word[1..]).is_none(),
            word => match word.split_once('=') {
                Some((name, value)) => answer.field(name) == Some(value),
                None => {
                    let is_problem =
                        answer.field("content-type") == Some("application/problem+json");
                    is_problem && word.split('/').any(|kind| kind == answer.problem())
                }
            },
        };
        if self.statuses.contains(&answer.status) && self.words.iter().all(is_so) {
            return Ok(());
        }
        let told = format!("{:?} {:?}", self.statuses, self.words);
        Err(format!(
            "{answer:?} with {:?} instead of {told}",
            answer.text()
        ))
    }
}
