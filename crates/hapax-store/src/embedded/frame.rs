//! The bytes of the log: segments of pages, and in them frames, one a batch.
//!
//! ```text
//! segment:  page 0: "hapaxlog" number(8) tag(16), then zeros
//! frame:    "hpxf" length(4) batch(8) clock ms(8) tag(16) changes(length)     at the start of a page
//! change:   kind(1) record key(16), and for a put: length(4) value
//! ```
//!
//! A frame begins on a page of its own, so that no write ever touches a page that holds what was
//! acknowledged before. Its tag is BLAKE3 keyed from the store's secret, over the number of the
//! segment, the place in it, and the frame: bytes of an earlier life of the file, and content
//! that a client made to look like a frame, are none.

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::secret::Secret;

use super::memory::{Change, Table};

/// Where frames may begin.
pub(super) const PAGE: usize = 4096;

const SEGMENT_MAGIC: &[u8; 8] = b"hapaxlog";
const FRAME_MAGIC: &[u8; 4] = b"hpxf";
const TAG_LEN: usize = 16;
const FRAME_HEAD_LEN: usize = 24 + TAG_LEN;

/// A change without its value, at most.
const CHANGE_HEAD_LEN: usize = 1 + 16 + 4;

/// Memory that is kept for the next frame: an ordinary batch's.
const KEPT_BYTES: usize = 1 << 20;

/// Kinds of changes: a table each, put or remove.
const PUT_OPEN: u8 = 1;
const REMOVE_OPEN: u8 = 2;
const PUT_SETTLED: u8 = 3;
const REMOVE_SETTLED: u8 = 4;

/// The key of the tags.
#[derive(Clone)]
pub(super) struct LogKey([u8; 32]);

impl LogKey {
    pub(super) fn derive(secret: &Secret) -> Self {
        Self(blake3::derive_key(
            "hapax 2026-11 embedded log",
            secret.as_bytes(),
        ))
    }

    fn tag(&self, parts: [&[u8]; 4]) -> [u8; TAG_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        let mut tag = [0; TAG_LEN];
        for (to, from) in tag.iter_mut().zip(hasher.finalize().as_bytes()) {
            *to = *from;
        }
        tag
    }

    fn segment_tag(&self, number: u64) -> [u8; TAG_LEN] {
        self.tag([b"segment", &number.to_le_bytes(), b"", b""])
    }
}

impl std::fmt::Debug for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogKey(..)")
    }
}

/// The first page of segment `number`.
pub(super) fn segment_head(key: &LogKey, number: u64) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(SEGMENT_MAGIC);
    page.extend_from_slice(&number.to_le_bytes());
    page.extend_from_slice(&key.segment_tag(number));
    page.resize(PAGE, 0);
    page
}

/// Whether `bytes` begin with the first page of segment `number`.
pub(super) fn is_segment(key: &LogKey, number: u64, bytes: &[u8]) -> bool {
    bytes.get(..PAGE) == Some(&*segment_head(key, number))
}

/// A frame that is being put together.
#[derive(Debug, Default)]
pub(super) struct FrameBuilder(Vec<u8>);

impl FrameBuilder {
    /// Puts a batch together; the memory of the last frame is used again.
    pub(super) fn fill(&mut self, batch: u64, now_ms: u64, changes: &[Change]) {
        let values = changes.iter().flat_map(|change| &change.value);
        let len = FRAME_HEAD_LEN
            + changes.len() * CHANGE_HEAD_LEN
            + values.map(Bytes::len).sum::<usize>();
        self.0.clear();
        // Neither twice the length of a large batch, nor its memory for ever.
        if self.0.capacity() > KEPT_BYTES {
            self.0 = Vec::new();
        }
        self.0.reserve_exact(len);
        self.0.extend_from_slice(FRAME_MAGIC);
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&batch.to_le_bytes());
        self.0.extend_from_slice(&now_ms.to_le_bytes());
        self.0.extend_from_slice(&[0; TAG_LEN]);
        changes.iter().for_each(|change| self.put(change));
    }

    fn put(&mut self, change: &Change) {
        let kind = match (change.table, &change.value) {
            (Table::Open, Some(_)) => PUT_OPEN,
            (Table::Open, None) => REMOVE_OPEN,
            (Table::Settled, Some(_)) => PUT_SETTLED,
            (Table::Settled, None) => REMOVE_SETTLED,
        };
        self.0.push(kind);
        self.0.extend_from_slice(change.key.as_bytes());
        if let Some(value) = &change.value {
            // A record is far below 4 GiB: its content is bounded by the limits on bodies.
            let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
            self.0.extend_from_slice(&len.to_le_bytes());
            self.0.extend_from_slice(value);
        }
    }

    /// How long it is with everything put so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The frame as it stands at `offset` of segment `segment`. `None` when it is longer than a
    /// frame can say.
    pub(super) fn seal(&mut self, key: &LogKey, segment: u64, offset: u64) -> Option<&[u8]> {
        let len = u32::try_from(self.0.len().checked_sub(FRAME_HEAD_LEN)?).ok()?;
        self.0.get_mut(4..8)?.copy_from_slice(&len.to_le_bytes());
        let tag = tag_of(key, segment, offset, &self.0)?;
        self.0.get_mut(24..FRAME_HEAD_LEN)?.copy_from_slice(&tag);
        Some(&self.0)
    }
}

fn tag_of(key: &LogKey, segment: u64, offset: u64, frame: &[u8]) -> Option<[u8; TAG_LEN]> {
    let mut place = [0; 16];
    for (to, number) in place.chunks_exact_mut(8).zip([segment, offset]) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    let (head, changes) = (frame.get(..24)?, frame.get(FRAME_HEAD_LEN..)?);
    Some(key.tag([b"frame", &place, head, changes]))
}

/// A whole frame, with its tag checked.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) batch: u64,
    pub(super) now_ms: u64,
    /// With the pages that it fills.
    pub(super) pages_len: usize,
    changes: Bytes,
}

impl Frame {
    /// The frame at `offset` of the segment `number` that has these bytes, if there is one.
    pub(super) fn read(key: &LogKey, number: u64, bytes: &Bytes, offset: usize) -> Option<Self> {
        let rest = bytes.get(offset..)?;
        let mut reader = Reader { bytes: rest };
        if reader.take(4)? != FRAME_MAGIC {
            return None;
        }
        let len = reader.u32()? as usize;
        let (batch, now_ms) = (reader.u64()?, reader.u64()?);
        let tag = reader.take(TAG_LEN)?;
        let frame = rest.get(..FRAME_HEAD_LEN.checked_add(len)?)?;
        let place = u64::try_from(offset).ok()?;
        if tag != tag_of(key, number, place, frame)? {
            return None;
        }
        Some(Self {
            batch,
            now_ms,
            pages_len: frame.len().next_multiple_of(PAGE),
            changes: bytes.slice(offset + FRAME_HEAD_LEN..offset + frame.len()),
        })
    }

    /// Its changes in order. `None` in place of one that cannot be read, which a frame with the
    /// right tag does not have.
    pub(super) fn changes(&self) -> impl Iterator<Item = Option<Change>> {
        let mut rest = self.changes.clone();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let change = read_change(&mut rest);
            if change.is_none() {
                rest.clear();
            }
            Some(change)
        })
    }
}

fn read_change(rest: &mut Bytes) -> Option<Change> {
    let mut reader = Reader { bytes: rest };
    let kind = reader.u8()?;
    let key = RecordKey::from_bytes(reader.chunk()?);
    let (table, len) = match kind {
        PUT_OPEN => (Table::Open, Some(reader.u32()? as usize)),
        REMOVE_OPEN => (Table::Open, None),
        PUT_SETTLED => (Table::Settled, Some(reader.u32()? as usize)),
        REMOVE_SETTLED => (Table::Settled, None),
        _ => return None,
    };
    let head_len = rest.len() - reader.bytes.len();
    let end = head_len.checked_add(len.unwrap_or(0))?;
    if end > rest.len() {
        return None;
    }
    // A copy of its own: a slice would keep the whole segment in memory.
    let value = len.map(|_| Bytes::copy_from_slice(rest.get(head_len..end).unwrap_or_default()));
    bytes::Buf::advance(rest, end);
    Some(Change {
        key,
        table,
        value,
        is_alone: false,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LogKey {
        LogKey::derive(&Secret::from_bytes([7; 32]))
    }

    fn changes() -> Vec<Change> {
        let change = |number: u8, table, value: Option<&'static [u8]>| Change {
            key: RecordKey::from_bytes([number; 16]),
            table,
            value: value.map(Bytes::from_static),
            is_alone: false,
        };
        vec![
            change(1, Table::Open, Some(b"a claim")),
            change(2, Table::Open, None),
            change(2, Table::Settled, Some(b"")),
            change(3, Table::Settled, None),
        ]
    }

    fn frame(segment: u64, offset: u64) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        builder.fill(9, 1234, &changes());
        builder.seal(&key(), segment, offset).unwrap().to_vec()
    }

    /// A segment with one frame on its second page.
    fn segment() -> Vec<u8> {
        let mut bytes = segment_head(&key(), 5);
        bytes.extend_from_slice(&frame(5, PAGE as u64));
        bytes
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let bytes = Bytes::from(segment());
        assert!(is_segment(&key(), 5, &bytes));
        let frame = Frame::read(&key(), 5, &bytes, PAGE).unwrap();
        assert_eq!((frame.batch, frame.now_ms), (9, 1234));
        assert_eq!(frame.pages_len, PAGE);
        let read: Option<Vec<Change>> = frame.changes().collect();
        assert_eq!(read, Some(changes()));
    }

    #[test]
    fn no_frame_survives_a_flipped_bit_or_a_cut() {
        let whole = segment();
        for at in PAGE..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let frame = Frame::read(&key(), 5, &Bytes::from(bytes), PAGE);
                assert!(frame.is_none(), "byte {at} bit {bit}");
            }
            let cut = Bytes::copy_from_slice(&whole[..at]);
            assert!(Frame::read(&key(), 5, &cut, PAGE).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_frame_counts_only_in_its_segment_at_its_place_and_in_its_store() {
        let bytes = Bytes::from(segment());
        assert!(Frame::read(&key(), 6, &bytes, PAGE).is_none());
        assert!(!is_segment(&key(), 6, &bytes));
        let mut moved = segment_head(&key(), 5);
        moved.resize(2 * PAGE, 0);
        moved.extend_from_slice(&frame(5, PAGE as u64));
        assert!(Frame::read(&key(), 5, &Bytes::from(moved), 2 * PAGE).is_none());
        let other = LogKey::derive(&Secret::from_bytes([8; 32]));
        assert!(Frame::read(&other, 5, &bytes, PAGE).is_none());
        assert!(!is_segment(&other, 5, &bytes));
    }
}
