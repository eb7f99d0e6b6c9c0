//! A directory that belongs to us alone, and the files in it.
//!
//! Everything goes through the directory's descriptor, so a directory that is renamed or replaced under us
//! changes nothing. No symlink is followed at its last component, nothing of another owner is read, and a file
//! that is replaced is replaced whole: written beside, synced, renamed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, fsync, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Bytes of one file that is read whole; a state with its thousand listed violations stays far under it.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Why a directory or file of ours cannot be used.
#[derive(Debug)]
pub enum FolderError {
    /// It is not there.
    Missing,
    /// It is there, but not as we left it; the text says how.
    Untrusted(String),
    /// The system refused.
    System(io::Error),
}

impl std::fmt::Display for FolderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::Untrusted(why) => f.write_str(why),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl From<Errno> for FolderError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Missing,
            Errno::LOOP => Self::Untrusted("it is a symbolic link".into()),
            Errno::NOTDIR => Self::Untrusted("it is not a directory".into()),
            errno => Self::System(errno.into()),
        }
    }
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// An open directory that passed the checks.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens `path`, making it and its parents (0700) where they are missing.
    ///
    /// # Errors
    /// As for `open`, and when it cannot be made.
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Ok(()) => Self::open(path),
            // Something else may stand there; say what, if so.
            Err(error) => Self::open(path).map_err(|found| match found {
                FolderError::Missing => FolderError::System(error),
                found => found,
            }),
        }
    }

    /// Opens `path` and checks it.
    ///
    /// # Errors
    /// `Untrusted` for a symlink, another owner, or one that others may write to.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::check(path.to_path_buf(), openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty()))
    }

    /// Opens the directory `name` in this one.
    ///
    /// # Errors
    /// As for `open`.
    pub fn inside(&self, name: &str) -> Result<Self, FolderError> {
        Self::check(self.path.join(name), openat(&self.fd, name, DIRECTORY, Mode::empty()))
    }

    /// Makes the directory `name` in this one (0700) where it is missing, and opens it.
    ///
    /// # Errors
    /// As for `open`, and when it cannot be made.
    pub fn create_inside(&self, name: &str) -> Result<Self, FolderError> {
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.inside(name),
            Err(errno) => Err(errno.into()),
        }
    }

    fn check(path: PathBuf, opened: rustix::io::Result<OwnedFd>) -> Result<Self, FolderError> {
        let fd = match opened {
            Ok(fd) => fd,
            // O_DIRECTORY|O_NOFOLLOW answers ENOTDIR for a symlink, too: look again which it was.
            Err(Errno::NOTDIR) if is_symlink(&path) => return Err(Errno::LOOP.into()),
            Err(errno) => return Err(errno.into()),
        };
        check_ours(&fstat(&fd)?)?;
        Ok(Self { path, fd })
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file for the life of a process (a lock): made 0600 where it is missing, never written here.
    ///
    /// # Errors
    /// When it is a link, not ours, or cannot be made.
    pub fn open_lasting(&self, name: &str) -> Result<OwnedFd, FolderError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&self.fd, name, flags, PRIVATE)?;
        check_ours(&fstat(&fd)?)?;
        Ok(fd)
    }

    /// Makes a new file (0600) to append to.
    ///
    /// # Errors
    /// When anything of that name is there already, or it cannot be made.
    pub fn create_append(&self, name: &str) -> Result<File, FolderError> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok(File::from(openat(&self.fd, name, flags | OFlags::CLOEXEC, PRIVATE)?))
    }

    /// Opens a file of ours to read.
    ///
    /// # Errors
    /// `Untrusted` for a symlink, another owner, or what is no plain file.
    pub fn open_read(&self, name: &str) -> Result<File, FolderError> {
        // O_NONBLOCK: a planted fifo must not hold us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        check_ours(&stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(FolderError::Untrusted("it is no plain file".into()));
        }
        Ok(File::from(fd))
    }

    /// The text of a small file of ours.
    ///
    /// # Errors
    /// As for `open_read`; `Untrusted` also when it is too large or no text.
    pub fn read(&self, name: &str) -> Result<String, FolderError> {
        let mut bytes = Vec::new();
        self.open_read(name)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(FolderError::Untrusted(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| FolderError::Untrusted("it is no text".into()))
    }

    /// Replaces a file whole (0600): a reader sees the old or the new one, a full disk leaves the old one.
    ///
    /// # Errors
    /// When it cannot be written, synced or renamed; nothing half-written is left.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let beside = format!("{name}.new");
        match unlinkat(&self.fd, &beside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let written = self.create_append(&beside).and_then(|mut file| {
            file.write_all(bytes)?;
            fsync(&file)?;
            renameat(&self.fd, &beside, &self.fd, name)?;
            Ok(())
        });
        if written.is_err() {
            let _ = unlinkat(&self.fd, &beside, AtFlags::empty());
        } else {
            // The rename itself survives a power cut only with the directory; a kill it survives anyway.
            let _ = fsync(&self.fd);
        }
        written
    }

    /// Whether anything of that name is there; what cannot be seen counts as there.
    pub fn has(&self, name: &str) -> bool {
        !matches!(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// Unix time in seconds of the last change to `name`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn changed_s(&self, name: &str) -> Result<u64, FolderError> {
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(u64::try_from(stat.st_mtime).unwrap_or(0))
    }

    /// Whether `name` is a symbolic link.
    pub fn is_link(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// Takes a file away; one that is not there is fine.
    pub fn remove(&self, name: &str) {
        let _ = unlinkat(&self.fd, name, AtFlags::empty());
    }

    /// A path to `name` that is short however deep the directory lies (sun_path holds 107 bytes), valid in this
    /// process while the folder is open.
    pub fn short_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

fn is_symlink(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn check_ours(stat: &Stat) -> Result<(), FolderError> {
    let us = geteuid().as_raw();
    if stat.st_uid != us {
        return Err(FolderError::Untrusted(format!(
            "it belongs to uid {}, not to us (uid {us})",
            stat.st_uid
        )));
    }
    if stat.st_mode & 0o022 != 0 {
        let mode = stat.st_mode & 0o7777;
        return Err(FolderError::Untrusted(format!("others may write to it (mode {mode:04o})")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn untrusted<T>(result: Result<T, FolderError>) -> String {
        match result {
            Err(FolderError::Untrusted(why)) => why,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn a_new_folder_and_its_files_are_private() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::create(&temporary.path().join("a/b")).unwrap();
        folder.write("f", b"text").unwrap();
        folder.create_append("g").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join("f")), 0o600);
        assert_eq!(mode(&folder.path().join("g")), 0o600);
        assert_eq!(folder.read("f").unwrap(), "text");
        assert!(!folder.has("f.new"));
    }

    #[test]
    fn a_folder_that_others_could_have_planted_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let real = temporary.path().join("real");
        Folder::create(&real).unwrap();
        let link = temporary.path().join("link");
        symlink(&real, &link).unwrap();
        assert!(untrusted(Folder::open(&link)).contains("symbolic link"));
        assert!(untrusted(Folder::create(&link)).contains("symbolic link"));
        for mode in [0o777, 0o770, 0o1777] {
            std::fs::set_permissions(&real, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(untrusted(Folder::create(&real)).contains("others may write"), "{mode:o}");
        }
        let file = temporary.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(untrusted(Folder::create(&file)).contains("not a directory"));
        assert!(matches!(Folder::open(&temporary.path().join("none")), Err(FolderError::Missing)));
    }

    #[test]
    fn links_and_fifos_in_it_are_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::create(&temporary.path().join("d")).unwrap();
        let outside = temporary.path().join("outside");
        std::fs::write(&outside, "secret").unwrap();
        symlink(&outside, folder.path().join("f")).unwrap();
        assert!(untrusted(folder.read("f")).contains("symbolic link"));
        assert!(untrusted(folder.open_lasting("f")).contains("symbolic link"));
        assert!(folder.create_append("f").is_err());
        assert!(folder.is_link("f"));
        // A replacement replaces the link, and what was planted for the temporary file is not written to.
        symlink(&outside, folder.path().join("f.new")).unwrap();
        folder.write("f", b"ours").unwrap();
        assert_eq!(folder.read("f").unwrap(), "ours");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "secret");
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg("-m600").arg(&fifo).status().unwrap().success());
        assert!(untrusted(folder.read("fifo")).contains("plain file"));
        assert!(untrusted(folder.inside("fifo")).contains("not a directory"));
    }
}
