use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::SaId;
use super::session::State;
use crate::model::{Moment, PathId};

/// 65,536 IKE SAs, half open and lingering ones included: 100 MiB at most.
pub const SESSIONS_MAX: usize = 65_536;

/// Every IKE SA, found by its number, by the SPI in a message, or by its next timeout. The one
/// whose step is under way is not in it.
#[derive(Default)]
pub struct Table {
    sessions: BTreeMap<SaId, Session>,
    by_spi: BTreeMap<u64, SaId>,
    /// Half-open ones by the initiator's SPI and address: a repeated IKE_SA_INIT.
    by_request: BTreeMap<(u64, SocketAddr), SaId>,
    half_open: usize,
    /// How many of them each address has; never zero.
    half_open_from: BTreeMap<IpAddr, usize>,
    timers: BTreeSet<(Moment, SaId)>,
    live: BTreeSet<(PathId, SaId)>,
    last_id: u64,
}

struct Session {
    state: State,
    local_spis: Vec<u64>,
    timer: Option<Moment>,
    live_on: Option<PathId>,
}

impl Table {
    /// A number that was never used before.
    pub fn new_id(&mut self) -> SaId {
        self.last_id = self.last_id.saturating_add(1);
        SaId(self.last_id)
    }

    pub fn is_full(&self) -> bool {
        self.sessions.len() >= SESSIONS_MAX
    }

    pub fn half_open(&self) -> usize {
        self.half_open
    }

    pub fn half_open_from(&self, address: IpAddr) -> usize {
        self.half_open_from.get(&address).copied().unwrap_or(0)
    }

    pub fn has_live(&self, path: PathId) -> bool {
        self.live_of(path).next().is_some()
    }

    pub fn live_of(&self, path: PathId) -> impl Iterator<Item = SaId> {
        self.live.range((path, SaId(0))..=(path, SaId(u64::MAX))).map(|(_, id)| *id)
    }

    pub fn id_of_spi(&self, spi: u64) -> Option<SaId> {
        self.by_spi.get(&spi).copied()
    }

    /// The half-open IKE SA that an IKE_SA_INIT request has made, byte for byte the same.
    pub fn repeated_request(&self, spi: u64, remote: SocketAddr, datagram: &[u8]) -> Option<&[u8]> {
        let session = self.sessions.get(self.by_request.get(&(spi, remote))?)?;
        match &session.state {
            State::HalfOpen(half_open) if half_open.their_message == datagram => Some(&half_open.our_message),
            State::HalfOpen(_)
            | State::Connecting(_)
            | State::Authenticating(_)
            | State::Established(_)
            | State::Lingering(_) => None,
        }
    }

    pub fn next_timeout(&self) -> Option<(Moment, SaId)> {
        self.timers.first().copied()
    }

    pub fn get(&self, id: SaId) -> Option<&State> {
        self.sessions.get(&id).map(|session| &session.state)
    }

    /// Takes one out for a step.
    pub fn take(&mut self, id: SaId) -> Option<State> {
        let session = self.sessions.remove(&id)?;
        for spi in &session.local_spis {
            self.by_spi.remove(spi);
        }
        if let Some(timer) = session.timer {
            self.timers.remove(&(timer, id));
        }
        if let Some(address) = session.state.half_open_from() {
            self.half_open = self.half_open.saturating_sub(1);
            match self.half_open_from(address) {
                0 | 1 => self.half_open_from.remove(&address),
                more => self.half_open_from.insert(address, more - 1),
            };
        }
        if let State::HalfOpen(half_open) = &session.state {
            let key = (half_open.sa.spis.initiator, half_open.remote);
            if self.by_request.get(&key) == Some(&id) {
                self.by_request.remove(&key);
            }
        }
        if let Some(path) = session.live_on {
            self.live.remove(&(path, id));
        }
        Some(session.state)
    }

    /// Puts one in, or back after its step.
    pub fn put(&mut self, id: SaId, state: State) {
        let local_spis = state.local_spis();
        for spi in &local_spis {
            self.by_spi.insert(*spi, id);
        }
        let timer = state.poll_timeout();
        if let Some(timer) = timer {
            self.timers.insert((timer, id));
        }
        if let Some(address) = state.half_open_from() {
            self.half_open = self.half_open.saturating_add(1);
            self.half_open_from.insert(address, self.half_open_from(address) + 1);
        }
        if let State::HalfOpen(half_open) = &state {
            self.by_request.insert((half_open.sa.spis.initiator, half_open.remote), id);
        }
        let live_on = state.live_path();
        if let Some(path) = live_on {
            self.live.insert((path, id));
        }
        self.sessions.insert(id, Session { state, local_spis, timer, live_on });
    }
}
