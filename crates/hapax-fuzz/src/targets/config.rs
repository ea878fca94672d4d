//! A configuration file.

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/config/mod.rs"]
mod product;

use std::cell::RefCell;
use std::io::{Seek, Write};

use product::{ConfigError, Flags, Sources, load};

pub(crate) const WORDS: &[&str] = &[
    "[server]\n",
    "[admin]\n",
    "[store]\n",
    "[limits]\n",
    "[defaults]\n",
    "[telemetry]\n",
    "[[route]]\n",
    "match = \"POST /a/{id}\"\n",
    "match = ",
    "key_from = [",
    "\"header:x\"",
    "\"path:id\"",
    "\"json:/a\"",
    "scope = [\"none\"]\n",
    "upstream = \"http://u:p@h/\"\n",
    "= ",
    "\"",
    "'",
    "\n",
    "\t",
    "\r\n",
    "[",
    "]",
    "{",
    "}",
    "0",
    "-1",
    "1e9",
    "\"1ms\"",
    "\"30d\"",
    "\"64KiB\"",
    "\"-1s\"",
    "true",
    "max_body = ",
    "wait = ",
    "lease = ",
    "on_unknown = { probe = \"/a/{id}\" }\n",
    "retention = \"1s\"\n",
    "# comment\n",
    "\u{e9}",
    "\u{0}",
    ".",
    "methods = [\"GET\"]\n",
];

thread_local! {
    /// One file a thread, written anew for every input: the product reads files.
    static FILE: RefCell<tempfile::NamedTempFile> =
        RefCell::new(tempfile::NamedTempFile::new().expect("a temporary file"));
}

/// A file is accepted, or refused with at least one error, each of which is shown at a line and column that the file has,
/// with the caret under that line. Reading it again says the same. A password is never shown.
pub fn config(data: &[u8]) {
    let first = read(data);
    let text = String::from_utf8_lossy(data);
    match &first {
        Ok(()) => {}
        Err(told) => {
            assert!(
                told.starts_with("error: ") || told.contains("\nerror: "),
                "{told}"
            );
            let places: Vec<(usize, usize)> = told.lines().filter_map(place).collect();
            let is_text = std::str::from_utf8(data).is_ok();
            for (line, column) in places {
                let lines: Vec<&str> = text.split('\n').collect();
                let found = lines.get(line.wrapping_sub(1));
                let found =
                    found.unwrap_or_else(|| panic!("line {line} of {}:\n{told}", lines.len()));
                let width = found.chars().count();
                assert!(
                    column >= 1 && (!is_text || column <= width + 1),
                    "column {column} of {width}:\n{told}"
                );
            }
        }
    }
    assert_eq!(read(data), first, "read again, it says the same");
}

/// What a listing says after its arrow: `FILE:LINE:COLUMN`.
fn place(line: &str) -> Option<(usize, usize)> {
    // At the line's start: an excerpt of a file has one behind its bar, if anybody writes so.
    let place = line.trim_start().strip_prefix("--> ")?;
    let mut parts = place.rsplit(':');
    let column = parts.next()?.parse().ok()?;
    Some((parts.next()?.parse().ok()?, column))
}

fn read(data: &[u8]) -> Result<(), String> {
    FILE.with_borrow_mut(|file| {
        let as_file = file.as_file_mut();
        as_file.set_len(0).expect("it is ours");
        as_file.rewind().expect("it is a file");
        as_file.write_all(data).expect("there is room");
        let sources = Sources {
            file: Some(file.path().to_owned()),
            environment: Vec::new(),
            flags: Flags::default(),
        };
        load(sources)
            .map(drop)
            .map_err(|error: ConfigError| error.to_string())
    })
}
