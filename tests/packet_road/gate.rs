use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use etherparse::PacketBuilder;
use tokio::sync::mpsc;
use trefoil::dataplane::{Crew, FlowTable, Worker};
use trefoil::edge::PortPlan;
use trefoil::esp::OutboundSa;
use trefoil::forward::{Forwarding, ToControl};
use trefoil::model::{DropReason, Leg, Moment, UnderlayId, WorkerId};
use trefoil::net::{HostSide, Lookout, MultiMessage, Road, SiteDevice, UnderlaySockets, Underlays, memory_site, roads};
use trefoil::packet::{Batch, ProbeKey, TRAIN_CAPACITY, Train};

use super::world;

pub const NOW: Moment = Moment::from_millis(10_000);
pub const FIRST: WorkerId = WorkerId(0);

/// More packets than a test has under way.
const HOLDS: usize = 4_096;

/// The receiving end of a tunnel: one worker with real sockets, and hosts in memory, which take no
/// super-packets and so show each packet by itself.
pub struct Gate {
    worker: Worker,
    road: Road,
    lookout: Lookout,
    hosts: HostSide,
    crew: Crew,
    news: mpsc::Receiver<ToControl>,
    pub address: SocketAddr,
}

impl Gate {
    /// Its peer sends from this address.
    pub fn open(address: Ipv4Addr, peer: SocketAddr) -> Gate {
        let sockets = open(address, 1);
        let local = sockets.local(true);
        let mut view = world::forwarding();
        let leg = Leg { underlay: UnderlayId(0), natt: true, local, remote: peer };
        view.paths.iter_mut().for_each(|path| path.leg = leg);
        let crew = crew(view, 1);
        let (memory, hosts) = memory_site(HOLDS).expect("a site in memory");
        let (to_control, news) = mpsc::channel(HOLDS);
        let underlays = Arc::new(Underlays::new(vec![sockets]));
        let hand_over = crew.hand_over.clone();
        let (mut roads, _) = roads(SiteDevice::Memory(memory), hand_over, underlays, to_control).expect("a road");
        let (worker, mut road) = (Worker::new(FIRST, crew.clone()), roads.remove(0));
        let lookout = Lookout::new().expect("a poller");
        lookout.add(&mut road).expect("watched");
        Gate { worker, road, lookout, hosts, crew, news, address: local }
    }

    /// Works off what waits, and gives the numbers of the packets that reached the hosts.
    pub fn delivered(&mut self) -> Vec<u32> {
        // What the loopback has taken is in the socket; a second look finds what came meanwhile.
        let mut idle = 0;
        while idle < 2 {
            self.lookout.glance([&mut self.road].into_iter());
            let worked = self.worker.turn(&mut self.road, NOW).worked;
            idle = if worked { 0 } else { idle + 1 };
        }
        std::iter::from_fn(|| self.hosts.receive()).map(|packet| number(&packet)).collect()
    }

    /// IKE messages that control was told of.
    pub fn ike(&mut self) -> Vec<Vec<u8>> {
        let news = std::iter::from_fn(|| self.news.try_recv().ok());
        news.filter_map(|news| if let ToControl::Ike { bytes, .. } = news { Some(bytes.into()) } else { None })
            .collect()
    }

    /// Packets dropped so far, for all reasons that occurred, whoever's they were.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let view = self.crew.published.load();
        let sum = |reason| {
            let paths = view.paths.iter().map(|path| path.live.drops_in.get(reason) + path.live.drops_out.get(reason));
            self.crew.drops.get(reason) + paths.sum::<u64>()
        };
        DropReason::ALL.iter().map(|reason| (*reason, sum(*reason))).filter(|(_, count)| *count > 0).collect()
    }
}

pub fn open(address: Ipv4Addr, workers: usize) -> UnderlaySockets {
    let ports = PortPlan { ike: 0, natt: 0 };
    UnderlaySockets::open(UnderlayId(0), None, Some(address), ports, workers, None).expect("sockets")
}

pub fn crew(view: Forwarding, workers: usize) -> Crew {
    Crew::new(workers, Arc::new(ArcSwap::from_pointee(view)), FlowTable::new(1), ProbeKey::new([7; 32]))
}

/// All datagrams that wait, by the trains that they came in.
pub fn waiting(sockets: &UnderlaySockets, calls: &mut MultiMessage, batch: &mut Batch<Train>) -> Vec<Vec<Vec<u8>>> {
    batch.clear();
    // An error that a datagram has left behind is no datagram.
    let _ = sockets.receive(true, FIRST, calls, batch, &mut usize::MAX.clone());
    batch.filled().iter().map(|train| train.datagrams().map(<[u8]>::to_vec).collect()).collect()
}

pub fn trains(count: usize) -> Batch<Train> {
    Batch::new(count, || Train::with_capacity(TRAIN_CAPACITY))
}

/// Datagrams of one length, the last of which may be shorter.
pub fn train(leg: Leg, datagrams: &[Vec<u8>]) -> Train {
    let mut train = Train::with_capacity(TRAIN_CAPACITY);
    (train.leg, train.tos, train.segment) = (leg, 0, datagrams[0].len());
    assert!(train.packet.fill(&datagrams.concat()));
    train
}

/// Data bytes in front of a packet's number.
const HEADERS: usize = 28;

/// A UDP packet with a number, from the peer's site to ours or the other way.
pub fn numbered(flow: u16, number: u32, data: usize, arrives: bool) -> Vec<u8> {
    let (near, far) = ([10, 1, 0, 1], [10, 9, 0, 1]);
    let (source, destination) = if arrives { (far, near) } else { (near, far) };
    let mut payload = vec![flow as u8; data.max(4)];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source, destination, 20).udp(flow, 53).write(&mut packet, &payload).expect("a packet");
    packet
}

pub fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[HEADERS..HEADERS + 4].try_into().expect("four bytes"))
}

pub fn flow(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[20], packet[21]])
}

pub fn sealed(sa: &OutboundSa, packet: &[u8]) -> Vec<u8> {
    let mut room = world::in_room(sa, packet);
    let length = sa.seal(&mut room, packet.len()).expect("a fresh SA seals");
    room.truncate(length);
    room
}
