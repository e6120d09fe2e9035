use std::io::{self, IsTerminal, Write};

use super::report::report;
use super::summary::Summary;
use super::table::{Ink, Table};
use super::watch::Note;

/// Where a run is shown. Once the reader has gone away, nothing more is written and the run goes
/// on to its end; any other failure to write is kept for `poll_failure`.
pub struct Screen {
    view: View,
    out: Box<dyn Write + Send>,
    ink: Ink,
    /// The table that stands at the bottom of the terminal.
    standing: Vec<String>,
    gone: bool,
    failure: Option<io::Error>,
}

/// How much is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// A table that is drawn anew each second; events scroll by above it.
    Table,
    /// Events, and one line a second.
    Lines,
    /// Events only.
    Headless,
    /// Events on standard error; one document on standard output at the end.
    Json,
}

const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

impl Screen {
    /// The view for these switches: a table only where there is a terminal to draw it on.
    pub fn open(headless: bool, json: bool) -> Screen {
        let terminal = io::stdout().is_terminal();
        let view = match (json, headless, terminal) {
            (true, _, _) => View::Json,
            (false, true, _) => View::Headless,
            (false, false, true) => View::Table,
            (false, false, false) => View::Lines,
        };
        // https://no-color.org
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let ink = if view == View::Table && colour { Ink::Colour } else { Ink::Plain };
        let out: Box<dyn Write + Send> =
            if view == View::Json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Screen::on(out, view, ink)
    }

    fn on(out: Box<dyn Write + Send>, view: View, ink: Ink) -> Screen {
        Screen { view, out, ink, standing: Vec::new(), gone: false, failure: None }
    }

    pub fn note(&mut self, note: &Note) {
        let line = format!("{:6.1} s  {}\n", note.at.as_nanos() as f64 / 1e9, note.text);
        let (erase, table) = (self.erase(), self.draw());
        self.write(&format!("{erase}{line}{table}"));
    }

    /// Once a second.
    pub fn refresh(&mut self, table: &Table) {
        match self.view {
            View::Table => {
                let erase = self.erase();
                self.standing = table.lines(self.ink);
                let table = self.draw();
                self.write(&format!("{erase}{table}"));
            }
            View::Lines => self.write(&format!("{}\n", table.line())),
            View::Headless | View::Json => {}
        }
    }

    /// The closing summary.
    pub fn finish(&mut self, summary: &Summary) {
        // The last table stays.
        self.standing.clear();
        match self.view {
            View::Table | View::Lines | View::Headless => self.write(&format!("{}\n", report(summary).trim_end())),
            View::Json => match serde_json::to_string_pretty(summary) {
                Ok(document) => {
                    self.out = Box::new(io::stdout());
                    // Whether the events could be shown says nothing of the document.
                    (self.gone, self.failure) = (false, None);
                    self.write(&format!("{document}\n"));
                }
                Err(error) => self.write(&format!("trefoil: {error}\n")),
            },
        }
    }

    /// Why nothing more is shown, once, if not because the reader has gone away.
    pub fn poll_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// What takes the standing table away.
    fn erase(&self) -> String {
        match self.standing.len() {
            0 => String::new(),
            lines => format!("\x1b[{}A\x1b[J", lines + 1),
        }
    }

    /// What draws it, below an empty line.
    fn draw(&self) -> String {
        match self.standing.len() {
            0 => String::new(),
            // A line that wraps would spoil the count.
            _ => format!("{NO_WRAP}\n{}\n{WRAP}", self.standing.join("\n")),
        }
    }

    fn write(&mut self, text: &str) {
        if self.gone {
            return;
        }
        if let Err(error) = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            self.gone = true;
            self.failure = Some(error).filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;

    use super::super::samples;
    use super::*;
    use crate::model::Moment;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        }
    }

    fn shown(view: View) -> String {
        let paper = Paper::default();
        let mut screen = Screen::on(Box::new(paper.clone()), view, Ink::Plain);
        let status = samples::status(crate::model::Role::Primary, ["healthy"; 3]);
        let table = Table {
            elapsed: Duration::from_secs(2),
            total: Duration::from_secs(60),
            act: "fibre brownout",
            status: &status,
            rates: &[],
            traffic: None,
        };
        screen.refresh(&table);
        screen.note(&Note { at: Moment::from_millis(2345), text: "voice moved".into() });
        paper.text()
    }

    #[test]
    fn an_event_scrolls_by_above_the_table() {
        let text = shown(View::Table);
        let table = "traffic goes to the primary PoP (Frankfurt)";
        // Two headings and six tunnels, below an empty line.
        let (before, after) = text.split_once("\x1b[9A\x1b[J   2.3 s  voice moved\n").expect("erased and written");
        assert!(before.contains(table) && after.contains(table));
        assert_eq!(before.matches('\n').count(), 9);
    }

    #[test]
    fn without_a_terminal_a_second_is_a_line() {
        let text = shown(View::Lines);
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("   2.0 s  primary: fibre healthy"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_and_a_reader_that_has_gone_is_not() {
        let failure = |kind| {
            let mut screen = Screen::on(Box::new(Broken(kind)), View::Headless, Ink::Plain);
            screen.note(&Note { at: Moment::ZERO, text: "voice moved".into() });
            screen.poll_failure().map(|error| error.kind())
        };
        assert_eq!(failure(io::ErrorKind::StorageFull), Some(io::ErrorKind::StorageFull));
        assert_eq!(failure(io::ErrorKind::BrokenPipe), None);
    }

    #[test]
    fn headless_shows_events_only() {
        assert_eq!(shown(View::Headless), "   2.3 s  voice moved\n");
    }
}
