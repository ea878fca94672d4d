//! One HTTP/1 request head, judged line by line.

use memchr::memchr;

use super::refusal::Refusal;

/// Field lines in a head or a trailer section; hyper's own limit, so that what passes here passes there.
pub(crate) const MAX_FIELDS: usize = 100;
/// Bytes of a method; the longest registered one has 17.
const MAX_METHOD: usize = 32;
/// Digits of a Content-Length: 18 nines stay far below `i64::MAX`, so that no hop behind us overflows.
const MAX_LENGTH_DIGITS: usize = 18;

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
const HOST: u8 = 8;

/// What each byte may be part of.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0x21_u8;
    while byte < 0x7f {
        let mut class = 0;
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        // RFC 3986 pchar and "/", and the brackets and bar that browsers leave as they are.
        if unreserved
            || matches!(
                byte,
                b'!' | b'$' | b'&'..=b',' | b'/' | b':' | b';' | b'=' | b'@' | b'[' | b']' | b'|'
            )
        {
            class |= PATH;
        }
        // Browsers send most visible bytes of a query as they are; those that end a URI in text never are.
        if !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\' | b'%') {
            class |= QUERY;
        }
        if unreserved {
            class |= HOST;
        }
        #[allow(
            clippy::indexing_slicing,
            reason = "a u8 is always below 256, and this runs at compile time"
        )]
        {
            table[byte as usize] = class;
        }
        byte += 1;
    }
    table
}

fn is(byte: u8, class: u8) -> bool {
    #[allow(clippy::indexing_slicing, reason = "a u8 is always below 256")]
    let found = CLASS[usize::from(byte)];
    found & class != 0
}

/// Whether `byte` can start a request.
pub(crate) fn starts_request(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether `byte` is a token byte (RFC 9110 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// How the content after a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// None, or so many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What the lines of a head have said so far.
#[derive(Debug, Default)]
pub(crate) struct Head {
    started: bool,
    http10: bool,
    fields: usize,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Head {
    /// Whether the request line has been seen.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// Whether the head asks for another protocol.
    pub(crate) fn asks_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Judges the next line, without its CRLF.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if has_control(line) {
            return Err(if line.contains(&b'\r') {
                Refusal::BareCr
            } else {
                Refusal::ControlByte
            });
        }
        if self.started {
            return self.field(line);
        }
        self.started = true;
        self.request_line(line)
    }

    /// Judges the head as a whole once its last line has been seen.
    pub(crate) fn finish(&self) -> Result<Content, Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::LengthAndCoding);
        }
        if self.chunked && self.http10 {
            return Err(Refusal::CodingOnHttp10);
        }
        if !self.host && !self.http10 {
            return Err(Refusal::HostMissing);
        }
        let content = if self.chunked {
            Content::Chunked
        } else {
            Content::Length(self.length.unwrap_or(0))
        };
        if self.upgrade && content != Content::Length(0) {
            return Err(Refusal::UpgradeWithBody);
        }
        Ok(content)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line
            .first()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            return Err(Refusal::LeadingWhitespace);
        }
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Refusal::RequestLine);
        };
        if method.is_empty()
            || method.len() > MAX_METHOD
            || !method.iter().all(|byte| is(*byte, TOKEN))
        {
            return Err(Refusal::Method);
        }
        if target.is_empty() {
            return Err(Refusal::RequestLine);
        }
        check_target(method, target)?;
        match version {
            b"HTTP/1.1" => self.http10 = false,
            b"HTTP/1.0" => self.http10 = true,
            _ => return Err(Refusal::Version),
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Refusal::TooManyFields);
        }
        let (name, value) = split_field(line).map_err(|refusal| match refusal {
            Refusal::ObsFold if self.fields == 1 => Refusal::LeadingWhitespace,
            other => other,
        })?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host {
                    return Err(Refusal::HostRepeated);
                }
                self.host = true;
                check_host(value)
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Refusal::LengthRepeated);
                }
                self.length = Some(parse_length(value)?);
                Ok(())
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::CodingInvalid);
                }
                self.chunked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Splits a field line into its name and its value without the white space around it.
pub(crate) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if line
        .first()
        .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
    {
        return Err(Refusal::ObsFold);
    }
    let colon = memchr(b':', line).ok_or(Refusal::MissingColon)?;
    // `colon` is the place of a byte of `line`.
    let (name, value) = line.split_at(colon);
    if name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Refusal::SpaceBeforeColon);
    }
    if name.is_empty() || !name.iter().all(|byte| is(*byte, TOKEN)) {
        return Err(Refusal::FieldName);
    }
    Ok((
        name,
        trim(value.split_first().map_or(value, |(_, rest)| rest)),
    ))
}

/// Whether a line has a byte that RFC 9110 5.5 forbids in a field value. Written so that it becomes vector code.
pub(crate) fn has_control(line: &[u8]) -> bool {
    line.iter().fold(false, |found, byte| {
        found | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f)
    })
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn check_target(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    if method == b"CONNECT" {
        return Err(Refusal::AuthorityForm);
    }
    if target == b"*" {
        return if method == b"OPTIONS" {
            Ok(())
        } else {
            Err(Refusal::AsteriskForm)
        };
    }
    if target.first() != Some(&b'/') {
        return Err(other_form(target));
    }
    let mut class = PATH;
    let mut rest = target;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if is(*byte, class) {
            continue;
        }
        match byte {
            b'?' => class = QUERY,
            b'#' => return Err(Refusal::Fragment),
            b'%' => match rest {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    rest = tail
                }
                _ => return Err(Refusal::Target),
            },
            _ => return Err(Refusal::Target),
        }
    }
    Ok(())
}

/// Names the form of a target that does not start with a slash.
fn other_form(target: &[u8]) -> Refusal {
    if memchr::memmem::find(target, b"://").is_some() {
        Refusal::AbsoluteForm
    } else if target
        .iter()
        .all(|byte| is(*byte, HOST) || matches!(byte, b':' | b'[' | b']' | b'@'))
    {
        Refusal::AuthorityForm
    } else {
        Refusal::Target
    }
}

/// Accepts a registered name, an IPv4 address or an IPv6 address in brackets, with an optional port.
///
/// RFC 3986 allows sub-delimiters and escapes in a name; no host in use has them, and a comma there is how two hosts
/// are smuggled as one.
fn check_host(value: &[u8]) -> Result<(), Refusal> {
    let (sound, port) = match value {
        [b'[', rest @ ..] => {
            let end = memchr(b']', rest).ok_or(Refusal::HostInvalid)?;
            let (address, after) = rest.split_at(end);
            let address = std::str::from_utf8(address)
                .ok()
                .map(str::parse::<std::net::Ipv6Addr>);
            (
                matches!(address, Some(Ok(_))),
                after.strip_prefix(b"]").unwrap_or_default(),
            )
        }
        _ => {
            let (name, port) = value.split_at(memchr(b':', value).unwrap_or(value.len()));
            (
                !name.is_empty() && name.iter().all(|byte| is(*byte, HOST)),
                port,
            )
        }
    };
    let port_sound = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if sound && port_sound {
        Ok(())
    } else {
        Err(Refusal::HostInvalid)
    }
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS {
        return Err(Refusal::LengthInvalid);
    }
    value.iter().try_fold(0_u64, |length, byte| match byte {
        // At most 18 digits: below 10^18, which fits.
        b'0'..=b'9' => Ok(length * 10 + u64::from(byte - b'0')),
        _ => Err(Refusal::LengthInvalid),
    })
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    #[test]
    fn what_a_request_line_may_have_is_what_hyper_takes() {
        for byte in 0x21..0x7f_u8 {
            let shown = char::from(byte);
            for target in [format!("/a{shown}41"), format!("/a?b{shown}41")] {
                let line = format!("GET {target} HTTP/1.1");
                if Head::default().line(line.as_bytes()).is_ok() {
                    let uri: Uri = target.parse().unwrap();
                    assert_eq!(uri.to_string(), target);
                }
            }
            let line = format!("A{shown} / HTTP/1.1");
            if Head::default().line(line.as_bytes()).is_ok() {
                assert!(
                    Method::from_bytes(format!("A{shown}").as_bytes()).is_ok(),
                    "{shown}"
                );
            }
        }
        let longest = format!("/{}", "a".repeat(65_500));
        assert!(longest.parse::<Uri>().is_ok());
    }
}
