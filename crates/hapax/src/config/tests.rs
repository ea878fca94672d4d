//! The configuration as a whole: texts in, settings or findings out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hapax_core::policy::{KeyRequirement, Mode, Policy};
use http::Method;
use serde_json::Value;

use super::diagnose::{ConfigError, Diagnostic, Severity, SourceText};
use super::load::{Flags, Sources, interpret, load};
use super::names::{SECTIONS, settings_of};
use super::settings::Settings;
use super::show::Origins;
use super::{document, file, markdown};

fn blesses() -> bool {
    std::env::var_os("HAPAX_BLESS").is_some_and(|value| value == "1")
}

/// Compares a file with what it should hold, or rewrites it.
fn fresh(path: &Path, expected: &str) {
    if blesses() {
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is stale (HAPAX_BLESS=1 rewrites it); it should be:\n{expected}",
        path.display()
    );
}

pub(super) fn text(text: &str) -> Result<(Settings, Vec<Diagnostic>), ConfigError> {
    with(text, &[], &Flags::default())
}

fn with(
    text: &str,
    environment: &[(&str, &str)],
    flags: &Flags,
) -> Result<(Settings, Vec<Diagnostic>), ConfigError> {
    let source = SourceText {
        path: "hapax.toml".to_owned(),
        text: text.to_owned(),
    };
    let environment: Vec<(OsString, OsString)> = environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    interpret(Some(&source), &environment, flags)
}

fn origin_of(settings: &Settings, section: &str, name: &str) -> String {
    let section = settings
        .sections
        .iter()
        .find(|one| one.name == section)
        .unwrap();
    let setting = section
        .settings
        .iter()
        .find(|one| one.name == name)
        .unwrap();
    setting.origin.to_string()
}

#[test]
fn every_faulty_file_is_explained_where_it_is_wrong_and_shows_no_secret() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 40, "only {} files", files.len());
    for path in files {
        let is_about_warnings = path.file_stem().is_some_and(|stem| stem == "warnings");
        let explained = match text(&std::fs::read_to_string(&path).unwrap()) {
            Err(error) if !is_about_warnings => error.to_string(),
            Ok((_, warnings)) if is_about_warnings => {
                assert!(
                    warnings
                        .iter()
                        .all(|found| found.severity == Severity::Warning)
                );
                let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
                shown.join("\n")
            }
            other => panic!("{}: {other:?}", path.display()),
        };
        assert!(!explained.contains("hunter2"), "{explained}");
        fresh(&path.with_extension("err"), &explained);
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let (settings, warnings) = text("").unwrap();
    assert!(warnings.is_empty());
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.store.path, Path::new("hapax-data"));
    assert_eq!(settings.server.upstream, None);
    assert_eq!(*settings.routes.default_route().policy, Policy::default());
    assert_eq!(settings.routes.iter().count(), 1);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file_and_that_over_defaults() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\n";
    let variable = ("HAPAX_SERVER__LISTEN", "127.0.0.1:2");
    let flags = Flags {
        listen: Some("127.0.0.1:3".to_owned()),
        ..Flags::default()
    };
    let check = |file: &str, environment: &[(&str, &str)], flags: &Flags, port, origin| {
        let (settings, _) = with(file, environment, flags).unwrap();
        assert_eq!(settings.server.listen.port(), port);
        assert_eq!(origin_of(&settings, "server", "listen"), origin);
    };
    let none = Flags::default();
    check("", &[], &none, 8080, "default");
    check(file, &[], &none, 1, "hapax.toml:2");
    check(
        file,
        &[variable],
        &none,
        2,
        "environment HAPAX_SERVER__LISTEN",
    );
    check(file, &[variable], &flags, 3, "--listen");
}

#[test]
fn a_variable_is_read_as_toml_where_that_fits_and_as_text_elsewhere() {
    let (settings, _) = with(
        "",
        &[
            ("HAPAX_DEFAULTS__MODE", "observe"),
            ("HAPAX_DEFAULTS__KEY", "\"required\""),
            ("HAPAX_DEFAULTS__METHODS", "[\"POST\", \"DELETE\"]"),
            ("HAPAX_DEFAULTS__FAIL_OPEN", "true"),
            ("HAPAX_DEFAULTS__WAIT", "5s"),
            ("HAPAX_DEFAULTS__MAX_BODY", "4096"),
            ("HAPAX_SERVER__MAX_CONNECTIONS", "7"),
            ("HAPAX_SERVER__UPSTREAM", "http://127.0.0.1:3000"),
            (
                "HAPAX_SERVER__TLS",
                "{ cert_file = \"c\", key_file = \"k\" }",
            ),
            ("HAPAX_STORE__PATH", "2024"),
            ("HAPAX_LOG", "debug"),
            ("OTHER__THING", "x"),
        ],
        &Flags::default(),
    )
    .unwrap();
    let policy = &settings.routes.default_route().policy;
    assert_eq!(policy.mode, Mode::Observe);
    assert_eq!(policy.key, KeyRequirement::Required);
    assert_eq!(policy.methods, [Method::POST, Method::DELETE]);
    assert_eq!(policy.wait, Duration::from_secs(5));
    assert_eq!(policy.max_body, 4096);
    assert_eq!(settings.server.max_connections, 7);
    assert_eq!(settings.server.upstream.unwrap().port, 3000);
    assert_eq!(settings.server.tls.unwrap().key_file, Path::new("k"));
    assert_eq!(settings.store.path, Path::new("2024"));
}

#[test]
fn a_faulty_variable_is_an_error_that_names_it_and_keeps_its_secret() {
    for (name, value, says) in [
        ("HAPAX_SERVER__LISTN", "x", "did you mean `listen`?"),
        ("HAPAX_SERVR__LISTEN", "x", "did you mean `server`?"),
        ("HAPAX_UPSTREAM", "x", "HAPAX_SECTION__NAME"),
        ("HAPAX_PORT", "tcp://10.0.0.1:80", "enableServiceLinks"),
        ("HAPAX_SERVER__MAX_CONNECTIONS", "many", "max_connections"),
        ("HAPAX_SERVER__MAX_CONNECTIONS", "0", "must be 1 to 1000000"),
        (
            "HAPAX_SERVER__UPSTREAM",
            "http://u:hunter2@a",
            "do not belong",
        ),
        (
            "HAPAX_STORE__URL",
            "mysql://u:hunter2@a",
            "begins with postgres:// or redis://",
        ),
        ("HAPAX_STORE__KIND", "redis", "needs a `url_file`"),
        ("HAPAX_STORE__REDIS_WAIT", "17", "must be 0 to 16"),
        ("HAPAX_DEFAULTS__MODE", "of", "did you mean `off`?"),
        ("HAPAX_ROUTE__KEY", "required", "in the file only"),
        ("HAPAX_ADMIN__LISTEN", "0.0.0.0:9090", "loopback"),
    ] {
        let error = with("", &[(name, value)], &Flags::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{name}={value}: {error}");
        assert!(error.contains(&format!("environment {name}")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_store_flag_takes_a_directory_or_says_what_it_cannot_do() {
    let store = |text: &str| {
        let flags = Flags {
            store: Some(text.to_owned()),
            ..Flags::default()
        };
        with("", &[], &flags).map(|(settings, _)| settings.store)
    };
    assert_eq!(store("/data/keys").unwrap().path, Path::new("/data/keys"));
    assert_eq!(store("memory:").unwrap().kind, file::StoreKind::Memory);
    let shared = store("postgres://u:hunter2@a/x").unwrap();
    assert_eq!(shared.kind, file::StoreKind::Postgres);
    assert!(!format!("{shared:?}").contains("hunter2"));
    for url in [
        "redis://u:hunter2@a/1",
        "rediss://:hunter2@a",
        "valkeys://:hunter2@a",
    ] {
        let shared = store(url).unwrap();
        assert_eq!(shared.kind, file::StoreKind::Redis);
        assert!(!format!("{shared:?}").contains("hunter2"));
    }
    let flags = Flags {
        upstream: Some("nowhere".to_owned()),
        ..Flags::default()
    };
    let error = with("", &[], &flags).unwrap_err().to_string();
    assert!(error.contains("--> --upstream"), "{error}");
}

const FULL: &str = r#"
[server]
upstream = "https://api.test/base/"
trusted_proxies = ["10.0.0.0/8"]
tls = { cert_file = "c.pem", key_file = "k.pem" }
[defaults]
retention = "36h"
fingerprint_headers = ["x-api-version"]
[[route]]
match = "POST /v1/orders"
key = "required"
fingerprint = "json"
ignore = ["/client_time"]
[[route]]
match = "PUT /order/{order_id}"
key_from = ["path:order_id"]
[[route]]
match = "GET /v1/orders"
mode = "off"
[telemetry]
log = "warn,hapax=debug"
"#;

/// Everything but the origins.
fn meaning(settings: &Settings) -> (Value, Vec<(String, Policy)>) {
    let routes = settings.routes.iter();
    (
        settings.to_json(Origins::Hidden),
        routes
            .map(|route| (route.name.to_string(), Policy::clone(&route.policy)))
            .collect(),
    )
}

#[test]
fn what_show_prints_means_what_it_was_made_from() {
    for source in [FULL, "", &document::init()] {
        let (settings, _) = text(source).unwrap();
        for origins in [Origins::Hidden, Origins::Shown] {
            let shown = settings.to_toml(origins);
            let (again, _) = text(&shown).unwrap_or_else(|error| panic!("{shown}\n{error}"));
            assert_eq!(meaning(&again), meaning(&settings), "{shown}");
            assert_eq!(again.restart_only_changes(&settings), [""; 0]);
        }
    }
}

#[test]
fn the_init_file_is_the_defaults_with_an_upstream_and_names_every_setting() {
    let init = document::init();
    let (mut settings, warnings) = text(&init).unwrap();
    assert!(warnings.is_empty());
    assert!(settings.server.upstream.take().is_some());
    let (defaults, _) = text("").unwrap();
    assert_eq!(defaults.restart_only_changes(&settings), [""; 0]);
    let uncommented: String = init
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|line| is_toml(line))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    // A shared store has its URL in one place.
    let possible = uncommented
        .replace("kind = \"embedded\"", "kind = \"postgres\"")
        .replace("\nurl_file = ", "\n# url_file = ");
    let (all, _) = text(&possible).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(all.routes.iter().count(), 3);
    let schema = document::schema();
    let table: toml::Table = uncommented.parse().unwrap();
    for section in SECTIONS {
        let listed = schema
            .pointer(&format!("/properties/{section}/properties"))
            .unwrap();
        let written = table[*section].as_table().unwrap();
        for name in listed.as_object().unwrap().keys() {
            assert!(
                written.contains_key(name),
                "{section}.{name} is not in the file"
            );
        }
        for name in written.keys() {
            assert!(
                listed.get(name).is_some(),
                "{section}.{name} is not in the schema"
            );
        }
    }
    let listed = schema
        .pointer("/properties/route/items/properties")
        .unwrap();
    for name in table["route"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|r| r.as_table().unwrap().keys())
    {
        assert!(
            listed.get(name).is_some(),
            "route.{name} is not in the schema"
        );
    }
}

fn is_toml(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(name, _)| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }) || line == "[[route]]"
}

#[test]
fn every_setting_is_described_and_has_a_default_unless_it_is_optional() {
    for section in SECTIONS {
        for (name, schema) in settings_of(section) {
            let about = schema
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default();
            assert!(about.len() > 20, "{section}.{name}: {about:?}");
            let optional = [
                "upstream",
                "upstream_ca_file",
                "tls",
                "probe_after",
                "otlp_endpoint",
                "token_file",
                "audit_file",
                "probe_after",
                "url",
                "url_file",
            ]
            .contains(&name.as_str());
            assert_eq!(
                schema.get("default").is_none(),
                optional,
                "{section}.{name}"
            );
        }
    }
    let root = document::schema();
    assert_eq!(
        root.pointer("/additionalProperties"),
        Some(&Value::Bool(false))
    );
    assert_eq!(
        root.pointer("/properties/route/items/required/0")
            .and_then(Value::as_str),
        Some("match")
    );
}

#[test]
fn the_documentation_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    fresh(&path, &markdown::markdown());
}

#[test]
fn a_reload_reads_the_file_again_and_tells_what_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("[server]\nupstream = \"http://a\"\n");
    let sources = Sources {
        file: Some(path.clone()),
        ..Sources::default()
    };
    let loaded = load(sources.clone()).unwrap();
    let reload = || load(sources.clone()).map(|loaded| loaded.settings);
    assert_eq!(loaded.upstream().unwrap().host, "a");
    write(
        "[server]\nupstream = \"http://a\"\nupstream_timeout = \"9s\"\n[[route]]\nmatch = \"POST /a\"\n",
    );
    let new = reload().unwrap();
    assert_eq!(loaded.settings.restart_only_changes(&new), [""; 0]);
    let found = new.routes.find(&Method::POST, "/a");
    assert_eq!(found.route.policy.upstream_timeout, Duration::from_secs(9));
    write(
        "[server]\nupstream = \"http://b\"\nlisten = \"127.0.0.1:1\"\n[store]\nmax_records = 1\n",
    );
    let new = reload().unwrap();
    let changes = loaded.settings.restart_only_changes(&new);
    assert_eq!(
        changes,
        ["server.listen", "server.upstream", "store.max_records"]
    );
    write("[server]\nupstream = 1\n");
    assert!(matches!(reload(), Err(ConfigError::Faulty(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(reload(), Err(ConfigError::Read { .. })));
}

#[test]
fn a_missing_upstream_is_explained_both_ways() {
    let loaded = load(Sources {
        file: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/warnings.toml")),
        ..Sources::default()
    })
    .unwrap();
    let error = loaded.upstream().unwrap_err().to_string();
    assert!(
        error.contains("--upstream http://HOST:PORT") && error.contains("[server]"),
        "{error}"
    );
}

#[test]
fn a_huge_file_is_refused_unread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h.toml");
    std::fs::write(&path, " ".repeat(1024 * 1024 + 1)).unwrap();
    let sources = Sources {
        file: Some(path),
        ..Sources::default()
    };
    assert!(matches!(load(sources), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn the_documentation_of_a_setting_says_when_it_needs_a_restart() {
    let source = r#"
        [server]
        listen = "127.0.0.1:1"
        upstream = "http://a"
        upstream_ca_file = "a"
        upstream_timeout = "1s"
        connect_timeout = "1s"
        drain_timeout = "1s"
        trusted_proxies = ["10.0.0.0/8"]
        tls = { cert_file = "a", key_file = "b" }
        head_timeout = "1s"
        body_timeout = "1s"
        idle_timeout = "1s"
        answer_timeout = "1s"
        max_connections = 1
        max_head = "4KiB"
        [cors]
        allow_origins = ["https://a.example"]
        allow_credentials = true
        [admin]
        listen = "127.0.0.1:2"
        token_file = "t"
        hosts = ["a.internal"]
        audit_file = "a.log"
        [store]
        kind = "postgres"
        path = "a"
        url = "postgres://a"
        max_bytes = 1
        max_records = 1
        min_free_disk = 1
        operation_timeout = "1s"
        redis_wait = 1
        [telemetry]
        log = "warn"
        log_format = "json"
        otlp_endpoint = "http://127.0.0.1:4318"
    "#;
    let elsewhere = source.replace("url = \"postgres://a\"", "url_file = \"a\"");
    let changes = [source, &elsewhere].map(|source| {
        let (new, _) = text(source).unwrap();
        text("").unwrap().0.restart_only_changes(&new)
    });
    let changes = changes.concat();
    for section in SECTIONS
        .iter()
        .filter(|section| !["limits", "defaults"].contains(section))
    {
        for (name, schema) in settings_of(section) {
            assert!(
                source.contains(&format!(" {name} = "))
                    || elsewhere.contains(&format!(" {name} = ")),
                "{section}.{name} is not changed"
            );
            let about = schema["description"].as_str().unwrap().replace('\n', " ");
            let name = format!("{section}.{name}");
            let says = about.contains("Restart to change it");
            assert_eq!(says, changes.contains(&name.as_str()), "{name}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "[server]\n", "[defaults]\n", "[[route]]\n", "[store]\n", "[x]\n", "listen", "match",
                "scope", "tls", " = ", "\"POST /a/{b}\"", "\"http://u:p@h\"", "\"", "'", "{", "}",
                "[", "]", "é", "\n", "\r\n", "\t", "#", "0", "-1", "\"\"\"", "=", ".", ",", "://", "@",
            ]),
            0..24,
        ),
    ) {
        let shown = text(&parts.concat()).map_err(|error| error.to_string());
        // The file's only secret is `u:p`.
        proptest::prop_assert!(!shown.is_err_and(|error| error.contains("//u:p@")));
    }
}
