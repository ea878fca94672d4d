//! Simple regular expressions of schemas: characters, classes and how often each comes. Groups, alternatives and the like are not
//! read, and no text is made for them.

/// The most repetitions that are made where a pattern has no end.
const MANY: usize = 64;

/// A pattern that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    is_start: bool,
    is_end: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// Ranges of characters, both ends included.
    ranges: Vec<(char, char)>,
    is_negated: bool,
    least: usize,
    most: usize,
}

impl Part {
    fn has(&self, c: char) -> bool {
        let is_in = self
            .ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&c));
        is_in != self.is_negated
    }

    /// A character that it has; letters first, since they fit in most places.
    fn sample(&self) -> Option<char> {
        let printable = ('a'..='z')
            .chain('A'..='Z')
            .chain('0'..='9')
            .chain('!'..='~');
        printable.into_iter().find(|c| self.has(*c))
    }
}

impl Pattern {
    /// Reads a pattern; nothing where it is more than this understands.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (text, is_start) = match text.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (text, is_end) = match text.strip_suffix('$') {
            Some(rest) if !rest.ends_with('\\') => (rest, true),
            _ => (text, false),
        };
        let mut rest = text;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (ranges, is_negated, after) = class(rest)?;
            let (least, most, after) = times(after)?;
            parts.push(Part {
                ranges,
                is_negated,
                least,
                most,
            });
            rest = after;
        }
        Some(Self {
            parts,
            is_start,
            is_end,
        })
    }

    /// Whether a text has it.
    pub(super) fn fits(&self, text: &str) -> bool {
        let characters: Vec<char> = text.chars().collect();
        let last = if self.is_start { 0 } else { characters.len() };
        (0..=last).any(|from| {
            let rest = characters.get(from..).unwrap_or(&[]);
            fits(&self.parts, rest, self.is_end)
        })
    }

    /// A text that has it: each part as often as it has to come, and at least once where it may.
    pub(super) fn text(&self) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            let times = part.least.max(1).min(part.most);
            for _ in 0..times {
                text.push(part.sample()?);
            }
        }
        Some(text)
    }
}

fn fits(parts: &[Part], text: &[char], is_end: bool) -> bool {
    let Some((part, more)) = parts.split_first() else {
        return text.is_empty() || !is_end;
    };
    let most = text
        .iter()
        .take(part.most)
        .take_while(|c| part.has(**c))
        .count();
    (part.least..=most)
        .rev()
        .any(|times| fits(more, text.get(times..).unwrap_or(&[]), is_end))
}

type Class<'a> = (Vec<(char, char)>, bool, &'a str);

/// One character or a class of them, and what follows.
fn class(text: &str) -> Option<Class<'_>> {
    let first = text.chars().next()?;
    let after = text.get(first.len_utf8()..)?;
    match first {
        '.' => Some((vec![('\n', '\n')], true, after)),
        '\\' => {
            let (ranges, after) = escaped(after)?;
            Some((ranges, false, after))
        }
        '[' => {
            let (mut rest, is_negated) = match after.strip_prefix('^') {
                Some(rest) => (rest, true),
                None => (after, false),
            };
            let mut ranges = Vec::new();
            loop {
                let c = rest.chars().next()?;
                rest = rest.get(c.len_utf8()..)?;
                match c {
                    ']' => return Some((ranges, is_negated, rest)),
                    '[' => return None,
                    '\\' => {
                        let (more, after) = escaped(rest)?;
                        ranges.extend(more);
                        rest = after;
                    }
                    low => match rest.strip_prefix('-') {
                        Some(after) if !after.starts_with(']') => {
                            let high = after.chars().next().filter(|c| *c != '\\')?;
                            ranges.push((low, high));
                            rest = after.get(high.len_utf8()..)?;
                        }
                        _ => ranges.push((low, low)),
                    },
                }
            }
        }
        '(' | ')' | '|' | '*' | '+' | '?' | '{' | '^' | '$' => None,
        c => Some((vec![(c, c)], false, after)),
    }
}

/// What follows a backslash.
fn escaped(text: &str) -> Option<(Vec<(char, char)>, &str)> {
    let c = text.chars().next()?;
    let after = text.get(c.len_utf8()..)?;
    let ranges = match c {
        'd' => vec![('0', '9')],
        'w' => vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')],
        c if c.is_ascii_alphanumeric() => return None,
        c => vec![(c, c)],
    };
    Some((ranges, after))
}

/// How often: `?`, `*`, `+`, `{n}`, `{n,}`, `{n,m}`, or once.
fn times(text: &str) -> Option<(usize, usize, &str)> {
    let (least, most, after) = match text.chars().next() {
        Some('?') => (0, 1, text.get(1..)?),
        Some('*') => (0, MANY, text.get(1..)?),
        Some('+') => (1, MANY, text.get(1..)?),
        Some('{') => {
            let (inside, after) = text.get(1..)?.split_once('}')?;
            let (least, most) = match inside.split_once(',') {
                None => (inside.parse().ok()?, inside.parse().ok()?),
                Some((least, "")) => (least.parse().ok()?, MANY),
                Some((least, most)) => (least.parse().ok()?, most.parse().ok()?),
            };
            (least, most, after)
        }
        _ => (1, 1, text),
    };
    // Longer texts are nobody's example; a lazy or possessive mark is not read.
    let is_simple = least <= most.min(MANY) && !after.starts_with(['?', '+']);
    is_simple.then_some((least, most.min(MANY), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_made_that_fits() {
        for (pattern, text) in [
            ("^[A-Z]{3}$", "AAA"),
            ("^[A-Za-z0-9_-]{1,64}$", "a"),
            (r"^\d{4}-\d{2}$", "0000-00"),
            ("^ord_[a-f0-9]+$", "ord_a"),
            (r"^[^a-z]\.?x*$", "A.x"),
            (r"\w{2,}", "aa"),
        ] {
            let read = Pattern::read(pattern).unwrap();
            assert_eq!(read.text().as_deref(), Some(text), "{pattern}");
            assert!(read.fits(text), "{pattern}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_from_what_does() {
        let fits = |pattern, text| Pattern::read(pattern).unwrap().fits(text);
        assert!(fits(
            "^[A-Za-z0-9_-]{1,64}$",
            "0b5e3cba-96a1-4b07-9c5e-0f2a1a5d9c11"
        ));
        assert!(!fits("^[A-Z]{3}$", "EURO") && !fits("^[A-Z]{3}$", "eur"));
        assert!(fits("[0-9]", "a1b") && !fits("[0-9]", "ab"));
        assert!(fits("^a*ab$", "aaab") && !fits("^a*ab$", "aaa"));
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for pattern in [
            "^(a|b)$",
            "a|b",
            r"^\p{L}+$",
            r"^\bx$",
            "^a+?$",
            "^[[:alpha:]]$",
            "^a{2,1}$",
        ] {
            assert_eq!(Pattern::read(pattern), None, "{pattern}");
        }
    }
}
