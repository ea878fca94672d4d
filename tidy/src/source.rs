//! Rust source as far as the checks need it: what is code, what is a comment, a literal or a test.

use crate::tree::File;

/// A Rust file with what is not code blanked out. Lines and columns stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path from the root of the tree.
    pub path: String,
    /// Code alone: no comments, no literals, no tests.
    pub code: String,
    /// Code and literals: no comments, no tests.
    pub with_literals: String,
    /// Code alone, tests included.
    pub with_tests: String,
    /// How many lines are not tests.
    pub production_lines: usize,
}

impl Source {
    /// Reads a file.
    pub fn parse(file: &File) -> Self {
        let (with_tests, literals) = mask(&file.text);
        let tests = if is_test_file(&file.path) {
            std::iter::once((0, file.text.len())).collect()
        } else {
            test_ranges(&with_tests)
        };
        Self {
            path: file.path.clone(),
            code: blank(&with_tests, &tests),
            with_literals: blank(&literals, &tests),
            production_lines: production_lines(&file.text, &tests),
            with_tests,
        }
    }

    /// Whether all of the file is tests.
    pub fn is_test(&self) -> bool {
        is_test_file(&self.path)
    }
}

/// Whether a file is nothing but tests, benchmarks, examples or the suite that tests stores.
fn is_test_file(path: &str) -> bool {
    [
        "/tests/",
        "/benches/",
        "/examples/",
        "/conformance/",
        "fuzz/",
    ]
    .iter()
    .any(|part| path.contains(part))
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
}

/// The line of a place in a text, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Where `word` stands in `code` as a word: not as the end or the beginning of a longer name.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = code.get(..*at).and_then(|text| text.chars().next_back());
            let after = code
                .get(at + word.len()..)
                .and_then(|text| text.chars().next());
            let begins = word.starts_with(is_word);
            let ends = word.ends_with(is_word);
            let goes_on =
                begins && before.is_some_and(is_word) || ends && after.is_some_and(is_word);
            !goes_on
        })
}

/// Whether `c` can be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Span {
    Comment,
    Literal,
}

/// The text without comments and literals, and the text without comments.
fn mask(text: &str) -> (String, String) {
    let (mut code, mut literals) = (String::new(), String::new());
    let mut rest = text;
    let mut after_word = false;
    while let Some(c) = rest.chars().next() {
        let (span, len) =
            span(rest, after_word).map_or((None, c.len_utf8()), |(s, n)| (Some(s), n));
        let (taken, left) = rest.split_at_checked(len).unwrap_or((rest, ""));
        let blanked = blanks(taken);
        code.push_str(if span.is_none() { taken } else { &blanked });
        literals.push_str(if span == Some(Span::Comment) {
            &blanked
        } else {
            taken
        });
        after_word = is_word(c) && span.is_none();
        rest = left;
    }
    (code, literals)
}

/// As many bytes of white space, with the same line ends.
fn blanks(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect()
}

/// What begins here that is not code, and how many bytes it takes.
fn span(rest: &str, after_word: bool) -> Option<(Span, usize)> {
    if rest.starts_with("//") {
        return Some((Span::Comment, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((Span::Comment, block_comment(rest)));
    }
    let len = if rest.starts_with('\'') {
        character(rest)
    } else if after_word && !rest.starts_with('"') {
        None
    } else {
        raw_string(rest).or_else(|| string(rest))
    };
    len.map(|len| (Span::Literal, len))
}

/// The length of a block comment, which may hold others.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        // The character after the backslash may be a quote itself.
        return Some(2 + 1 + inner.get(2..)?.find('\'')? + 1);
    }
    let len = first.len_utf8();
    inner.get(len..)?.starts_with('\'').then_some(1 + len + 1)
}

fn raw_string(rest: &str) -> Option<usize> {
    let body = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let quoted = body.trim_start_matches('#');
    let inner = quoted.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(body.len() - quoted.len()));
    let end = inner
        .find(&close)
        .map_or(inner.len(), |at| at + close.len());
    Some(rest.len() - inner.len() + end)
}

fn string(rest: &str) -> Option<usize> {
    let inner = ["\"", "b\"", "c\""]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let mut is_escaped = false;
    for (at, c) in inner.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == '"' {
            return Some(rest.len() - inner.len() + at + 1);
        }
    }
    Some(rest.len())
}

/// Where the items under `#[cfg(test)]` are.
fn test_ranges(code: &str) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for attribute in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (from, _) in code.match_indices(attribute) {
            let is_inside = ranges
                .iter()
                .any(|(start, end)| (*start..*end).contains(&from));
            if !is_inside {
                let begin = from + attribute.len();
                ranges.push((from, begin + item_len(code.get(begin..).unwrap_or(""))));
            }
        }
    }
    ranges
}

/// How long an item is: to its `;`, or to the brace that closes its body.
fn item_len(code: &str) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return at + 1;
                }
            }
            '(' | '[' => others += 1,
            // One too many when the attribute itself was cut in its middle.
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str, ranges: &[(usize, usize)]) -> String {
    let mut out = text.to_owned();
    for (from, to) in ranges {
        if let Some(range) = text.get(*from..*to) {
            out.replace_range(*from..*to, &blanks(range));
        }
    }
    out
}

fn production_lines(text: &str, tests: &[(usize, usize)]) -> usize {
    let in_tests: usize = tests
        .iter()
        .filter_map(|(from, to)| text.get(*from..*to))
        .map(|range| range.lines().count())
        .sum();
    text.lines().count().saturating_sub(in_tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let source = Source::parse(&File::new("crates/a/src/a.rs", text));
        assert_eq!(source.code.len(), text.len(), "places stay");
        assert_eq!(source.with_literals.len(), text.len(), "places stay");
        source.code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        for (text, expected) in [
            ("a // b\nc", "a c"),
            ("a /* b /* c */ d */ e", "a e"),
            ("f(\"a \\\" b\", 'c', '\\'', '\"', 'é')", "f( , , , , )"),
            (
                "f(r\"a\\\", r#\"b\"c\"#, b\"d\", br##\"\"#\"##) g",
                "f( , , , ) g",
            ),
            (
                "fn f<'a>(x: &'a str) { r#type }",
                "fn f<'a>(x: &'a str) { r#type }",
            ),
            ("\"// no comment\" a", "a"),
            ("'\\u{1F600}' a", "a"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn tests_are_not_production_code() {
        let text = "a();\n#[cfg(test)]\nmod tests {\n    b(\"}\");\n}\nc();\n#[cfg(test)]\nmod more;\nd();\n";
        assert_eq!(code(text), "a(); c(); d();");
        let source = Source::parse(&File::new("crates/a/src/a.rs", text));
        assert_eq!(source.production_lines, 3);
        assert!(source.with_tests.contains("b("));
    }

    #[test]
    fn a_test_file_has_no_production_code() {
        for path in [
            "crates/a/tests/it/main.rs",
            "crates/a/src/b/tests.rs",
            "crates/a/src/c_tests.rs",
            "crates/a/examples/d.rs",
        ] {
            let source = Source::parse(&File::new(path, "a();\n"));
            assert_eq!(
                (source.code.trim(), source.production_lines),
                ("", 0),
                "{path}"
            );
        }
    }

    #[test]
    fn a_word_is_not_part_of_another() {
        assert_eq!(
            words("redecide( decide( decided(", "decide(").collect::<Vec<_>>(),
            [10]
        );
        assert_eq!(words("aone onea one", "one").collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn a_line_is_counted_from_one() {
        assert_eq!((line_of("a\nb", 0), line_of("a\nb", 2)), (1, 2));
    }
}
