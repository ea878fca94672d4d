//! How far the store had acknowledged when the previous process ended.
//!
//! After each sync, and before anybody is answered, the number of the batch is written to a
//! small file that is never synced. Whatever the order in which pages reach the disk, the
//! file cannot say more than is true: a number is only handed to the system when its batch is
//! already on the disk. So it may lag behind (after a power cut, or a kill between the two)
//! and never lead, and a store that recovers fewer batches than it says has lost some that
//! were acknowledged.
//!
//! ```text
//! slot 0 at 0, slot 1 at 512: batch(u64 LE) check(8 bytes of BLAKE3 over "hapax witness" batch)
//! ```
//!
//! The slots alternate and lie in different sectors: a torn write spoils one of them at most.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SLOT_DISTANCE: u64 = 512;
const SLOT_LEN: usize = 16;

#[derive(Debug)]
pub(super) struct Witness(File);

impl Witness {
    pub(super) const fn new(file: File) -> Self {
        Self(file)
    }

    pub(super) fn write(&self, batch: u64) -> io::Result<()> {
        self.0.write_all_at(&slot(batch), batch % 2 * SLOT_DISTANCE)
    }

    /// The number it says; `None` when neither slot is intact.
    pub(super) fn read(&self) -> Option<u64> {
        let read = |number: u64| {
            let mut bytes = [0; SLOT_LEN];
            self.0
                .read_exact_at(&mut bytes, number * SLOT_DISTANCE)
                .ok()?;
            let batch = u64::from_le_bytes(*bytes.first_chunk()?);
            (bytes == slot(batch)).then_some(batch)
        };
        read(0).max(read(1))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

fn slot(batch: u64) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    let number = batch.to_le_bytes();
    let check = blake3::Hasher::new()
        .update(b"hapax witness")
        .update(&number)
        .finalize();
    for (to, from) in slot.iter_mut().zip(number.iter().chain(check.as_bytes())) {
        *to = *from;
    }
    slot
}
