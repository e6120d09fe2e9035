use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use trefoil::edge::Plan;
use trefoil::forward::FlowReport;
use trefoil::lab::SimulatedNode;
use trefoil::model::{FlowKey, Moment, Role, protocol};
use trefoil::steer::RuleSet;

use super::network::Network;
use super::packet;
use super::plans::{self, Lifetimes};

/// Ends of all flows.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 9);

/// A branch with six tunnels to two PoPs, the weather between them, and flows across.
pub struct World {
    pub now: Moment,
    pub network: Network,
    pub branch: SimulatedNode,
    pub pops: [SimulatedNode; 2],
    flows: Vec<Flow>,
    pub tally: Tally,
    /// By port, when each packet left.
    departures: BTreeMap<u16, Vec<Moment>>,
}

struct Flow {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    dscp: u8,
    interval: Duration,
    /// After so many packets comes such a pause.
    trains: Option<(u32, Duration)>,
    next: Moment,
    until: Option<Moment>,
    sequence: u32,
}

/// What became of the packets of all flows.
#[derive(Default, Debug)]
pub struct Tally {
    pub sent: u64,
    /// There and back.
    pub returned: u64,
    pub duplicated: u64,
    pub damaged: u64,
    /// Answered by the edge with ICMP, for want of a path.
    pub refused: u64,
    /// By port and sequence, when each came back.
    arrivals: BTreeMap<(u16, u32), Moment>,
}

impl World {
    pub fn new(seed: u64, lifetimes: Lifetimes, rules: RuleSet) -> World {
        World::with(seed, lifetimes, plans::branch(lifetimes, rules))
    }

    pub fn with(seed: u64, lifetimes: Lifetimes, branch: Plan) -> World {
        World {
            now: Moment::ZERO,
            network: Network::new(seed),
            branch: SimulatedNode::new(branch, seed.wrapping_mul(3)),
            pops: Role::ALL.map(|role| {
                SimulatedNode::new(
                    plans::pop(role, lifetimes),
                    seed.wrapping_mul(3).wrapping_add(1 + role.index() as u64),
                )
            }),
            flows: Vec::new(),
            tally: Tally::default(),
            departures: BTreeMap::new(),
        }
    }

    /// Starts a flow of UDP packets from the branch, which the far end sends back.
    pub fn start_flow(&mut self, port: u16, dscp: u8, interval: Duration) {
        self.start_flow_until(port, dscp, interval, None);
    }

    pub fn start_flow_until(&mut self, port: u16, dscp: u8, interval: Duration, until: Option<Moment>) {
        self.start_flow_between([SOURCE, DESTINATION], port, dscp, interval, until);
    }

    /// The same from a host of the branch to one of the far end.
    pub fn start_flow_between(
        &mut self,
        [source, destination]: [Ipv4Addr; 2],
        port: u16,
        dscp: u8,
        interval: Duration,
        until: Option<Moment>,
    ) {
        let next = self.now;
        self.flows.push(Flow { source, destination, port, dscp, interval, trains: None, next, until, sequence: 0 });
    }

    /// From now on the latest flow pauses after each so many packets.
    pub fn in_trains(&mut self, packets: u32, pause: Duration) {
        if let Some(flow) = self.flows.last_mut() {
            flow.trains = Some((packets, pause));
        }
    }

    pub fn stop_flows(&mut self) {
        self.flows.clear();
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
    }

    /// Runs until so many seconds after `start`.
    pub fn run_until_second(&mut self, start: Moment, second: u64) {
        self.run_until(start + Duration::from_secs(second), |_| false);
    }

    /// Runs until the condition holds, looked at every 100 ms; `false` when `limit` comes first.
    pub fn run_while_not(&mut self, limit: Duration, condition: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        self.run_until(end, condition)
    }

    fn run_until(&mut self, end: Moment, condition: impl Fn(&World) -> bool) -> bool {
        let mut next_look = self.now;
        loop {
            if self.now >= next_look {
                if condition(self) {
                    return true;
                }
                next_look = self.now + Duration::from_millis(100);
            }
            self.step();
            let next = self.next_moment().map_or(end, |next| next.min(end)).min(next_look);
            if self.now >= end {
                return condition(self);
            }
            self.now = next.max(self.now + Duration::from_nanos(1));
        }
    }

    fn next_moment(&self) -> Option<Moment> {
        let nodes = std::iter::once(&self.branch).chain(&self.pops).filter_map(SimulatedNode::poll_timeout);
        let flows = self.flows.iter().map(|flow| flow.next);
        nodes.chain(flows).chain(self.network.next_arrival()).min()
    }

    fn step(&mut self) {
        let now = self.now;
        self.flows.retain(|flow| flow.until.is_none_or(|until| now < until));
        for flow in &mut self.flows {
            while flow.next <= now {
                let packet = packet::udp(flow.source, flow.destination, flow.port, 7, flow.dscp, flow.sequence);
                self.branch.send(packet);
                self.departures.entry(flow.port).or_default().push(now);
                flow.sequence += 1;
                flow.next = flow.next + flow.interval;
                if let Some((packets, pause)) = flow.trains
                    && flow.sequence % packets == 0
                {
                    flow.next = flow.next + pause;
                }
                self.tally.sent += 1;
            }
        }
        while let Some(datagram) = self.network.receive(now) {
            let nodes = std::iter::once(&mut self.branch).chain(&mut self.pops);
            for node in nodes {
                if node.owns(datagram.destination.ip()) {
                    node.deliver(datagram);
                    break;
                }
            }
        }
        self.branch.run(now, &mut |datagram| self.network.send(datagram, now));
        for pop in &mut self.pops {
            pop.run(now, &mut |datagram| self.network.send(datagram, now));
            let echoes: Vec<Vec<u8>> = pop.received().iter().filter_map(|packet| packet::echo(packet)).collect();
            if !echoes.is_empty() {
                for echo in echoes {
                    pop.send(echo);
                }
                pop.run(now, &mut |datagram| self.network.send(datagram, now));
            }
        }
        for packet in self.branch.received() {
            match packet::read(&packet) {
                Some((port, sequence)) => match self.tally.arrivals.insert((port, sequence), now) {
                    None => self.tally.returned += 1,
                    Some(_) => self.tally.duplicated += 1,
                },
                None if packet::is_icmp(&packet) => self.tally.refused += 1,
                None => self.tally.damaged += 1,
            }
        }
    }

    pub fn usable(&self, role: Role) -> usize {
        let status = self.branch.status(self.now);
        let tunnels = status.connectors.iter().flat_map(|connector| &connector.tunnels);
        tunnels.filter(|tunnel| tunnel.role == role.name() && tunnel.usable).count()
    }

    pub fn healthy(&self) -> usize {
        let status = self.branch.status(self.now);
        let tunnels = status.connectors.iter().flat_map(|connector| &connector.tunnels);
        tunnels.filter(|tunnel| tunnel.usable && tunnel.verdict == "healthy").count()
    }

    pub fn active_role(&self) -> String {
        self.branch.status(self.now).connectors[0].active_role.clone()
    }

    /// Packets that left the branch by each link, over both roles.
    pub fn packets_by_link(&self) -> BTreeMap<String, u64> {
        let mut packets = BTreeMap::new();
        for tunnel in &self.branch.status(self.now).connectors[0].tunnels {
            *packets.entry(tunnel.link.clone()).or_default() += tunnel.packets_out;
        }
        packets
    }

    /// Inner bytes that left the branch by each link, in the order of `plans::LINKS`.
    pub fn bytes_by_link(&self) -> [u64; 3] {
        let status = self.branch.status(self.now);
        plans::LINKS.map(|(link, ..)| {
            let tunnels = status.connectors[0].tunnels.iter().filter(|tunnel| tunnel.link == link);
            tunnels.map(|tunnel| tunnel.bytes_out).sum()
        })
    }

    /// What the branch remembers of a flow.
    pub fn flow(&self, port: u16) -> Option<FlowReport> {
        self.branch.flow(&FlowKey {
            segment: 0,
            protocol: protocol::UDP,
            source: SOURCE.into(),
            destination: DESTINATION.into(),
            source_port: port,
            destination_port: 7,
        })
    }

    /// Packets that came back after a later one of their flow.
    pub fn overtaken(&self) -> usize {
        let mut latest: Option<((u16, u32), Moment)> = None;
        let mut overtaken = 0;
        for (&(port, sequence), &at) in &self.tally.arrivals {
            match latest {
                Some(((same, _), newest)) if same == port && at < newest => overtaken += 1,
                _ => latest = Some(((port, sequence), at)),
            }
        }
        overtaken
    }

    /// The longest time between two returned packets of a flow since `since`.
    pub fn longest_gap(&self, port: u16, since: Moment) -> Duration {
        let arrivals = self.tally.arrivals.range((port, 0)..=(port, u32::MAX)).map(|(_, at)| *at);
        let mut times: Vec<Moment> = arrivals.filter(|at| *at >= since).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    /// For how long all packets of a flow were lost: the longest row of those that left since then, from the first to
    /// the last of them.
    pub fn outage(&self, port: u16, since: Moment) -> Duration {
        let departures = self.departures.get(&port).map_or(&[][..], Vec::as_slice);
        let (mut longest, mut row) = (Duration::ZERO, None);
        for (sequence, at) in (0u32..).zip(departures).filter(|(_, at)| **at >= since) {
            let came_back = self.tally.arrivals.contains_key(&(port, sequence));
            row = if came_back { None } else { row.or(Some(*at)) };
            longest = longest.max(row.map_or(Duration::ZERO, |first| at.since(first)));
        }
        longest
    }

    /// What an engineer wants to see of a failed run.
    pub fn describe(&self) -> String {
        let mut text = format!("at {:?}: {:?}\n", self.now, (self.tally.sent, self.tally.returned));
        for (at, event) in &self.branch.events {
            text.push_str(&format!("{at:?} {event:?}\n"));
        }
        for tunnel in &self.branch.status(self.now).connectors[0].tunnels {
            text.push_str(&format!("{tunnel:?}\n"));
        }
        text
    }
}
