//! Checks the engine's manifests before the engine reads them.
//!
//! A table of the engine is a set of files, named in a manifest `vN`; the file `current` names
//! the manifest that counts and its checksum, which the engine writes and does not check. One
//! flipped bit in the manifest took files out of the table, and their records with them.
//!
//! ```text
//! current: number(u64 LE) XXH3-128 of the manifest(u128 LE) type(0)
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

/// What is wrong with the manifests.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("{0} cannot be read")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("{0} is not what the engine writes")]
    Malformed(PathBuf),
    #[error("{0} does not fit its checksum")]
    Checksum(PathBuf),
}

/// Whether the table in `folder` is there: without `current` the engine makes a new one.
pub(super) fn is_there(folder: &Path) -> bool {
    folder.join("current").exists()
}

/// Checks the manifest of the table in `folder`.
pub(super) fn check(folder: &Path) -> Result<(), ManifestError> {
    let current = folder.join("current");
    let read =
        |path: &Path| fs::read(path).map_err(|error| ManifestError::Io(path.to_owned(), error));
    let bytes = read(&current)?;
    let number = bytes.first_chunk().copied().map(u64::from_le_bytes);
    let checksum = bytes
        .get(8..24)
        .and_then(|checksum| checksum.try_into().ok())
        .map(u128::from_le_bytes);
    let (Some(number), Some(checksum), Some([0])) = (number, checksum, bytes.get(24..)) else {
        return Err(ManifestError::Malformed(current));
    };
    let manifest = folder.join(format!("v{number}"));
    if xxh3_128(&read(&manifest)?) != checksum {
        return Err(ManifestError::Checksum(manifest));
    }
    Ok(())
}
