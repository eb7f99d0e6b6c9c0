//! What a binary was built from, as one number: so that a test can tell that it runs the program it meant.
//!
//! Included by the build script and by the test harness, so plain std. Not a version: two trees with the same
//! sources and features have the same id wherever they lie.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What counts, relative to the workspace's root. Directories count with everything in them.
pub(crate) const COUNTED: &[&str] =
    &["Cargo.lock", "cli/Cargo.toml", "cli/src", "engine/Cargo.toml", "engine/src"];

/// The id (16 hex digits) of the sources under `root`, built with `features` in any order.
///
/// # Errors
/// When a file that counts cannot be read.
pub(crate) fn build_id(root: &Path, features: &[&str]) -> io::Result<String> {
    let mut files = Vec::new();
    for counted in COUNTED {
        list(root, Path::new(counted), &mut files)?;
    }
    files.sort();
    let mut hash = Fnv::new();
    for file in &files {
        hash.part(file.to_string_lossy().as_bytes());
        hash.part(&fs::read(root.join(file))?);
    }
    let mut features = features.to_vec();
    features.sort_unstable();
    for feature in features {
        hash.part(feature.as_bytes());
    }
    Ok(format!("{:016x}", hash.0))
}

fn list(root: &Path, at: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !root.join(at).is_dir() {
        files.push(at.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(root.join(at))? {
        list(root, &at.join(entry?.file_name()), files)?;
    }
    Ok(())
}

/// FNV-1a, 64 bits: nobody attacks this.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// A part and its length, so that parts cannot run into each other.
    fn part(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
