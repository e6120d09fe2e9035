use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::model::Secret;

/// 4 MiB: ten thousand rules with a comment each; a larger file is a mistake (a log, a device).
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Profiles of one site; ten would be many.
pub const FOLDER_FILES_MAX: usize = 256;

/// Where files come from: the disk, or a test's memory.
pub trait Files {
    /// At most `FILE_BYTES_MAX`; a larger one is an error.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The files of a folder whose name ends in `suffix`, in order of their names; an error when
    /// there is no such folder or more than `FOLDER_FILES_MAX`.
    fn list(&self, folder: &Path, suffix: &str) -> io::Result<Vec<PathBuf>>;
    /// May everybody on this machine read it?
    fn is_world_readable(&self, path: &Path) -> bool;

    /// Like `read`, into memory that is wiped.
    fn read_secret(&self, path: &Path) -> io::Result<Secret> {
        self.read(path).map(Secret::new)
    }
}

/// A file that was written to so lately may be half a file, which may well be one that can be read.
const SETTLE_AGE: Duration = Duration::from_millis(100);
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
const SETTLE_TRIES: usize = 25;

/// The file system.
pub struct Disk;

/// One reading of a file.
struct Reading {
    /// Wiped: it may be a key.
    bytes: Zeroizing<Vec<u8>>,
    /// Nobody has written to it for a while.
    settled: bool,
}

fn read_once(path: &Path) -> io::Result<Reading> {
    // To open a pipe waits for its writer, and to read a device may never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = fs::File::open(path)?;
    let before = file.metadata()?;
    // A file may grow, and those of /proc say 0 bytes, so the limit counts what is read.
    let mut bytes = Zeroizing::new(Vec::with_capacity(before.len().min(FILE_BYTES_MAX) as usize + 1));
    (&file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    let after = file.metadata()?;
    // A time that lies ahead says nothing.
    let old = after.modified()?.elapsed().map_or(true, |age| age >= SETTLE_AGE);
    Ok(Reading { bytes, settled: old && stamp(&before) == stamp(&after) })
}

/// What is read once nobody has written to it for a while.
fn settled(mut read: impl FnMut() -> io::Result<Reading>, mut pause: impl FnMut()) -> io::Result<Vec<u8>> {
    for tried in 0..=SETTLE_TRIES {
        if tried > 0 {
            pause();
        }
        let mut reading = read()?;
        if reading.settled {
            return Ok(std::mem::take(&mut *reading.bytes));
        }
    }
    Err(io::Error::other("it is being written"))
}

/// What changes whenever it is written to.
fn stamp(file: &fs::Metadata) -> (u64, u64, i64, i64) {
    (file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        settled(|| read_once(path), || thread::sleep(SETTLE_PAUSE))
    }

    fn list(&self, folder: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        // An empty path is the present folder in names of files, but not to the operating system.
        let opened = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for entry in fs::read_dir(opened)? {
            let path = folder.join(entry?.file_name());
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if name.ends_with(suffix) && !name.starts_with('.') && path.is_file() {
                paths.push(path);
            }
            if paths.len() > FOLDER_FILES_MAX {
                return Err(io::Error::other(format!("more than {FOLDER_FILES_MAX} files")));
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn is_world_readable(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// An editor or a tool that writes in place leaves half a file for a moment, and half a policy may
    /// well be one that can be read.
    #[test]
    fn a_file_that_is_being_written_is_read_whole_or_refused() {
        let reads = |half: usize| {
            let (mut read, mut pauses) = (0, 0);
            let reading = || {
                read += 1;
                let settled = read > half;
                let bytes = if settled { b"whole".to_vec() } else { b"ha".to_vec() };
                Ok(Reading { bytes: Zeroizing::new(bytes), settled })
            };
            let outcome = settled(reading, || pauses += 1);
            (outcome.map_err(|error| error.to_string()), pauses)
        };
        assert_eq!(reads(0), (Ok(b"whole".to_vec()), 0));
        assert_eq!(reads(3), (Ok(b"whole".to_vec()), 3));
        assert_eq!(reads(SETTLE_TRIES), (Ok(b"whole".to_vec()), SETTLE_TRIES));
        assert_eq!(reads(SETTLE_TRIES + 1), (Err("it is being written".to_owned()), SETTLE_TRIES));
        let gone = settled(|| Err(io::ErrorKind::NotFound.into()), || panic!("nothing to wait for"));
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_settled_when_nobody_has_written_to_it_of_late() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let file = fs::File::create(&path).unwrap();
        let is_settled = |written: SystemTime| {
            file.set_modified(written).unwrap();
            read_once(&path).unwrap().settled
        };
        let now = SystemTime::now();
        assert!(is_settled(now - SETTLE_AGE));
        // A time that lies ahead says nothing.
        assert!(is_settled(now + Duration::from_secs(3_600)));
        // As long as the test is not kept from its core for as long, again and again.
        assert!((0..100).any(|_| !is_settled(SystemTime::now())));
    }
}
