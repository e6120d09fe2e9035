use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

/// One text that was read: its name for messages, and the way from offsets to lines.
pub struct Source {
    /// As the operator named it, or as it follows from the name of the site file.
    pub path: PathBuf,
    pub text: String,
    line_starts: Vec<usize>,
    /// Lines that are not TOML: only their syntax errors are reported.
    broken_lines: RefCell<BTreeSet<u32>>,
}

impl Source {
    pub fn new(path: PathBuf, text: String) -> Source {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { path, text, line_starts, broken_lines: RefCell::default() }
    }

    /// Marks the line of this offset as not readable.
    pub fn break_line(&self, offset: usize) {
        let line = self.line(offset);
        self.broken_lines.borrow_mut().insert(line);
    }

    pub fn is_broken_line(&self, line: u32) -> bool {
        self.broken_lines.borrow().contains(&line)
    }

    pub fn has_syntax_errors(&self) -> bool {
        !self.broken_lines.borrow().is_empty()
    }

    /// From 1.
    fn line(&self, offset: usize) -> u32 {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// From 1, in characters.
    fn column(&self, offset: usize) -> u32 {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// A place in a source, or the source as a whole.
#[derive(Clone)]
pub struct Spot {
    pub source: Rc<Source>,
    offset: Option<usize>,
}

impl Spot {
    pub fn at(source: &Rc<Source>, offset: usize) -> Spot {
        Spot { source: Rc::clone(source), offset: Some(offset) }
    }

    pub fn whole(source: &Rc<Source>) -> Spot {
        Spot { source: Rc::clone(source), offset: None }
    }

    /// 0 for the source as a whole.
    pub fn line(&self) -> u32 {
        self.offset.map_or(0, |offset| self.source.line(offset))
    }

    /// 0 for the source as a whole.
    pub fn column(&self) -> u32 {
        self.offset.map_or(0, |offset| self.source.column(offset))
    }
}

/// How one message refers to another place: `branch.toml:12`.
impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.path.display())?;
        match self.line() {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone)]
pub struct At<T> {
    pub value: T,
    pub spot: Spot,
}

/// A field that may be left out, and that may be wrong: what is wrong was reported once, and must
/// not be taken for left out.
#[derive(Clone)]
pub enum Written<T> {
    No,
    Wrong,
    Yes(At<T>),
}

impl<T> Written<T> {
    pub fn get(&self) -> Option<&At<T>> {
        match self {
            Written::Yes(at) => Some(at),
            Written::No | Written::Wrong => None,
        }
    }

    pub fn is_left_out(&self) -> bool {
        matches!(self, Written::No)
    }

    /// This one, or where it is left out that of the layer around it.
    pub fn or(self, around: Written<T>) -> Written<T> {
        if self.is_left_out() { around } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let source = Rc::new(Source::new("a.toml".into(), "ä = 1\r\n\u{1f600}b = 2".into()));
        let offset = source.text.find('b').unwrap();
        let place = |offset| (Spot::at(&source, offset).line(), Spot::at(&source, offset).column());
        assert_eq!((place(0), place(offset), place(10_000)), ((1, 1), (2, 2), (2, 1)));
        assert_eq!(Spot::whole(&source).to_string(), "a.toml");
    }
}
