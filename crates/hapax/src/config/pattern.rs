//! What a route's `match` says, and the form of a path in which it is compared.
//!
//! A request must not escape its route by spelling the path in another way that the upstream
//! reads as the same. Paths are therefore compared in a canonical form, never changed on their
//! way: escapes of printable characters are decoded (not `%25`, `%2F`, `%5C`), empty and `.`
//! segments and the slash at the end do not count, `..` goes up, and case counts only in
//! parameters. Where the upstream is stricter, a route covers a request that the upstream
//! refuses anyway; the other way round protection would be lost.

use std::borrow::Cow;

use http::Method;

/// A parsed `match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// `None` is `*`: every method.
    pub(crate) method: Option<Method>,
    /// The path, from its first segment.
    pub(crate) segments: Vec<Segment>,
}

/// A part of a pattern's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Text, in canonical form.
    Literal(String),
    /// `{name}`, with text before and after it within the segment.
    Parameter {
        /// The parameter.
        name: String,
        /// Text before it.
        prefix: String,
        /// Text after it.
        suffix: String,
    },
    /// `{*name}`: this segment and all that follow, also none. The last of its pattern.
    Rest(String),
}

impl Segment {
    /// The parameter that the segment binds.
    pub(crate) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter { name, .. } | Self::Rest(name) => Some(name),
        }
    }
}

impl Pattern {
    /// Reads `METHOD /path`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (Some(method), Some(path), None) = (words.next(), words.next(), words.next()) else {
            return Err(format!("{text:?} is not \"METHOD /path\""));
        };
        let method = match method {
            "*" => None,
            name => Some(name.parse::<super::value::MethodName>()?.0),
        };
        let Some(path) = path.strip_prefix('/') else {
            return Err(format!("the path {path:?} does not begin with a slash"));
        };
        if path.contains(['?', '#']) {
            return Err("a route matches a path: it cannot have a query or a fragment".to_owned());
        }
        let mut segments = Vec::new();
        for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
            if path.is_empty() || path == "/" {
                break;
            }
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err("`{*name}` takes the rest of the path: nothing can follow".to_owned());
            }
            let segment = parse_segment(segment)?;
            let taken = |other: &Segment| other.parameter() == segment.parameter();
            if let Some(name) = segment.parameter().filter(|_| segments.iter().any(taken)) {
                return Err(format!("the parameter `{name}` is there twice"));
            }
            segments.push(segment);
        }
        Ok(Self { method, segments })
    }
}

fn parse_segment(text: &str) -> Result<Segment, String> {
    if text.is_empty() || text == "." || text == ".." {
        return Err(format!(
            "the path has a segment {text:?}, which no path keeps"
        ));
    }
    let Some((prefix, rest)) = text.split_once('{') else {
        return match text.contains('}') {
            true => Err(format!("the segment {text:?} has a brace too many")),
            false => Ok(Segment::Literal(literal(text))),
        };
    };
    let Some((name, suffix)) = rest.split_once('}') else {
        return Err(format!("the segment {text:?} lacks a closing brace"));
    };
    if [prefix, suffix]
        .iter()
        .any(|part| part.contains(['{', '}']))
    {
        return Err(format!("the segment {text:?} has more than one parameter"));
    }
    let is_rest = name.starts_with('*');
    let name = name.trim_start_matches('*');
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_word) {
        return Err(format!(
            "the parameter in {text:?} needs a name of letters, digits, `_` and `-`"
        ));
    }
    match is_rest {
        true if prefix.is_empty() && suffix.is_empty() => Ok(Segment::Rest(name.to_owned())),
        true => Err(format!("`{{*{name}}}` must be a segment of its own")),
        false => Ok(Segment::Parameter {
            name: name.to_owned(),
            prefix: literal(prefix),
            suffix: literal(suffix),
        }),
    }
}

/// The canonical form of literal text, in which characters beyond ASCII are escaped as in a URL.
fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii() {
            true => escaped.push(c),
            false => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes);
                let bytes = bytes.iter().take(c.len_utf8());
                bytes.for_each(|byte| push_escape(&mut escaped, *byte));
            }
        }
    }
    decode_printable(&escaped).into_owned()
}

/// The form of a request's path that patterns are compared with. Borrows when nothing changes.
pub(crate) fn canonical(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let changes = bytes.iter().zip(bytes.iter().skip(1)).any(|pair| {
        // A dot segment begins with a slash and a dot, an empty one with two slashes.
        matches!(pair, (b'/', b'/' | b'.')) || *pair.1 == b'%'
    });
    if !changes && (path.len() < 2 || !path.ends_with('/')) {
        return Cow::Borrowed(path);
    }
    let decoded = decode_printable(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            kept => segments.push(kept),
        }
    }
    let mut out = String::with_capacity(decoded.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if segments.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

/// The path as the most forgiving upstreams read it, where that differs: an escaped slash or a
/// backslash parts segments, and `;parameters` of segments fall away.
pub(crate) fn forgiving(path: &str) -> Option<String> {
    // Decoding goes first: `%3B` is a semicolon to them as well.
    let decoded = decode_printable(path);
    if !decoded.contains(['%', ';', '\\']) {
        return None;
    }
    let slashed = decoded
        .replace("%2F", "/")
        .replace("%5C", "/")
        .replace('\\', "/");
    let without: Vec<&str> = slashed
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or(segment))
        .collect();
    let plain = without.join("/");
    (plain != decoded).then(|| canonical(&plain).into_owned())
}

/// Decodes the escapes of printable ASCII, but for `%`, `/` and `\`, whose escapes mean something
/// else than they themselves do; writes all others in capitals.
fn decode_printable(text: &str) -> Cow<'_, str> {
    let Some((before, _)) = text.split_once('%') else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len());
    out.push_str(before);
    let mut rest = text.get(before.len()..).unwrap_or_default();
    while let Some(at) = rest.find('%') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let Some(byte) = escape_value(escape.as_bytes()) else {
            out.push('%');
            rest = escape.get(1..).unwrap_or_default();
            continue;
        };
        match byte.is_ascii_graphic() && !matches!(byte, b'%' | b'/' | b'\\') {
            true => out.push(char::from(byte)),
            false => push_escape(&mut out, byte),
        }
        rest = escape.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The value of a parameter: every escape decoded once. What is no UTF-8 has U+FFFD in its place,
/// which no key can have.
pub(crate) fn decode_value(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match escape_value(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The byte that an escape at the beginning of `text` stands for.
fn escape_value(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.extend(DIGITS.get(usize::from(digit)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_canonical_form_however_it_is_spelled() {
        for (path, form) in [
            ("/", "/"),
            ("", ""),
            ("//", "/"),
            ("/v1/orders", "/v1/orders"),
            ("/v1/orders/", "/v1/orders"),
            ("//v1///orders//", "/v1/orders"),
            ("/v1/./orders/.", "/v1/orders"),
            ("/x/../v1/%2e%2E/v1/orders", "/v1/orders"),
            ("/../../v1/orders", "/v1/orders"),
            ("/v1/%6frders", "/v1/orders"),
            ("/v1/a%3ab", "/v1/a:b"),
            ("/v1/a%2fb", "/v1/a%2Fb"),
            ("/v1/a%25b", "/v1/a%25b"),
            ("/v1/%256frders", "/v1/%256frders"),
            ("/v1/a%5cb", "/v1/a%5Cb"),
            ("/v1/%c3%a9", "/v1/%C3%A9"),
            ("/v1/%zz%", "/v1/%zz%"),
            ("/v1/.well-known", "/v1/.well-known"),
            ("/v1/...", "/v1/..."),
        ] {
            assert_eq!(canonical(path), form, "{path}");
            assert_eq!(canonical(&canonical(path)), form, "{path}, twice");
        }
    }

    #[test]
    fn a_canonical_path_is_not_copied() {
        assert!(matches!(canonical("/v1/orders/A-1"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_value_is_decoded_once_and_keeps_its_case() {
        assert_eq!(decode_value("Ab%2f%25%41%c3%a9%"), "Ab/%A\u{e9}%");
        assert_eq!(decode_value("%ff"), "\u{fffd}");
    }
}
