use std::sync::Arc;
use std::time::Duration;

use super::early::Early;
use super::hand_over::{Handed, HandedNote};
use super::inbound::{Arrival, Tally};
use super::limit::Limit;
use super::noting::NoteLimits;
use super::shaping::{Cargo, Part, Waiting};
use super::trains::{Note, Place, Trains};
use super::{FlowTable, HandOver, RoadIo};
use crate::esp::{OUTER_HEADERS, OutboundSa};
use crate::forward::{Forwarding, LinkFace, Notebook, PathFace, ToControl, Way, WorkerCounters};
use crate::model::{DropCounters, DropReason, Leg, Moment, PathId, WorkerId};
use crate::packet::{
    Batch, Coalescer, Ecn, Offered, Offload, Parsed, ProbeKey, SiteOffloads, SitePacket, Splitter, UNLIMITED,
    Unsplittable, clamp_mss, complete_checksum, fragment, parse, set_ecn,
};
use crate::qos::Shaper;

/// Packets taken from the site at once: short enough that the other direction never waits for
/// long, and long enough to spread what a turn costs by itself.
pub const BATCH: usize = 64;

/// Trains taken from the WAN at once: fewer, since a train may hold many packets.
pub const WAN_BATCH: usize = 32;

/// Room for a super-packet, the longest IP packet.
pub const PACKET_CAPACITY: usize = 65_536;

/// ICMP errors to the site, for each worker: every host of a large site is told within a second,
/// and nobody is flooded (RFC 1812 4.3.2.8 asks for a limit).
const ERRORS_PER_SECOND: u32 = 200;

/// Echo replies from our private addresses, for each worker.
const ECHO_REPLIES_PER_SECOND: u32 = 1_000;

/// Packets to the ports from which control asks, for each worker: some hundred tunnels that ask eight targets ten
/// times a second. What else comes there is somebody who floods us.
const INNER_ANSWERS_PER_SECOND: u32 = 10_000;
const INNER_ANSWERS_AT_ONCE: u32 = 500;

/// Messages of another Trefoil on one path: twice as many as one sends, and those of four seconds at once. Who floods us
/// spoils what is known of his own path.
const MEASURES_OF_PATH: u32 = 10;
const MEASURES_OF_PATH_AT_ONCE: u32 = 20;

/// The same of all paths together, for each worker: a thousand sites of three tunnels, once a second, twice over. Many would
/// have to flood us together to come to that.
const MEASURES_PER_SECOND: u32 = 6_000;
const MEASURES_AT_ONCE: u32 = 500;

/// DNS messages that control is shown, for each worker: an office asks some tens a second, and whoever
/// floods with them keeps control from nothing else.
const DNS_MESSAGES_PER_SECOND: u32 = 500;

/// The same kind of news of one path is told again after this time at the earliest.
const REPEAT_NEWS: Duration = Duration::from_secs(1);

/// News to tell again while control's queue is full: two of each SA in a busy turn. What is
/// beyond is lost and counted.
const MAX_KEPT_NEWS: usize = 256;

/// One turn on the packet road: what it was published, and its exits. Everything but `exits`
/// and `now` is shared with other workers.
pub(super) struct Road<'a> {
    pub worker: WorkerId,
    pub forwarding: &'a Forwarding,
    pub flows: &'a FlowTable,
    pub hand_over: &'a HandOver,
    /// For packets that belong to no path.
    pub drops: &'a DropCounters,
    /// This worker's own.
    pub counters: &'a WorkerCounters,
    pub probe_key: &'a ProbeKey,
    /// Where decisions are noted, while a flight recorder follows.
    pub notes: Option<&'a Notebook>,
    pub exits: &'a mut Exits,
    pub io: &'a mut dyn RoadIo,
    pub now: Moment,
}

/// Where packets and news leave a worker. Allocated once.
pub(super) struct Exits {
    trains: Trains,
    site: Batch<SitePacket>,
    coalescer: Coalescer,
    /// Of this turn: flows, routes and selectors may change before the next.
    pub arrival: Option<Arrival>,
    pub tally: Option<Tally>,
    pub early: Early,
    /// What waits for the links that are shaped here, and the links that it was set up for.
    pub shaper: Shaper<Waiting>,
    pub shaped: Option<Arc<[LinkFace]>>,
    /// The generation for which what waits was last looked through, and a buffer to do that with.
    pub moved_for: u64,
    pub moving: Option<SitePacket>,
    /// For what is made here, before it leaves.
    scratch: Option<SitePacket>,
    pub icmp_errors: Limit,
    pub echo_replies: Limit,
    pub inner_answers: Limit,
    measures: Limit,
    pub dns_messages: Limit,
    pub note_limits: NoteLimits,
    /// By `PathId`.
    told: Vec<Told>,
    kept_news: Vec<ToControl>,
    /// News on its way to being told again; here only to keep its memory.
    old_news: Vec<ToControl>,
}

/// When control was last told of a path, and how often.
#[derive(Clone)]
struct Told {
    send_error: Option<Moment>,
    rebind: Option<(Leg, Moment)>,
    measures: Limit,
}

impl Default for Told {
    fn default() -> Told {
        let measures = Limit::per_second(MEASURES_OF_PATH, MEASURES_OF_PATH_AT_ONCE);
        Told { send_error: None, rebind: None, measures }
    }
}

impl Exits {
    pub fn new() -> Exits {
        Exits {
            trains: Trains::new(),
            site: Batch::new(BATCH, || SitePacket::with_capacity(PACKET_CAPACITY)),
            coalescer: Coalescer::new(BATCH, false, false),
            arrival: None,
            tally: None,
            early: Early::new(),
            shaper: Shaper::default(),
            shaped: None,
            moved_for: 0,
            moving: None,
            scratch: None,
            icmp_errors: Limit::per_second(ERRORS_PER_SECOND, ERRORS_PER_SECOND),
            echo_replies: Limit::per_second(ECHO_REPLIES_PER_SECOND, ECHO_REPLIES_PER_SECOND),
            inner_answers: Limit::per_second(INNER_ANSWERS_PER_SECOND, INNER_ANSWERS_AT_ONCE),
            measures: Limit::per_second(MEASURES_PER_SECOND, MEASURES_AT_ONCE),
            note_limits: NoteLimits::default(),
            dns_messages: Limit::per_second(DNS_MESSAGES_PER_SECOND, DNS_MESSAGES_PER_SECOND),
            told: Vec::new(),
            kept_news: Vec::with_capacity(MAX_KEPT_NEWS),
            old_news: Vec::with_capacity(MAX_KEPT_NEWS),
        }
    }
}

impl<'a> Road<'a> {
    /// Begins a turn: tells again what control could not take, as far as it can now.
    pub fn begin(&mut self) {
        let Exits { trains, coalescer, arrival, told, kept_news, old_news, .. } = &mut *self.exits;
        trains.begin(self.forwarding.paths.len());
        *arrival = None;
        let SiteOffloads { tcp, udp } = self.io.site_offloads();
        coalescer.allow(tcp, udp);
        told.resize(self.forwarding.paths.len(), Told::default());
        std::mem::swap(kept_news, old_news);
        let mut old_news = std::mem::take(old_news);
        for news in old_news.drain(..) {
            self.tell_surely(news);
        }
        self.exits.old_news = old_news;
        self.set_shaper();
        self.move_waiting();
    }

    /// Lends a buffer to make a packet in.
    pub fn with_scratch<T>(&mut self, make: impl FnOnce(&mut Self, &mut SitePacket) -> T) -> T {
        let kept = self.exits.scratch.take();
        let mut packet = kept.unwrap_or_else(|| SitePacket::with_capacity(PACKET_CAPACITY));
        packet.offload = Offload::default();
        let made = make(self, &mut packet);
        self.exits.scratch = Some(packet);
        made
    }

    /// Sends a packet on exactly this way: here when this worker is the path's home, and
    /// otherwise there. Another buffer may stand in its place then.
    pub fn leave_by(
        &mut self,
        way: Way<'a>,
        packet: &mut SitePacket,
        parsed: &Parsed,
        cargo: Cargo,
    ) -> Result<(), DropReason> {
        let home = way.path.home;
        if home == self.worker || usize::from(home.0) >= self.hand_over.workers() {
            return self.send_here(way, packet, parsed, cargo);
        }
        let note = HandedNote { parsed: *parsed, path: way.path.id, child: way.child.0 as u8, cargo };
        if !self.hand_over.give(home, packet, note) {
            return Err(DropReason::QueueFull);
        }
        self.counters.handed_over();
        self.io.wake(home);
        Ok(())
    }

    /// Sends what other workers have left here, at most one batch, and tells whether there was any.
    pub fn handed(&mut self) -> bool {
        for count in 0..BATCH {
            let Some(Handed { mut packet, note }) = self.hand_over.take(self.worker) else { return count > 0 };
            self.counters.taken_over();
            // Since it was handed over, another value may have been published.
            let path = self.forwarding.path(note.path);
            let child = path.and_then(|path| path.children.get(usize::from(note.child)));
            let sent = match (path.zip(child), note.cargo) {
                (Some((path, child)), cargo) if path.usable || cargo == Cargo::Own => {
                    let way = Way { path, child: (usize::from(note.child), child) };
                    self.send_here(way, &mut packet, &note.parsed, cargo)
                }
                (_, Cargo::Own) => Err(DropReason::NoPath),
                (_, Cargo::Site(so_far)) => {
                    self.steer_again(&mut packet, &note.parsed, so_far);
                    Ok(())
                }
            };
            if let Err(reason) = sent {
                self.count_drop(self.drops_out(note.path), reason);
            }
            self.hand_over.give_back(self.worker, packet);
        }
        true
    }

    /// Sends what this worker is the home of: at once, or by way of its link's queue.
    fn send_here(
        &mut self,
        way: Way<'a>,
        packet: &mut SitePacket,
        parsed: &Parsed,
        cargo: Cargo,
    ) -> Result<(), DropReason> {
        if way.path.shaped {
            return self.send_shaped(way, packet, parsed, cargo);
        }
        self.seal(way, packet, parsed, cargo != Cargo::Own, &mut Part::of(cargo))
    }

    /// Cuts what is too long for one datagram, completes checksums, seals each piece right behind
    /// the others of its path, and leaves them for `flush_wan`: the part of it whose turn it is.
    pub fn seal(
        &mut self,
        way: Way<'a>,
        packet: &mut SitePacket,
        parsed: &Parsed,
        traffic: bool,
        part: &mut Part,
    ) -> Result<(), DropReason> {
        let place = self.forwarding.sas.outbound(way.child.1.slot).ok_or(DropReason::NoPath)?;
        let sa = place.load();
        let sa = sa.as_ref().ok_or(DropReason::NoPath)?;
        // What is made here is short, or asks how much fits.
        let mtu = if traffic { way.path.mtu_for(parsed.is_ipv4()) } else { UNLIMITED };
        if packet.offload.segments.is_none() && parsed.total_len > usize::from(mtu) {
            let bytes = packet.packet.bytes_mut();
            complete_checksum(bytes, parsed, packet.offload.checksum).map_err(unsplittable)?;
            let ecn = part.ecn(parsed);
            if ecn != parsed.ecn {
                set_ecn(bytes, ecn);
            }
            return self.seal_fragments(way, sa, bytes, outer_tos(way.path, parsed, ecn), mtu, &mut part.wire);
        }
        let splitter = Splitter::new(packet.packet.bytes(), parsed, &packet.offload, mtu).map_err(unsplittable)?;
        let mut splitter = splitter.resume(part.so_far);
        let clamp = parsed.syn.then(|| self.smallest_mtu(way.path));
        while let Some(length) = splitter.next_len().filter(|_| part.has_room()) {
            let inner = traffic.then_some(length);
            let ecn = part.ecn(parsed);
            part.wire += self.seal_one(way, sa, outer_tos(way.path, parsed, ecn), length, inner, |room| {
                if splitter.write_next(room).is_none() {
                    return false;
                }
                if let Some(mtu) = clamp {
                    clamp_mss(room, parsed, mtu);
                }
                if ecn != parsed.ecn {
                    set_ecn(room, ecn);
                }
                true
            })?;
        }
        (part.so_far, part.left) = (splitter.so_far(), splitter.data_left() as u64);
        Ok(())
    }

    /// RFC 4301 8.2.1: a packet without DF is cut before it is sealed.
    fn seal_fragments(
        &mut self,
        way: Way<'a>,
        sa: &OutboundSa,
        packet: &[u8],
        tos: u8,
        mtu: u16,
        wire: &mut u64,
    ) -> Result<(), DropReason> {
        let mut failed = None;
        let complete = fragment(packet, usize::from(mtu), |header, data| {
            let length = header.len() + data.len();
            let sealed = self.seal_one(way, sa, tos, length, Some(length), |room| {
                let Some((front, back)) = room.split_at_mut_checked(header.len()) else { return false };
                front.copy_from_slice(header);
                back.get_mut(..data.len()).is_some_and(|back| {
                    back.copy_from_slice(data);
                    true
                })
            });
            match sealed {
                Ok(bytes) => *wire += bytes,
                Err(reason) => failed = Some(reason),
            }
            failed.is_none()
        });
        match failed {
            None if complete => Ok(()),
            reason => Err(reason.unwrap_or(DropReason::TooBig)),
        }
    }

    /// Writes one inner packet of `length` bytes behind the sealed ones of its path, and seals it
    /// there; its length on the wire. `traffic` is what it counts as.
    fn seal_one(
        &mut self,
        way: Way<'a>,
        sa: &OutboundSa,
        tos: u8,
        length: usize,
        traffic: Option<usize>,
        write: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<u64, DropReason> {
        let place = self.place(way, tos, sa.sealed_len(length))?;
        let room = self.exits.trains.room(place);
        let inner = room.get_mut(sa.header_len()..).and_then(|room| room.get_mut(..length));
        if !inner.is_some_and(write) {
            return Err(DropReason::TooBig);
        }
        let sealed_len = sa.seal(room, length)?;
        Ok(self.claim(way, sa, place, sealed_len, traffic))
    }

    /// The same with what is no packet, and counts as none.
    pub fn seal_nothing(&mut self, way: Way<'a>, sa: &OutboundSa, content: &[u8]) -> Result<u64, DropReason> {
        let tos = way.path.outer_traffic_class(0);
        let place = self.place(way, tos, sa.sealed_len(content.len()))?;
        let room = self.exits.trains.room(place);
        let inner = room.get_mut(sa.header_len()..).and_then(|room| room.get_mut(..content.len()));
        inner.ok_or(DropReason::TooBig)?.copy_from_slice(content);
        let sealed_len = sa.seal_nothing(room, content.len())?;
        Ok(self.claim(way, sa, place, sealed_len, None))
    }

    /// A place for a sealed packet behind those of its path.
    fn place(&mut self, way: Way, tos: u8, sealed_len: usize) -> Result<Place, DropReason> {
        Ok(match self.exits.trains.place(way.path, tos, sealed_len) {
            Some(place) => place,
            None => {
                self.flush_wan();
                self.exits.trains.place(way.path, tos, sealed_len).ok_or(DropReason::QueueFull)?
            }
        })
    }

    fn claim(&mut self, way: Way, sa: &OutboundSa, place: Place, sealed_len: usize, traffic: Option<usize>) -> u64 {
        self.exits.trains.claim(place, sealed_len, traffic);
        if sa.soft_limit_reached() {
            self.tell_surely(ToControl::SoftLimit { spi: sa.spi(), path: way.path.id });
        }
        (sealed_len + OUTER_HEADERS) as u64
    }

    /// Sends what was sealed, then counts it.
    pub fn flush_wan(&mut self) {
        if self.exits.trains.is_empty() {
            return;
        }
        let (trains, notes) = self.exits.trains.leaving();
        self.io.send_wan(trains, &mut |refused| {
            if let Some(note) = notes.get_mut(refused.index) {
                note.unsent += refused.datagrams;
                note.errno = refused.errno;
            }
        });
        let notes = self.exits.trains.take_notes();
        for note in &notes {
            self.count_sent(note);
        }
        self.exits.trains.gone(notes);
    }

    /// Queues a packet for a queue of the site device, behind those of its flow that it continues.
    pub fn deliver(&mut self, bytes: &[u8], parsed: &Parsed, queue: WorkerId) {
        let offered = match self.queue_for_site(bytes, parsed, queue) {
            Offered::Full => {
                self.flush_site();
                self.queue_for_site(bytes, parsed, queue)
            }
            offered => offered,
        };
        if offered != Offered::Taken {
            self.count_drop(self.drops, DropReason::SiteWriteFailed);
        }
    }

    fn queue_for_site(&mut self, bytes: &[u8], parsed: &Parsed, queue: WorkerId) -> Offered {
        let Exits { site, coalescer, .. } = &mut *self.exits;
        let before = site.filled().len();
        let offered = coalescer.offer(bytes, parsed, site);
        if let Some(new) = site.filled_mut().get_mut(before) {
            new.queue = queue;
        }
        offered
    }

    /// Queues a packet that was made here for the site.
    pub fn deliver_own(&mut self, bytes: &[u8]) {
        if let Some(parsed) = parse(bytes) {
            self.deliver(bytes, &parsed, self.worker);
        }
    }

    pub fn flush_site(&mut self) {
        let Exits { site, coalescer, .. } = &mut *self.exits;
        if site.is_empty() {
            return;
        }
        coalescer.finish(site);
        let refused = self.io.send_site(site);
        site.clear();
        for _ in 0..refused {
            self.count_drop(self.drops, DropReason::SiteWriteFailed);
        }
    }

    /// Tells control; what its queue cannot take is lost and counted.
    pub fn tell(&mut self, news: ToControl) -> bool {
        let taken = self.io.tell_control(news);
        if !taken {
            self.count_drop(self.drops, DropReason::QueueFull);
        }
        taken
    }

    /// Tells control what nobody tells a second time: again at the next turn, until it is taken.
    pub fn tell_surely(&mut self, news: ToControl) {
        if self.exits.kept_news.len() == MAX_KEPT_NEWS {
            self.tell(news);
        } else if !self.io.tell_control(news.clone()) {
            self.exits.kept_news.push(news);
        }
    }

    /// May control be told what the Trefoil at the other end of a path says?
    pub fn may_measure(&mut self, path: PathId) -> bool {
        let Some(told) = self.exits.told.get_mut(usize::from(path.0)) else { return false };
        told.measures.allows(self.now) && self.exits.measures.allows(self.now)
    }

    /// May control be told that an authenticated packet of the path came over this leg? Once for
    /// each change, and not more often than `REPEAT_NEWS`. `None` for a packet on the path's own.
    pub fn is_new_leg(&mut self, path: PathId, leg: Option<Leg>) -> bool {
        let Some(told) = self.exits.told.get_mut(usize::from(path.0)) else { return false };
        let quiet = told.rebind.is_none_or(|(_, at)| self.now.since(at) >= REPEAT_NEWS);
        let Some(leg) = leg else {
            if quiet {
                told.rebind = None;
            }
            return false;
        };
        let new = quiet && told.rebind.is_none_or(|(last, _)| last != leg);
        if new {
            told.rebind = Some((leg, self.now));
        }
        new
    }

    /// Counts a packet that is dropped where it belongs, and among those of this worker.
    pub fn count_drop(&self, counters: &DropCounters, reason: DropReason) {
        counters.count(reason);
        self.counters.dropped(reason, 1);
    }

    /// The counters of packets that are dropped on a path on the way out.
    pub fn drops_out(&self, path: PathId) -> &'a DropCounters {
        self.forwarding.path(path).map_or(self.drops, |path| &path.live.drops_out)
    }

    /// The counters of packets that are dropped after they arrived on a path.
    pub fn drops_in(&self, path: PathId) -> &'a DropCounters {
        self.forwarding.path(path).map_or(self.drops, |path| &path.live.drops_in)
    }

    fn count_sent(&mut self, note: &Note) {
        let Some(path) = self.forwarding.path(note.path) else { return };
        if note.unsent > 0 {
            path.live.drops_out.count_many(DropReason::SendFailed, note.unsent as u64);
            self.counters.dropped(DropReason::SendFailed, note.unsent as u64);
            self.tell_send_error(path, note.errno);
        }
        // Of a train that left in part, nobody knows which part was whose.
        let (sent, all) = (note.datagrams.saturating_sub(note.unsent) as u64, note.datagrams.max(1) as u64);
        if sent > 0 && note.traffic > 0 {
            let (packets, bytes) = ((note.traffic * sent).div_ceil(all), note.bytes * sent / all);
            path.live.sent(packets, bytes);
            self.counters.sent(packets, bytes);
        }
    }

    fn tell_send_error(&mut self, path: &PathFace, errno: i32) {
        let Some(told) = self.exits.told.get_mut(usize::from(path.id.0)) else { return };
        if told.send_error.is_none_or(|at| self.now.since(at) >= REPEAT_NEWS) {
            told.send_error = Some(self.now);
            self.tell(ToControl::SendError { leg: path.leg, errno });
        }
    }
}

/// RFC 4301 5.1.2.1 copies the DSCP, RFC 6040 4.1 the ECN field, to the outer header.
fn outer_tos(path: &PathFace, parsed: &Parsed, ecn: Ecn) -> u8 {
    path.outer_traffic_class(parsed.dscp.value() << 2 | ecn.bits())
}

pub(super) fn unsplittable(why: Unsplittable) -> DropReason {
    match why {
        Unsplittable::TooBig => DropReason::TooBig,
        Unsplittable::Fragment
        | Unsplittable::WrongKind
        | Unsplittable::NoSize
        | Unsplittable::Header
        | Unsplittable::ChecksumPlace
        | Unsplittable::WrongChecksum
        | Unsplittable::Flags => DropReason::Malformed,
    }
}
