use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A pipe that is ready takes this much without blocking (PIPE_BUF, pipe(7)).
const PIECE: usize = 4_096;

/// How long a slow reader may hold the daemon up, once; then lines are left out until it reads on.
const PATIENCE: Duration = Duration::from_millis(100);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts the log, on standard error, at the level that `TREFOIL_LOG` says. Colours only on a
/// terminal, and not if `NO_COLOR` is set.
pub fn start(json: bool) -> Result<(), String> {
    let filter = filter(std::env::var("TREFOIL_LOG").ok().as_deref())?;
    // https://no-color.org
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Sink::new(io::stderr()))
        .with_ansi(colour)
        .with_target(false)
        .log_internal_errors(false);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder.init();
    }
    Ok(())
}

/// A level, or a list of levels for parts of the program (`info,trefoil::edge=debug`). A word that is
/// no level would be taken for a part of the program, and silence all others.
fn filter(text: Option<&str>) -> Result<EnvFilter, String> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("info");
    let understood = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.to_lowercase().as_str()));
    let filter = understood.then(|| EnvFilter::try_new(text).ok()).flatten();
    filter.ok_or_else(|| format!("TREFOIL_LOG is {text:?}, and not one of {}", LEVELS.join(", ")))
}

/// Takes log lines and never fails or waits for long: what cannot be written is lost, and how
/// much was lost is said when lines can be written again. A site must not stand still because
/// its disk is full or its terminal is stopped.
struct Sink<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    /// Lines since the last that was written.
    lost: u64,
}

impl<W: Write + AsFd> Sink<W> {
    fn new(out: W) -> Sink<W> {
        Sink { state: Mutex::new(State { out, lost: 0 }) }
    }
}

impl<W: Write + AsFd> State<W> {
    fn line(&mut self, line: &[u8]) {
        if self.lost > 0 {
            let note = format!("{} log lines were lost: they could not be written\n", self.lost);
            if self.write(note.as_bytes()).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if self.write(line).is_err() {
            self.lost += 1;
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let patience = if self.lost > 0 { Duration::ZERO } else { PATIENCE };
        for piece in text.chunks(PIECE) {
            let mut ready = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
            let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
            if poll(&mut ready, patience)? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.out.write_all(piece)?;
        }
        Ok(())
    }
}

/// Writes one event, which tracing hands over whole.
struct Line<'a, W>(&'a Sink<W>);

impl<W: Write + AsFd> Write for Line<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + AsFd + 'a> MakeWriter<'a> for Sink<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{PipeWriter, Read};
    use std::time::Instant;

    use super::*;

    fn say<W: Write + AsFd>(sink: &Sink<W>, line: &[u8]) {
        sink.make_writer().write_all(line).unwrap();
    }

    #[test]
    fn a_word_that_is_no_level_does_not_silence_the_log() {
        for good in [None, Some(""), Some("debug"), Some("WARN"), Some("info,trefoil::edge=debug")] {
            assert!(filter(good).is_ok(), "{good:?}");
        }
        let refused = filter(Some("debgu")).unwrap_err();
        assert_eq!(refused, "TREFOIL_LOG is \"debgu\", and not one of off, error, warn, info, debug, trace");
        assert!(filter(Some("info,=")).is_err() && filter(Some("a=b=c")).is_err());
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let sink = Sink::new(full);
        say(&sink, b"one\n");
        say(&sink, b"two\n");
        assert_eq!(sink.state.lock().unwrap().lost, 2);
    }

    #[test]
    fn a_reader_that_has_left_loses_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let sink = Sink::new(writer);
        say(&sink, b"one\n");
        assert_eq!(sink.state.lock().unwrap().lost, 1);
    }

    #[test]
    fn a_reader_that_has_stopped_holds_nobody_up_and_is_told_later_what_it_missed() {
        let (mut reader, writer): (_, PipeWriter) = io::pipe().unwrap();
        let sink = Sink::new(writer);
        let long = [b'x'; PIECE];
        let began = Instant::now();
        for _ in 0..100 {
            say(&sink, &long);
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let lost = sink.state.lock().unwrap().lost;
        assert!(lost > 0);
        let mut kept = vec![0; (100 - lost as usize) * PIECE];
        reader.read_exact(&mut kept).unwrap();
        say(&sink, b"here again\n");
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{lost} log lines were lost: they could not be written\nhere again\n"));
    }
}
