use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Request, Response};

/// The daemon answers at once; this only keeps a client from hanging on a stopped one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A status of thousands of tunnels stays well below.
const ANSWER_LIMIT: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no trefoil daemon is running: nothing listens at {} (start one with `trefoil run --config SITE.toml`, or name its socket with --socket)", path.display())]
    NoDaemon { path: PathBuf },
    #[error("{} is not a socket (name the daemon's with --socket)", path.display())]
    NotASocket { path: PathBuf },
    #[error("not allowed to ask the daemon at {}: run as the user that started it", path.display())]
    NotAllowed { path: PathBuf },
    #[error("the daemon at {} does not answer: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the daemon's answer is not understood (is it of another version?): {0}")]
    Answer(#[from] serde_json::Error),
}

/// Asks the daemon one question.
pub fn ask(socket: &Path, request: Request) -> Result<Response, ClientError> {
    ask_within(socket, request, PATIENCE)
}

pub(super) fn ask_within(socket: &Path, request: Request, patience: Duration) -> Result<Response, ClientError> {
    let path = || socket.to_owned();
    // The system says of any other file that nobody listens there.
    if std::fs::metadata(socket).is_ok_and(|facts| !facts.file_type().is_socket()) {
        return Err(ClientError::NotASocket { path: path() });
    }
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { path: path() },
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path: path() },
        _ => ClientError::Io { path: path(), source },
    })?;
    let mut talk = || -> io::Result<String> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        let read = BufReader::new((&mut stream).take(ANSWER_LIMIT)).read_line(&mut answer)?;
        // It hangs up when it stops.
        if read == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(answer) }
    };
    let answer = talk().map_err(|source| ClientError::Io { path: path(), source: in_words(source, patience) })?;
    Ok(serde_json::from_str(&answer)?)
}

/// The system calls a time-out "Resource temporarily unavailable".
fn in_words(error: io::Error, patience: Duration) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {patience:?}"))
        }
        _ => error,
    }
}
