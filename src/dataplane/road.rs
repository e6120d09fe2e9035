use std::time::Duration;

use super::limit::Limit;
use super::{FlowTable, RoadIo};
use crate::forward::{ChildFace, Forwarding, PathFace, ToControl};
use crate::model::{DropCounters, DropReason, Leg, Moment, PathId, UnderlayId};
use crate::packet::{Batch, Datagram, PacketBuf, ProbeKey};

/// 64 packets at once: a turn of some 50 µs, short enough that the other direction never waits
/// for long, and long enough to spread what a turn costs by itself.
pub const BATCH: usize = 64;

/// Room for a packet of an Ethernet link with all that ESP in UDP adds, and for an IKE message
/// without certificates; a power of two.
pub const PACKET_CAPACITY: usize = 2_048;

/// ICMP errors to the site, for each worker: every host of a large site is told within a second,
/// and nobody is flooded (RFC 1812 4.3.2.8 asks for a limit).
const ERRORS_PER_SECOND: u32 = 200;

/// Echo replies from our private addresses, for each worker.
const ECHO_REPLIES_PER_SECOND: u32 = 1_000;

/// The same kind of news of one path is told again after this time at the earliest.
const REPEAT_NEWS: Duration = Duration::from_secs(1);

/// News to tell again while control's queue is full: two of each SA in a busy turn. What is
/// beyond is lost and counted.
const MAX_KEPT_NEWS: usize = 256;

/// One turn on the packet road: what it was published, and its exits. Everything but `exits`
/// and `now` is shared with other workers.
pub(super) struct Road<'a> {
    pub forwarding: &'a Forwarding,
    pub flows: &'a FlowTable,
    /// For packets that belong to no path.
    pub drops: &'a DropCounters,
    pub probe_key: &'a ProbeKey,
    pub exits: &'a mut Exits,
    pub io: &'a mut dyn RoadIo,
    pub now: Moment,
}

/// A path with the Child SA on it that covers a packet.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub path: &'a PathFace,
    pub child: &'a ChildFace,
}

/// Where packets and news leave a worker. Allocated once.
pub(super) struct Exits {
    wan: Batch<Datagram>,
    /// For each filled slot of `wan`, in order.
    notes: Vec<Note>,
    site: Batch<PacketBuf>,
    /// For what is made here, before it leaves.
    scratch: Option<PacketBuf>,
    pub icmp_errors: Limit,
    pub echo_replies: Limit,
    /// By `PathId`.
    told: Vec<Told>,
    kept_news: Vec<ToControl>,
}

/// What is counted once a datagram was sent.
struct Note {
    path: PathId,
    /// Length of the inner packet; `None` when it is no traffic: a probe, or an answer to one.
    inner: Option<usize>,
    errno: Option<i32>,
}

/// When control was last told of a path.
#[derive(Clone, Default)]
struct Told {
    send_error: Option<Moment>,
    rebind: Option<(Leg, Moment)>,
}

impl Exits {
    pub fn new() -> Exits {
        let unspecified = ([0, 0, 0, 0], 0).into();
        let leg = Leg { underlay: UnderlayId(0), natt: false, local: unspecified, remote: unspecified };
        let packet = || PacketBuf::with_capacity(PACKET_CAPACITY);
        Exits {
            wan: Batch::new(BATCH, || Datagram { leg, tos: 0, packet: packet() }),
            notes: Vec::with_capacity(BATCH),
            site: Batch::new(BATCH, packet),
            scratch: None,
            icmp_errors: Limit::per_second(ERRORS_PER_SECOND, ERRORS_PER_SECOND),
            echo_replies: Limit::per_second(ECHO_REPLIES_PER_SECOND, ECHO_REPLIES_PER_SECOND),
            told: Vec::new(),
            kept_news: Vec::new(),
        }
    }
}

impl<'a> Road<'a> {
    /// Begins a turn: tells again what control could not take, as far as it can now.
    pub fn begin(&mut self) {
        self.exits.told.resize(self.forwarding.paths.len(), Told::default());
        for news in std::mem::take(&mut self.exits.kept_news) {
            self.tell_surely(news);
        }
    }

    /// Lends a buffer to make a packet in.
    pub fn with_scratch<T>(&mut self, make: impl FnOnce(&mut Self, &mut PacketBuf) -> T) -> T {
        let kept = self.exits.scratch.take();
        let mut packet = kept.unwrap_or_else(|| PacketBuf::with_capacity(PACKET_CAPACITY));
        let made = make(self, &mut packet);
        self.exits.scratch = Some(packet);
        made
    }

    /// Seals the packet in place on exactly this way, and queues it. On success another buffer
    /// stands in its place; otherwise its contents are lost.
    pub fn seal(&mut self, way: Way<'a>, packet: &mut PacketBuf, tos: u8, traffic: bool) -> Result<(), DropReason> {
        let place = self.forwarding.sas.outbound(way.child.slot).ok_or(DropReason::NoPath)?;
        let sa = place.load();
        let sa = sa.as_ref().ok_or(DropReason::NoPath)?;
        let inner = traffic.then_some(packet.len());
        sa.seal(packet)?;
        if sa.soft_limit_reached() {
            self.tell_surely(ToControl::SoftLimit { spi: sa.spi(), path: way.path.id });
        }

        if self.exits.wan.is_full() {
            self.flush_wan();
        }
        let slot = self.exits.wan.next_free().ok_or(DropReason::QueueFull)?;
        slot.leg = way.path.leg;
        slot.tos = tos;
        std::mem::swap(&mut slot.packet, packet);
        self.exits.wan.claim(1);
        self.exits.notes.push(Note { path: way.path.id, inner, errno: None });
        Ok(())
    }

    /// Sends what `seal` has queued, then counts it.
    pub fn flush_wan(&mut self) {
        let Exits { wan, notes, .. } = &mut *self.exits;
        if wan.is_empty() {
            return;
        }
        self.io.send_wan(wan, &mut |index, errno| {
            if let Some(note) = notes.get_mut(index) {
                note.errno = Some(errno);
            }
        });
        wan.clear();
        let mut notes = std::mem::take(notes);
        for run in notes.chunk_by(|one, next| one.path == next.path) {
            self.count_sent(run);
        }
        notes.clear();
        self.exits.notes = notes;
    }

    /// Queues a packet for the site and leaves another buffer in its place.
    pub fn deliver(&mut self, packet: &mut PacketBuf) {
        if self.exits.site.is_full() {
            self.flush_site();
        }
        if let Some(slot) = self.exits.site.next_free() {
            std::mem::swap(slot, packet);
            self.exits.site.claim(1);
        }
    }

    pub fn flush_site(&mut self) {
        if self.exits.site.is_empty() {
            return;
        }
        for _ in 0..self.io.send_site(&mut self.exits.site) {
            self.drops.count(DropReason::SiteWriteFailed);
        }
        self.exits.site.clear();
    }

    /// Tells control; what its queue cannot take is lost and counted.
    pub fn tell(&mut self, news: ToControl) -> bool {
        let taken = self.io.tell_control(news);
        if !taken {
            self.drops.count(DropReason::QueueFull);
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

    /// The counters of packets that are dropped on a path on the way out.
    pub fn drops_out(&self, path: PathId) -> &'a DropCounters {
        self.forwarding.path(path).map_or(self.drops, |path| &path.live.drops_out)
    }

    /// The counters of packets that are dropped after they arrived on a path.
    pub fn drops_in(&self, path: PathId) -> &'a DropCounters {
        self.forwarding.path(path).map_or(self.drops, |path| &path.live.drops_in)
    }

    fn count_sent(&mut self, run: &[Note]) {
        let Some(path) = run.first().and_then(|note| self.forwarding.path(note.path)) else { return };
        let (mut packets, mut bytes) = (0, 0);
        for note in run {
            match (note.errno, note.inner) {
                (Some(errno), _) => {
                    path.live.drops_out.count(DropReason::SendFailed);
                    self.tell_send_error(path, errno);
                }
                (None, Some(length)) => {
                    packets += 1;
                    bytes += length as u64;
                }
                (None, None) => {}
            }
        }
        if packets > 0 {
            path.live.sent(packets, bytes);
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
