//! The dashboard: static files in the binary, which call the API like everybody else.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::no_such_call;
use super::problem::Problem;

/// Scripts, styles and calls of this origin only; nothing inline, nothing framed, no form that leaves the page, and no text
/// that becomes markup.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        /// Every file: its name, its type, its bytes.
        const FILES: &[(&str, &str, &[u8])] = &[
            $(($name, $kind, include_bytes!(concat!("../../web/dashboard/", $name)))),*
        ];
    };
}

files! {
    "index.html": HTML,
    "style.css": CSS,
    "icon.svg": SVG,
    "app.js": SCRIPT,
    "api.js": SCRIPT,
    "charts.js": SCRIPT,
    "dialog.js": SCRIPT,
    "feed.js": SCRIPT,
    "inspector.js": SCRIPT,
    "lanes.js": SCRIPT,
    "panels.js": SCRIPT,
    "person.js": SCRIPT,
    "text.js": SCRIPT,
    "verdict.js": SCRIPT,
    "vendor/preact-htm.js": SCRIPT,
    "vendor/LICENSES.txt": TEXT,
}

/// The page.
pub(super) async fn index() -> Result<Response, Problem> {
    file("index.html")
}

/// A file of the page.
pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    file(&name)
}

fn file(name: &str) -> Result<Response, Problem> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, bytes) = found.ok_or_else(no_such_call)?;
    let mut response = (*bytes).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, *kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path as FilePath;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_the_binary() {
        let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("web/dashboard");
        let names = |folder: &str| -> Vec<String> {
            let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
            let entries = entries.map(|entry| entry.expect("an entry"));
            let files = entries.filter(|entry| entry.path().is_file());
            files
                .map(|entry| format!("{folder}{}", entry.file_name().to_string_lossy()))
                .collect()
        };
        let there: BTreeSet<String> = names("").into_iter().chain(names("vendor/")).collect();
        let known: BTreeSet<String> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(known, there);
    }

    #[test]
    fn no_file_of_ours_makes_markup_of_text_or_asks_another_origin() {
        for (name, kind, bytes) in FILES {
            if name.starts_with("vendor/") {
                continue;
            }
            let text = std::str::from_utf8(bytes).expect("text");
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "://cdn",
                "https://",
            ] {
                assert!(!text.contains(word), "{name} has {word}");
            }
            let is_page = *kind == HTML;
            assert!(
                !is_page || !text.contains("style=") && !text.contains("<style"),
                "{name}: inline style"
            );
        }
    }
}
