use std::time::Duration;

use super::flow_queue::{Arriving, Fate, FlowQueue, Served};
use super::pacer::Pacer;
use crate::model::{LinkId, Mbps, Moment};
use crate::packet::SitePacket;

/// All that one worker shapes: the queues of its links, each with the link's rate if it has one, and over all of
/// them the site's. It sends nothing itself: whoever does asks for `next` until there is none, and then comes
/// again at `due`.
pub struct Shaper<N> {
    site: Option<Pacer>,
    /// By `LinkId`.
    links: Vec<Option<Link<N>>>,
    /// What still waits by rates that are no more, until it is withdrawn.
    replaced: Vec<FlowQueue<N>>,
    /// The link whose turn it is, where the site's rate is what they share.
    turn: usize,
    /// Packets in all queues.
    packets: usize,
}

struct Link<N> {
    pacer: Option<Pacer>,
    queue: FlowQueue<N>,
    /// Smoothed waiting of what has left.
    wait: Duration,
}

/// A packet that may leave now, or a piece of it.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub link: LinkId,
    served: Served,
    pub fate: Fate,
    /// Bytes on the wire that may leave at once; one packet may in any case.
    pub room: u64,
}

/// How far a search for packets that wait has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    link: usize,
    flow: u32,
}

/// What has left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Bytes on the wire.
    pub wire: u64,
    /// Inner bytes that are still to be sent.
    pub left: u64,
}

impl<N> Default for Shaper<N> {
    fn default() -> Self {
        Shaper { site: None, links: Vec::new(), replaced: Vec::new(), turn: 0, packets: 0 }
    }
}

impl<N: Copy> Shaper<N> {
    /// From now on these are the rates: the site's, and by `LinkId` those of the links that are this worker's. A link
    /// without a rate of its own has a queue all the same where the site has one. What waits for a link that is not
    /// changed goes on waiting; the rest is to be withdrawn now.
    pub fn set(&mut self, site: Option<Mbps>, links: &[Option<Option<Mbps>>], longest: usize) {
        if self.site.as_ref().map(Pacer::rate) != site {
            self.site = site.map(Pacer::new);
        }
        self.links.resize_with(links.len(), || None);
        for (place, wanted) in self.links.iter_mut().zip(links) {
            let present = place.as_ref().map(|link| link.pacer.as_ref().map(Pacer::rate));
            if present != *wanted {
                let next = wanted.and_then(|rate| {
                    let slower = rate.into_iter().chain(site).min()?;
                    let queue = FlowQueue::new(slower, longest);
                    Some(Link { pacer: rate.map(Pacer::new), queue, wait: Duration::ZERO })
                });
                let before = std::mem::replace(place, next).map(|link| link.queue);
                self.replaced.extend(before.filter(|queue| !queue.is_empty()));
            }
        }
    }

    /// Takes out the next packet that is wanted there, or waits where nothing leaves any more: into `packet`, for which
    /// another buffer is perhaps left here. Each flow's come in order.
    pub fn withdraw(
        &mut self,
        search: &mut Search,
        wanted: &dyn Fn(LinkId, &N) -> bool,
        packet: &mut SitePacket,
    ) -> Option<N> {
        while let Some(queue) = self.replaced.last_mut() {
            if let Some(note) = queue.withdraw(&mut 0, &|_| true, packet) {
                self.packets = self.packets.saturating_sub(1);
                return Some(note);
            }
            self.replaced.pop();
        }
        while let Some(place) = self.links.get_mut(search.link) {
            let id = LinkId(u16::try_from(search.link).ok()?);
            let found = place
                .as_mut()
                .filter(|link| !link.queue.is_empty())
                .and_then(|link| link.queue.withdraw(&mut search.flow, &|note| wanted(id, note), packet));
            if found.is_some() {
                self.packets = self.packets.saturating_sub(1);
                return found;
            }
            *search = Search { link: search.link + 1, flow: 0 };
        }
        None
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Takes in a packet for a link; `false`, and as it was, where the link is not shaped here. See `FlowQueue::push`.
    pub fn push(&mut self, link: LinkId, arriving: Arriving<N>, now: Moment, lost: &mut dyn FnMut(&N)) -> bool {
        if self.packets == 0
            && let Some(site) = &mut self.site
        {
            site.begin(now);
        }
        let Some(link) = self.link_mut(link) else { return false };
        if link.queue.is_empty()
            && let Some(pacer) = &mut link.pacer
        {
            pacer.begin(now);
        }
        let before = link.queue.packets();
        link.queue.push(arriving, now, lost);
        let after = link.queue.packets();
        self.packets = (self.packets + after).saturating_sub(before);
        true
    }

    /// So many bytes leave by a link without having waited.
    pub fn charge(&mut self, link: LinkId, wire: u64, now: Moment) {
        let pacer = self.link_mut(link).and_then(|link| link.pacer.as_mut());
        pacer.into_iter().for_each(|pacer| pacer.charge(wire, now));
        self.site.iter_mut().for_each(|site| site.charge(wire, now));
    }

    /// What may leave now. `finish` must be told what has become of it before the next is asked for.
    pub fn next(&mut self, now: Moment) -> Option<Due> {
        if self.packets == 0 {
            return None;
        }
        let of_site = self.site.as_ref().map_or(u64::MAX, |site| site.room(now));
        let count = self.links.len();
        for index in (self.turn..count).chain(0..self.turn) {
            let Some(link) = self.links.get_mut(index).and_then(Option::as_mut) else { continue };
            let room = link.pacer.as_ref().map_or(u64::MAX, |pacer| pacer.room(now)).min(of_site);
            if room == 0 {
                continue;
            }
            let Some(served) = link.queue.next(now) else { continue };
            self.turn = (index + 1) % count;
            let link = LinkId(u16::try_from(index).ok()?);
            return Some(Due { link, served, fate: served.fate, room: room.min(served.credit) });
        }
        None
    }

    /// The packet that is due.
    pub fn packet(&mut self, due: &Due) -> Option<(&mut SitePacket, &mut N)> {
        self.link_mut(due.link)?.queue.packet(&due.served)
    }

    /// What has become of the packet that was due.
    pub fn finish(&mut self, due: &Due, sent: Sent, now: Moment) {
        if let Some(link) = self.link_mut(due.link) {
            let before = link.queue.packets();
            link.queue.finish(&due.served, sent.wire, sent.left);
            link.wait = (link.wait * 15 + due.served.waited) / 16;
            let gone = before.saturating_sub(link.queue.packets());
            self.packets = self.packets.saturating_sub(gone);
        }
        if sent.wire > 0 {
            self.charge(due.link, sent.wire, now);
        }
    }

    /// When the next packet may leave; `None` when nothing waits.
    pub fn due(&self) -> Option<Moment> {
        if self.packets == 0 {
            return None;
        }
        let site = self.site.as_ref().map_or(Moment::ZERO, Pacer::free_at);
        let waiting = self.links.iter().flatten().filter(|link| !link.queue.is_empty());
        waiting.map(|link| link.pacer.as_ref().map_or(Moment::ZERO, Pacer::free_at).max(site)).min()
    }

    /// Packets and inner bytes that wait for a link, and how long what has left did; `None` where it is not shaped here.
    pub fn state(&self, link: LinkId) -> Option<(usize, u64, Duration)> {
        let link = self.links.get(usize::from(link.0))?.as_ref()?;
        Some((link.queue.packets(), link.queue.bytes(), link.wait))
    }

    fn link_mut(&mut self, link: LinkId) -> Option<&mut Link<N>> {
        self.links.get_mut(usize::from(link.0))?.as_mut()
    }
}
