//! The key's field (P5).

use http::HeaderValue;

use hapax_core::key::{Key, KeySyntax, MAX_KEY_LEN};

pub(crate) const WORDS: &[&str] = &[
    "\"",
    "\\\"",
    "\\\\",
    "\\",
    ";a=1",
    ";a",
    ";*b=\"c\"",
    "; x=?1",
    ",",
    " ",
    "\t",
    "''",
    ":YWJj:",
    "(\"a\")",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "\u{e9}",
    "8e03978e-40d5-43dd-bc93",
];

/// A key that was accepted is visible ASCII of 1 to 255 characters, is what RFC 9651 says it is, and is the same key when
/// it is written again, in either form and under either syntax.
pub fn key(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let lenient = Key::from_header(&value, KeySyntax::Lenient);
    let strict = Key::from_header(&value, KeySyntax::Strict);
    let is_quoted = value.as_bytes().trim_ascii().first() == Some(&b'"');
    if is_quoted {
        assert_eq!(lenient, strict, "a quoted key is read one way");
    } else {
        assert!(strict.is_err(), "strict takes the quoted form alone");
    }
    against_rfc_9651(data, strict.as_ref().ok());
    let Ok(key) = lenient else {
        return;
    };
    let text = key.as_str();
    assert!(
        (1..=MAX_KEY_LEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    );
    assert_eq!(Key::from_text(text).as_ref(), Ok(&key));
    let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let again = HeaderValue::from_str(&quoted).expect("visible ASCII");
    assert_eq!(
        Key::from_header(&again, KeySyntax::Strict).as_ref(),
        Ok(&key)
    );
    if !is_quoted {
        assert_eq!(
            text.as_bytes(),
            value.as_bytes().trim_ascii(),
            "a bare key is itself"
        );
        let ambiguous = [',', ';', '"', '\\', ' '];
        assert!(
            !text.contains(ambiguous),
            "a bare key is not a list, an item with parameters or a string"
        );
    }
    let shown = format!("{key:?}");
    assert!(
        text.len() < 8 || !shown.contains(text),
        "a key appears in no log"
    );
}

/// What a reader of RFC 9651 takes for a string of fit characters is that key, and no other.
fn against_rfc_9651(data: &[u8], ours: Option<&Key>) {
    // RFC 9651 knows no tabs around an item; a field's value does.
    let item = sfv::Parser::new(data.trim_ascii()).parse::<sfv::Item>();
    let Ok(sfv::BareItem::String(theirs)) = item.map(|item| item.bare_item) else {
        return;
    };
    let theirs = theirs.as_str();
    let is_fit = (1..=MAX_KEY_LEN).contains(&theirs.len())
        && theirs.bytes().all(|byte| byte.is_ascii_graphic());
    assert_eq!(ours.map(Key::as_str), is_fit.then_some(theirs));
}
