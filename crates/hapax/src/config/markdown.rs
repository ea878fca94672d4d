//! `docs/configuration.md`, made from the schema. Only the test that keeps the file fresh needs it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::document::{default_of, description, one_line, schema};
use super::names::{SECTIONS, settings_of, words};
use super::show::to_toml;

/// `docs/configuration.md`.
pub(crate) fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let root = schema();
    for section in SECTIONS {
        if *section == "telemetry" {
            write_route(&mut out, &root);
        }
        let pointer = format!("/properties/{section}/description");
        let about = root
            .pointer(&pointer)
            .and_then(Value::as_str)
            .unwrap_or_default();
        let _ = write!(out, "\n## `[{section}]`\n\n{}\n", one_line(about));
        for (name, setting) in settings_of(section) {
            let variable = format!("HAPAX_{}__{}", section.to_uppercase(), name.to_uppercase());
            let default = match default_of(section, &name) {
                Some(value) => format!("default `{}`", to_toml(&value)),
                None => "no default".to_owned(),
            };
            let kind = kind_of(&setting);
            let _ = write!(
                out,
                "\n### `{name}`\n\n{kind} · {default} · `{variable}`\n\n{}\n",
                description(&setting)
            );
            write_words(&mut out, &setting);
        }
    }
    out.push_str(ENDING);
    out
}

fn write_route(out: &mut String, root: &Value) {
    let about = |pointer: &str| {
        let text = root.pointer(pointer).and_then(Value::as_str);
        one_line(text.unwrap_or_default())
    };
    let items = "/properties/route/items";
    let _ = write!(
        out,
        "\n## `[[route]]`\n\n{}\n\n### `match`\n\ntext · required\n\n{}\n",
        about(&format!("{items}/description")),
        about(&format!("{items}/properties/match/description")),
    );
    out.push_str(ROUTES);
}

fn write_words(out: &mut String, setting: &Value) {
    let described = setting.get("oneOf").and_then(Value::as_array);
    for (index, one) in described.into_iter().flatten().enumerate() {
        let lead = if index == 0 { "\n" } else { "" };
        let word = match one.get("const").and_then(Value::as_str) {
            Some(word) => word.to_owned(),
            None => table_of(one),
        };
        let _ = writeln!(out, "{lead}- `{word}`: {}", description(one));
    }
}

/// A value that is a table with one member.
fn table_of(schema: &Value) -> String {
    let members = schema.get("properties").and_then(Value::as_object);
    let names: Vec<String> = members
        .into_iter()
        .flat_map(Map::keys)
        .map(|name| format!("{name} = \"…\""))
        .collect();
    format!("{{ {} }}", names.join(", "))
}

/// What kind of value a setting has.
fn kind_of(setting: &Value) -> String {
    let text = |name: &str| setting.get(name).and_then(Value::as_str);
    let words = words(setting);
    if !words.is_empty() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(" or ");
    }
    match (text("type"), text("format")) {
        (Some("array"), _) => match setting.get("items") {
            Some(items) => format!("list of: {}", kind_of(items)),
            None => "list".to_owned(),
        },
        (Some("integer"), _) => "count".to_owned(),
        (Some("boolean"), _) => "true or false".to_owned(),
        (Some("object"), _) => {
            let fields = setting.get("properties").and_then(Value::as_object);
            let names: Vec<String> = fields
                .into_iter()
                .flat_map(Map::keys)
                .map(|name| format!("`{name}`"))
                .collect();
            format!("table of {}", names.join(" and "))
        }
        (_, Some(format)) => format.to_owned(),
        (Some("string"), None) => "path".to_owned(),
        (_, None) => "value".to_owned(),
    }
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from crates/hapax/src/config/file.rs; a test keeps it fresh. HAPAX_BLESS=1 cargo test -p hapax rewrites it. -->

`hapax serve --upstream URL` needs no file. With one, `hapax.toml` in the working directory is read, or the file after
`-c`. `hapax config init` writes a commented one, `hapax config validate` checks it, `hapax config show --origin` says
what is in force and where it comes from, `hapax config schema` prints a JSON Schema for editors.

- **Precedence**: defaults < file < environment < flags. The environment sets `[section] name` as
  `HAPAX_SECTION__NAME`; a value is read as TOML where that fits the setting, else as text. `HAPAX_LOG` is not a setting and is
  ignored; any other unknown `HAPAX_…` variable is an error. Routes are set in the file only.
- **Unknown names are errors**, with the nearest name. All errors of a file are shown at once, and the exit code is 3.
- **Warnings** are for what is legal and dangerous (`scope = [\"none\"]`, `fail_open`, `on_unknown = \"resend\"`, the memory
  store) or has no effect. `hapax config validate --strict` refuses them with exit code 3.
- **Durations** have a unit: `500ms`, `30s`, `5m`, `24h`, `30d`. **Sizes** are in bytes or have one: `64KiB`, `1MiB` (powers of 1024),
  `1MB` (powers of 1000). **Paths** of files are relative to the working directory.
- **Reload**: SIGHUP reads everything again. What says *Restart to change it* is read at the start only: a reload that
  changes it, or that has an error, is refused as a whole, and what was in force stays.
";

const ROUTES: &str = "
All settings of `[defaults]` can stand here too. A list replaces the inherited list.

How a request's path is compared with `match`, so that no other spelling of a path escapes its route. The path itself
is forwarded as it came:

- Escapes of printable characters are decoded: `/v1/%6frders` is `/v1/orders`. Escapes of `%`, `/` and `\\` are kept: `/order/a%2Fb`
  has two segments.
- Empty segments, `.` and a slash at the end do not count, and `..` goes up: `//v1/./orders/` is `/v1/orders`.
- Case does not count in text, and counts in parameters: `/V1/Orders` is `/v1/orders`.
- A path that matches no route is tried once more as the most forgiving servers read it: `%2F`, `%5C` and `\\` part segments,
  and what follows a `;` in a segment falls away.
- `{*rest}` also matches no segment at all: `POST /{*rest}` is every POST.

Where the upstream is stricter than this, the route covers a request that the upstream refuses anyway. A path is decoded once:
`/v1/%256frders` is not `/v1/orders`. The value of `path:PARAM` is decoded once too.
";

const ENDING: &str = "
## Not supported by this version

These names are settled and refused with an error that says so: `[store] encryption_key_file`; the
scopes `claim:NAME` and `tls:subject`; and `authorize`.
";
