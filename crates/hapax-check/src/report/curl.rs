//! Text of requests for people: without secrets, fit for a shell and for a terminal.

use crate::message::Message;

/// The name of the variable that stands for a secret value.
pub(crate) fn masked(name: &str, value: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let is_secret = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "api-key",
        "apikey",
        "password",
    ]
    .iter()
    .any(|part| lower.contains(part));
    // Credentials of the checker's own making open no door, and are needed to do it again.
    let is_ours = value.starts_with("Bearer hapax-check-");
    (is_secret && !is_ours && !value.is_empty())
        .then(|| lower.replace('-', "_").to_ascii_uppercase())
}

/// The fields of a request, secrets masked.
pub(crate) fn fields(message: &Message) -> impl Iterator<Item = (&str, String)> {
    message.fields.iter().map(|(name, value)| {
        let shown =
            masked(name, value).map_or_else(|| value.clone(), |variable| format!("${variable}"));
        (name.as_str(), shown)
    })
}

/// For a shell.
pub(crate) fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text of the target, fit for a terminal: no control characters, so that it cannot move the cursor or colour anything.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            c if c.is_control() => c.escape_default().collect::<Vec<char>>(),
            c => vec![c],
        })
        .collect()
}
