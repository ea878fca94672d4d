//! The chunked coding, judged as its bytes pass (RFC 9112 7.1). Data is skipped, never kept.

use super::{
    head::{MAX_FIELDS, has_control, is_token, split_field},
    refusal::Refusal,
};

/// Digits of a chunk size: 15 hexadecimal digits fit in 60 bits, and nobody sends more.
const MAX_SIZE_DIGITS: u8 = 15;
/// Bytes of extensions in one body. They carry nothing we use; a stream of them is an attack.
const MAX_EXTENSIONS: usize = 1024;
/// Bytes of a trailer section; half of what hyper takes, so that what passes here passes there.
const MAX_TRAILERS: usize = 8 * 1024;
/// Fields that frame, route, authenticate or identify a request: none may come after the content (RFC 9110 6.5.1, P5).
const FORBIDDEN_TRAILERS: [&[u8]; 14] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"idempotency-key",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// A chunked body on its way.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    at: At,
    size: u64,
    digits: u8,
    extensions: usize,
    trailers: usize,
    fields: usize,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Size,
    /// After `;`, before the extension's name.
    ExtensionStart,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
}

/// How far a body got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every byte belongs to the body, and more must come.
    More,
    /// The body ended with so many bytes used.
    Ended(usize),
    /// The byte after so many may not stand there.
    Refused(usize, Refusal),
}

impl Chunked {
    /// Whether any byte of the next chunk or trailer is due; always, until [`Step::Ended`].
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Step {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some(byte) = rest.first() else {
                return Step::More;
            };
            if matches!(self.at, At::Data) {
                let taken =
                    usize::try_from(self.size).map_or(rest.len(), |size| size.min(rest.len()));
                // `taken` is at most `size`.
                self.size -= taken as u64;
                used += taken;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.byte(*byte) {
                Ok(false) => used += 1,
                Ok(true) => return Step::Ended(used + 1),
                Err(refusal) => return Step::Refused(used, refusal),
            }
        }
    }

    /// Takes one byte of framing; true when it was the body's last.
    fn byte(&mut self, byte: u8) -> Result<bool, Refusal> {
        match (self.at, byte) {
            (At::Size, _) => self.size_byte(byte)?,
            (At::ExtensionStart | At::Extension, _) => self.extension_byte(byte)?,
            (At::SizeLf, b'\n') => {
                self.at = if self.size == 0 {
                    At::Trailer
                } else {
                    At::Data
                };
                self.digits = 0;
            }
            (At::SizeLf, _) => return Err(Refusal::BareCr),
            (At::DataCr, b'\r') => self.at = At::DataLf,
            (At::DataLf, b'\n') => self.at = At::Size,
            (At::DataCr | At::DataLf, _) => return Err(Refusal::ChunkEnd),
            (At::Trailer, _) => return self.trailer_byte(byte),
            // `advance` skips data itself.
            (At::Data, _) => {}
        }
        Ok(false)
    }

    fn size_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\n' => return Err(Refusal::BareLf),
            _ if self.digits == 0 => return Err(Refusal::ChunkSize),
            b'\r' => {
                self.at = At::SizeLf;
                return Ok(());
            }
            b';' => {
                self.at = At::ExtensionStart;
                return Ok(());
            }
            _ => return Err(Refusal::ChunkSize),
        };
        if self.digits == MAX_SIZE_DIGITS {
            return Err(Refusal::ChunkSize);
        }
        self.size = if self.digits == 0 { 0 } else { self.size << 4 } | u64::from(digit);
        self.digits += 1;
        Ok(())
    }

    fn extension_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(Refusal::ChunkExtension);
        }
        self.at = match (self.at, byte) {
            (_, b'\n') => return Err(Refusal::BareLf),
            (At::ExtensionStart, b' ' | b'\t') => At::ExtensionStart,
            (At::ExtensionStart, _) if is_token(byte) => At::Extension,
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b'\t' | b' '..=b'~') => At::Extension,
            _ => return Err(Refusal::ChunkExtension),
        };
        Ok(())
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<bool, Refusal> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(Refusal::TrailersTooLarge);
        }
        if byte != b'\n' {
            self.line.push(byte);
            return Ok(false);
        }
        let line = self.line.strip_suffix(b"\r").ok_or(Refusal::BareLf)?;
        if line.is_empty() {
            return Ok(true);
        }
        self.fields += 1;
        check_trailer(line, self.fields)?;
        self.line.clear();
        Ok(false)
    }
}

fn check_trailer(line: &[u8], fields: usize) -> Result<(), Refusal> {
    if has_control(line) {
        return Err(if line.contains(&b'\r') {
            Refusal::BareCr
        } else {
            Refusal::ControlByte
        });
    }
    if fields > MAX_FIELDS {
        return Err(Refusal::TooManyFields);
    }
    let (name, _) = split_field(line)?;
    if FORBIDDEN_TRAILERS
        .iter()
        .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
    {
        return Err(Refusal::TrailerForbidden);
    }
    Ok(())
}
