use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::lounge::Lounge;
use super::{Call, Request, Response};

/// Clients at a time. An operator has a few at most, but some may stay and say nothing: of more, the one that has been
/// waited for longest is let go.
const CLIENTS: usize = 256;

/// A request is one short line.
const REQUEST_LIMIT: u64 = 4_096;

/// Between two looks for a client that can make room.
const ROOM_PAUSE: Duration = Duration::from_millis(2);

/// A client that says nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(3);

/// Listens on the control socket. The file is removed when the server is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another trefoil daemon already listens at {}; stop it first, or give this site another [control] socket", .0.display())]
    InUse(PathBuf),
    #[error("{} exists and is not a socket; remove it, or give this site another [control] socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen at {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Server {
    /// Must run inside a tokio runtime. Only the owner may connect.
    pub fn bind(path: &Path) -> Result<Server, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Server { path: path.to_owned(), listener })
    }

    /// Answers clients for ever; a request that the control loop does not take is refused.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let (places, lounge) = (Arc::new(Semaphore::new(CLIENTS)), Arc::new(Lounge::default()));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let place = place(&places, &lounge).await;
                    let (calls, lounge) = (calls.clone(), lounge.clone());
                    tokio::spawn(async move {
                        if let Err(error) = attend(stream, &lounge, calls).await {
                            tracing::debug!(%error, "a control client left");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A socket that an ended daemon left behind goes; one that somebody listens on stays.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(BindError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)
            }
            // Somebody may listen there, in another way or for other users.
            Err(error) => Err(failed(error)),
        },
    }
}

/// A place for a client that has come.
async fn place(places: &Arc<Semaphore>, lounge: &Lounge) -> OwnedSemaphorePermit {
    loop {
        if places.available_permits() == 0 {
            lounge.make_room();
        }
        // Whoever was let go leaves at once. Where nobody could be, all are being answered, or have just come.
        if let Ok(Ok(place)) = timeout(ROOM_PAUSE, places.clone().acquire_owned()).await {
            return place;
        }
    }
}

async fn attend(stream: UnixStream, lounge: &Lounge, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST_LIMIT);
        let read = lounge.wait(PATIENCE, limited.read_until(b'\n', &mut line)).await?;
        if read == 0 {
            return Ok(());
        }
        let response = answer(&line, &calls).await;
        let mut bytes = serde_json::to_vec(&response)?;
        bytes.push(b'\n');
        lounge.wait(PATIENCE, writer.write_all(&bytes)).await?;
        if !line.ends_with(b"\n") {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], calls: &mpsc::Sender<Call>) -> Response {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return Response::Refused { reason: format!("not a request: {error}") },
    };
    let (reply, response) = oneshot::channel();
    let stopping = || Response::Refused { reason: "the daemon is stopping".to_owned() };
    match calls.send(Call { request, reply }).await {
        Ok(()) => response.await.unwrap_or_else(|_| stopping()),
        Err(_) => stopping(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ClientError, ask};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    fn socket() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control.sock");
        (folder, path)
    }

    fn serve(runtime: &tokio::runtime::Runtime, path: &Path) {
        let (calls, mut inbox) = mpsc::channel::<Call>(4);
        let server = runtime.block_on(async { Server::bind(path) }).unwrap();
        runtime.spawn(server.serve(calls));
        runtime.spawn(async move {
            while let Some(call) = inbox.recv().await {
                let _ = call.reply.send(Response::Refused { reason: format!("{:?} reached control", call.request) });
            }
        });
    }

    #[test]
    fn a_request_reaches_control_and_its_answer_the_client() {
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        let answer = ask(&path, Request::Status {}).unwrap();
        assert_eq!(answer, Response::Refused { reason: "Status reached control".to_owned() });
    }

    #[test]
    fn what_is_not_a_request_is_refused_and_the_next_one_is_answered() {
        use std::io::{BufRead, BufReader, Write};
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let wrong: [&[u8]; 3] = [b"{\"request\":\"dance\"}", b"{\"request\":\"status\",\"x\":1}", b"\xff\xfe"];
        for line in wrong {
            stream.write_all(line).unwrap();
            stream.write_all(b"\n").unwrap();
        }
        stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        for _ in wrong {
            assert!(lines.next().unwrap().unwrap().contains("not a request"));
        }
        assert!(lines.next().unwrap().unwrap().contains("reached control"));
    }

    #[test]
    fn a_second_daemon_is_refused_and_a_stale_socket_is_replaced() {
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        let second = runtime.block_on(async { Server::bind(&path) });
        assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
        drop(runtime);
        let stale = std::os::unix::net::UnixListener::bind(path.with_extension("stale")).unwrap();
        drop(stale);
        let runtime = super::tests::runtime();
        serve(&runtime, &path.with_extension("stale"));
        assert!(ask(&path.with_extension("stale"), Request::Status {}).is_ok());
    }

    #[test]
    fn a_socket_of_another_kind_that_somebody_listens_on_stays() {
        let (_folder, path) = socket();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let theirs = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let refused = runtime().block_on(async { Server::bind(&path) });
        assert!(matches!(refused, Err(BindError::Io { .. })), "{refused:?}");
        let us = std::os::unix::net::UnixDatagram::unbound().unwrap();
        us.send_to(b"still there", &path).unwrap();
        assert_eq!(theirs.recv(&mut [0; 32]).unwrap(), 11);
    }

    #[test]
    fn only_the_owner_may_connect() {
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// What the daemon answers to these bytes, up to its closing the connection.
    fn answers_to(path: &Path, bytes: &[u8]) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        // The daemon may close before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers);
        String::from_utf8(answers).unwrap()
    }

    #[test]
    fn hostile_requests_are_refused_with_a_reason() {
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        for request in [
            &b"\xff\xfe\n"[..],
            b"\n",
            b"{\"request\":\"status\",\"for\":\"me\"}\n",
            b"{\"request\":\"status\"",
            &[b'x'; 5_000],
            "[".repeat(4_000).as_bytes(),
        ] {
            let answers = answers_to(&path, request);
            assert!(answers.starts_with(r#"{"answer":"refused","reason":"not a request: "#), "{answers}");
            assert_eq!(answers.lines().count(), 1, "{answers}");
        }
        // The last line needs no end.
        assert!(answers_to(&path, b"{\"request\":\"status\"}").contains("reached control"));
        assert!(ask(&path, Request::Status {}).is_ok());
    }

    /// So many clients, each of which has said the beginning of this.
    fn silent(path: &Path, clients: usize, begun: &[u8]) -> Vec<std::os::unix::net::UnixStream> {
        use std::io::Write;
        let connect = |_| {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            stream.write_all(begun).unwrap();
            stream
        };
        (0..clients).map(connect).collect()
    }

    #[test]
    fn clients_that_say_nothing_keep_nobody_waiting() {
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        for (clients, begun) in [(40, &b""[..]), (CLIENTS, b""), (CLIENTS + 50, b"{\"requ"), (2 * CLIENTS, b"")] {
            let _silent = silent(&path, clients, begun);
            for _ in 0..5 {
                let answer = super::super::client::ask_within(&path, Request::Status {}, PATIENCE * 3 / 4);
                assert!(answer.is_ok(), "beside {clients}: {answer:?}");
            }
        }
    }

    #[test]
    fn a_client_that_takes_no_answer_keeps_nobody_waiting() {
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        // Far more than the socket holds of answers.
        let questions = b"{\"request\":\"status\"}\n".repeat(100);
        let deaf = silent(&path, CLIENTS, &questions);
        for stream in &deaf {
            stream.set_nonblocking(true).unwrap();
            while std::io::Write::write(&mut &*stream, &questions).is_ok() {}
        }
        let answer = super::super::client::ask_within(&path, Request::Status {}, PATIENCE * 3 / 4);
        assert!(answer.is_ok(), "{answer:?}");
    }

    #[test]
    fn of_too_many_clients_the_longest_silent_one_goes_and_one_that_asks_stays() {
        use std::io::{BufRead, BufReader, Read, Write};
        let (runtime, (_folder, path)) = (runtime(), socket());
        serve(&runtime, &path);
        let mut first = silent(&path, 1, b"").remove(0);
        let mut operator = silent(&path, 1, b"").remove(0);
        let mut answers = BufReader::new(operator.try_clone().unwrap()).lines();
        let mut ask = || {
            operator.write_all(b"{\"request\":\"status\"}\n").unwrap();
            answers.next().unwrap().unwrap()
        };
        ask();
        let mut others = silent(&path, CLIENTS - 2, b"");
        ask();
        others.extend(silent(&path, 1, b""));
        first.set_read_timeout(Some(PATIENCE * 3 / 4)).unwrap();
        assert_eq!(first.read(&mut [0; 8]).unwrap(), 0, "the first was let go at once");
        assert!(ask().contains("reached control"));
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_given_up_in_plain_words() {
        let (_folder, path) = socket();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = super::super::client::ask_within(&path, Request::Status {}, Duration::from_millis(200));
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("the daemon at {} does not answer: nothing came within 200ms", path.display())
        );
    }

    #[test]
    fn a_daemon_that_hangs_up_without_a_word_is_not_of_another_version() {
        let (_folder, path) = socket();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let hanging_up = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            std::io::Read::read(&mut stream, &mut [0; 100]).unwrap()
        });
        let error = ask(&path, Request::Status {}).unwrap_err();
        hanging_up.join().unwrap();
        assert!(matches!(error, ClientError::Io { .. }), "{error}");
    }

    #[test]
    fn another_file_is_not_taken_for_a_socket_of_a_daemon_that_has_ended() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = ask(file.path(), Request::Status {}).unwrap_err();
        assert!(matches!(error, ClientError::NotASocket { .. }), "{error}");
    }

    #[test]
    fn without_a_daemon_the_client_says_so() {
        let (_folder, path) = socket();
        let error = ask(&path, Request::Status {}).unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    }
}
