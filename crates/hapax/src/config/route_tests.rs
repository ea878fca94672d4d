//! Which route a request finds, however its path is spelled.

use hapax_core::policy::{KeyRequirement, KeySource};
use http::Method;

use super::settings::Settings;
use super::tests::text;

fn settings(patterns: &[&str]) -> Settings {
    let routes = patterns
        .iter()
        .map(|pattern| format!("[[route]]\nmatch = {pattern:?}\n"));
    match text(&routes.collect::<String>()) {
        Ok((settings, _)) => settings,
        Err(error) => panic!("{error}"),
    }
}

/// Method and path of a request, and the route that it must find.
const CASES: &[(&str, &str, &str)] = &[
    ("POST", "/v1/orders", "POST /v1/orders"),
    ("PUT", "/v1/orders", "* /v1/orders"),
    ("DELETE", "/v1/orders", "* /v1/orders"),
    ("POST", "/v1/orders/special", "POST /v1/orders/special"),
    ("PUT", "/v1/orders/special", "PUT /v1/orders/{id}"),
    ("POST", "/v1/orders/7", "POST /v1/orders/{id}"),
    (
        "POST",
        "/v1/orders/7/capture",
        "POST /v1/orders/{id}/capture",
    ),
    ("POST", "/v1/orders/7/other", "POST /v1/orders/{*rest}"),
    ("POST", "/v1/orders/7/capture/x", "POST /v1/orders/{*rest}"),
    (
        "POST",
        "/v1/orders/1/capture",
        "POST /v1/orders/{id}/capture",
    ),
    ("POST", "/v1/other/1/capture", "POST /v1/{kind}/1/capture"),
    ("POST", "/v1/pay/9:cancel", "POST /v1/pay/{id}:cancel"),
    ("POST", "/v1/pay/9%3Acancel", "POST /v1/pay/{id}:cancel"),
    ("POST", "/v1/pay/:cancel", "POST /v1/pay/{id}"),
    ("POST", "/v1/pay/CH-9", "POST /v1/pay/ch-{id}"),
    ("POST", "/v1/pay/9", "POST /v1/pay/{id}"),
    ("PUT", "/caf%c3%a9", "PUT /café"),
    ("DELETE", "/", "DELETE /{*all}"),
    ("DELETE", "/any/thing", "DELETE /{*all}"),
    ("POST", "/v2", "default"),
    ("POST", "/", "default"),
    ("POST", "*", "default"),
    ("POST", "", "default"),
    ("GET", "/v1/orders", "* /v1/orders"),
    ("GET", "/v1/orders/7", "default"),
    // Other spellings of the same path.
    ("POST", "/v1/%6frders", "POST /v1/orders"),
    ("POST", "/v1/%6Frders", "POST /v1/orders"),
    ("POST", "/%76%31/orders", "POST /v1/orders"),
    ("POST", "//v1//orders", "POST /v1/orders"),
    ("POST", "/v1/orders/", "POST /v1/orders"),
    ("POST", "/v1/orders//", "POST /v1/orders"),
    ("POST", "/v1/./orders", "POST /v1/orders"),
    ("POST", "/v1/%2e/orders", "POST /v1/orders"),
    ("POST", "/v1/x/../orders", "POST /v1/orders"),
    ("POST", "/v1/x/%2E%2e/orders", "POST /v1/orders"),
    ("POST", "/../v1/orders", "POST /v1/orders"),
    ("POST", "/V1/Orders", "POST /v1/orders"),
    ("POST", "/v1/ORDERS/Special", "POST /v1/orders/special"),
    ("POST", "/v1%2Forders", "POST /v1/orders"),
    ("POST", "/v1%2forders", "POST /v1/orders"),
    ("POST", "/v1%5Corders", "POST /v1/orders"),
    ("POST", "/v1\\orders", "POST /v1/orders"),
    ("POST", "/v1/orders;v=1", "POST /v1/orders"),
    ("POST", "/v1;x/orders%3Bv=1", "POST /v1/orders"),
    // Not the same path.
    ("POST", "/v1/%256frders", "default"),
    ("POST", "/v1/orders2", "default"),
    ("POST", "/v1/order", "default"),
    ("post", "/v1/orders", "* /v1/orders"),
];

#[test]
fn the_most_specific_route_wins_and_no_spelling_escapes_it() {
    let settings = settings(&[
        "POST /v1/orders",
        "* /v1/orders",
        "POST /v1/orders/{id}",
        "POST /v1/orders/special",
        "PUT /v1/orders/{id}",
        "POST /v1/orders/{id}/capture",
        "POST /v1/orders/{*rest}",
        "POST /v1/{kind}/1/capture",
        "POST /v1/pay/{id}:cancel",
        "POST /v1/pay/ch-{id}",
        "POST /v1/pay/{id}",
        "PUT /café",
        "DELETE /{*all}",
    ]);
    for (method, path, route) in CASES {
        let method: Method = method.parse().unwrap();
        let found = settings.routes.find(&method, path);
        assert_eq!(&*found.route.name, *route, "{method} {path}");
    }
}

#[test]
fn a_key_parameter_has_its_value_decoded_once_with_its_case() {
    let source = "[[route]]\nmatch = \"PUT /order/{a}/x-{b}.json/{*c}\"\n\
                  key_from = [\"path:b\", \"path:a\", \"path:c\"]\n";
    let (settings, _) = text(source).unwrap();
    let check = |path: &str, values: [&str; 3]| {
        let found = settings.routes.find(&Method::PUT, path);
        let params: Vec<(&str, &str)> = found
            .params
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_str()))
            .collect();
        let expected: Vec<_> = ["a", "b", "c"].into_iter().zip(values).collect();
        assert_eq!(params, expected, "{path}");
    };
    check("/order/A1/x-B2.json/c/d", ["A1", "B2", "c/d"]);
    check("/ORDER//A1/X-B2.JSON/C/", ["A1", "B2", "C"]);
    check("/order/a%2Fb/x-%41%25.json/%20", ["a/b", "A%", " "]);
    check("/order/%ff/x-%2541.json/c", ["\u{fffd}", "%41", "c"]);
}

#[test]
fn a_route_without_a_path_key_allocates_no_parameters() {
    let settings = settings(&["POST /v1/orders/{id}"]);
    let found = settings.routes.find(&Method::POST, "/v1/orders/7");
    assert_eq!(found.params.capacity(), 0);
}

#[test]
fn a_route_keys_its_own_method_and_inherits_what_it_does_not_say() {
    let source = "[defaults]\nkey = \"required\"\n\
                  [[route]]\nmatch = \"PUT /order/{order_id}\"\nkey_from = [\"path:order_id\"]\n\
                  [[route]]\nmatch = \"* /x\"\n\
                  [[route]]\nmatch = \"GET /order/{order_id}\"\nretention = \"1h\"\n";
    let (settings, _) = text(source).unwrap();
    let put = settings.routes.find(&Method::PUT, "/order/7").route;
    assert!(put.policy.covers(&Method::PUT));
    assert_eq!(put.policy.key, KeyRequirement::Required);
    assert_eq!(
        put.policy.key_from,
        [KeySource::Path("order_id".to_owned())]
    );
    assert_eq!(put.origin.to_string(), "hapax.toml:4");
    let any = settings.routes.find(&Method::PUT, "/x").route;
    assert!(!any.policy.covers(&Method::PUT) && any.policy.covers(&Method::POST));
    let get = settings.routes.find(&Method::GET, "/order/7").route;
    assert!(!get.policy.methods.contains(&Method::GET));
    let default = settings.routes.default_route();
    assert!(!default.policy.covers(&Method::PUT));
}

#[test]
fn routes_that_match_alike_are_refused_and_both_are_named() {
    for (one, other) in [
        ("POST /a", "POST /a"),
        ("POST /a", "POST /A/"),
        ("POST /a/{x}", "POST /a/{y}"),
        ("* /a/{*x}", "* /a/{*y}"),
        ("POST /%61", "POST /a"),
        ("POST /x-{a}", "POST /X-{b}"),
    ] {
        let source = format!("[[route]]\nmatch = {one:?}\n[[route]]\nmatch = {other:?}\n");
        let error = text(&source).unwrap_err().to_string();
        assert!(error.contains("hapax.toml:4:9"), "{error}");
        assert!(
            error.contains(&format!("matches like \"{one}\" at hapax.toml:2")),
            "{error}"
        );
    }
}
