//! What is wrong with a configuration, shown where it is written.
//!
//! No secret is shown: the line of a name that has no meaning here is cut after its `=`, and
//! what stands before the `@` of a URL is blotted out.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::names;

/// Why there is no configuration. The text of [`fmt::Display`] is for people, on many lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("error: cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("error: the configuration file {} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Something in it is wrong; everything that was found.
    #[error("{}", Listing(.0))]
    Faulty(Vec<Diagnostic>),
    /// `serve` has nowhere to forward to.
    #[error(
        "error: no upstream is set: start with `--upstream http://HOST:PORT`, or write\n  \
         [server]\n  upstream = \"http://HOST:PORT\"\nin hapax.toml"
    )]
    UpstreamMissing,
}

/// Whether a finding stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// There is no configuration to run with.
    Error,
    /// Legal and dangerous, or without effect: `validate --strict` refuses it.
    Warning,
}

/// One finding. Displays as the message, the place, the line and a caret under the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What is wrong, in a sentence.
    pub(crate) message: String,
    /// Where, when it is written anywhere.
    pub(crate) place: Place,
}

/// Where a finding is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file.
    File(Excerpt),
    /// In an environment variable.
    Environment(String),
    /// In a command-line flag.
    Flag(&'static str),
    /// Nowhere: it is about what is missing.
    Nowhere,
}

/// A line of a file, safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// The file as it was named.
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// How many characters the caret underlines.
    pub(crate) width: usize,
    /// The line, without secrets.
    pub(crate) text: String,
}

/// The text that positions refer to.
#[derive(Debug, Clone)]
pub(crate) struct SourceText {
    /// The file as it was named.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

/// A position before it is turned into a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// A name in the file whose value may be a secret.
    Name(Range<usize>),
    /// A value in the file, of a setting that is known and not secret.
    Value(Range<usize>),
    /// Text in the file that cannot be read as TOML.
    Syntax(Range<usize>),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
    /// Nowhere.
    Nowhere,
}

/// Collects what is found.
#[derive(Debug, Default)]
pub(crate) struct Findings<'s> {
    source: Option<&'s SourceText>,
    found: Vec<Diagnostic>,
}

impl<'s> Findings<'s> {
    /// Nothing found yet in `source`.
    pub(crate) fn new(source: Option<&'s SourceText>) -> Self {
        let found = Vec::new();
        Self { source, found }
    }

    /// The text being read.
    pub(crate) fn source(&self) -> Option<&'s SourceText> {
        self.source
    }

    /// The line of an offset, from 1.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        let before = self.source().and_then(|source| source.text.get(..offset));
        before.map_or(1, |before| before.matches('\n').count() + 1)
    }

    /// Notes an error.
    pub(crate) fn error(&mut self, at: &At, message: impl Into<String>) {
        self.note(Severity::Error, at, message.into());
    }

    /// Notes a warning.
    pub(crate) fn warning(&mut self, at: &At, message: impl Into<String>) {
        self.note(Severity::Warning, at, message.into());
    }

    /// The warnings, or everything when there is an error.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, ConfigError> {
        self.found.sort_by_key(Diagnostic::position);
        match self.has_errors() {
            true => Err(ConfigError::Faulty(self.found)),
            false => Ok(self.found),
        }
    }

    /// Whether an error was noted.
    pub(crate) fn has_errors(&self) -> bool {
        let is_error = |found: &Diagnostic| found.severity == Severity::Error;
        self.found.iter().any(is_error)
    }

    fn note(&mut self, severity: Severity, at: &At, message: String) {
        let place = match (at, self.source) {
            (At::Environment(name), _) => Place::Environment(name.clone()),
            (At::Flag(name), _) => Place::Flag(name),
            (At::Name(span) | At::Value(span) | At::Syntax(span), Some(source)) => {
                Place::File(source.excerpt(span, at))
            }
            (At::Nowhere | At::Name(_) | At::Value(_) | At::Syntax(_), _) => Place::Nowhere,
        };
        self.found.push(Diagnostic {
            severity,
            message,
            place,
        });
    }
}

impl SourceText {
    fn excerpt(&self, span: &Range<usize>, at: &At) -> Excerpt {
        let text = self.text.as_str();
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end.max(start));
        let (before, after) = text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = after.find('\n').map_or(text.len(), |at| start + at);
        let line = text.get(line_start..line_end).unwrap_or_default();
        let shown = blot_out(&cut_secret(line.trim_end_matches('\r'), at));
        let lead = text.get(line_start..start).unwrap_or_default();
        let marked = text.get(start..end.min(line_end)).unwrap_or_default();
        let length = shown.chars().count();
        let column = (lead.chars().count() + 1).min(length + 1);
        let room = length.saturating_sub(column - 1);
        Excerpt {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column,
            width: marked.trim_end().chars().count().min(room).max(1),
            text: shown,
        }
    }
}

/// The nearest boundary of a character at or before `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Drops the value from a line whose name is not one of ours: it may be anything.
fn cut_secret(line: &str, at: &At) -> String {
    let Some((name, value)) = line.split_once('=') else {
        return line.to_owned();
    };
    let word = name.trim().rsplit('.').next().unwrap_or_default();
    let is_word = word
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_shown = match at {
        // A line within a list has no name.
        At::Value(_) => !is_word || names::is_setting(word),
        At::Syntax(_) => names::is_setting(word),
        At::Name(_) | At::Environment(_) | At::Flag(_) | At::Nowhere => false,
    };
    match is_shown {
        // The names within an inline table are not looked at: any of them may be unknown.
        true if value.trim_start().starts_with('{') => format!("{name}={}", blot_texts(value)),
        true => line.to_owned(),
        false => format!("{name}= …"),
    }
}

/// Replaces what stands in quotes by stars, one for one.
fn blot_texts(value: &str) -> String {
    let mut open = None;
    value
        .chars()
        .map(|c| match (open, c) {
            (None, '"' | '\'') => {
                open = Some(c);
                c
            }
            (Some(quote), _) if c == quote => {
                open = None;
                c
            }
            (Some(_), _) => '*',
            (None, _) => c,
        })
        .collect()
}

/// Replaces user and password of every URL in the line by stars, one for one, so that columns
/// stay true.
fn blot_out(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let authority = after
            .split(['/', '"', '\'', ' ', '\t'])
            .next()
            .unwrap_or(after);
        let secret = authority.rfind('@').unwrap_or(0);
        shown.extend(authority.chars().take(secret).map(|_| '*'));
        rest = after.get(secret..).unwrap_or_default();
    }
    shown.push_str(rest);
    shown
}

impl Diagnostic {
    /// Errors of the file come first, in its order.
    fn position(&self) -> (u8, usize, usize) {
        match &self.place {
            Place::File(excerpt) => (0, excerpt.line, excerpt.column),
            Place::Environment(_) => (1, 0, 0),
            Place::Flag(_) => (2, 0, 0),
            Place::Nowhere => (3, 0, 0),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        match &self.place {
            Place::File(excerpt) => excerpt.fmt(f),
            Place::Environment(name) => writeln!(f, "  --> environment {name}"),
            Place::Flag(name) => writeln!(f, "  --> {name}"),
            Place::Nowhere => Ok(()),
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab before the caret stays one, or the caret would stand elsewhere on a terminal.
        let indent: String = self
            .text
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "{margin} --> {}:{number}:{}", self.path, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.text)?;
        writeln!(f, "{margin} | {indent}{}", "^".repeat(self.width))
    }
}

/// Findings, one after the other, with an empty line between.
struct Listing<'a>(&'a [Diagnostic]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            found.fmt(f)?;
        }
        Ok(())
    }
}

/// `; did you mean …?` when one of `known` is near enough to `name` to be meant.
pub(crate) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // A third of the letters may be wrong, and two always: more would be another word.
    let allowed = (name.chars().count() / 3).max(2);
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .filter(|(distance, known)| *distance <= allowed && *distance < known.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}
