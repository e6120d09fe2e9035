use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// So long every client is waited for, however many come.
const GRACE: Duration = Duration::from_millis(50);

/// Clients that the daemon waits for: to say something, or to take an answer. When there are too many clients, the one that
/// has been waited for longest makes room.
#[derive(Debug, Default)]
pub(super) struct Lounge {
    waited_for: Mutex<WaitedFor>,
}

/// By when their waits began; who drops a client's sender lets it go.
#[derive(Debug, Default)]
struct WaitedFor {
    next: u64,
    clients: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

impl Lounge {
    /// Waits for a client, but no longer than that, nor when its place is needed.
    pub async fn wait<T>(&self, patience: Duration, client: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let (place, mut taken) = oneshot::channel();
        let number = self.with(|waited_for| {
            let number = waited_for.next;
            waited_for.next += 1;
            waited_for.clients.insert(number, (Instant::now(), place));
            number
        });
        let outcome = tokio::select! {
            // What it has said already counts.
            biased;
            outcome = timeout(patience, client) => outcome.unwrap_or_else(|late| Err(late.into())),
            _ = &mut taken => Err(io::Error::other("its place was needed")),
        };
        self.with(|waited_for| waited_for.clients.remove(&number));
        outcome
    }

    /// Lets the client go that has been waited for longest, if that is long enough.
    pub fn make_room(&self) {
        self.with(|waited_for| {
            if let Some(first) = waited_for.clients.first_entry().filter(|first| first.get().0.elapsed() >= GRACE) {
                first.remove();
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut WaitedFor) -> T) -> T {
        act(&mut self.waited_for.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
