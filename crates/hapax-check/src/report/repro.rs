//! What was seen as commands that somebody can paste: a fresh key, the two requests with the fault between them, and the count.

use crate::drive::AT_ONCE;
use crate::fault::Fault;
use crate::history::Step;
use crate::message::Message;
use crate::template::Values;
use crate::wire::Fate;

use super::curl::{masked, quote};

/// A UUID, on Linux and on macOS.
const FRESH: &str = "$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid)";

/// SIGKILL for a process and all that it has started, as the checker kills a process group. Not every shell gives commands
/// in the background a group of their own.
const KILL_TREE: &str =
    "kill_tree() { for child in $(pgrep -P $1); do kill_tree $child; done; kill -9 $1; }";

/// The end of the target.
const KILL: &str = "kill_tree $TARGET; wait $TARGET";

/// Where the commands go.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Scheme and authority of the target.
    pub(crate) origin: String,
    /// The file of certificate authorities that the target needs.
    pub(crate) needs_ca: bool,
    /// Where effects are counted.
    pub(crate) count_with: Option<String>,
    /// What restarts the target.
    pub(crate) restart: Option<String>,
    /// What the target is, where the checker has started it.
    pub(crate) start: Option<String>,
}

impl Scene {
    /// The commands that show a finding: `pair` are the two steps it was seen in, or one of them twice.
    ///
    /// Without comments: not every shell takes them when they are pasted.
    pub(crate) fn script(
        &self,
        fault: Fault,
        values: &Values,
        steps: &[Step],
        pair: (usize, usize),
        is_counted: bool,
    ) -> Vec<String> {
        let (Some(one), Some(two)) = (steps.get(pair.0), steps.get(pair.1)) else {
            return Vec::new();
        };
        // A key that is not fresh, such as an empty one, goes with the very payload that it had: another would be refused for that.
        let is_fresh = values.key.is_empty()
            || fault != Fault::BadKey
            || two
                .message
                .fields
                .iter()
                .any(|(_, value)| value.contains(&values.key));
        let literal = Values::default();
        let values = if is_fresh { values } else { &literal };
        let curl = Curl {
            scene: self,
            values,
        };
        let mut requests = if pair.0 == pair.1 {
            vec![curl.plain(&one.message)]
        } else {
            curl.both(fault, one, two)
        };
        let listens = self.until_it_listens();
        // A target that the checker has started has ended with the check.
        if let Some(start) = &self.start
            && !requests.contains(&listens)
        {
            requests.splice(0..0, self.started(start));
        }
        // Where the commands start the target themselves: before it runs nobody can count, and afterwards it has to end.
        let running = requests.iter().position(|line| *line == listens);
        if let Some(url) = self.count_with.as_ref().filter(|_| is_counted) {
            let url = url.split('#').next().unwrap_or(url);
            let count = format!("curl -sS -w '\\n'{} {}", self.ca(), quote(url));
            requests.insert(running.map_or(0, |at| at + 1), count.clone());
            requests.push(count);
        }
        if running.is_some() {
            requests.push(KILL.to_owned());
        }
        let is_used = |name: &str| requests.iter().any(|line| line.contains(name));
        let mut script = Vec::new();
        if running.is_some() {
            script.push(KILL_TREE.to_owned());
        }
        for (name, value) in [("KEY", &values.key), ("ID", &values.uuid)] {
            if !value.is_empty() && is_used(&format!("\"${name}\"")) {
                script.push(format!("{name}={FRESH}"));
            }
        }
        script.extend(requests);
        script
    }

    /// Starts the target in the background.
    fn started(&self, command: &str) -> [String; 2] {
        [
            format!("sh -c {} >/dev/null & TARGET=$!", quote(command)),
            self.until_it_listens(),
        ]
    }

    fn until_it_listens(&self) -> String {
        let origin = quote(&self.origin);
        format!(
            "until curl -so /dev/null{} {origin}; do sleep 0.1; done",
            self.ca()
        )
    }

    fn ca(&self) -> &'static str {
        if self.needs_ca {
            " --cacert \"$CA_FILE\""
        } else {
            ""
        }
    }
}

struct Curl<'a> {
    scene: &'a Scene,
    values: &'a Values,
}

impl Curl<'_> {
    /// Two requests with what goes wrong with the first.
    fn both(&self, fault: Fault, one: &Step, two: &Step) -> Vec<String> {
        let (first, second) = (&one.message, self.plain(&two.message));
        let plain = self.plain(first);
        // What waits does so in a shell of its own: in that of a reader, other things may run in the background for good.
        match fault {
            Fault::Concurrent => {
                let times: Vec<String> = (1..=AT_ONCE).map(|n| n.to_string()).collect();
                let all = format!("(for n in {}; do {plain} & done; wait)", times.join(" "));
                vec![all, second]
            }
            Fault::Duplicate => vec![format!("({plain} & {plain}; wait)"), second],
            Fault::LoseReply => vec![format!("{plain} -o /dev/null"), second],
            // The target is still at work; a repeat that comes too early is told to come back.
            Fault::HangUp => vec![format!("{plain} -m 0.05"), "sleep 1".into(), second],
            Fault::ResetMidReply => vec![format!("{plain} -N | head -c 20; echo"), second],
            Fault::Delay if !first.body.is_empty() => {
                let held = self.in_pieces(first, "1");
                vec![format!("({held} & sleep 0.3; {second}; wait)"), second]
            }
            Fault::SlowBody if !first.body.is_empty() => {
                vec![self.in_pieces(first, "0.3"), second]
            }
            Fault::CutBody => vec![self.cut_body(first), second],
            Fault::LoseRequest => match self.cut_head(first) {
                Some(cut) => vec![cut, second],
                None => vec![plain, second],
            },
            Fault::AfterRestart | Fault::KillTarget if self.scene.start.is_some() => {
                self.killed(fault, one, &plain, second)
            }
            Fault::AfterRestart => {
                let restart = self.scene.restart.clone();
                let restart = restart.map(|command| format!("sh -c {}", quote(&command)));
                [Some(plain), restart, Some(second)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            _ => vec![plain, second],
        }
    }

    /// The target is started, sent the request, killed, started again, and sent the repeat.
    fn killed(&self, fault: Fault, one: &Step, plain: &str, second: String) -> Vec<String> {
        let start = self.scene.start.as_deref().unwrap_or_default();
        let mut lines = self.scene.started(start).to_vec();
        if fault == Fault::KillTarget {
            let after = one.span.to.saturating_sub(one.span.from).as_secs_f64();
            lines.push(format!("{plain} -m 9 &"));
            lines.push(format!("sleep {after:.3}"));
        } else {
            lines.push(plain.to_owned());
        }
        lines.push(KILL.to_owned());
        lines.extend(self.scene.started(start));
        lines.push(second);
        lines
    }

    fn plain(&self, message: &Message) -> String {
        let mut line = self.head(message);
        if !message.body.is_empty() {
            line.push_str(" --data-binary ");
            line.push_str(&self.quoted(&message.body));
        }
        self.finished(&line, message)
    }

    fn head(&self, message: &Message) -> String {
        // -X HEAD would wait for content that never comes.
        let mut line = match message.method.as_str() {
            "HEAD" => format!("curl -sS -w '\\n'{} -I", self.scene.ca()),
            method => format!("curl -sS -w '\\n'{} -i -X {method}", self.scene.ca()),
        };
        for (name, value) in &message.fields {
            line.push_str(" -H ");
            line.push_str(&match masked(name, value) {
                Some(variable) => format!("\"{name}: ${variable}\""),
                // How curl writes a field without a value.
                None if value.is_empty() => quote(&format!("{name};")),
                None => self.quoted(&format!("{name}: {value}")),
            });
        }
        line
    }

    fn finished(&self, line: &str, message: &Message) -> String {
        let url = format!("{}{}", self.scene.origin, message.target);
        format!("{line} {}", self.quoted(&url))
    }

    /// The content in two pieces, with a pause between them. The framing stays that of one piece.
    fn in_pieces(&self, message: &Message, pause: &str) -> String {
        let (one, two) = halves(&message.body);
        let line = format!(
            "(printf %s {}; sleep {pause}; printf %s {}) | {} -H {} -H Transfer-Encoding: -H Expect: -T -",
            self.quoted(one),
            self.quoted(two),
            self.head(message),
            quote(&format!("Content-Length: {}", message.body.len())),
        );
        self.finished(&line, message)
    }

    /// Half of the content, announced as all of it; curl gives up after a second.
    fn cut_body(&self, message: &Message) -> String {
        let (half, _) = halves(&message.body);
        let line = format!(
            "{} -m 1 -H {} --data-binary {}",
            self.head(message),
            quote(&format!("Content-Length: {}", message.body.len())),
            self.quoted(half),
        );
        self.finished(&line, message)
    }

    /// The beginning of a head. curl speaks plain TCP as "telnet"; under TLS there is no such way.
    fn cut_head(&self, message: &Message) -> Option<String> {
        let authority = self.scene.origin.strip_prefix("http://")?;
        let port = if authority.rsplit(']').next()?.contains(':') {
            ""
        } else {
            ":80"
        };
        let start = format!("{} {} HTTP/1.1", message.method, message.target);
        Some(format!(
            "printf %s {} | curl -sS -m 1 telnet://{authority}{port}",
            self.quoted(&start)
        ))
    }

    /// For a shell, with the key and the UUID of the case as variables.
    fn quoted(&self, text: &str) -> String {
        let mut pieces = vec![(text.to_owned(), false)];
        for (name, value) in [("KEY", &self.values.key), ("ID", &self.values.uuid)] {
            if value.is_empty() {
                continue;
            }
            pieces = pieces
                .into_iter()
                .flat_map(|(piece, is_variable)| {
                    if is_variable {
                        return vec![(piece, true)];
                    }
                    let mut parts = Vec::new();
                    for (at, part) in piece.split(value.as_str()).enumerate() {
                        if at > 0 {
                            parts.push((format!("\"${name}\""), true));
                        }
                        parts.push((part.to_owned(), false));
                    }
                    parts
                })
                .collect();
        }
        let has_variable = pieces.iter().any(|(_, is_variable)| *is_variable);
        if !has_variable {
            return quote(text);
        }
        pieces
            .into_iter()
            .filter(|(piece, _)| !piece.is_empty())
            .map(|(piece, is_variable)| if is_variable { piece } else { quote(&piece) })
            .collect()
    }
}

/// Two halves, cut between characters.
fn halves(text: &str) -> (&str, &str) {
    let middle = (0..=text.len() / 2)
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.split_at(middle.unwrap_or(0))
}

/// What became of a request, in a few words.
pub(crate) fn fate(step: &Step) -> String {
    match &step.fate {
        Fate::Answered(answer) if answer.is_marked() => {
            format!("got {}, marked as a replay", answer.status)
        }
        Fate::Answered(answer) => format!("got {}", answer.status),
        Fate::Partial(answer) => format!("{}, cut off in the middle", answer.status),
        Fate::ReplyLost => "sent; the answer was not read".into(),
        Fate::RequestCut => "cut off before its end".into(),
        Fate::Failed(why) => super::curl::one_line(why),
    }
}
