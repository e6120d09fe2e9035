use std::io::{self, Write};
use std::process::ExitCode;

/// What a verb writes to standard output, in one go at its end. `code` is what the verb found out
/// and stays the exit code if the reader has left (`| head`): who leaves has seen enough. What
/// cannot be written for another reason, such as a full disk, is an error.
pub fn finish(text: &str, code: ExitCode) -> ExitCode {
    finish_on(&mut io::stdout().lock(), text, code)
}

fn finish_on(out: &mut impl Write, text: &str, code: ExitCode) -> ExitCode {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

/// A text that others have written, on one line and without anything that a terminal obeys.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// Why a verb did not do what it was told.
pub fn fail(reason: &str) -> ExitCode {
    complain(&format!("trefoil: {reason}"));
    ExitCode::FAILURE
}

/// One line to standard error. Where that cannot be written either, only the exit code tells.
pub fn complain(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_reader_that_has_left_changes_nothing_and_a_full_disk_is_a_failure() {
        let code = ExitCode::from(7);
        assert_eq!(finish_on(&mut Broken(io::ErrorKind::BrokenPipe), "text", code), code);
        assert_eq!(finish_on(&mut Broken(io::ErrorKind::StorageFull), "text", code), ExitCode::FAILURE);
    }
}
