//! Values that a schema allows: the document's own examples first, and otherwise one made from the schema.

use serde_json::{Map, Number, Value};

use super::pattern::Pattern;

/// How deep schemas may be nested, references followed included.
const MAX_DEPTH: usize = 24;
/// Stands for a number from 1 to 99 until the JSON is text.
const NUMBER: &str = "{{n:number}}";
/// What a fresh UUID looks like.
const UUID: &str = "0b5e3cba-96a1-4b07-9c5e-0f2a1a5d9c11";
/// What a text is where nothing says more.
const TEXT: &str = "hapax check";

/// Makes examples; references are to places in the document.
pub(super) struct Examples<'a> {
    document: &'a Value,
}

/// JSON text with placeholders.
pub(super) fn template(value: &Value) -> String {
    value.to_string().replace(&format!("\"{NUMBER}\""), "{{n}}")
}

impl<'a> Examples<'a> {
    pub(super) fn of(document: &'a Value) -> Self {
        Self { document }
    }

    /// What a `$ref` stands for, or the value itself.
    pub(super) fn resolved(&self, value: &'a Value) -> Result<&'a Value, String> {
        let mut value = value;
        for _ in 0..MAX_DEPTH {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return Ok(value);
            };
            value = reference
                .strip_prefix('#')
                .and_then(|pointer| self.document.pointer(pointer))
                .ok_or_else(|| format!("{reference} is not in the document"))?;
        }
        Err("its references go round in a circle".into())
    }

    /// The value of a parameter, as text.
    pub(super) fn of_parameter(&self, parameter: &'a Value) -> Result<String, String> {
        let value = match self.given(parameter)? {
            Some(value) => value,
            None => {
                let schema = parameter
                    .get("schema")
                    .ok_or("it has neither example nor schema")?;
                let schema = self.resolved(schema)?;
                match schema.get("type").and_then(Value::as_str) {
                    // A resource of its own in every case, where the schema lets it be named.
                    Some("string") if is_free_text(schema) => "{{uuid}}".into(),
                    _ => self.made(schema, 0)?,
                }
            }
        };
        Ok(match value {
            Value::String(text) if text == NUMBER => "{{n}}".into(),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(is) => is.to_string(),
            _ => return Err("it is neither text, number nor truth value".into()),
        })
    }

    /// Content of a media type.
    pub(super) fn of_media(&self, media: &'a Value) -> Result<Value, String> {
        match self.given(media)? {
            Some(value) => Ok(value),
            None => {
                let schema = media
                    .get("schema")
                    .ok_or("it has neither example nor schema")?;
                self.made(schema, 0)
            }
        }
    }

    /// An example that somebody wrote: `example`, or the first of `examples`.
    fn given(&self, place: &'a Value) -> Result<Option<Value>, String> {
        if let Some(example) = place.get("example") {
            return Ok(Some(example.clone()));
        }
        match place.get("examples") {
            Some(Value::Array(all)) => Ok(all.first().cloned()),
            Some(Value::Object(all)) => match all.values().next() {
                Some(first) => Ok(self.resolved(first)?.get("value").cloned()),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn made(&self, schema: &'a Value, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("its schemas are nested without end".into());
        }
        let schema = self.resolved(schema)?;
        if let Some(example) = self.given(schema)? {
            return Ok(example);
        }
        let first_of = |name: &str| schema.get(name)?.as_array()?.first().cloned();
        let fixed = schema.get("const").or(schema.get("default")).cloned();
        if let Some(value) = fixed.or_else(|| first_of("enum")) {
            return Ok(value);
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            return self.merged(schema, all, depth);
        }
        for name in ["oneOf", "anyOf"] {
            if let Some(choices) = schema.get(name).and_then(Value::as_array) {
                return choices
                    .iter()
                    .find_map(|choice| self.made(choice, depth + 1).ok())
                    .ok_or_else(|| format!("no choice of {name} can be made"));
            }
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" => Ok(integer(schema)),
            "number" => Ok(number(schema)),
            "boolean" => Ok(Value::Bool(true)),
            "null" => Ok(Value::Null),
            _ => text(schema),
        }
    }

    /// What every part says, together.
    fn merged(&self, schema: &'a Value, all: &'a [Value], depth: usize) -> Result<Value, String> {
        let mut members = Map::new();
        for part in all {
            match self.made(part, depth + 1)? {
                Value::Object(more) => members.extend(more),
                other if all.len() == 1 => return Ok(other),
                _ => return Err("allOf joins what is no object".into()),
            }
        }
        if schema.get("properties").is_some()
            && let Value::Object(more) = self.object(schema, depth)?
        {
            members.extend(more);
        }
        Ok(Value::Object(members))
    }

    /// The required members; all of them where none is required.
    fn object(&self, schema: &'a Value, depth: usize) -> Result<Value, String> {
        let names: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut members = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let is_read_only = property.get("readOnly") == Some(&Value::Bool(true));
            let is_required = names.contains(&name.as_str());
            if is_read_only || (!names.is_empty() && !is_required) {
                continue;
            }
            match self.made(property, depth + 1) {
                Ok(value) => drop(members.insert(name.clone(), value)),
                Err(why) if is_required => return Err(format!("{name}: {why}")),
                // It may be left out.
                Err(_) => {}
            }
        }
        Ok(Value::Object(members))
    }

    fn array(&self, schema: &'a Value, depth: usize) -> Result<Value, String> {
        let length = schema.get("minItems").and_then(Value::as_u64);
        let length = usize::try_from(length.unwrap_or(1).clamp(1, 100)).unwrap_or(1);
        match schema.get("items") {
            Some(items) => Ok(vec![self.made(items, depth + 1)?; length].into()),
            None => Ok(Value::Array(Vec::new())),
        }
    }
}

/// The type of a schema; of several (3.1) the first that is not null.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

fn is_free_text(schema: &Value) -> bool {
    let is_long_enough = schema
        .get("maxLength")
        .and_then(Value::as_u64)
        .is_none_or(|longest| longest >= 36);
    let is_uuid = schema.get("format").is_none_or(|format| format == "uuid");
    let fits = match schema.get("pattern").and_then(Value::as_str) {
        Some(pattern) => Pattern::read(pattern).is_some_and(|pattern| pattern.fits(UUID)),
        None => true,
    };
    let says_more = ["enum", "const", "default", "example", "examples"]
        .iter()
        .any(|name| schema.get(name).is_some());
    is_long_enough && is_uuid && fits && !says_more
}

/// The least and the greatest allowed, as far as the schema says.
fn bounds(schema: &Value) -> (Option<f64>, Option<f64>) {
    let of = |name: &str| schema.get(name).and_then(Value::as_f64);
    // In 3.0 a truth value beside the bound, in 3.1 a bound of its own.
    let is_open = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let step = |is: bool| if is { 1.0 } else { 0.0 };
    let low = of("minimum")
        .map(|low| low + step(is_open("exclusiveMinimum")))
        .or_else(|| of("exclusiveMinimum").map(|low| low + 1.0));
    let high = of("maximum")
        .map(|high| high - step(is_open("exclusiveMaximum")))
        .or_else(|| of("exclusiveMaximum").map(|high| high - 1.0));
    (low, high)
}

fn integer(schema: &Value) -> Value {
    let (low, high) = bounds(schema);
    let is_free = low.is_none_or(|low| low <= 1.0)
        && high.is_none_or(|high| high >= 99.0)
        && schema.get("multipleOf").is_none();
    if is_free {
        return NUMBER.into();
    }
    let step = schema.get("multipleOf").and_then(Value::as_f64);
    let mut value = low.unwrap_or_else(|| high.unwrap_or(1.0).min(1.0)).ceil();
    if let Some(step) = step.filter(|step| *step > 0.0) {
        value = (value / step).ceil() * step;
    }
    // An integer to the digit: the bounds of a schema are within what a double holds.
    format!("{value:.0}")
        .parse::<i64>()
        .map_or(Value::from(1), Value::from)
}

fn number(schema: &Value) -> Value {
    match bounds(schema) {
        (Some(low), _) if low > 1.0 => Number::from_f64(low).map_or(Value::from(1), Value::Number),
        (_, Some(high)) if high < 1.0 => {
            Number::from_f64(high).map_or(Value::from(1), Value::Number)
        }
        _ => integer(schema),
    }
}

fn text(schema: &Value) -> Result<Value, String> {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        return Pattern::read(pattern)
            .and_then(|pattern| pattern.text())
            .map(Value::from)
            .ok_or_else(|| {
                format!(
                    "no text is made for the pattern {pattern}; give an example in the document, or describe the request with --request"
                )
            });
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
    let formatted = match format {
        "uuid" => "{{uuid}}",
        "date-time" => "2026-01-02T03:04:05Z",
        "date" => "2026-01-02",
        "time" => "03:04:05Z",
        "email" | "idn-email" => "someone@example.com",
        "uri" | "url" | "uri-reference" => "https://example.com/",
        "hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "byte" => "aGFwYXg=",
        _ => "",
    };
    if !formatted.is_empty() {
        return Ok(formatted.into());
    }
    let bound = |name: &str| {
        let bound = schema.get(name).and_then(Value::as_u64)?;
        usize::try_from(bound).ok()
    };
    let mut text: String = TEXT.to_owned();
    // No text is made longer than a few lines, whatever a schema asks for.
    while text.len() < bound("minLength").unwrap_or(0).min(4096) {
        text.push('x');
    }
    text.truncate(bound("maxLength").unwrap_or(usize::MAX));
    Ok(text.into())
}
