//! The canonical form of JSON that fingerprints are made of (P10).

use std::fmt::Write;

use hapax_core::json::{Value, parse};

pub(crate) const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\\"",
    "\\\\",
    "\\u0041",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\n",
    "\\/",
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1e400",
    "1.0",
    "9007199254740993",
    "\"a\":",
    "\"b\":1,",
    " ",
    "\t",
    "\n",
    "\u{e9}",
    "\u{1f600}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
];

/// What is JSON to us is JSON to everybody. Its canonical form means the same, is its own canonical form, and is shared
/// by every spelling of the value; two values differ exactly where their canonical forms do.
pub fn canonical(data: &[u8]) {
    let Ok(value) = parse(data) else {
        return;
    };
    let others = serde_json::from_slice::<serde::de::IgnoredAny>(data);
    let is_deep = |error: &serde_json::Error| error.to_string().contains("recursion limit");
    assert!(others.as_ref().map_or_else(is_deep, |_| true), "{others:?}");
    let form = form_of(&value);
    let again = parse(&form).expect("a canonical form is JSON");
    assert_eq!(again, value, "a canonical form means the same");
    assert_eq!(form_of(&again), form, "a canonical form is its own");
    let mut respelt = String::new();
    respell(&value, &mut respelt);
    let respelt = parse(respelt.as_bytes()).expect("another spelling is JSON");
    assert_eq!(form_of(&respelt), form, "spellings share a form");
    // Its neighbours: documents that differ in a byte.
    for at in 0..data.len().min(64) {
        let mut near = data.to_vec();
        near[at] = near[at].wrapping_add(1);
        if let Ok(other) = parse(&near) {
            assert_eq!(
                form_of(&other) == form,
                other == value,
                "equal forms, and equal values"
            );
        }
    }
}

fn form_of(value: &Value<'_>) -> Vec<u8> {
    let mut form = Vec::new();
    value.write_canonical(&mut form);
    form
}

/// Writes a value in another spelling: members backwards, space everywhere, every character escaped.
fn respell(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Literal(text) => out.push_str(text),
        Value::String(text) => respell_string(text, out),
        Value::Array(items) => {
            out.push_str("[ ");
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "\t,\n" } else { "" });
                respell(item, out);
            }
            out.push_str("\r\n]");
        }
        Value::Object(members) => {
            out.push_str("{\n");
            for (index, (name, member)) in members.iter().rev().enumerate() {
                out.push_str(if index > 0 { " , " } else { "" });
                respell_string(name, out);
                out.push_str(" :\t");
                respell(member, out);
            }
            out.push_str(" }");
        }
    }
}

fn respell_string(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        // Writing into a String cannot fail.
        let _ = write!(out, "\\u{unit:04X}");
    }
    out.push('"');
}
