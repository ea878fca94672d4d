//! The client's key: how it is read, and what it becomes.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

use crate::scope::ScopeId;
use crate::secret::{HashKeys, truncated, update_framed, write_hex};

/// The longest key, in characters after decoding (P5).
pub const MAX_KEY_LEN: usize = 255;

/// The client's value: 1 to [`MAX_KEY_LEN`] characters of visible ASCII, compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// Keys are secrets of the client and appear in no log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// How strictly the header is read (P5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeySyntax {
    /// An RFC 9651 string `"abc"` or a bare value `abc`; both are the same key.
    #[default]
    Lenient,
    /// Only the RFC 9651 string.
    Strict,
}

/// Why a key was refused. Never holds the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing between the quotes, or no value at all.
    #[error("the key is empty")]
    Empty,
    /// More than [`MAX_KEY_LEN`] characters.
    #[error("the key is longer than 255 characters")]
    TooLong,
    /// A character outside visible ASCII, or one that a bare key may not have.
    #[error("the key has a character that is not allowed there")]
    Character,
    /// A quoted key that does not end, or has something else behind it.
    #[error("the key is not a well-formed string of RFC 9651")]
    Malformed,
    /// A bare key where the route asks for the quoted form.
    #[error("the key must be a quoted string (RFC 9651)")]
    NotQuoted,
    /// More than one field line.
    #[error("the key field is there more than once")]
    Repeated,
    /// Two carriers name different keys.
    #[error("two places of the request name different keys")]
    Disagreeing,
    /// The body member that should be the key is not a string.
    #[error("the key in the body is not a string")]
    NotAString,
}

impl Key {
    /// Takes a key from a place that has no syntax of its own: a path segment, a query
    /// parameter, a JSON string; already decoded.
    ///
    /// # Errors
    /// [`KeyError::Empty`], [`KeyError::TooLong`], [`KeyError::Character`].
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Character);
        }
        if text.len() > MAX_KEY_LEN {
            return Err(KeyError::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// Reads the field value of `Idempotency-Key` or an alias of it (P5).
    ///
    /// # Errors
    /// Every variant of [`KeyError`] that is about one value.
    pub fn from_header(value: &HeaderValue, syntax: KeySyntax) -> Result<Self, KeyError> {
        let text = value.to_str().map_err(|_| KeyError::Character)?;
        let text = text.trim_matches([' ', '\t']);
        if let Some(quoted) = text.strip_prefix('"') {
            return Self::from_text(&unquote(quoted)?);
        }
        match syntax {
            KeySyntax::Strict if text.is_empty() => Err(KeyError::Empty),
            KeySyntax::Strict => Err(KeyError::NotQuoted),
            // What would make a list, parameters or a string of it: `a,b` may be two field
            // lines that somebody joined, and `a;b` an item with a parameter.
            KeySyntax::Lenient if text.contains([',', ';', '"', '\\']) => Err(KeyError::Character),
            KeySyntax::Lenient => Self::from_text(text),
        }
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The content of an RFC 9651 string whose opening quote is gone, checking that only
/// parameters follow it (section 4.2.5).
fn unquote(text: &str) -> Result<String, KeyError> {
    let mut key = String::with_capacity(text.len());
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or(KeyError::Malformed)? {
            '"' => break,
            '\\' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(KeyError::Malformed),
            },
            char @ ' '..='~' => key.push(char),
            _ => return Err(KeyError::Character),
        }
    }
    skip_parameters(chars.as_str())?;
    Ok(key)
}

/// Checks `*( ";" *SP key [ "=" bare-item ] )` (RFC 9651 section 4.2.3.2) as far as is needed
/// to tell parameters from anything else; their values mean nothing here.
fn skip_parameters(mut rest: &str) -> Result<(), KeyError> {
    while !rest.is_empty() {
        rest = rest.strip_prefix(';').ok_or(KeyError::Malformed)?;
        rest = rest.trim_start_matches(' ');
        if !rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
            return Err(KeyError::Malformed);
        }
        rest = rest.trim_start_matches(|c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*')
        });
        let Some(value) = rest.strip_prefix('=') else {
            continue;
        };
        rest = if let Some(quoted) = value.strip_prefix('"') {
            after_quoted(quoted)?
        } else if let Some(display) = value.strip_prefix("%\"") {
            // A display string (section 4.2.10) has no escape with a quote in it.
            display.split_once('"').ok_or(KeyError::Malformed)?.1
        } else {
            let end = value.find([';', ' ', ',', '"']).unwrap_or(value.len());
            if end == 0 {
                return Err(KeyError::Malformed);
            }
            value.get(end..).unwrap_or_default()
        };
    }
    Ok(())
}

/// What follows a quoted parameter value whose opening quote is gone.
fn after_quoted(text: &str) -> Result<&str, KeyError> {
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or(KeyError::Malformed)? {
            '"' => return Ok(chars.as_str()),
            '\\' => match chars.next() {
                Some('"' | '\\') => {}
                _ => return Err(KeyError::Malformed),
            },
            _ => {}
        }
    }
}

/// Keyed hash of realm, scope and key: the only form in which a key is stored or logged (P7).
///
/// 128 bits of a keyed hash: a collision, which would let one caller see another's answer,
/// needs some 2⁶⁴ requests, and nobody without the store's secret can look for one offline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey([u8; 16]);

impl RecordKey {
    /// Works out the record key of a request.
    pub fn new(keys: &HashKeys, realm: &str, scope: ScopeId, key: &Key) -> Self {
        Self(hash_identity(&keys.record_key, realm, scope, key))
    }

    /// Takes the bytes from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// 32 hexadecimal digits: the id by which operators name a record.
impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record id is 32 hexadecimal digits")]
pub struct RecordIdError;

impl FromStr for RecordKey {
    type Err = RecordIdError;

    fn from_str(text: &str) -> Result<Self, RecordIdError> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RecordIdError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| RecordIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The key that `upstream_key = "derive"` sends: a hash of scope and key, for one shared
/// upstream account behind many callers (P26). A UUID-like 32 digits of hexadecimal.
pub fn derived_upstream_key(keys: &HashKeys, realm: &str, scope: ScopeId, key: &Key) -> String {
    RecordKey(hash_identity(&keys.upstream_key, realm, scope, key)).to_string()
}

fn hash_identity(hash_key: &[u8; 32], realm: &str, scope: ScopeId, key: &Key) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(hash_key);
    update_framed(&mut hasher, realm.as_bytes());
    update_framed(&mut hasher, scope.as_bytes());
    update_framed(&mut hasher, key.as_str().as_bytes());
    truncated(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &[u8], syntax: KeySyntax) -> Result<String, KeyError> {
        let value = HeaderValue::from_bytes(value).expect("a field value");
        Key::from_header(&value, syntax).map(|key| key.as_str().to_owned())
    }

    #[test]
    fn a_key_says_in_a_log_that_it_is_one_and_no_more() {
        let key = Key::from_text("secret").expect("a key");
        assert_eq!(format!("{key:?}"), "Key(..)");
    }

    #[test]
    fn a_quoted_and_a_bare_key_are_the_same_key() {
        for (value, key) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            ("  abc\t", "abc"),
            ("\"abc\";a=1;b", "abc"),
            ("\"abc\"; a=\"x;y\"", "abc"),
            ("\"abc\";*a=?0;b1_c-d.e*=:eA==:", "abc"),
            ("\"abc\";a=\"x\\\"y\\\\\";b", "abc"),
            ("\"a\\\"b\\\\c\"", "a\"b\\c"),
            (
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            ("a:b/c=d", "a:b/c=d"),
        ] {
            assert_eq!(
                read(value.as_bytes(), KeySyntax::Lenient).as_deref(),
                Ok(key),
                "{value}"
            );
        }
    }

    #[test]
    fn a_key_that_is_not_one_is_refused_with_the_reason() {
        for (value, error) in [
            ("", KeyError::Empty),
            ("\"\"", KeyError::Empty),
            ("a b", KeyError::Character),
            ("\"a b\"", KeyError::Character),
            ("a;b", KeyError::Character),
            ("a,b", KeyError::Character),
            ("a\\b", KeyError::Character),
            ("a\"b", KeyError::Character),
            ("\"a", KeyError::Malformed),
            ("\"a\\n\"", KeyError::Malformed),
            ("\"a\" b", KeyError::Malformed),
            ("\"a\", \"b\"", KeyError::Malformed),
            ("\"a\";A", KeyError::Malformed),
            ("\"a\";a=", KeyError::Malformed),
            ("\"a\";a=\"x", KeyError::Malformed),
            ("\"a\";a=\"x\\n\"", KeyError::Malformed),
            ("\"a\";a=\"x\"y", KeyError::Malformed),
            ("\"a\";a=%\"x", KeyError::Malformed),
            ("\"a\";a=%\"x\"y", KeyError::Malformed),
            ("\"a\";1", KeyError::Malformed),
            ("\"a\";_a", KeyError::Malformed),
        ] {
            assert_eq!(
                read(value.as_bytes(), KeySyntax::Lenient),
                Err(error),
                "{value}"
            );
        }
        assert_eq!(
            read(b"\xc3\xa9", KeySyntax::Lenient),
            Err(KeyError::Character)
        );
        assert_eq!(
            read(b"\"\xc3\xa9\"", KeySyntax::Lenient),
            Err(KeyError::Character)
        );
    }

    #[test]
    fn parameters_of_every_type_are_passed_over() {
        // RFC 9651 section 3.3: what a parameter's value may be.
        for value in [
            "1",
            "1.5",
            "\"x;\\\"y\"",
            "token/*",
            ":YWJj:",
            "?1",
            "@1659578233",
            "%\"f%c3%bc;\"",
        ] {
            let field = format!("\"a\";b={value};c");
            let read = read(field.as_bytes(), KeySyntax::Strict);
            assert_eq!(read.as_deref(), Ok("a"), "{field}");
        }
    }

    #[test]
    fn the_longest_key_has_255_characters() {
        let longest = "k".repeat(255);
        for quoted in [longest.clone(), format!("\"{longest}\"")] {
            assert_eq!(
                read(quoted.as_bytes(), KeySyntax::Lenient),
                Ok(longest.clone())
            );
        }
        let longer = "k".repeat(256);
        assert_eq!(
            read(longer.as_bytes(), KeySyntax::Lenient),
            Err(KeyError::TooLong)
        );
    }

    #[test]
    fn strict_takes_only_the_quoted_form() {
        assert_eq!(read(b"\"abc\"", KeySyntax::Strict).as_deref(), Ok("abc"));
        assert_eq!(read(b"abc", KeySyntax::Strict), Err(KeyError::NotQuoted));
        assert_eq!(read(b"", KeySyntax::Strict), Err(KeyError::Empty));
    }

    #[test]
    fn a_record_id_reads_back() {
        let key = RecordKey::from_bytes([0xab; 16]);
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in [
            "",
            "+b",
            "abg",
            &"a".repeat(31),
            &format!("+{}", "a".repeat(31)),
        ] {
            assert_eq!(text.parse::<RecordKey>(), Err(RecordIdError), "{text}");
        }
    }

    #[test]
    fn a_record_key_is_shown_as_its_id() {
        let key = RecordKey::from_bytes([0xab; 16]);
        assert_eq!(format!("{key:?}"), "ab".repeat(16));
    }

    #[test]
    fn a_derived_key_is_one_operations_own_and_tells_nothing_of_its_record() {
        let keys = HashKeys::derive(&crate::secret::Secret::from_bytes([7; 32]));
        let key = |text| Key::from_text(text).expect("a key");
        let scope = |byte| ScopeId::from_bytes([byte; 16]);
        let of = |byte, text| derived_upstream_key(&keys, "r", scope(byte), &key(text));
        let one = of(1, "a");
        assert_eq!(one, of(1, "a"));
        assert_eq!(Key::from_text(&one).map(|key| key.as_str().len()), Ok(32));
        let record = RecordKey::new(&keys, "r", scope(1), &key("a")).to_string();
        for other in [of(2, "a"), of(1, "b"), record] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn realm_scope_and_key_cannot_run_into_each_other() {
        let keys = HashKeys::derive(&crate::secret::Secret::from_bytes([7; 32]));
        let scope = ScopeId::from_bytes([1; 16]);
        let of =
            |realm, key| RecordKey::new(&keys, realm, scope, &Key::from_text(key).expect("a key"));
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("a", "b"), of("b", "a"));
    }

    proptest! {
        /// The oracle is a full parser of structured fields; ours differs only where it is
        /// stricter by rule (visible characters, length) or does not look (parameter values).
        #[test]
        fn strict_agrees_with_a_structured_field_parser(value in "\"[ -~]{0,40}\"(;[a-z]=[0-9])?") {
            let ours = read(value.as_bytes(), KeySyntax::Strict);
            let theirs = sfv::Parser::new(&value).parse::<sfv::Item>();
            match (ours, theirs) {
                (Ok(key), Ok(item)) => prop_assert_eq!(
                    Some(key.as_str()),
                    item.bare_item.as_string().map(|string| string.as_str())
                ),
                (Err(KeyError::Empty | KeyError::Character), Ok(_)) => {}
                (Ok(key), Err(_)) => prop_assert!(false, "we took {key}"),
                (Err(error), Ok(_)) => prop_assert!(false, "we refused: {error}"),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
