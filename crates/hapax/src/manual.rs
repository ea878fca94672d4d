//! `hapax completions` and `hapax man`: made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, print};
use crate::failure::{Exit, Failure};

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hapax", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a manual page for every command into a directory, which is made when it is not there.
pub(crate) fn pages(directory: &Path) -> Result<Exit, Failure> {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|source| Failure::Write {
        path: directory.to_owned(),
        source,
    })?;
    print(&format!("wrote manual pages to {}\n", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_manual_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("man");
        pages(&directory).expect("room");
        for name in [
            "hapax",
            "hapax-serve",
            "hapax-keys",
            "hapax-keys-resolve",
            "hapax-doctor",
        ] {
            let page = std::fs::read_to_string(directory.join(format!("{name}.1")));
            assert!(page.expect("it is there").contains(".TH"), "{name}");
        }
    }
}
