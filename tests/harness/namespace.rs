//! A small disk of the test's own: a mount namespace with a tmpfs on one folder, where the machine permits one.
//!
//! A helper process holds the namespace open; commands enter it by `nsenter`. The folder seen from outside
//! stays empty.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait::within;
use std::time::Duration;

/// A mount namespace, as long as the value lives.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    with_user: bool,
    folder: PathBuf,
}

impl Namespace {
    /// Mounts a tmpfs with these options (`size=256k`, `ro`) on `folder` in a namespace of its own.
    ///
    /// # Errors
    /// Why the machine does not permit it, in one line.
    pub fn with_tmpfs(folder: &Path, options: &str) -> Result<Namespace, String> {
        let mut why = String::new();
        for with_user in [false, true] {
            match Namespace::hold(folder, options, with_user) {
                Ok(namespace) => return Ok(namespace),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The words that go before a command to run it inside.
    pub fn prefix(&self) -> Vec<String> {
        let mut words =
            vec!["nsenter".to_owned(), format!("--target={}", self.holder.id()), "--mount".to_owned()];
        if self.with_user {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words
    }

    /// Fills the disk to the last byte.
    pub fn fill(&self) {
        // `cat` fails with "no space left", which is the point.
        let script = "cat /dev/zero > \"$0/filler\" 2>/dev/null; echo x >> \"$0/filler2\"";
        assert!(!self.shell(script), "the disk of {} did not fill", self.folder.display());
    }

    /// Gives the space back.
    pub fn free(&self) {
        assert!(self.shell("rm -f \"$0/filler\" \"$0/filler2\""), "the filler could not be removed");
    }

    /// Runs a shell script inside; `$0` is the folder. Whether it succeeded.
    pub fn shell(&self, script: &str) -> bool {
        let words = self.prefix();
        let status = Command::new(&words[0])
            .args(&words[1..])
            .args(["sh", "-c", script])
            .arg(&self.folder)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    fn hold(folder: &Path, options: &str, with_user: bool) -> Result<Namespace, String> {
        let flags: &[&str] = if with_user { &["--user", "--map-root-user", "--mount"] } else { &["--mount"] };
        let script = "mount -t tmpfs -o \"$1\" weir-test \"$0\" && echo ready && exec sleep 600";
        let mut holder = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", script])
            .arg(folder)
            .arg(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
        let _ = std::io::BufRead::read_line(&mut stdout, &mut said);
        let mut namespace = Namespace { holder, with_user, folder: folder.to_owned() };
        if said.trim() == "ready" && namespace.shell("true") {
            return Ok(namespace);
        }
        let status = within(Duration::from_secs(2), || namespace.holder.try_wait().ok().flatten());
        Err(format!("unshare {} with a tmpfs: {status:?}", flags.join(" ")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_fills_and_frees() {
        let folder = tempfile::tempdir().unwrap();
        match Namespace::with_tmpfs(folder.path(), "size=64k") {
            Ok(disk) => {
                disk.fill();
                assert!(!disk.shell("echo more > \"$0/more\""));
                disk.free();
                assert!(disk.shell("echo more > \"$0/more\""));
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "visible only inside");
            }
            Err(why) => eprintln!("SKIPPED: {why}"),
        }
    }
}
