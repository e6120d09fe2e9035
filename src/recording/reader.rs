use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::de::IgnoredAny;

use super::block::{BlockError, BlockHeader, next_block};
use super::line::{Entry, FORMAT, Line};
use super::storage::files_in;

/// A file of a recording has some MiB; one that is larger than this is none.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Blocks of all files together, at most: those of a year. What is known of them takes 400 MB.
const BLOCKS_MAX: usize = 6_000_000;

/// Lines that are not understood of one block are told one by one up to so many.
const TOLD_OF_BLOCK: usize = 3;

/// What is told of one trouble, in bytes: a line may say anything.
const TROUBLE_MAX: usize = 300;

/// A recording on disk: the directory of a daemon, a copy of it, or one of its files.
#[derive(Debug)]
pub struct Reader {
    files: Vec<PathBuf>,
}

/// Why a recording cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{} cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is larger than any file of a recording", .0.display())]
    TooLarge(PathBuf),
    #[error("no recording is in {} (its files end in .trefoil.gz)", .0.display())]
    NoFiles(PathBuf),
    #[error("{} is no recording: no block of one is in it", .0.display())]
    NoBlocks(PathBuf),
    #[error("{} ends within the first block of a recording: is it a whole copy?", .0.display())]
    CutOff(PathBuf),
    #[error("{} has more than {BLOCKS_MAX} blocks before its end: look at some of its files by themselves", .0.display())]
    TooMany(PathBuf),
    #[error("{} was recorded by trefoil {version} in format {format}; this one reads format {FORMAT} at most: use a later trefoil", path.display())]
    FromTheFuture { path: PathBuf, format: u16, version: String },
}

/// A part of a recording that was passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    pub file: PathBuf,
    pub offset: usize,
    pub what: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        write!(f, "{} at byte {}: {}", name.to_string_lossy(), self.offset, self.what)
    }
}

/// Where a block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Counted from the first file.
    pub file: usize,
    pub offset: usize,
    pub header: BlockHeader,
}

/// What a recording consists of, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    /// What follows is of this run of the daemon: nothing before it matters.
    Run(u64),
    /// Something is missing here.
    Gap,
    Trouble(Trouble),
    Line(Box<Line>),
}

impl Reader {
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            return Ok(Reader { files: vec![path.to_owned()] });
        }
        let files: Vec<PathBuf> = files_in(path).map_err(failed)?.into_iter().map(|(_, file)| file).collect();
        if files.is_empty() { Err(ReadError::NoFiles(path.to_owned())) } else { Ok(Reader { files }) }
    }

    /// Every block that says of itself what it is, in order.
    pub fn index(&self) -> Result<Vec<Place>, ReadError> {
        let (mut places, mut is_short) = (Vec::new(), false);
        for (file, path) in self.files.iter().enumerate() {
            let Some(bytes) = self.load(path)? else { continue };
            let mut offset = 0;
            is_short |=
                bytes.len() > 4 && BlockHeader::read(&bytes).map_or_else(|error| error == BlockError::Short, |_| true);
            while let Some(found) = next(&bytes, &mut offset) {
                let Ok((offset, header)) = found else { continue };
                places.push(Place { file, offset, header });
                if places.len() > BLOCKS_MAX {
                    return Err(ReadError::TooMany(path.clone()));
                }
            }
        }
        match self.files.first() {
            Some(first) if places.is_empty() && is_short => Err(ReadError::CutOff(first.clone())),
            Some(first) if places.is_empty() => Err(ReadError::NoBlocks(first.clone())),
            _ => Ok(places),
        }
    }

    /// All that is in the files from this one on.
    pub fn parts(&self, from: usize) -> Parts<'_> {
        Parts {
            reader: self,
            file: from,
            bytes: Vec::new(),
            offset: 0,
            begun: false,
            lines: Lines::default(),
            queue: VecDeque::new(),
            expected: None,
            failed: false,
        }
    }

    /// The lines of some blocks, which lie in the order of their files.
    pub fn texts<'a>(&'a self, places: impl Iterator<Item = &'a Place> + 'a) -> impl Iterator<Item = Vec<u8>> + 'a {
        let mut loaded: Option<(usize, Vec<u8>)> = None;
        places.filter_map(move |place| {
            if loaded.as_ref().is_none_or(|(file, _)| *file != place.file) {
                let bytes = self.load(self.files.get(place.file)?).ok().flatten()?;
                loaded = Some((place.file, bytes));
            }
            let (_, bytes) = loaded.as_ref()?;
            place.header.unpack(bytes.get(place.offset..)?).ok()
        })
    }

    /// `None`: it is gone, since a ring forgets while it is read.
    fn load(&self, path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.files.len() > 1 => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX { Err(ReadError::TooLarge(path.to_owned())) } else { Ok(Some(bytes)) }
    }
}

type Found = Result<(usize, BlockHeader), (usize, String)>;

/// The next block of a file, or what is there in its place; `offset` is then behind it.
fn next(bytes: &[u8], offset: &mut usize) -> Option<Found> {
    let start = *offset;
    let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
    let found = BlockHeader::read(rest).and_then(|header| {
        let whole = rest.len() >= header.length as usize;
        if whole { Ok(header) } else { Err(BlockError::Short) }
    });
    match found {
        Ok(header) => {
            *offset = start.saturating_add(header.length as usize);
            Some(Ok((start, header)))
        }
        Err(error) => {
            let resumed = resume(rest);
            *offset = resumed.map_or(bytes.len(), |skipped| start.saturating_add(skipped));
            let skipped = offset.saturating_sub(start);
            let what = match (&error, resumed) {
                (BlockError::Short, None) => {
                    format!("{skipped} bytes of a block that was cut off: power was lost, or it is being written")
                }
                _ => format!("{error}; {skipped} bytes passed over"),
            };
            Some(Err((start, what)))
        }
    }
}

/// Where the next block begins behind damage, as far as its header can be believed.
fn resume(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        at = at.checked_add(next_block(rest)?)?;
        if BlockHeader::read(bytes.get(at..)?).is_ok() {
            return Some(at);
        }
    }
}

/// The lines of a block that are still to be read, one at a time: all of them together would take many times their bytes.
#[derive(Default)]
struct Lines {
    plain: Vec<u8>,
    at: usize,
    /// Where the block lies in its file.
    offset: usize,
    /// Lines that were not understood.
    odd: usize,
    /// What was passed over of them is told already.
    gap: bool,
}

impl Lines {
    /// The next one that is not empty.
    fn next(&mut self) -> Option<&[u8]> {
        loop {
            let start = self.at;
            let rest = self.plain.get(start..).filter(|rest| !rest.is_empty())?;
            let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            self.at = start.saturating_add(length).saturating_add(1);
            if length > 0 {
                return self.plain.get(start..start.saturating_add(length));
            }
        }
    }
}

/// See `Reader::parts`.
pub struct Parts<'a> {
    reader: &'a Reader,
    file: usize,
    bytes: Vec<u8>,
    offset: usize,
    begun: bool,
    lines: Lines,
    queue: VecDeque<Part>,
    /// The run and the number of the line that comes next, if nothing is missing.
    expected: Option<(u64, u64)>,
    failed: bool,
}

impl Iterator for Parts<'_> {
    type Item = Result<Part, ReadError>;

    fn next(&mut self) -> Option<Result<Part, ReadError>> {
        loop {
            if let Some(part) = self.queue.pop_front() {
                return Some(Ok(part));
            }
            if self.failed {
                return None;
            }
            let more = match self.read_line() {
                Some(read) => read,
                None => self.advance()?,
            };
            if let Err(error) = more {
                self.failed = true;
                return Some(Err(error));
            }
        }
    }
}

impl Parts<'_> {
    /// Reads one line more; `None` at the end of its block.
    fn read_line(&mut self) -> Option<Result<(), ReadError>> {
        let (text, path) = (self.lines.next()?, self.reader.files.get(self.file)?);
        match serde_json::from_slice::<Line>(text) {
            Ok(Line { entry: Entry::Opened { format, version }, .. }) if format > FORMAT => {
                let version = brief(&version);
                return Some(Err(ReadError::FromTheFuture { path: path.clone(), format, version }));
            }
            Ok(line) => {
                self.lines.gap = false;
                self.queue.push_back(Part::Line(Box::new(line)));
            }
            Err(error) => {
                // One of a kind that a later version has says nothing that decisions here rest on.
                let is_known = is_known(text);
                self.lines.odd = self.lines.odd.saturating_add(1);
                if self.lines.odd <= TOLD_OF_BLOCK {
                    let what = brief(&format!("a line is not understood: {error}"));
                    let trouble = Trouble { file: path.clone(), offset: self.lines.offset, what };
                    self.queue.push_back(Part::Trouble(trouble));
                }
                if is_known && !std::mem::replace(&mut self.lines.gap, true) {
                    self.queue.push_back(Part::Gap);
                }
            }
        }
        Some(Ok(()))
    }

    /// Takes up one block more; `None` at the end.
    fn advance(&mut self) -> Option<Result<(), ReadError>> {
        let path = self.reader.files.get(self.file)?;
        if !self.begun {
            self.bytes = match self.reader.load(path) {
                Ok(bytes) => bytes.unwrap_or_default(),
                Err(error) => return Some(Err(error)),
            };
            (self.offset, self.begun) = (0, true);
        }
        let Some(found) = next(&self.bytes, &mut self.offset) else {
            (self.file, self.begun) = (self.file.saturating_add(1), false);
            return Some(Ok(()));
        };
        let trouble = |offset, what: String| Part::Trouble(Trouble { file: path.clone(), offset, what: brief(&what) });
        let (offset, header) = match found {
            Ok(found) => found,
            Err((offset, what)) => {
                self.queue.push_back(trouble(offset, what));
                return Some(Ok(()));
            }
        };
        match self.expected {
            Some((run, _)) if run != header.run => self.queue.push_back(Part::Run(header.run)),
            None => self.queue.push_back(Part::Run(header.run)),
            Some((_, number)) if number > header.number => {
                let what = "it was recorded before what stands in front of it: files are mixed up, or there twice";
                self.queue.push_back(trouble(offset, what.to_owned()));
                self.queue.push_back(Part::Gap);
            }
            Some((_, number)) if number < header.number => self.queue.push_back(Part::Gap),
            Some(_) => {}
        }
        let behind = header.number.saturating_add(u64::from(header.lines));
        let plain = match header.unpack(self.bytes.get(offset..).unwrap_or_default()) {
            Ok(plain) => plain,
            Err(error) => {
                // Its number stands in the way of the next: that shows as a gap.
                self.expected = Some((header.run, header.number));
                self.queue.push_back(trouble(offset, error.to_string()));
                return Some(Ok(()));
            }
        };
        self.expected = Some((header.run, behind));
        self.lines = Lines { plain, offset, ..Lines::default() };
        Some(Ok(()))
    }
}

/// As much of a text as is told.
fn brief(text: &str) -> String {
    match text.char_indices().nth(TROUBLE_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Is it one of the kinds of lines that this version writes, or none at all?
fn is_known(line: &[u8]) -> bool {
    let kinds = ["opened", "clock", "plan", "fact", "published", "flow", "told", "left_out", "lost"];
    // What the fields hold is not kept: it may be much.
    let fields: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_slice(line);
    fields.map_or(true, |fields| kinds.iter().any(|kind| fields.contains_key(*kind)))
}
