use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes whoever waits for it: an eventfd, so that it stands in the same `epoll` as sockets and
/// devices. Clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)))
    }

    /// Never waits. Ringing twice is like ringing once.
    pub fn ring(&self) {
        // It can only fail when 2^64 - 2 rings are pending, and then the bell rings anyway.
        let _ = self.0.write(1);
    }

    /// Stops the ringing. Look for work only afterwards: what is queued from now on rings again.
    pub fn clear(&self) {
        // The only error is that it does not ring.
        let _ = self.0.read();
    }

    /// Waits until it rings; `false` when `timeout` passed first. Rounded up to milliseconds.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut descriptors = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut descriptors, round_up(timeout)) {
                Ok(ready) => return ready > 0,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Up, not down: a wait that ends just before its deadline would spin until it.
pub(super) fn round_up(timeout: Duration) -> PollTimeout {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_until_it_is_cleared() {
        let bell = Bell::new().unwrap();
        assert!(!bell.wait(Duration::ZERO));
        bell.clone().ring();
        bell.ring();
        assert!(bell.wait(Duration::ZERO));
        assert!(bell.wait(Duration::ZERO));
        bell.clear();
        assert!(!bell.wait(Duration::from_micros(10)));
    }
}
