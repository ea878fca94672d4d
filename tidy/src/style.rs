//! Sizes, and words that have no place in the tree.

use crate::source::{Source, line_of, words};
use crate::tree::File;

/// The most lines of a file that are not tests: more than one reads in a sitting.
pub const MAX_PRODUCTION_LINES: usize = 600;

/// The most lines of a file of tests: tables are long, but somebody has to find the row.
pub const MAX_TEST_LINES: usize = 1000;

/// Files that are larger, each with its reason.
pub const LARGE_FILES: [(&str, &str); 0] = [];

/// Code that is not finished, is not run, or waits for time instead of for the thing itself.
const UNFINISHED: [&str; 4] = ["todo!", "unimplemented!", "#[ignore", "thread::sleep"];

/// Notes to somebody who will never come. Put together here, so that this file has none.
const NOTES: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// Files that are too long.
pub fn sizes(file: &File) -> Option<String> {
    if LARGE_FILES.iter().any(|(path, _)| *path == file.path) {
        return None;
    }
    let source = Source::parse(file);
    let (lines, limit, kind) = if source.is_test() {
        (file.text.lines().count(), MAX_TEST_LINES, "test")
    } else {
        (source.production_lines, MAX_PRODUCTION_LINES, "production")
    };
    (lines > limit).then(|| format!("{}: {lines} {kind} lines, limit {limit}", file.path))
}

/// Exceptions that nothing needs any more.
pub fn stale_exceptions(files: &[File]) -> Vec<String> {
    LARGE_FILES
        .iter()
        .filter(|(path, _)| !files.iter().any(|file| file.path == *path))
        .map(|(path, _)| format!("{path} is an exception and does not exist"))
        .collect()
}

/// Unfinished, ignored or sleeping code, in tests too.
pub fn unfinished(file: &File) -> Vec<String> {
    let source = Source::parse(file);
    UNFINISHED
        .iter()
        .flat_map(|word| {
            words(&source.with_tests, word)
                .map(|at| {
                    format!(
                        "{}:{}: {word}",
                        source.path,
                        line_of(&source.with_tests, at)
                    )
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Notes left in any file, comments included.
pub fn notes(file: &File) -> Vec<String> {
    NOTES
        .iter()
        .flat_map(|word| {
            words(&file.text, word)
                .map(|at| format!("{}:{}: {word}", file.path, line_of(&file.text, at)))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_found_and_its_tests_do_not_count() {
        let code = "a();\n".repeat(MAX_PRODUCTION_LINES);
        assert_eq!(sizes(&File::new("crates/a/src/a.rs", &code)), None);
        let with_tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(sizes(&File::new("crates/a/src/a.rs", &with_tests)), None);
        assert!(sizes(&File::new("crates/a/src/a.rs", &format!("{code}a();\n"))).is_some());
        let tests = "a();\n".repeat(MAX_TEST_LINES + 1);
        assert!(sizes(&File::new("crates/a/tests/it/a.rs", &tests)).is_some());
    }

    #[test]
    fn unfinished_ignored_and_sleeping_code_is_found_in_tests_too() {
        for code in [
            "fn f() { todo!() }",
            "fn f() { unimplemented!() }",
            "#[cfg(test)]\nmod tests {\n #[ignore]\n fn f() {} }",
            "#[ignore = \"slow\"]\nfn f() {}",
            "fn f() { std::thread::sleep(d) }",
        ] {
            assert_eq!(
                unfinished(&File::new("crates/a/src/a.rs", code)).len(),
                1,
                "{code}"
            );
        }
        let innocent = "// todo! in a comment\nfn f() { g(\"thread::sleep\") }";
        assert_eq!(
            unfinished(&File::new("crates/a/src/a.rs", innocent)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_note_is_found_in_a_comment() {
        for note in NOTES {
            let file = File::new("a.rs", &format!("fn f() {{}}\n// {note}: later"));
            assert_eq!(notes(&file), [format!("a.rs:2: {note}")]);
        }
        assert_eq!(
            notes(&File::new("a.rs", "// nothing")),
            Vec::<String>::new()
        );
    }
}
