//! A strict reader of HTTP/1 requests: it repairs nothing, and knows one reading of every byte or says that there is none.
//!
//! It shares no code with the gateway and depends on nothing, so that it can judge the gateway's own reading anywhere.

/// A request that had one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Whole lines.
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) content: Vec<u8>,
}

impl Seen {
    /// Method, target and content.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [
            self.method.as_bytes(),
            b" ",
            self.target.as_bytes(),
            b" ",
            &self.content,
        ]
        .concat()
    }

    pub(crate) fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The fields, for people.
    pub(crate) fn head(&self) -> String {
        text(&self.fields.join(b" | ".as_slice()))
    }

    /// How many lines there are of a field.
    pub(crate) fn lines_of(&self, name: &str) -> usize {
        let names = self
            .fields
            .iter()
            .map(|line| line.split(|byte| *byte == b':').next());
        names
            .filter(|found| found.is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes())))
            .count()
    }

    /// How many lines are this one, but for the case of the name and the white space around the value.
    pub(crate) fn has(&self, line: &[u8]) -> usize {
        let wanted = split(line);
        self.fields
            .iter()
            .filter(|field| split(field) == wanted)
            .count()
    }
}

fn split(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .unwrap_or(line.len());
    let value = line.get(colon + 1..).unwrap_or_default();
    (line[..colon].to_ascii_lowercase(), value.trim_ascii())
}

/// Reads the first request of `bytes`: it and its length, none while it is incomplete, or why it has no one reading.
pub(crate) fn next(bytes: &[u8]) -> Result<Option<(Seen, usize)>, String> {
    let mut at = 0;
    let Some(line) = line(bytes, &mut at)? else {
        return Ok(None);
    };
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Err(format!("request line {:?}", text(line)));
    };
    let is_token = |name: &[u8]| {
        let odd = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte);
        !name.is_empty() && !name.iter().any(odd)
    };
    let one_zero = version == b"HTTP/1.0";
    if !is_token(method) || !(target.starts_with(b"/") || target == b"*") {
        return Err(format!("method or target {:?}", text(line)));
    }
    if version != b"HTTP/1.1" && !one_zero || !target.iter().all(u8::is_ascii_graphic) {
        return Err(format!("version or target {:?}", text(line)));
    }
    let mut seen = Seen {
        method: text(method),
        target: text(target),
        fields: Vec::new(),
        content: Vec::new(),
    };
    if !fields(bytes, &mut at, &mut seen.fields, is_token)? {
        return Ok(None);
    }
    if seen.lines_of("host") != 1 && !(one_zero && seen.lines_of("host") == 0) {
        return Err(format!("{} Hosts", seen.lines_of("host")));
    }
    let whole = match (
        seen.lines_of("content-length"),
        seen.lines_of("transfer-encoding"),
    ) {
        (0, 0) => true,
        (1, 0) => {
            let length = length_of(&seen)?;
            seen.content = bytes
                .get(at..at.saturating_add(length))
                .unwrap_or_default()
                .to_vec();
            at = at.saturating_add(length);
            bytes.len() >= at
        }
        (0, 1) if is_chunked(&seen) && !one_zero => {
            chunks(bytes, &mut at, &mut seen.content, is_token)?
        }
        (lengths, codings) => return Err(format!("{lengths} lengths and {codings} codings")),
    };
    Ok(whole.then_some((seen, at)))
}

/// Codings have no case (RFC 9112 7).
fn is_chunked(seen: &Seen) -> bool {
    let mut lines = seen.fields.iter().map(|line| split(line));
    lines
        .any(|(name, value)| name == b"transfer-encoding" && value.eq_ignore_ascii_case(b"chunked"))
}

fn length_of(seen: &Seen) -> Result<usize, String> {
    let lines = seen.fields.iter().map(|line| split(line));
    let mut values = lines
        .filter(|(name, _)| name == b"content-length")
        .map(|(_, value)| value);
    let value = values.next().unwrap_or_default();
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit) && value.len() < 19;
    let length = text(value).parse().ok().filter(|_| is_plain);
    length.ok_or_else(|| format!("length {:?}", text(value)))
}

/// Reads field lines to the empty one; false while it is not there.
fn fields(
    bytes: &[u8],
    at: &mut usize,
    into: &mut Vec<Vec<u8>>,
    is_token: impl Fn(&[u8]) -> bool,
) -> Result<bool, String> {
    while let Some(line) = line(bytes, at)? {
        if line.is_empty() {
            return Ok(true);
        }
        let (name, _) = split(line);
        let is_plain = line
            .iter()
            .all(|byte| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t');
        if !is_plain || !line.contains(&b':') || !is_token(&name) {
            return Err(format!("field line {:?}", text(line)));
        }
        into.push(line.to_vec());
    }
    Ok(false)
}

fn chunks(
    bytes: &[u8],
    at: &mut usize,
    content: &mut Vec<u8>,
    is_token: impl Fn(&[u8]) -> bool,
) -> Result<bool, String> {
    loop {
        let Some(line) = line(bytes, at)? else {
            return Ok(false);
        };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_plain =
            !size.is_empty() && size.len() < 16 && size.iter().all(u8::is_ascii_hexdigit);
        let size = usize::from_str_radix(&text(size), 16)
            .ok()
            .filter(|_| is_plain);
        let size = size.ok_or_else(|| format!("chunk size {:?}", text(line)))?;
        if size == 0 {
            return fields(bytes, at, &mut Vec::new(), is_token);
        }
        let Some(data) = bytes.get(*at..at.saturating_add(size)) else {
            return Ok(false);
        };
        content.extend_from_slice(data);
        *at += size;
        match bytes.get(*at..) {
            Some([b'\r', b'\n', ..]) => *at += 2,
            Some([] | [b'\r']) | None => return Ok(false),
            Some(_) => return Err("a chunk without an end".to_owned()),
        }
    }
}

/// The next line without its CRLF; none while it has no end.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, String> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let Some(line) = rest[..end]
        .strip_suffix(b"\r")
        .filter(|line| !line.contains(&b'\r'))
    else {
        return Err(format!("line end {:?}", text(&rest[..=end])));
    };
    *at += end + 1;
    Ok(Some(line))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
