//! Who may call what: names and origins, tokens and roles. Refuses in one place, before a handler.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Watched;
use super::problem::{Kind, Problem};
use super::tokens::{Caller, Role, Tokens};

/// Who is let in.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// `None` on loopback without a token file: whoever reaches the address is an operator.
    pub(crate) tokens: Option<Tokens>,
    /// Names besides addresses and `localhost` that the listener answers to.
    pub(crate) hosts: Vec<String>,
}

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing: probes ask without a token, and files of a page say nothing about anybody.
    Nothing,
    /// A token whose role reaches at least so far.
    Role(Role),
}

/// What a call needs. Whatever changes something, and whatever is not listed, needs an operator.
fn needs(method: &Method, path: &str) -> Needs {
    let is_read = *method == Method::GET || *method == Method::HEAD;
    match path {
        _ if !says_something(path) && is_read => Needs::Nothing,
        "/api/v1/records:lookup" => Needs::Role(Role::Viewer),
        _ if is_read => Needs::Role(Role::Viewer),
        _ => Needs::Role(Role::Operator),
    }
}

/// Whether a path's answers are about the gateway, rather than files of a page or a probe's word.
fn says_something(path: &str) -> bool {
    path == "/metrics" || path == "/api" || path.starts_with("/api/")
}

/// Lets a call through to its handler, with its [`Caller`], or refuses it.
pub(super) async fn guard(
    State(watched): State<Arc<Watched>>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = match admit(&watched.access.load(), &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

fn admit(access: &Access, request: &Request) -> Result<Caller, Problem> {
    let headers = request.headers();
    if !names_this_host(headers, &access.hosts) {
        let detail = "This listener answers to its address, to localhost and to the names in \
                      admin.hosts.";
        return Err(Problem::new(Kind::ForeignHost, detail));
    }
    check_origin(request, headers)?;
    check_content_type(request.method(), headers)?;
    let caller = match &access.tokens {
        None => Caller::local(),
        Some(tokens) => match tokens.caller_of(headers) {
            Some(caller) => caller,
            None if needs(request.method(), request.uri().path()) == Needs::Nothing => {
                Caller::nobody()
            }
            None => {
                let detail = "Send Authorization: Bearer with a token of the gateway's token file.";
                return Err(Problem::new(Kind::Unauthenticated, detail));
            }
        },
    };
    match needs(request.method(), request.uri().path()) {
        Needs::Role(role) if caller.role < role => {
            Err(Problem::new(Kind::Forbidden, "The token's role is viewer."))
        }
        Needs::Role(_) | Needs::Nothing => Ok(caller),
    }
}

/// A page elsewhere can make a browser send requests to this address under a name of its own
/// (DNS rebinding); such a name is not answered.
pub(crate) fn names_this_host(headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut lines = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let Some(host) = host.to_str().ok() else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok()
        || hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// A page of another origin may neither change nor read anything. Browsers say where a request
/// comes from; whoever is no browser says nothing, and is let through.
fn check_origin(request: &Request, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    let is_foreign = text(header::ORIGIN).is_some_and(|origin| {
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    });
    // A link from elsewhere may open a page; it may neither change nor ask for anything else.
    let is_page = *request.method() == Method::GET && !says_something(request.uri().path());
    let is_cross_site = text(HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if is_foreign || (is_cross_site && !is_page) {
        let detail = "The request was sent by a page of another origin.";
        return Err(Problem::new(Kind::ForeignOrigin, detail));
    }
    Ok(())
}

/// A form of another page can send anything but JSON without asking first.
fn check_content_type(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() {
        return Ok(());
    }
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if is_json {
        return Ok(());
    }
    let detail = "Send Content-Type: application/json.";
    Err(Problem::new(Kind::NotJson, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_addresses_localhost_and_configured_names_are_answered() {
        let hosts = ["gate.internal".to_owned()];
        for (host, expected) in [
            ("127.0.0.1:9090", true),
            ("localhost", true),
            ("[::1]:9090", true),
            ("GATE.internal:9090", true),
            ("gate.internal.evil.example", false),
            ("evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(
                names_this_host(&headers(&[("host", host)]), &hosts),
                expected,
                "{host}"
            );
        }
        assert!(!names_this_host(&HeaderMap::new(), &hosts));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert!(!names_this_host(&headers(&twice), &hosts));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let api = "/api/v1/status";
        for (method, path, field, value, expected) in [
            ("POST", api, "origin", "http://127.0.0.1:9090", true),
            ("POST", api, "origin", "https://127.0.0.1:9090", true),
            ("POST", api, "origin", "http://127.0.0.1:9091", false),
            ("POST", api, "origin", "http://evil.example", false),
            ("POST", api, "origin", "null", false),
            ("GET", api, "origin", "http://evil.example", false),
            ("POST", api, "sec-fetch-site", "cross-site", false),
            ("POST", api, "sec-fetch-site", "same-site", false),
            ("POST", api, "sec-fetch-site", "same-origin", true),
            ("GET", api, "sec-fetch-site", "cross-site", false),
            ("GET", "/", "sec-fetch-site", "cross-site", true),
            ("POST", "/", "sec-fetch-site", "cross-site", false),
            ("POST", api, "accept", "*/*", true),
        ] {
            let builder = Request::builder().method(method).uri(path);
            let builder = builder
                .header("host", "127.0.0.1:9090")
                .header(field, value);
            let request = builder.body(axum::body::Body::empty()).expect("a request");
            let checked = check_origin(&request, request.headers());
            assert_eq!(
                checked.is_ok(),
                expected,
                "{method} {path} {field}: {value}"
            );
        }
    }

    #[test]
    fn changes_need_an_operator_and_so_does_what_is_not_listed() {
        let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
        let (viewer, operator) = (Needs::Role(Role::Viewer), Needs::Role(Role::Operator));
        for (method, path, expected) in [
            (&get, "/livez", Needs::Nothing),
            (&get, "/", Needs::Nothing),
            (&post, "/", operator),
            (&get, "/metrics", viewer),
            (&get, "/api/v1/records", viewer),
            (&post, "/api/v1/records:lookup", viewer),
            (&post, "/api/v1/records:resolve", operator),
            (&post, "/api/v1/records/00:resolve", operator),
            (&post, "/api/v1/new", operator),
            (&put, "/api/v1/records", operator),
        ] {
            assert_eq!(needs(method, path), expected, "{method} {path}");
        }
    }
}
