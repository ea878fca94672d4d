//! The code map of `ARCHITECTURE.md`: one line a file, taken from the file itself.

use std::fmt::Write as _;

use crate::source::Source;
use crate::tree::File;

/// What stands in front of the map.
pub const BEGIN: &str = "<!-- code map: HAPAX_BLESS=1 cargo test -p tidy rewrites it -->\n";

/// What stands behind it.
pub const END: &str = "<!-- end of the code map -->\n";

/// The map of `files`: crates in the order of their paths, a file a line.
pub fn code_map(files: &[File]) -> String {
    let mut map = String::new();
    let mut folder = "";
    for file in files.iter().filter(|file| is_mapped(&file.path)) {
        let (head, name) = split(&file.path);
        if head != folder {
            folder = head;
            let _ = write!(map, "\n`{head}/`\n\n| File | |\n|---|---|\n");
        }
        let _ = writeln!(map, "| `{name}` | {} |", first_sentence(&file.text));
    }
    map.push('\n');
    map
}

/// Files without a word about what they are for.
pub fn speechless(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| is_mapped(&file.path) && first_sentence(&file.text).is_empty())
        .map(|file| format!("{}: does not say what it is for (`//!`)", file.path))
        .collect()
}

/// The document with its map replaced; `None` when it has no place for one.
pub fn with_map(document: &str, map: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{map}{END}{after}"))
}

fn is_mapped(path: &str) -> bool {
    let source = Source::parse(&File::new(path, ""));
    path.ends_with(".rs")
        && path.contains("/src/")
        && (!source.is_test() || path.contains("/conformance/"))
}

/// The crate's source folder and the rest.
fn split(path: &str) -> (&str, &str) {
    path.split_once("/src/")
        .and_then(|(head, name)| Some((path.get(..head.len() + "/src".len())?, name)))
        .unwrap_or(("", path))
}

/// The first sentence of a file's own documentation.
fn first_sentence(text: &str) -> String {
    let paragraph: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("//!"))
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    let end = paragraph.match_indices(". ").map(|(at, _)| at).find(|at| {
        paragraph
            .get(at + 2..)
            .is_some_and(|next| next.starts_with(char::is_uppercase))
    });
    let sentence = end.and_then(|at| paragraph.get(..at)).unwrap_or(&paragraph);
    // A link of rustdoc means nothing here; what it names does.
    sentence
        .trim_end_matches('.')
        .replace("[`", "`")
        .replace("`]", "`")
        .replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_line_of_the_map_with_its_first_sentence() {
        let files = [
            File::new(
                "crates/a/src/b.rs",
                "//! What b is,\n//! in short. More of it.\n//!\n//! Else.\n",
            ),
            File::new("crates/a/src/b/tests.rs", "//! Tests.\n"),
            File::new(
                "crates/c/src/lib.rs",
                "#![allow(x)]\n//! Makes [`Thing`]s.\n",
            ),
        ];
        let map = code_map(&files);
        let head = "| File | |\n|---|---|\n";
        let expected = format!(
            "\n`crates/a/src/`\n\n{head}| `b.rs` | What b is, in short |\n\n`crates/c/src/`\n\n{head}| `lib.rs` | Makes `Thing`s |\n\n"
        );
        assert_eq!(map, expected);
    }

    #[test]
    fn a_file_that_says_nothing_is_found() {
        assert_eq!(
            speechless(&[File::new("crates/a/src/b.rs", "fn f() {}\n")]).len(),
            1
        );
    }

    #[test]
    fn a_map_is_put_between_its_marks() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        let expected = format!("a\n{BEGIN}new\n{END}b\n");
        assert_eq!(with_map(&document, "new\n"), Some(expected));
        assert_eq!(with_map("no marks", "new\n"), None);
    }
}
