//! JSON as far as a fingerprint needs it: a canonical form that keeps number text as written.
//!
//! An existing parser does not serve: the common ones turn `9007199254740993` into the same
//! number as `9007199254740992` and let the last of two equal names win, so that two different
//! payloads would look alike.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Deeper documents are compared as raw bytes; the parser recurses once a level.
const MAX_DEPTH: usize = 128;

/// A JSON document with number text kept and member names unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`, `true`, `false` or a number, as written.
    Literal(&'a str),
    /// A string, decoded.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object, its members in order of name.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// The document is not JSON (RFC 8259), has two members of one name, a lone surrogate, or is
/// nested deeper than 128 levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON document with unique names")]
pub struct NotJson;

/// Parses a whole document.
///
/// # Errors
/// [`NotJson`].
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, NotJson> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotJson)?;
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err(NotJson)
    }
}

impl<'a> Value<'a> {
    /// The value a pointer leads to.
    pub fn at(&self, pointer: &Pointer) -> Option<&Value<'a>> {
        pointer
            .0
            .iter()
            .try_fold(self, |value, token| value.child(token))
    }

    fn child(&self, token: &str) -> Option<&Value<'a>> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(name, _)| name == token)
                .map(|(_, value)| value),
            Self::Array(items) => array_index(token).and_then(|index| items.get(index)),
            _ => None,
        }
    }

    /// Takes out what a pointer leads to, if anything.
    pub fn remove(&mut self, pointer: &Pointer) {
        let Some((last, parents)) = pointer.0.split_last() else {
            return;
        };
        let mut value = self;
        for token in parents {
            let child = match value {
                Self::Object(members) => members
                    .iter_mut()
                    .find(|(name, _)| name == token)
                    .map(|(_, value)| value),
                Self::Array(items) => array_index(token).and_then(|index| items.get_mut(index)),
                _ => None,
            };
            let Some(child) = child else { return };
            value = child;
        }
        match value {
            Self::Object(members) => members.retain(|(name, _)| name != last),
            // An ignored item leaves a hole, so that the items after it keep their places.
            Self::Array(items) => {
                if let Some(item) = array_index(last).and_then(|index| items.get_mut(index)) {
                    *item = Self::Literal("null");
                }
            }
            _ => {}
        }
    }

    /// Appends the canonical form: members in order of name, no white space, strings with the
    /// fewest escapes, numbers as written.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(name, out);
                    out.push(b':');
                    value.write_canonical(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// RFC 6901 section 4: digits without a leading zero.
fn array_index(token: &str) -> Option<usize> {
    let is_index = token == "0"
        || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    is_index.then(|| token.parse().ok()).flatten()
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn split(&mut self, at: usize) -> Result<&'a str, NotJson> {
        let (taken, rest) = self.rest.split_at_checked(at).ok_or(NotJson)?;
        self.rest = rest;
        Ok(taken)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        if depth > MAX_DEPTH {
            return Err(NotJson);
        }
        self.skip_space();
        match self.rest.as_bytes().first() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => ["null", "true", "false"]
                .into_iter()
                .find(|literal| self.take(literal))
                .map(Value::Literal)
                .ok_or(NotJson),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        self.take("{");
        self.skip_space();
        if !self.take("}") {
            loop {
                self.skip_space();
                let name = self.string()?;
                self.skip_space();
                if !self.take(":") {
                    return Err(NotJson);
                }
                members.push((name, self.value(depth + 1)?));
                self.skip_space();
                if self.take("}") {
                    break;
                }
                if !self.take(",") {
                    return Err(NotJson);
                }
            }
        }
        members.sort_by(|(left, _), (right, _)| left.cmp(right));
        let has_twins = members.windows(2).any(|pair| match pair {
            [(left, _), (right, _)] => left == right,
            _ => false,
        });
        if has_twins {
            Err(NotJson)
        } else {
            Ok(Value::Object(members))
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        let mut items = Vec::new();
        self.take("[");
        self.skip_space();
        if !self.take("]") {
            loop {
                items.push(self.value(depth + 1)?);
                self.skip_space();
                if self.take("]") {
                    break;
                }
                if !self.take(",") {
                    return Err(NotJson);
                }
            }
        }
        Ok(Value::Array(items))
    }

    /// RFC 8259 section 6, kept as written: `1.0`, `1` and `1e0` stay three texts.
    fn number(&mut self) -> Result<Value<'a>, NotJson> {
        let bytes = self.rest.as_bytes();
        let digits = |from: usize| {
            bytes
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let mut end = usize::from(bytes.first() == Some(&b'-'));
        let whole = digits(end);
        if whole == 0 || (whole > 1 && bytes.get(end) == Some(&b'0')) {
            return Err(NotJson);
        }
        end += whole;
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            if fraction == 0 {
                return Err(NotJson);
            }
            end += 1 + fraction;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end);
            if exponent == 0 {
                return Err(NotJson);
            }
            end += exponent;
        }
        Ok(Value::Literal(self.split(end)?))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, NotJson> {
        if !self.take("\"") {
            return Err(NotJson);
        }
        let end = self.rest.find(['"', '\\']).ok_or(NotJson)?;
        let plain = self.checked(end)?;
        if self.take("\"") {
            return Ok(Cow::Borrowed(plain));
        }
        let mut decoded = plain.to_owned();
        loop {
            if self.take("\"") {
                return Ok(Cow::Owned(decoded));
            }
            if self.take("\\") {
                decoded.push(self.escape()?);
            }
            let end = self.rest.find(['"', '\\']).ok_or(NotJson)?;
            decoded.push_str(self.checked(end)?);
        }
    }

    /// A stretch without escapes; control characters must be escaped in JSON.
    fn checked(&mut self, end: usize) -> Result<&'a str, NotJson> {
        let text = self.split(end)?;
        if text.bytes().any(|byte| byte < 0x20) {
            Err(NotJson)
        } else {
            Ok(text)
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        Ok(match self.split(1)? {
            "\"" => '"',
            "\\" => '\\',
            "/" => '/',
            "b" => '\u{8}',
            "f" => '\u{c}',
            "n" => '\n',
            "r" => '\r',
            "t" => '\t',
            "u" => {
                let unit = self.code_unit()?;
                let code = if (0xd800..0xdc00).contains(&unit) {
                    if !self.take("\\u") {
                        return Err(NotJson);
                    }
                    let low = self.code_unit()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(NotJson);
                    }
                    0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    unit
                };
                char::from_u32(code).ok_or(NotJson)?
            }
            _ => return Err(NotJson),
        })
    }

    fn code_unit(&mut self) -> Result<u32, NotJson> {
        let digits = self.split(4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotJson);
        }
        u32::from_str_radix(digits, 16).map_err(|_| NotJson)
    }
}

/// A JSON pointer (RFC 6901) that names something inside the document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pointer(Vec<String>);

/// A text that is not a JSON pointer, or names the whole document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a JSON pointer begins with '/' and has '~' only as '~0' or '~1' (RFC 6901)")]
pub struct PointerError;

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let path = text.strip_prefix('/').ok_or(PointerError)?;
        path.split('/')
            .map(unescape_token)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn unescape_token(token: &str) -> Result<String, PointerError> {
    let mut parts = token.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escape, rest) = part.split_at_checked(1).ok_or(PointerError)?;
        out.push(match escape {
            "0" => '~',
            "1" => '/',
            _ => return Err(PointerError),
        });
        out.push_str(rest);
    }
    Ok(out)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, NotJson> {
        let mut out = Vec::new();
        parse(text.as_bytes())?.write_canonical(&mut out);
        Ok(String::from_utf8(out).expect("canonical JSON is text"))
    }

    #[test]
    fn order_white_space_and_escapes_do_not_count_and_number_text_does() {
        for (text, form) in [
            (
                " { \"b\" : 1 , \"a\" : [ true , null ] } ",
                r#"{"a":[true,null],"b":1}"#,
            ),
            (r#""\u0041\/\n\ud83d\ude00""#, "\"A/\\u000a😀\""),
            ("9007199254740993", "9007199254740993"),
            ("[1,1.0,1e0,-0,1E+2]", "[1,1.0,1e0,-0,1E+2]"),
            (r#"{"":{}}"#, r#"{"":{}}"#),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_with_unique_names_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\n\"",
            "1 2",
            "{a:1}",
            "\u{feff}1",
            "\"\\u+041\"",
            "nan",
            "[1 2]",
        ] {
            assert_eq!(canonical(text), Err(NotJson), "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(NotJson));
        assert!(canonical(&format!("{}{}", "[".repeat(128), "]".repeat(128))).is_ok());
        assert_eq!(canonical(&"[".repeat(200_000)), Err(NotJson));
    }

    #[test]
    fn ignored_members_are_left_out() {
        let mut value = parse(br#"{"a":{"b/c":1,"d":2},"e":[1,2,3]}"#).expect("JSON");
        for pointer in ["/a/b~1c", "/e/1", "/nowhere/at", "/a/d/x"] {
            value.remove(&pointer.parse().expect("a pointer"));
        }
        let mut out = Vec::new();
        value.write_canonical(&mut out);
        assert_eq!(out, br#"{"a":{"d":2},"e":[1,null,3]}"#);
    }

    #[test]
    fn a_pointer_reads_back() {
        for text in ["/a", "/a~1b/0", "/~0", "/"] {
            assert_eq!(
                text.parse::<Pointer>().expect("a pointer").to_string(),
                text
            );
        }
        for text in ["", "a", "/~", "/~2"] {
            assert_eq!(text.parse::<Pointer>(), Err(PointerError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn we_accept_what_a_common_parser_accepts_and_mean_the_same(text in json_text()) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match canonical(&text) {
                Ok(form) => {
                    let again: serde_json::Value = serde_json::from_str(&form).expect("valid JSON");
                    prop_assert_eq!(again, theirs.expect("they accept what we accept"));
                    prop_assert_eq!(canonical(&form), Ok(form));
                }
                Err(NotJson) => prop_assert!(
                    theirs.is_err() || ["\"a\"", "\"b\"", "\"c\""].iter().any(|name| text.matches(name).count() > 1),
                    "only twins may be refused by us alone: {}", text
                ),
            }
        }
    }

    fn json_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i32>().prop_map(|n| n.to_string()),
            Just("\"a\"".to_owned()),
            Just("\"\\u00e9x\"".to_owned()),
            Just("0.5".to_owned()),
            "[0-9.,\\[\\]{}\":a ]{0,6}",
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|members| {
                    let members: Vec<_> = members
                        .iter()
                        .map(|(name, value)| format!("\"{name}\" :{value}"))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }
}
