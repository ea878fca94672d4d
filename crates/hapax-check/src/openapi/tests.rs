//! Requests from documents: examples first, then what the schema allows, and a reason where neither does.

use serde_json::{Value, json};

use super::*;
use crate::template::{Kind, Template, Values};

/// A document with one operation `op`.
fn document(method: &str, path: &str, operation: Value) -> Value {
    let mut operation = operation;
    operation["operationId"] = "op".into();
    json!({ "openapi": "3.1.0", "paths": { path: { method: operation } } })
}

fn described(document: &Value) -> Result<Described, String> {
    describe(&document.to_string(), "op", "/", "Idempotency-Key")
}

/// The request of a document in one case.
fn request(document: &Value) -> (crate::message::Message, Kind) {
    let described = described(document).unwrap();
    let template = Template::read(Some(&described.request), "/", None, "Idempotency-Key").unwrap();
    let values = Values {
        key: "K".into(),
        uuid: "U".into(),
        n: 7,
    };
    (template.fill(&values), template.kind)
}

fn content(schema: &Value) -> Result<Value, String> {
    let operation =
        json!({ "requestBody": { "content": { "application/json": { "schema": schema } } } });
    let text = described(&document("post", "/o", operation))?.request;
    let file: Value = serde_json::from_str(&text).unwrap();
    Ok(serde_json::from_str(&file["body"].as_str().unwrap().replace("{{n}}", "7")).unwrap())
}

#[test]
fn content_is_made_from_the_schema() {
    for (schema, expected) in [
        (json!({ "type": "integer" }), json!(7)),
        (json!({ "type": "integer", "minimum": 100 }), json!(100)),
        (
            json!({ "type": "integer", "minimum": 3, "multipleOf": 5 }),
            json!(5),
        ),
        (
            json!({ "type": "integer", "exclusiveMinimum": 1 }),
            json!(2),
        ),
        (json!({ "type": "integer", "maximum": -4 }), json!(-4)),
        (json!({ "type": "number", "maximum": 0.5 }), json!(0.5)),
        (
            json!({ "type": "string", "format": "uuid" }),
            json!("{{uuid}}"),
        ),
        (json!({ "type": "string", "maxLength": 5 }), json!("hapax")),
        (
            json!({ "type": "string", "minLength": 13 }),
            json!("hapax checkxx"),
        ),
        (
            json!({ "type": "string", "enum": ["EUR", "USD"] }),
            json!("EUR"),
        ),
        (json!({ "type": ["null", "boolean"] }), json!(true)),
        (
            json!({ "type": "string", "pattern": "^[A-Z]{3}$" }),
            json!("AAA"),
        ),
        (json!({ "const": "x" }), json!("x")),
        (
            json!({ "type": "array", "items": { "const": 1 }, "minItems": 2 }),
            json!([1, 1]),
        ),
        (
            json!({ "oneOf": [{ "type": "string", "pattern": "^(a)$" }, { "const": 2 }] }),
            json!(2),
        ),
        (
            json!({ "allOf": [{ "properties": { "a": { "const": 1 } } }, { "properties": { "b": { "const": 2 } } }] }),
            json!({ "a": 1, "b": 2 }),
        ),
        (
            json!({ "required": ["a"], "properties": { "a": { "const": 1 }, "b": { "const": 2 } } }),
            json!({ "a": 1 }),
        ),
        (
            json!({ "properties": { "id": { "const": 1, "readOnly": true }, "b": { "const": 2 } } }),
            json!({ "b": 2 }),
        ),
        (
            json!({ "properties": {}, "example": { "a": 3 } }),
            json!({ "a": 3 }),
        ),
    ] {
        assert_eq!(content(&schema).unwrap(), expected, "{schema}");
    }
}

#[test]
fn what_cannot_be_made_says_why() {
    for (schema, part) in [
        (json!({ "type": "string", "pattern": "^(a|b)$" }), "pattern"),
        (
            json!({ "$ref": "#/components/schemas/None" }),
            "not in the document",
        ),
        (
            json!({ "required": ["a"], "properties": { "a": { "pattern": "(x)" } } }),
            "a: no text",
        ),
    ] {
        let why = content(&schema).unwrap_err();
        assert!(why.contains(part), "{schema}: {why}");
    }
    let mut endless = document(
        "post",
        "/o",
        json!({ "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/s" } } } } }),
    );
    endless["s"] = json!({ "required": ["s"], "properties": { "s": { "$ref": "#/s" } } });
    assert!(described(&endless).unwrap_err().contains("without end"));
    let form = json!({ "requestBody": { "content": { "application/x-www-form-urlencoded": {} } } });
    let why = described(&document("post", "/o", form)).unwrap_err();
    assert!(why.contains("--request"), "{why}");
    let why = describe("openapi: [3.1.0", "op", "/", "K").unwrap_err();
    assert!(why.contains("YAML") && !why.contains('\n'), "{why}");
    let why = describe("{\"swagger\":\"2.0\"}", "op", "/", "K").unwrap_err();
    assert!(why.contains("version 3"), "{why}");
    let one = document("post", "/o", json!({}));
    let why = describe(&one.to_string(), "other", "/", "K").unwrap_err();
    assert!(why.contains("it has op"), "{why}");
    let gap = document("get", "/o/{id}", json!({}));
    assert!(described(&gap).unwrap_err().contains("no parameter"));
}

#[test]
fn path_query_and_header_parameters_are_filled_in() {
    let operation = json!({ "parameters": [
        { "name": "id", "in": "path", "required": true, "schema": { "type": "string" } },
        { "name": "shop", "in": "path", "required": true, "example": "a b" },
        { "name": "q", "in": "query", "required": true, "schema": { "type": "integer" } },
        { "name": "left-out", "in": "query", "schema": { "type": "string" } },
        { "name": "X-Shop", "in": "header", "required": true, "schema": { "const": "s1" } },
    ] });
    let (message, kind) = request(&document("put", "/{shop}/o/{id}", operation));
    assert_eq!(message.target, "/a%20b/o/U?q=7");
    assert_eq!(message.field("x-shop"), Some("s1"));
    assert_eq!(kind, Kind::Natural);
}

#[test]
fn a_parameter_for_the_key_says_whether_it_is_required_and_how_it_is_written() {
    let with = |schema: Value, required: bool| {
        document(
            "post",
            "/o",
            json!({ "parameters": [{ "name": "idempotency-key", "in": "header", "required": required, "schema": schema }] }),
        )
    };
    let uuid = with(json!({ "type": "string", "format": "uuid" }), true);
    assert!(described(&uuid).unwrap().requires_key);
    assert_eq!(request(&uuid).0.field("Idempotency-Key"), Some("K"));
    let text = with(json!({ "type": "string" }), false);
    assert!(!described(&text).unwrap().requires_key);
    assert_eq!(request(&text).0.field("Idempotency-Key"), Some("\"K\""));
}

#[test]
fn an_operation_is_found_by_method_and_path_below_the_servers_path() {
    let mut found = document("post", "/o", json!({}));
    found["servers"] = json!([{ "url": "https://example.com/v1/" }]);
    let target = |path: &str| {
        let text = describe(&found.to_string(), "POST /o", path, "K")
            .unwrap()
            .request;
        let file: Value = serde_json::from_str(&text).unwrap();
        file["target"].as_str().unwrap().to_owned()
    };
    assert_eq!(target("/"), "/v1/o");
    assert_eq!(target("/api/"), "/api/o");
}

#[test]
fn a_document_in_yaml_says_the_same_as_one_in_json() {
    let text = "openapi: 3.1.0\npaths:\n  /o:\n    post:\n      operationId: op\n      responses:\n        200: {}\n      requestBody:\n        content:\n          application/json:\n            schema:\n              required: [gift, n]\n              properties:\n                gift: { enum: [no, yes] }\n                n: { type: integer }\n";
    let described = describe(text, "op", "/", "K").unwrap();
    let file: Value = serde_json::from_str(&described.request).unwrap();
    assert_eq!(file["body"], r#"{"gift":"no","n":{{n}}}"#);
}
