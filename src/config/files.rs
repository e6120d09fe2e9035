use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// The file system.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // To open a pipe waits for its writer, and to read a device may never end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = fs::File::open(path)?;
        // A file may grow, and those of /proc say 0 bytes, so the limit counts what is read.
        let mut bytes = Vec::with_capacity(file.metadata()?.len().min(FILE_BYTES_MAX) as usize + 1);
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other("larger than 4 MiB"));
        }
        Ok(bytes)
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
