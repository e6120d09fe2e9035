use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::contender::{Contender, Parcel};
use super::field::{Field, Way};
use super::site;
use crate::dataplane::{Course, Departure, Pilot};
use crate::edge::Plan;
use crate::lab::relay::Direction;
use crate::lab::simulated_node::{InFlight, SimulatedNode};
use crate::model::{FlowKey, Moment, PathId};

/// UDP and IPv4 headers.
const HEADERS: usize = 28;

/// Our own steering, whole: control with IKE, health, roles and re-steering, as the daemon runs it,
/// a worker for its probes, orders and surveys, the flow table and the one decision; and PoPs of the
/// same engine that answer. Only packets of flows are not made: their bytes are counted where a
/// worker would count them.
pub struct Trefoil {
    pub branch: SimulatedNode,
    pops: Vec<Option<SimulatedNode>>,
    /// By `PathId`.
    ways: Vec<Way>,
    links: usize,
    wire: BinaryHeap<Reverse<(Moment, u64, InFlight)>>,
    sequence: u64,
}

impl Trefoil {
    /// A plan made by `site::in_simulation`.
    pub fn new(plan: Plan, seed: u64) -> Trefoil {
        let seed = seed.wrapping_mul(1_000);
        let ways =
            plan.tunnels.iter().map(|tunnel| Way { link: usize::from(tunnel.link.0), pop: site::pop_of(tunnel) });
        let (ways, links) = (ways.collect(), plan.links.len());
        let pops = site::pops(&plan).into_iter().zip(1u64..);
        let pops =
            pops.map(|(pop, number)| pop.map(|pop| SimulatedNode::new(pop, seed.wrapping_add(number)))).collect();
        let branch = SimulatedNode::new(plan, seed);
        Trefoil { branch, pops, ways, links, wire: BinaryHeap::new(), sequence: 0 }
    }

    fn path_at(&self, way: Way) -> Option<PathId> {
        let index = self.ways.iter().position(|one| *one == way)?;
        u16::try_from(index).ok().map(PathId)
    }

    /// Delivers what has arrived; true when there was something.
    fn deliver(&mut self, now: Moment) -> bool {
        let mut some = false;
        while self.wire.peek().is_some_and(|Reverse((at, _, _))| *at <= now) {
            let Some(Reverse((_, _, datagram))) = self.wire.pop() else { break };
            let nodes = std::iter::once(&mut self.branch).chain(self.pops.iter_mut().flatten());
            for node in nodes {
                if node.owns(datagram.destination.ip()) {
                    node.deliver(datagram);
                    some = true;
                    break;
                }
            }
        }
        some
    }

    fn run(&mut self, field: &mut Field, now: Moment) {
        let Trefoil { branch, pops, links, wire, sequence, .. } = self;
        let count = pops.len();
        let mut send = |datagram: InFlight| {
            let Some((way, direction)) = place(&datagram, *links, count) else { return };
            if let Some(arrives) = field.send(way, direction, datagram.bytes.len() + HEADERS, now) {
                *sequence += 1;
                wire.push(Reverse((arrives, *sequence, datagram)));
            }
        };
        branch.run(now, &mut send);
        // What has reached the site is an answer to nobody.
        drop(branch.received());
        for pop in pops.iter_mut().flatten() {
            pop.run(now, &mut send);
            drop(pop.received());
        }
    }
}

impl Contender for Trefoil {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        let arrived = self.deliver(now);
        let nodes = || std::iter::once(&self.branch).chain(self.pops.iter().flatten());
        let due = nodes().filter_map(|node| node.edge.poll_timeout()).min();
        if arrived || due.is_some_and(|due| due <= now) {
            self.run(field, now);
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        let nodes = std::iter::once(&self.branch).chain(self.pops.iter().flatten());
        let arrival = self.wire.peek().map(|Reverse((at, _, _))| *at);
        nodes.filter_map(|node| node.edge.poll_timeout()).chain(arrival).min()
    }

    fn route(&mut self, parcel: &Parcel, _: &Field, now: Moment) -> Option<Way> {
        let crew = self.branch.crew();
        let forwarding = crew.published.load();
        let mut pilot = Pilot { forwarding: &forwarding, flows: &crew.flows, now, notes: None };
        let leaving = Departure { key: parcel.key, dscp: parcel.dscp, bytes: parcel.bytes };
        let way = match pilot.course_of(&leaving).ok()? {
            (Course::Tunnel(way), _) => way,
            (Course::Breakout(link), _) => return Some(Way::outside(usize::from(link.0))),
        };
        way.path.live.sent(u64::from(parcel.packets), parcel.bytes);
        self.ways.get(usize::from(way.path.id.0)).copied()
    }

    fn handle_arrival(&mut self, way: Way, packets: u32, bytes: u64, now: Moment) {
        let forwarding = self.branch.crew().published.load();
        let Some(path) = self.path_at(way).and_then(|id| forwarding.path(id)) else { return };
        path.live.received(u64::from(packets), bytes);
        path.live.last_in.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    /// The flow table forgets by itself.
    fn forget(&mut self, _: &FlowKey) {}
}

/// Which way a datagram goes, by its addresses.
fn place(datagram: &InFlight, links: usize, pops: usize) -> Option<(Way, Direction)> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (datagram.source.ip(), datagram.destination.ip()) else {
        return None;
    };
    match (site::link_at(source, links), site::pop_at(destination, pops)) {
        (Some(link), Some(pop)) => Some((Way { link, pop }, Direction::Up)),
        _ => {
            let (link, pop) = (site::link_at(destination, links)?, site::pop_at(source, pops)?);
            Some((Way { link, pop }, Direction::Down))
        }
    }
}
