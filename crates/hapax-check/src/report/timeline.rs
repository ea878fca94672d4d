//! A case as a picture: a bar a request, from when it was sent until its answer was read or given up.

use std::fmt::Write as _;
use std::time::Duration;

use super::junit::escape;
use super::repro;
use crate::history::{Role, Step};
use crate::wire::Fate;

/// How many requests are drawn; a case that is told to come back again and again has more.
const MAX_LANES: usize = 12;

/// Writes the picture. `shown`: the steps that show the finding.
pub(super) fn draw(out: &mut String, steps: &[Step], shown: Option<(usize, usize)>) {
    let end = steps.iter().map(|step| step.span.to).max();
    let end = end.unwrap_or_default().max(Duration::from_millis(1));
    // Per mille, so that the arithmetic stays in whole numbers.
    let place = |at: Duration| (at.as_micros() * 1000 / end.as_micros()).min(1000);
    out.push_str("<div class=\"timeline\" role=\"img\" aria-label=\"");
    out.push_str(&escape(&in_words(steps)));
    out.push_str("\">");
    for (at, step) in steps.iter().enumerate().take(MAX_LANES) {
        let (from, to) = (place(step.span.from), place(step.span.to));
        let is_shown = shown.is_some_and(|(one, two)| at == one || at == two);
        let _ = write!(
            out,
            "<div class=\"lane{}\"><span class=\"who\">{} {}</span><span class=\"track\">\
             <i class=\"{}\" style=\"left:{}.{}%;width:{}.{}%\"></i></span><span class=\"fate\">{}</span></div>",
            if is_shown { " shown" } else { "" },
            at + 1,
            role(step.role),
            tone(&step.fate),
            from / 10,
            from % 10,
            to.saturating_sub(from) / 10,
            to.saturating_sub(from) % 10,
            escape(&repro::fate(step)),
        );
    }
    let _ = write!(
        out,
        "<div class=\"lane axis\"><span class=\"who\">{}</span><span class=\"track\"><b>0</b><b>{} ms</b></span><span class=\"fate\"></span></div></div>",
        match steps.len().saturating_sub(MAX_LANES) {
            0 => String::new(),
            more => format!("{more} more"),
        },
        end.as_millis(),
    );
}

fn in_words(steps: &[Step]) -> String {
    let all: Vec<String> = steps
        .iter()
        .take(MAX_LANES)
        .map(|step| format!("{}: {}", role(step.role), repro::fate(step)))
        .collect();
    all.join("; ")
}

fn role(role: Role) -> &'static str {
    match role {
        Role::First => "first",
        Role::Repeat => "repeat",
        Role::Other => "other",
    }
}

fn tone(fate: &Fate) -> &'static str {
    match fate {
        Fate::Answered(answer) if answer.is_marked() => "replayed",
        Fate::Answered(answer) if answer.is_success() => "answered",
        Fate::Answered(_) => "refused",
        Fate::Partial(_) | Fate::ReplyLost | Fate::RequestCut => "lost",
        Fate::Failed(_) => "failed",
    }
}
