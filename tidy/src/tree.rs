//! The files of the tree.

use std::io;
use std::path::{Path, PathBuf};

/// Folders that hold no files of ours: what is built, what is stored, what is fetched.
const NOT_OURS: [&str; 5] = [".git", "target", "hapax-data", "node_modules", "vendor"];

/// A file: its path from the root, with `/`, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The path from the root of the tree.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// A file that is not on a disk.
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }
}

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file under `root` whose name ends in one of `endings`, in the order of their paths.
///
/// # Errors
/// A folder or a file cannot be read, or a file is not UTF-8.
pub fn files(root: &Path, endings: &[&str]) -> io::Result<Vec<File>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !NOT_OURS.contains(&name.as_ref()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path)?;
                let path = path.strip_prefix(root).unwrap_or(&path);
                found.push(File {
                    path: path.to_string_lossy().replace('\\', "/"),
                    text,
                });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}
