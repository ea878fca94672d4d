//! An answer of the target: reading it from bytes, and what two answers have in common.

use serde_json::Value;

/// The most bytes of a head that are read.
const MAX_HEAD: usize = 64 * 1024;
/// The most bytes of an answer's content that are read.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// What the target said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// How far a reader has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All of it is here.
    Complete(Answer),
    /// The head is here, and this much of the content.
    Partial(Answer),
    /// Not even the head.
    Head,
    /// This is no answer of HTTP/1.
    Garbage,
}

impl Answer {
    /// The value of a field; `name` in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Says "not now": a client sends the same request again later.
    pub(crate) fn is_not_now(&self) -> bool {
        [409, 423, 425, 429, 503].contains(&self.status)
    }

    /// Refused for what the request is.
    pub(crate) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// Says of itself that it is the answer to an earlier request.
    pub(crate) fn is_marked(&self) -> bool {
        [
            "idempotent-replayed",
            "idempotency-replayed",
            "x-idempotent-replayed",
        ]
        .iter()
        .any(|name| {
            self.field(name)
                .is_some_and(|value| value.trim() == "true" || value.trim() == "?1")
        })
    }

    /// The content as JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Reads what has arrived so far. `is_end`: nothing more will come.
pub(crate) fn read(bytes: &[u8], method: &str, is_end: bool) -> Progress {
    let mut rest = bytes;
    loop {
        let Some(at) = find(rest, b"\r\n\r\n") else {
            let is_hopeless = rest.len() > MAX_HEAD || (!rest.is_empty() && !may_be_http(rest));
            return if is_hopeless {
                Progress::Garbage
            } else {
                Progress::Head
            };
        };
        let (head, after) = rest.split_at(at + 4);
        let Some(mut answer) = parse_head(head) else {
            return Progress::Garbage;
        };
        // Interim answers come before the one that counts.
        if (100..200).contains(&answer.status) && answer.status != 101 {
            rest = after;
            continue;
        }
        let is_complete = read_body(&mut answer, after, method, is_end);
        return if is_complete {
            Progress::Complete(answer)
        } else {
            Progress::Partial(answer)
        };
    }
}

fn may_be_http(bytes: &[u8]) -> bool {
    let start = b"HTTP/1.";
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn parse_head(head: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.splitn(3, ' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = first.next()?.parse().ok()?;
    let fields = lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Answer {
        status,
        fields,
        body: Vec::new(),
    })
}

/// Whether the content is complete.
fn read_body(answer: &mut Answer, after: &[u8], method: &str, is_end: bool) -> bool {
    if method == "HEAD" || [204, 304].contains(&answer.status) {
        return true;
    }
    let is_chunked = answer
        .field("transfer-encoding")
        .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
    if is_chunked {
        return read_chunks(&mut answer.body, after);
    }
    let length: Option<usize> = answer
        .field("content-length")
        .and_then(|text| text.parse().ok());
    match length {
        Some(length) => {
            answer.body = after.get(..length).unwrap_or(after).to_vec();
            after.len() >= length
        }
        None => {
            answer.body = after.to_vec();
            is_end
        }
    }
}

fn read_chunks(body: &mut Vec<u8>, mut rest: &[u8]) -> bool {
    loop {
        let Some(at) = find(rest, b"\r\n") else {
            return false;
        };
        let (line, after) = rest.split_at(at);
        let line = String::from_utf8_lossy(line);
        let digits = line.split(';').next().unwrap_or("").trim();
        let Ok(length) = usize::from_str_radix(digits, 16) else {
            return false;
        };
        let data = after.get(2..).unwrap_or(&[]);
        if length == 0 {
            // Trailers, then an empty line.
            return data.starts_with(b"\r\n") || find(data, b"\r\n\r\n").is_some();
        }
        match length.checked_add(2).and_then(|end| data.get(end..)) {
            Some(next) => {
                body.extend_from_slice(data.get(..length).unwrap_or(data));
                rest = next;
            }
            None => {
                body.extend_from_slice(data.get(..length).unwrap_or(data));
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str, method: &str, is_end: bool) -> Answer {
        match read(text.as_bytes(), method, is_end) {
            Progress::Complete(answer) => answer,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn an_answer_is_read_in_every_framing() {
        for (text, method, is_end, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                "POST",
                false,
                "ok",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n",
                "POST",
                false,
                "",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\n\r\n",
                "POST",
                false,
                "ok!",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nto the end",
                "POST",
                true,
                "to the end",
            ),
            ("HTTP/1.1 204 No\r\n\r\n", "POST", false, ""),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                "HEAD",
                false,
                "",
            ),
        ] {
            assert_eq!(
                complete(text, method, is_end).body,
                body.as_bytes(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_part_of_an_answer_is_not_taken_for_all_of_it() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
            "HTTP/1.1 200 OK\r\n\r\nmore may come",
        ] {
            assert!(
                matches!(read(text.as_bytes(), "POST", false), Progress::Partial(_)),
                "{text:?}"
            );
        }
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\nA: b\r\n", "POST", true),
            Progress::Head
        );
        assert_eq!(read(b"SSH-2.0-x\r\n", "POST", false), Progress::Garbage);
    }
}
