//! The storefront's files, as they are in `web/demo/`.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::routing::get;

use super::Demo;

/// Nothing from elsewhere, nothing inline, nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct Page {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! page {
    ($path:literal, $file:literal, $kind:literal) => {
        Page {
            path: $path,
            kind: $kind,
            text: include_str!(concat!("../../web/demo/", $file)),
        }
    };
}

const PAGES: [Page; 9] = [
    page!("/", "index.html", "text/html; charset=utf-8"),
    page!("/style.css", "style.css", "text/css; charset=utf-8"),
    page!("/lamp.svg", "lamp.svg", "image/svg+xml"),
    page!("/main.js", "main.js", "text/javascript; charset=utf-8"),
    // The file that pages of other people load, too.
    page!(
        "/hapax-client.js",
        "../../../../clients/typescript/dist/hapax-client.js",
        "text/javascript; charset=utf-8"
    ),
    page!("/demo.js", "demo.js", "text/javascript; charset=utf-8"),
    page!("/till.js", "till.js", "text/javascript; charset=utf-8"),
    page!("/story.js", "story.js", "text/javascript; charset=utf-8"),
    page!("/drawer.js", "drawer.js", "text/javascript; charset=utf-8"),
];

/// Adds the page's files to a router.
pub(super) fn add_to(router: Router<Arc<Demo>>) -> Router<Arc<Demo>> {
    PAGES.iter().fold(router, |router, page| {
        let fields = [
            (CONTENT_TYPE, page.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
        ];
        router.route(page.path, get(async move || (fields, page.text)))
    })
}
