//! The keys, by partitions.
//!
//! Record keys are keyed hashes, so their first byte cuts them into 256 equal partitions. All
//! keys of a partition carry its number in braces, which puts them into one slot of a Redis
//! Cluster: a script may then touch a record and the index it is in, whatever server has them.
//!
//! ```text
//! hapax:{7f}:<16 bytes>   a record
//! hapax:{7f}:index        sorted set of the partition's record keys, by when they expire
//! hapax:{7f}:unknown      sorted set of those that are unknown, by when they were written
//! hapax:{7f}              the store's mark: a server that has lost it has lost records
//! hapax:{00}:store        hash: version, secret and mark of the store
//! ```

use hapax_core::key::RecordKey;

/// How many partitions there are.
pub(super) const PARTITIONS: u16 = 256;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// A partition: the first byte of its record keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Partition(pub(super) u8);

impl Partition {
    /// All of them, in the order of their record keys.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The partition of a record.
    pub(super) fn of(key: &RecordKey) -> Self {
        let [first, ..] = key.as_bytes();
        Self(*first)
    }

    /// The slot of a Redis Cluster that has it.
    pub(super) fn slot(self) -> u16 {
        crc16(format!("{:02x}", self.0).as_bytes()) % SLOTS
    }

    /// The key of the store's mark.
    pub(super) fn mark(self) -> String {
        format!("hapax:{{{:02x}}}", self.0)
    }

    /// The key of the index.
    pub(super) fn index(self) -> String {
        format!("hapax:{{{:02x}}}:index", self.0)
    }

    /// The key of the index of unknown records.
    pub(super) fn unknown(self) -> String {
        format!("hapax:{{{:02x}}}:unknown", self.0)
    }

    /// The key of a record; its last 16 bytes are the record key.
    pub(super) fn record(self, member: &[u8]) -> Vec<u8> {
        let mut key = format!("hapax:{{{:02x}}}:", self.0).into_bytes();
        key.extend_from_slice(member);
        key
    }
}

/// How every key begins.
pub(super) const PREFIX: &str = "hapax:{";

/// Where the store says what it is: in the first partition.
pub(super) const STORE: &str = "hapax:{00}:store";

/// The partition of [`STORE`].
pub(super) const HOME: Partition = Partition(0);

/// A member of an index.
pub(super) fn key_of(member: &[u8]) -> Option<RecordKey> {
    member.try_into().ok().map(RecordKey::from_bytes)
}

/// The checksum by which a cluster finds slots (CRC-16/XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_clusters_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn partitions_have_slots_of_their_own_and_a_cluster_of_three_shares_them_evenly() {
        let mut slots: Vec<u16> = Partition::all().map(Partition::slot).collect();
        for third in 0..3 {
            let of_third = slots.iter().filter(|slot| **slot * 3 / SLOTS == third);
            let of_third = of_third.count();
            assert!((77..=94).contains(&of_third), "{of_third}");
        }
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), usize::from(PARTITIONS));
    }

    #[test]
    fn all_keys_of_a_partition_have_the_same_braces() {
        let partition = Partition(0x7f);
        let record = partition.record(&[0x7f; 16]);
        assert!(record.starts_with(b"hapax:{7f}:\x7f"));
        for key in [partition.mark(), partition.index(), partition.unknown()] {
            assert!(key.starts_with("hapax:{7f}"), "{key}");
        }
        assert_eq!(key_of(&[1; 16]), Some(RecordKey::from_bytes([1; 16])));
        assert_eq!(key_of(&[1; 15]), None);
    }
}
