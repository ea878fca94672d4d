//! A request as a command that somebody can paste, without its secrets.

use std::fmt::Write as _;

use crate::history::Step;
use crate::message::Message;
use crate::wire::Fate;

/// The two requests that show something; one where both are the same step.
pub(crate) fn pair(authority: &str, steps: &[Step], (one, two): (usize, usize)) -> Vec<String> {
    let of = |at: usize| steps.get(at).map(|step| command(authority, step));
    let second = if one == two { None } else { of(two) };
    of(one).into_iter().chain(second).collect()
}

fn command(authority: &str, step: &Step) -> String {
    let message = &step.message;
    let mut line = format!("curl -sS -i -X {}", message.method);
    for (name, value) in &message.fields {
        let _ = match masked(name, value) {
            Some(variable) => write!(line, " -H \"{name}: ${variable}\""),
            // How curl writes a field without a value.
            None if value.is_empty() => write!(line, " -H {}", quote(&format!("{name};"))),
            None => write!(line, " -H {}", quote(&format!("{name}: {value}"))),
        };
    }
    if !message.body.is_empty() {
        let _ = write!(line, " --data-binary {}", quote(&message.body));
    }
    let _ = write!(
        line,
        " {}",
        quote(&format!("http://{authority}{}", message.target))
    );
    let _ = write!(line, "  # {}", fate(step));
    line
}

/// What became of a request, in a few words.
pub(crate) fn fate(step: &Step) -> String {
    match &step.fate {
        Fate::Answered(answer) if answer.is_marked() => {
            format!("got {}, marked as a replay", answer.status)
        }
        Fate::Answered(answer) => format!("got {}", answer.status),
        Fate::Partial(answer) => format!("{}, cut off in the middle", answer.status),
        Fate::ReplyLost => "sent; the answer was not read".into(),
        Fate::RequestCut => "cut off before its end".into(),
        Fate::Failed(why) => one_line(why),
    }
}

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
