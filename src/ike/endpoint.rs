use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, trace};

use super::context::Context;
use super::cookie::CookieJar;
use super::ike_sa::Input;
use super::initiator_init::{AwaitingInit, Origin};
use super::outbox::Outbox;
use super::responder_init::{self, Reception};
use super::session::State;
use super::spi_pool::SpiPool;
use super::table::Table;
use super::wire::{Exchange, Header, Message};
use super::{Asked, CloseReason, Event, Peer, Phase1, SaId};
use crate::model::{Chance, Leg, Moment, PathId, Spi};

/// 1,024 IKE SAs are served in one `handle_timeout`, so that it never takes long; the rest stay
/// due.
const TIMEOUTS_MAX: usize = 1024;

/// 64 half-open IKE SAs of one address: as many sites as call at once from behind one NAT. Beyond
/// it, IKE_SA_INIT from there is not answered, so that one host cannot keep all others out.
const HALF_OPEN_PER_ADDRESS: usize = 64;

/// 16 half-open IKE SAs of one address, the tunnels of a large site, beyond which an initiator there
/// must return a cookie: who only pretends to the address cannot use up what its owner may have.
const COOKIE_THRESHOLD_PER_ADDRESS: usize = 16;

#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Places in the inbound SA table. Place 0 is not used, so a Child SA needs at least 2.
    pub inbound_slots: u16,
    /// Report `Event::Keys`.
    pub export_keys: bool,
    /// Half-open IKE SAs beyond which an initiator must return a cookie first.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs beyond which IKE_SA_INIT is not answered.
    pub half_open_limit: usize,
}

/// The same way over the plain IKE sockets and over the NAT-traversal sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Legs {
    pub ike: Leg,
    pub natt: Leg,
}

/// Every IKE SA of a site. Call a `handle_*` or a verb, then drain `poll_event` first (an SA must
/// be installed before the datagram goes out that makes the peer use it), then `poll_transmit`,
/// then ask `poll_timeout` when to call `handle_timeout`.
pub struct Endpoint {
    options: EndpointOptions,
    chance: Chance,
    peers: BTreeMap<PathId, Arc<Peer>>,
    /// The distinct phase 1 profiles of `peers`, in order of their paths.
    profiles: Vec<Arc<Phase1>>,
    cookies: CookieJar,
    spis: SpiPool,
    table: Table,
    outbox: Outbox,
}

impl Endpoint {
    pub fn new(options: EndpointOptions, mut chance: Chance) -> Endpoint {
        Endpoint {
            peers: BTreeMap::new(),
            profiles: Vec::new(),
            cookies: CookieJar::new(&mut chance),
            spis: SpiPool::new(options.inbound_slots),
            table: Table::default(),
            outbox: Outbox::default(),
            options,
            chance,
        }
    }

    /// Adds or replaces a peer; live IKE SAs keep what they have.
    pub fn set_peer(&mut self, path: PathId, peer: Arc<Peer>) {
        self.peers.insert(path, peer);
        self.collect_profiles();
    }

    pub fn remove_peer(&mut self, path: PathId) {
        self.peers.remove(&path);
        self.collect_profiles();
    }

    /// An IKE message without the non-ESP marker, as it came over `leg`.
    pub fn handle_datagram(&mut self, leg: Leg, bytes: &[u8], now: Moment) {
        if self.outbox.is_full() {
            return;
        }
        let header = match Header::decode(bytes) {
            Ok((header, _)) => header,
            Err(error) => return trace!(remote = %leg.remote, %error, "not an IKE message"),
        };
        let opens = header.exchange == Exchange::IkeSaInit && !header.response;
        if opens {
            // RFC 7296 3.1: only the first request has no responder SPI, and message ID 0.
            if header.from_initiator && header.responder_spi == 0 && header.message_id == 0 {
                self.handle_opening(leg, bytes, now);
            }
            return;
        }
        let local = if header.from_initiator { header.responder_spi } else { header.initiator_spi };
        // RFC 7296 1.5 would let us answer INVALID_IKE_SPI; silence helps no one to guess.
        let Some(id) = self.table.id_of_spi(local) else {
            return trace!(remote = %leg.remote, "no IKE SA with this SPI");
        };
        match Message::decode(bytes) {
            Ok(message) => {
                let input = Input { leg, datagram: bytes, message };
                self.step(id, now, |state, context| state.handle_message(&input, context));
            }
            Err(error) => debug!(remote = %leg.remote, %error, "malformed IKE message"),
        }
    }

    /// Does all that is due at `now`.
    pub fn handle_timeout(&mut self, now: Moment) {
        for _ in 0..TIMEOUTS_MAX {
            if self.outbox.is_full() {
                return;
            }
            let Some((_, id)) = self.table.next_timeout().filter(|(due, _)| *due <= now) else { return };
            self.step(id, now, State::handle_timeout);
        }
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.table.next_timeout().map(|(due, _)| due)
    }

    /// The next datagram, without the non-ESP marker: the sender adds it on a NAT-traversal leg.
    pub fn poll_transmit(&mut self) -> Option<(Leg, Vec<u8>)> {
        self.outbox.poll_transmit()
    }

    pub fn poll_event(&mut self) -> Option<(PathId, SaId, Event)> {
        self.outbox.poll_event()
    }

    /// Starts to set up an IKE SA with its first Child SA; `None` when the path has no peer or
    /// there are too many IKE SAs. It ends in `Event::Closed` if it comes to nothing.
    pub fn initiate(&mut self, path: PathId, legs: Legs, now: Moment) -> Option<SaId> {
        let peer = self.peers.get(&path)?.clone();
        if self.table.is_full() {
            return None;
        }
        let id = self.table.new_id();
        let origin = Origin { id, path, peer, legs };
        if let Some(state) = AwaitingInit::start(origin, &mut self.context(id, now)) {
            self.table.put(id, state);
        }
        Some(id)
    }

    /// How often IKE_SA_INIT has been sent to a peer that has not answered it; `None` for an IKE SA that is further.
    pub fn unanswered_requests(&self, sa: SaId) -> Option<u32> {
        match self.table.get(sa)? {
            State::Connecting(state) => Some(state.transmissions()),
            State::Authenticating(_) | State::HalfOpen(_) | State::Established(_) | State::Lingering(_) => None,
        }
    }

    /// Sends something that the peer must answer, now: the outstanding request again, byte for
    /// byte, or an empty INFORMATIONAL. `Event::Answered` tells of the answer.
    pub fn check_liveness(&mut self, sa: SaId, now: Moment) -> Asked {
        let mut asked = Asked::Nothing;
        self.step(sa, now, |mut state, context| {
            if let State::Established(established) = &mut state {
                asked = established.check_liveness(context);
            }
            Some(state)
        });
        asked
    }

    /// Rekeys the Child SA now, before its lifetime asks for it.
    pub fn rekey_child(&mut self, sa: SaId, inbound: Spi, now: Moment) {
        self.step(sa, now, |mut state, context| {
            if let State::Established(established) = &mut state {
                established.rekey_child(inbound, context);
            }
            Some(state)
        });
    }

    /// Rekeys the IKE SA now, before its lifetime asks for it.
    pub fn rekey_ike(&mut self, sa: SaId, now: Moment) {
        self.step(sa, now, |mut state, context| {
            if let State::Established(established) = &mut state {
                established.rekey_ike(context);
            }
            Some(state)
        });
    }

    /// Sends DELETE, a few times within two seconds, and then reports `Closed`. Not yet
    /// established, it ends at once.
    pub fn close(&mut self, sa: SaId, reason: &str, now: Moment) {
        let reason = CloseReason::ClosedLocally { reason: reason.to_string() };
        self.step(sa, now, |mut state, context| {
            match &mut state {
                State::Established(established) => established.close(reason, context),
                State::HalfOpen(_) | State::Lingering(_) => {}
                State::Connecting(_) | State::Authenticating(_) => {
                    state.forget(sa, reason, context);
                    return None;
                }
            }
            Some(state)
        });
    }

    /// Deletes it over another way than its own, which is dead, and then reports `Closed`: the
    /// outstanding request goes there byte for byte, since the peer takes the next one only after
    /// it, `pause` later the DELETE, three times over. No answer is needed.
    pub fn rescue(&mut self, sa: SaId, leg: Leg, pause: Duration, reason: &str, now: Moment) {
        let reason = CloseReason::ClosedLocally { reason: reason.to_string() };
        self.step(sa, now, |mut state, context| {
            if let State::Established(established) = &mut state {
                established.rescue(leg, pause, reason, context);
            }
            Some(state)
        });
    }

    /// Forgets it without a word to the peer; its Child SAs and itself are reported as ended.
    pub fn abandon(&mut self, sa: SaId, reason: &str) {
        let reason = CloseReason::ClosedLocally { reason: reason.to_string() };
        self.step(sa, Moment::ZERO, |state, context| {
            state.forget(sa, reason, context);
            None
        });
    }

    /// The data plane no longer uses this inbound SPI: its place may be used again.
    pub fn release_spi(&mut self, spi: Spi) {
        self.spis.release(spi);
    }

    fn handle_opening(&mut self, leg: Leg, bytes: &[u8], now: Moment) {
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => return debug!(remote = %leg.remote, %error, "malformed IKE_SA_INIT"),
        };
        if let Some(answer) = self.table.repeated_request(message.header.initiator_spi, leg.remote, bytes) {
            let answer = answer.to_vec();
            return self.outbox.send(leg, answer);
        }
        let half_open = self.table.half_open();
        let from_there = self.table.half_open_from(leg.remote.ip());
        let too_many = half_open >= self.options.half_open_limit || from_there >= HALF_OPEN_PER_ADDRESS;
        if too_many || self.table.is_full() || self.peers.is_empty() {
            return trace!(remote = %leg.remote, half_open, from_there, "IKE_SA_INIT not taken");
        }
        let input = Input { leg, datagram: bytes, message };
        let reception = Reception {
            profiles: &self.profiles,
            cookies: &mut self.cookies,
            demand_cookie: half_open >= self.options.cookie_threshold || from_there >= COOKIE_THRESHOLD_PER_ADDRESS,
        };
        let id = self.table.new_id();
        let mut context = Context {
            now,
            id,
            chance: &mut self.chance,
            spis: &mut self.spis,
            outbox: &mut self.outbox,
            peers: &self.peers,
            table: &mut self.table,
            export_keys: self.options.export_keys,
        };
        if let Some(state) = responder_init::answer(&input, reception, &mut context) {
            self.table.put(id, state);
        }
    }

    /// One step of one IKE SA, if it is there.
    fn step(&mut self, id: SaId, now: Moment, step: impl FnOnce(State, &mut Context<'_>) -> Option<State>) {
        let Some(state) = self.table.take(id) else { return };
        if let Some(state) = step(state, &mut self.context(id, now)) {
            self.table.put(id, state);
        }
    }

    fn context(&mut self, id: SaId, now: Moment) -> Context<'_> {
        Context {
            now,
            id,
            chance: &mut self.chance,
            spis: &mut self.spis,
            outbox: &mut self.outbox,
            peers: &self.peers,
            table: &mut self.table,
            export_keys: self.options.export_keys,
        }
    }

    fn collect_profiles(&mut self) {
        self.profiles.clear();
        for peer in self.peers.values() {
            if !self.profiles.iter().any(|known| Arc::ptr_eq(known, &peer.phase1) || **known == *peer.phase1) {
                self.profiles.push(peer.phase1.clone());
            }
        }
    }
}
