use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::host::Host;
use crate::model::Moment;

/// Long TCP sessions with a few bytes now and then, each of which is echoed: terminals, message
/// queues, database connections. What counts is that none of them breaks.
pub struct Sessions {
    host: Host,
    server: (Ipv4Addr, u16),
    sessions: Vec<Session>,
    /// Sessions that broke and had to be opened anew.
    pub broken: u64,
}

struct Session {
    socket: SocketHandle,
    next: Moment,
}

const INTERVAL: Duration = Duration::from_millis(500);
const MESSAGE: [u8; 80] = [b'.'; 80];
pub const SESSION_BUFFER: usize = 4 * 1024;

impl Sessions {
    pub fn new(mut host: Host, server: (Ipv4Addr, u16), count: u16, start: Moment) -> Sessions {
        let sessions = (0..count).map(|number| Session {
            socket: host.connect(server, SESSION_BUFFER),
            next: start + INTERVAL * u32::from(number) / u32::from(count),
        });
        let sessions = sessions.collect();
        Sessions { host, server, sessions, broken: 0 }
    }

    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        self.host.handle_timeout(now);
        for session in &mut self.sessions {
            let connection = self.host.socket(session.socket);
            while connection.can_recv() {
                // What was said comes back; only its coming matters.
                let _echoed = connection.recv(|bytes| (bytes.len(), ()));
            }
            if session.next <= now {
                session.next = now + INTERVAL;
                if connection.can_send() {
                    // During an outage the buffer fills, and what does not fit is not said.
                    let _accepted = connection.send_slice(&MESSAGE);
                }
            }
            if matches!(connection.state(), State::Closed | State::CloseWait | State::TimeWait) {
                self.broken += 1;
                self.host.remove(session.socket);
                session.socket = self.host.connect(self.server, SESSION_BUFFER);
            }
        }
        self.host.handle_timeout(now);
    }

    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    /// How many are connected.
    pub fn connected(&mut self) -> usize {
        let host = &mut self.host;
        self.sessions.iter().filter(|session| host.socket(session.socket).state() == State::Established).count()
    }
}
