//! A request made from an OpenAPI document (3.0 or 3.1, JSON or YAML): path, required parameters and content of one operation.

mod example;
mod pattern;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use example::Examples;

/// The largest document, in bytes; what is fetched has the limit of an answer.
pub(crate) const MAX_DOCUMENT: usize = 8 * 1024 * 1024;
/// The methods of a path item.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// How many operations an error names.
const MAX_NAMED: usize = 20;

/// What a document says about an operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// A request file in JSON, with placeholders.
    pub(crate) request: String,
    /// The key is a required parameter.
    pub(crate) requires_key: bool,
}

/// Describes an operation. `path`: that of the target's URL, in front of the operation's own unless it is `/`, and in place of that of
/// the document's first server.
pub(crate) fn describe(
    text: &str,
    operation: &str,
    path: &str,
    key_field: &str,
) -> Result<Described, String> {
    let document = parse(text)?;
    let version = document
        .get("openapi")
        .and_then(Value::as_str)
        .unwrap_or("");
    if !version.starts_with("3.") {
        return Err("it is no OpenAPI document of version 3".into());
    }
    let found = find(&document, operation)?;
    let examples = Examples::of(&document);
    let parts = Parts::read(&examples, &found, key_field)?;
    let target = format!("{}{}", base(&document, path), parts.target);
    let mut request = json!({ "method": found.method.to_ascii_uppercase(), "target": target, "fields": parts.fields });
    if let (Some(content), Some(members)) = (content(&examples, &found)?, request.as_object_mut()) {
        members.insert("body".into(), content.into());
    }
    Ok(Described {
        request: request.to_string(),
        requires_key: parts.requires_key,
    })
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"));
    }
    // YAML 1.2, as OpenAPI has it: `no` is a text.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.to_string();
        // The excerpt that follows is for terminals of its own kind.
        format!(
            "it is neither JSON nor YAML: {}",
            error.lines().next().unwrap_or_default()
        )
    })
}

/// An operation, and where it is.
struct Found<'a> {
    method: &'a str,
    path: &'a str,
    item: &'a Map<String, Value>,
    operation: &'a Value,
}

fn find<'a>(document: &'a Value, wanted: &str) -> Result<Found<'a>, String> {
    let mut names = Vec::new();
    let paths = document.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        let Some(item) = item.as_object() else {
            continue;
        };
        for method in METHODS {
            let Some(operation) = item.get(method) else {
                continue;
            };
            let id = operation.get("operationId").and_then(Value::as_str);
            let plain = format!("{} {path}", method.to_ascii_uppercase());
            if id == Some(wanted) || plain == wanted {
                return Ok(Found {
                    method,
                    path,
                    item,
                    operation,
                });
            }
            names.push(id.map_or(plain, str::to_owned));
        }
    }
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(format!(
        "it has no operation {wanted:?}; it has {}{more}",
        names.join(", ")
    ))
}

/// What stands in front of the paths of the document.
fn base(document: &Value, path: &str) -> String {
    let path = path.split('?').next().unwrap_or("").trim_end_matches('/');
    if !path.is_empty() {
        return path.to_owned();
    }
    let server = document
        .pointer("/servers/0/url")
        .and_then(Value::as_str)
        .unwrap_or("");
    let of_server = match server.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(""),
        None => server,
    };
    // Variables of a server's URL have no values here.
    match of_server.contains('{') {
        true => String::new(),
        false => of_server.trim_end_matches('/').to_owned(),
    }
}

/// What the parameters make of a request.
struct Parts {
    target: String,
    fields: BTreeMap<String, String>,
    requires_key: bool,
}

impl Parts {
    fn read(examples: &Examples<'_>, found: &Found<'_>, key_field: &str) -> Result<Self, String> {
        let mut parts = Self {
            target: found.path.to_owned(),
            fields: BTreeMap::new(),
            requires_key: false,
        };
        let mut query = Vec::new();
        for parameter in parameters(examples, found)? {
            let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or("");
            let (name, place) = (text("name"), text("in"));
            let is_required = parameter.get("required") == Some(&Value::Bool(true));
            if place == "header" && name.eq_ignore_ascii_case(key_field) {
                parts.requires_key = is_required;
                let schema = examples.resolved(parameter.get("schema").unwrap_or(&Value::Null))?;
                // A UUID has no quotes; else the key is a string of structured fields.
                if schema.get("format").and_then(Value::as_str) == Some("uuid") {
                    parts.fields.insert(name.to_owned(), "{{key}}".into());
                }
                continue;
            }
            if !is_required && place != "path" {
                continue;
            }
            let value = examples
                .of_parameter(parameter)
                .map_err(|why| format!("the parameter {name}: {why}"))?;
            match place {
                "path" => {
                    parts.target = parts
                        .target
                        .replace(&format!("{{{name}}}"), &encoded(&value));
                }
                "query" => query.push(format!("{}={}", encoded(name), encoded(&value))),
                "header" => drop(parts.fields.insert(name.to_owned(), value)),
                "cookie" => {
                    return Err(format!(
                        "the cookie {name} is required; describe the request with --request"
                    ));
                }
                _ => return Err(format!("the parameter {name} is in {place:?}")),
            }
        }
        let unfilled = parts.target.replace("{{", "").replace("}}", "");
        if unfilled.contains(['{', '}']) {
            return Err(format!(
                "the path {} has a part that no parameter describes",
                found.path
            ));
        }
        if !query.is_empty() {
            parts.target.push('?');
            parts.target.push_str(&query.join("&"));
        }
        Ok(parts)
    }
}

/// The parameters of the operation, and those of its path that it does not describe anew.
fn parameters<'a>(examples: &Examples<'a>, found: &Found<'a>) -> Result<Vec<&'a Value>, String> {
    let mut all: Vec<&Value> = Vec::new();
    let lists = [
        found.operation.get("parameters"),
        found.item.get("parameters"),
    ];
    for parameter in lists
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
    {
        let parameter = examples.resolved(parameter)?;
        let is_same = |other: &&Value| {
            ["name", "in"]
                .iter()
                .all(|at| other.get(at) == parameter.get(at))
        };
        if !all.iter().any(is_same) {
            all.push(parameter);
        }
    }
    Ok(all)
}

fn content(examples: &Examples<'_>, found: &Found<'_>) -> Result<Option<String>, String> {
    let Some(body) = found.operation.get("requestBody") else {
        return Ok(None);
    };
    let body = examples.resolved(body)?;
    let kinds = body.get("content").and_then(Value::as_object);
    let is_json = |kind: &str| kind.starts_with("application/json") || kind.contains("+json");
    let media = kinds
        .into_iter()
        .flatten()
        .find(|(kind, _)| is_json(kind))
        .map(|(_, media)| media)
        .ok_or("its content is not JSON; describe the request with --request")?;
    let value = examples
        .of_media(media)
        .map_err(|why| format!("the content: {why}"))?;
    Ok(Some(example::template(&value)))
}

/// Percent-encoded for a path or a query; placeholders stay what they are.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let placeholder = ["{{uuid}}", "{{key}}", "{{n}}"]
            .into_iter()
            .find(|name| rest.starts_with(name));
        let length = match placeholder {
            Some(name) => {
                out.push_str(name);
                name.len()
            }
            None => {
                let c = rest.chars().next().map_or(1, char::len_utf8);
                for byte in rest.bytes().take(c) {
                    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                        out.push(char::from(byte));
                    } else {
                        out.push_str(&format!("%{byte:02X}"));
                    }
                }
                c
            }
        };
        rest = rest.get(length..).unwrap_or("");
    }
    out
}

#[cfg(test)]
mod tests;
