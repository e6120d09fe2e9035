use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::host::Host;
use crate::model::{Chance, Moment};

/// People at their browsers: each opens a connection, asks for a page, reads it, closes, thinks
/// a moment and starts over.
pub struct WebClients {
    host: Host,
    server: (Ipv4Addr, u16),
    clients: Vec<Client>,
    /// Connections that only wait for their end.
    closing: Vec<(SocketHandle, Moment)>,
    visits: Vec<Visit>,
    chance: Chance,
}

enum Client {
    Thinking { until: Moment },
    Loading { socket: SocketHandle, since: Moment, asked: bool, missing: usize },
}

/// A page load that has ended.
#[derive(Clone, Copy, Debug)]
struct Visit {
    at: Moment,
    /// `None`: it failed.
    took: Option<Duration>,
}

/// Page loads of a stretch of time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WebTally {
    pub completed: u64,
    pub failed: u64,
    pub median: Option<Duration>,
    /// 95 of 100 were faster.
    pub slow: Option<Duration>,
}

/// A request is the size of the page, followed by what browsers say about themselves.
const REQUEST: usize = 240;
const SMALLEST_PAGE: u32 = 4_000;
const LARGEST_PAGE: u32 = 24_000;
const LONGEST_THOUGHT_MS: u32 = 500;
/// Nobody waits longer for a page.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an orderly end may take before the connection is forgotten.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// The largest page fits: its loading time is not a matter of windows.
pub const WEB_BUFFER: usize = 32 * 1024;
/// Two hours of page loads of a dozen clients.
const VISIT_LIMIT: usize = 500_000;

impl WebClients {
    pub fn new(host: Host, server: (Ipv4Addr, u16), clients: u16, start: Moment, mut chance: Chance) -> WebClients {
        let begin = |chance: &mut Chance| Client::Thinking { until: start + thought(chance) };
        let clients = (0..clients).map(|_| begin(&mut chance)).collect();
        WebClients { host, server, clients, closing: Vec::new(), visits: Vec::new(), chance }
    }

    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        self.host.handle_timeout(now);
        for index in 0..self.clients.len() {
            self.advance(index, now);
        }
        self.closing.retain(|(socket, until)| {
            let over = matches!(self.host.socket(*socket).state(), State::TimeWait | State::Closed);
            if over || now >= *until {
                self.host.remove(*socket);
            }
            !over && now < *until
        });
        self.host.handle_timeout(now);
    }

    /// Page loads that ended from `from` until `until`.
    pub fn tally(&self, from: Moment, until: Moment) -> WebTally {
        let first = self.visits.partition_point(|visit| visit.at < from);
        let stretch = self.visits.iter().skip(first).take_while(|visit| visit.at < until);
        let mut tally = WebTally::default();
        let mut times = Vec::new();
        for visit in stretch {
            match visit.took {
                Some(took) => times.push(took),
                None => tally.failed += 1,
            }
        }
        times.sort_unstable();
        tally.completed = times.len() as u64;
        tally.median = times.get(times.len() / 2).copied();
        tally.slow = times.get(times.len() * 95 / 100).copied();
        tally
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    fn advance(&mut self, index: usize, now: Moment) {
        let Some(client) = self.clients.get_mut(index) else { return };
        match client {
            Client::Thinking { until } => {
                if *until <= now {
                    let page = SMALLEST_PAGE + self.chance.below(LARGEST_PAGE - SMALLEST_PAGE);
                    let socket = self.host.connect(self.server, WEB_BUFFER);
                    *client = Client::Loading { socket, since: now, asked: false, missing: page as usize };
                }
            }
            Client::Loading { socket, since, asked, missing } => {
                let connection = self.host.socket(*socket);
                if !*asked && connection.can_send() {
                    let mut request = [b' '; REQUEST];
                    request[..4].copy_from_slice(&(*missing as u32).to_be_bytes());
                    *asked = connection.send_slice(&request) == Ok(REQUEST);
                }
                while connection.can_recv() {
                    let taken = connection.recv(|bytes| (bytes.len(), bytes.len())).unwrap_or(0);
                    *missing = missing.saturating_sub(taken);
                }
                let took = if *missing == 0 {
                    connection.close();
                    Some(now.since(*since))
                } else if connection.state() == State::Closed || now.since(*since) > PATIENCE {
                    connection.abort();
                    None
                } else {
                    return;
                };
                self.closing.push((*socket, now + CLOSING_TIME));
                if self.visits.len() < VISIT_LIMIT {
                    self.visits.push(Visit { at: now, took });
                }
                *client = Client::Thinking { until: now + thought(&mut self.chance) };
            }
        }
    }
}

fn thought(chance: &mut Chance) -> Duration {
    Duration::from_millis(chance.below(LONGEST_THOUGHT_MS).into())
}
