use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;

use super::source::Spot;

/// More findings than anybody reads; a hostile file of 4 MiB could otherwise make a million.
const DIAGNOSTICS_MAX: usize = 1000;

/// One finding: where, what is wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    pub file: PathBuf,
    /// From 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// From 1, in characters; 0 when it is about the file as a whole.
    pub column: u32,
    pub severity: Severity,
    pub what: String,
    /// What would be right; may be empty where `what` says it already.
    pub instead: String,
    /// Findings that it stands for: 1, or those of its severity that were left out.
    pub count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    Error,
    Warning,
}

impl Diagnostic {
    /// Errors first, then by file and position.
    fn order(&self, other: &Diagnostic) -> Ordering {
        let key = |diagnostic: &Diagnostic| {
            (diagnostic.severity, diagnostic.file.clone(), diagnostic.line, diagnostic.column)
        };
        key(self).cmp(&key(other))
    }
}

/// `branch.toml:14:9 unknown WAN link "lte2" (known: fibre, dsl, lte)`
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        match self.severity {
            Severity::Error => write!(f, " {}", self.what)?,
            Severity::Warning => write!(f, " warning: {}", self.what)?,
        }
        if !self.instead.is_empty() {
            write!(f, " ({})", self.instead)?;
        }
        Ok(())
    }
}

/// Collects the findings of one load, from all files.
#[derive(Default)]
pub struct Report {
    found: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
    /// Errors and warnings beyond `DIAGNOSTICS_MAX`.
    left_out: [Cell<usize>; 2],
}

impl Report {
    pub fn error(&self, at: &Spot, what: impl Into<String>, instead: impl Into<String>) {
        self.add(at, Severity::Error, what.into(), instead.into());
    }

    pub fn warn(&self, at: &Spot, what: impl Into<String>, instead: impl Into<String>) {
        self.add(at, Severity::Warning, what.into(), instead.into());
    }

    /// Something required is not there. In a file with syntax errors it may well be on a line
    /// that could not be read, so nothing is said until those are corrected.
    pub fn missing(&self, at: &Spot, what: impl Into<String>, instead: impl Into<String>) {
        if !at.source.has_syntax_errors() {
            self.error(at, what, instead);
        }
    }

    /// A syntax error itself, which `add` would otherwise silence.
    pub fn syntax(&self, at: &Spot, what: impl Into<String>, instead: impl Into<String>) {
        self.push(at, Severity::Error, what.into(), instead.into());
    }

    pub fn error_count(&self) -> usize {
        self.errors.get()
    }

    /// Whatever else is found will only be counted.
    pub fn is_full(&self) -> bool {
        self.found.borrow().len() >= DIAGNOSTICS_MAX
    }

    /// Counts an error or warning that nobody would read.
    pub fn leave_out(&self, severity: Severity) {
        let [errors, warnings] = &self.left_out;
        let count = match severity {
            Severity::Error => errors,
            Severity::Warning => warnings,
        };
        count.set(count.get() + 1);
    }

    /// Every finding: errors first, each group by file and position, nothing twice.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by(Diagnostic::order);
        found.dedup();
        let [errors, warnings] = self.left_out.map(Cell::into_inner);
        for (severity, count, noun) in [(Severity::Error, errors, "errors"), (Severity::Warning, warnings, "warnings")]
        {
            if let Some(last) = found.last().filter(|_| count > 0).cloned() {
                let what = format!("{count} more {noun} are left out");
                found.push(Diagnostic { severity, what, instead: String::new(), count, ..last });
            }
        }
        found.sort_by_key(|finding| finding.severity);
        found
    }

    /// What the parser made of a broken line says nothing about the operator's intention.
    fn add(&self, at: &Spot, severity: Severity, what: String, instead: String) {
        if self.is_full() || !at.source.is_broken_line(at.line()) {
            self.push(at, severity, what, instead);
        }
    }

    /// Leaves a warning out, so that there is room for an error: nobody gets on without it.
    fn gave_up_a_warning(&self) -> bool {
        let mut found = self.found.borrow_mut();
        let place = found.iter().rposition(|one| one.severity == Severity::Warning);
        let Some(place) = place else { return false };
        found.remove(place);
        self.leave_out(Severity::Warning);
        true
    }

    fn push(&self, at: &Spot, severity: Severity, what: String, instead: String) {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        if self.is_full() && !(severity == Severity::Error && self.gave_up_a_warning()) {
            return self.leave_out(severity);
        }
        self.found.borrow_mut().push(Diagnostic {
            file: at.source.path.clone(),
            line: at.line(),
            column: at.column(),
            severity,
            what,
            instead,
            count: 1,
        });
    }
}
