//! How many effects there were, by the target's own count.

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::answer::Answer;
use crate::message::Message;
use crate::wire::{Fate, Wire};

/// A count that does not change for this long is taken.
const QUIET: Duration = Duration::from_millis(150);
/// How long a count may take to come to rest.
const REST: Duration = Duration::from_secs(5);

/// The address that counts.
#[derive(Clone)]
pub(crate) struct Counter {
    pub(crate) wire: Wire,
    pub(crate) message: Message,
    pub(crate) pointer: Option<String>,
}

impl Counter {
    /// The count once it has come to rest: an effect may come after the answer, or without one.
    pub(crate) async fn settled(&self) -> Result<i64, String> {
        let deadline = Instant::now() + REST;
        let mut last = self.ask().await?;
        loop {
            sleep(QUIET).await;
            let count = self.ask().await?;
            if count == last {
                return Ok(count);
            }
            if Instant::now() >= deadline {
                return Err("the count never came to rest: somebody else uses the target".into());
            }
            last = count;
        }
    }

    async fn ask(&self) -> Result<i64, String> {
        match self.wire.exchange(&self.message).await {
            Fate::Answered(answer) if answer.is_success() => read(&answer, self.pointer.as_deref()),
            Fate::Answered(answer) => Err(format!("the counter answered {}", answer.status)),
            Fate::Failed(why) => Err(format!("the counter: {why}")),
            _ => Err("the counter's answer ended early".into()),
        }
    }
}

/// A number, an array's length, or a member `count` or `charges`; with a pointer (RFC 6901) what is there.
fn read(answer: &Answer, pointer: Option<&str>) -> Result<i64, String> {
    let json = answer.json().ok_or("the counter's answer is not JSON")?;
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_i64(),
        Value::Array(items) => i64::try_from(items.len()).ok(),
        _ => None,
    };
    let found = match pointer {
        Some(pointer) => json.pointer(pointer).and_then(number),
        None => number(&json).or_else(|| {
            ["count", "charges"]
                .iter()
                .find_map(|name| json.get(name).and_then(number))
        }),
    };
    found.ok_or_else(|| match pointer {
        Some(pointer) => format!("the counter's answer has no number or array at {pointer}"),
        None => {
            "the counter's answer is no number, array, count or charges; point to it, as in #/total"
                .into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_from_every_form() {
        for (body, pointer, count) in [
            ("7", None, Some(7)),
            ("[1,2]", None, Some(2)),
            (r#"{"count":3}"#, None, Some(3)),
            (r#"{"charges":[1]}"#, None, Some(1)),
            (r#"{"a":{"b":4}}"#, Some("/a/b"), Some(4)),
            (r#"{"a":4}"#, None, None),
            (r#"{"count":4}"#, Some("/a"), None),
            ("seven", None, None),
        ] {
            let answer = Answer {
                status: 200,
                body: body.into(),
                ..Answer::default()
            };
            assert_eq!(read(&answer, pointer).ok(), count, "{body}");
        }
    }
}
