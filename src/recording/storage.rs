use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::block::HEADER_LEN;

/// Files of a recording end so; before it stands their number, which orders them whatever the clock says.
const ENDING: &str = ".trefoil.gz";
const LOCK: &str = "lock";

/// Of a file's end, so many bytes are looked at for its last block: a block has a quarter of this, unless a whole policy
/// is in it.
const TAIL: u64 = 256 << 10;

/// Where a ring keeps its files.
pub trait Storage {
    /// Numbers and lengths of the files, in order.
    fn list(&self) -> io::Result<Vec<(u64, u64)>>;
    /// The first bytes of a file, as many as a block's header has, or fewer.
    fn head(&self, number: u64) -> io::Result<Vec<u8>>;
    /// The last bytes of a file, some blocks of them.
    fn tail(&self, number: u64) -> io::Result<Vec<u8>>;
    /// Appends to a file, which begins with it where there is none.
    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()>;
    /// Takes back what was appended in part.
    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()>;
    /// What was appended outlasts a loss of power.
    fn sync(&mut self) -> io::Result<()>;
    fn remove(&mut self, number: u64) -> io::Result<()>;
}

/// A directory of this daemon's own.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    open: Option<(u64, File)>,
    /// Held as long as this lives.
    _lock: File,
}

impl Disk {
    /// Makes the directory if need be, for its owner alone: it says who talks to whom. Refused while
    /// another daemon writes there.
    pub fn open(directory: &Path) -> io::Result<Disk> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(directory.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Disk { directory: directory.to_owned(), open: None, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another daemon records there")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(file_name(number))
    }
}

fn file_name(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

/// The files of a directory that are of a recording, in order.
pub(super) fn files_in(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ENDING));
        if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        let files = files_in(&self.directory)?;
        files.into_iter().map(|(number, path)| Ok((number, fs::metadata(path)?.len()))).collect()
    }

    fn head(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(number))?.take(HEADER_LEN as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn tail(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(number))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(number))?;
            self.open = Some((number, file));
        }
        self.open.as_mut().map_or(Ok(()), |(_, file)| file.write_all(bytes))
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(number))?.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |(_, file)| file.sync_data())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}
