//! The table of cases, read from `cases.txt`, which describes its own form.

use std::collections::HashMap;

/// All of it.
pub(super) struct Table {
    /// Name and configuration.
    pub(super) gateways: Vec<(String, String)>,
    pub(super) cases: Vec<Case>,
}

/// One case, its bytes not yet written out: they depend on the run.
pub(super) struct Case {
    pub(super) id: String,
    pub(super) clause: String,
    gateway: String,
    pub(super) steps: Vec<Step>,
    up: Vec<Meant>,
    pub(super) is_plain: bool,
    names: HashMap<String, String>,
}

/// What a case does next.
#[derive(Clone)]
pub(super) enum Step {
    Send(String),
    Sip(String),
    Interim(u16),
    Read(Expected),
    Half,
    Leave,
    Reset,
    Open,
    Closed,
    Settled,
}

/// An answer as it must be.
#[derive(Clone)]
pub(super) struct Expected {
    pub(super) statuses: Vec<u16>,
    pub(super) words: Vec<String>,
}

/// A request that the upstream gets.
pub(super) struct Meant {
    line: String,
    with: Vec<String>,
    exactly: Vec<String>,
    without: Vec<String>,
}

/// The same, written out for a run: method, target and content, and lines that must or may not be among the fields.
pub(super) struct Awaited<'a> {
    pub(super) line: Vec<u8>,
    pub(super) with: Vec<Vec<u8>>,
    pub(super) exactly: Vec<Vec<u8>>,
    pub(super) without: &'a [String],
}

impl Table {
    /// Reads the file, at run time: a new case needs no new build.
    pub(super) fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/battery/cases.txt");
        Self::parse(&std::fs::read_to_string(path).expect("the table"))
    }

    fn parse(text: &str) -> Self {
        let mut names = HashMap::new();
        let mut gateways: Vec<(String, String)> = Vec::new();
        let mut cases: Vec<Case> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix("let ") {
                let (name, value) = rest.split_once(' ').expect("a name and bytes");
                names.insert(name.to_owned(), value.to_owned());
            } else if let Some(name) = line.strip_prefix("gateway ") {
                gateways.push((name.to_owned(), String::new()));
            } else if let Some(config) = line.strip_prefix("| ") {
                let (_, all) = gateways.last_mut().expect("a gateway first");
                all.push_str(config);
                all.push('\n');
            } else if let Some(rest) = line.strip_prefix("case ") {
                let (id, clause) = rest.split_once(" | ").expect("an id and a clause");
                assert!(
                    cases.iter().all(|case| case.id != id),
                    "{id} is there twice"
                );
                cases.push(Case {
                    id: id.to_owned(),
                    clause: clause.to_owned(),
                    gateway: gateways.last().expect("a gateway first").0.clone(),
                    steps: Vec::new(),
                    up: Vec::new(),
                    is_plain: false,
                    names: names.clone(),
                });
            } else {
                let case = cases.last_mut().expect("a case first");
                let known = case.directive(line.strip_prefix("  ").unwrap_or(line));
                assert!(known.is_some(), "line {number}: {line}");
            }
        }
        assert!(cases.iter().all(|case| !case.steps.is_empty()));
        Self { gateways, cases }
    }

    /// The cases of a gateway.
    pub(super) fn of<'a>(&'a self, gateway: &'a str) -> impl Iterator<Item = &'a Case> {
        self.cases
            .iter()
            .filter(move |case| case.gateway == gateway)
    }
}

impl Case {
    /// Takes a line of the case; none when it is no directive.
    fn directive(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let step = match word {
            "send" => Step::Send(rest.to_owned()),
            "sip" => Step::Sip(rest.to_owned()),
            "interim" => Step::Interim(rest.parse().ok()?),
            "read" => Step::Read(Expected::parse(rest)?),
            "half" => Step::Half,
            "leave" => Step::Leave,
            "reset" => Step::Reset,
            "open" => Step::Open,
            "closed" => Step::Closed,
            "settled" => Step::Settled,
            "refused" => {
                self.steps
                    .push(Step::Read(Expected::parse("400 request-malformed")?));
                Step::Closed
            }
            "plain" => {
                self.is_plain = true;
                return Some(());
            }
            "up" => {
                let line = if rest.split(' ').count() == 2 {
                    format!("{rest} ")
                } else {
                    rest.to_owned()
                };
                self.up.push(Meant {
                    line,
                    with: Vec::new(),
                    exactly: Vec::new(),
                    without: Vec::new(),
                });
                return Some(());
            }
            "" => {
                let field = line.trim_start();
                let last = self.up.last_mut()?;
                if let Some(field) = field.strip_prefix("with-exactly ") {
                    last.exactly.push(field.to_owned());
                } else if let Some(field) = field.strip_prefix("with ") {
                    last.with.push(field.to_owned());
                } else {
                    last.without
                        .push(field.strip_prefix("without ")?.to_owned());
                }
                return Some(());
            }
            _ => return None,
        };
        self.steps.push(step);
        Some(())
    }

    /// How many requests the upstream gets in a run.
    pub(super) fn meant(&self) -> usize {
        self.up.len()
    }

    /// What the upstream gets.
    pub(super) fn up(&self, run: &str) -> Vec<Awaited<'_>> {
        let all = |lines: &[String]| lines.iter().map(|line| self.bytes(line, run)).collect();
        let meant = self.up.iter();
        meant
            .map(|meant| Awaited {
                line: self.bytes(&meant.line, run),
                with: all(&meant.with),
                exactly: all(&meant.exactly),
                without: &meant.without,
            })
            .collect()
    }

    /// Whether all that is asked is a refusal.
    pub(super) fn is_refused(&self) -> bool {
        let refusal =
            |step: &Step| matches!(step, Step::Read(expected) if expected.statuses == [400]);
        self.up.is_empty()
            && self.steps.iter().any(refusal)
            && self.steps.iter().any(|step| matches!(step, Step::Closed))
            && !self.steps.iter().any(|step| matches!(step, Step::Half))
    }

    /// Key and path of a run.
    pub(super) fn name(&self, run: &str) -> String {
        format!("{}-{run}", self.id)
    }

    /// All that is sent, one behind the other.
    pub(super) fn sent(&self, run: &str) -> Vec<u8> {
        let sends = self.steps.iter().filter_map(|step| match step {
            Step::Send(text) | Step::Sip(text) => Some(self.bytes(text, run)),
            _ => None,
        });
        sends.collect::<Vec<_>>().concat()
    }

    /// Writes out the abbreviations and escapes of a text.
    pub(super) fn bytes(&self, text: &str, run: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            rest = &rest[char.len_utf8()..];
            match char {
                '\\' => rest = unescape(rest, &mut out),
                '<' => {
                    let (inner, after) = bracket(rest);
                    rest = after;
                    out.extend(self.abbreviated(inner, run));
                }
                _ => out.extend(char.to_string().bytes()),
            }
        }
        out
    }

    fn abbreviated(&self, inner: &str, run: &str) -> Vec<u8> {
        if let Some(repeat) = inner.strip_prefix('*') {
            let (count, text) = repeat.split_once(' ').expect("a count and bytes");
            return self
                .bytes(text, run)
                .repeat(count.parse().expect("a count"));
        }
        match inner {
            "id" => self.name(run).into_bytes(),
            "key255" => format!("{:k<255}", self.name(run)).into_bytes(),
            name => {
                let text = self
                    .names
                    .get(name)
                    .unwrap_or_else(|| panic!("no <{name}>"));
                self.bytes(text, run)
            }
        }
    }
}

impl Expected {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        let statuses = words.next()?;
        let statuses: Result<Vec<u16>, _> = statuses.split('/').map(str::parse).collect();
        Some(Self {
            statuses: statuses.ok()?,
            words: words.collect(),
        })
    }
}

/// What is inside a bracket whose `<` is gone, and what follows it. They nest.
fn bracket(text: &str) -> (&str, &str) {
    let mut depth = 1;
    for (at, char) in text.char_indices() {
        depth += match char {
            '<' => 1,
            '>' => -1,
            _ => 0,
        };
        if depth == 0 {
            return (&text[..at], &text[at + 1..]);
        }
    }
    panic!("a bracket without an end: {text}")
}

/// Writes out the escape whose backslash is gone; what follows it.
fn unescape<'a>(text: &'a str, out: &mut Vec<u8>) -> &'a str {
    let (byte, used) = match text.as_bytes().first() {
        Some(b'r') => (b'\r', 1),
        Some(b'n') => (b'\n', 1),
        Some(b't') => (b'\t', 1),
        Some(b'0') => (0, 1),
        Some(b'\\') => (b'\\', 1),
        Some(b'x') => (u8::from_str_radix(&text[1..3], 16).expect("two digits"), 3),
        _ => panic!("no escape: {text}"),
    };
    out.push(byte);
    &text[used..]
}
