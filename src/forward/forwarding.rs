use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;
use ipnet::IpNet;

use super::{Cap, Duty, LanTable, LinkFace, NameTable, RouteTable, SaTable};
use crate::model::{
    ConnectorId, DropCounters, Dscp, FlowKey, Leg, LinkId, Moment, OutboundSlot, PathId, Role, Selectors, Verdict,
    WeekMinute, WorkerId,
};
use crate::steer::{Candidate, Condition, Ends, KnownNames, RuleSet, SlaStanding};

/// All that a worker needs to forward packets, published as a whole: a worker sees either the
/// old one or the new one, never a mixture.
#[derive(Clone, Debug)]
pub struct Forwarding {
    pub generation: u64,
    /// A flow whose entry has another one chooses its path again at its next packet: after a
    /// change of rules, and at each re-steer.
    pub policy_epoch: u32,
    /// A flow that has moved stays so long where it is well enough.
    pub dwell: Duration,
    pub site: SiteFace,
    /// Destination address to connector, by longest prefix.
    pub routes: RouteTable,
    /// By `ConnectorId`.
    pub connectors: Box<[ConnectorFace]>,
    /// By `PathId`: every configured tunnel, up or not.
    pub paths: Box<[PathFace]>,
    /// By `LinkId`.
    pub links: Arc<[LinkFace]>,
    pub rules: Arc<RuleSet>,
    /// By which interfaces sources are reached; empty when no rule asks for it.
    pub lan: Arc<LanTable>,
    /// Names that were learned of addresses; `None`: no rule asks for names, and none is learned.
    pub names: Option<Arc<NameTable>>,
    /// The links by which rules let flows out of the tunnels.
    pub breakouts: Box<[BreakoutFace]>,
    /// When the hours of the rules were last looked at.
    pub minute: WeekMinute,
    pub sas: Arc<SaTable>,
}

impl Forwarding {
    pub fn connector(&self, id: ConnectorId) -> Option<&ConnectorFace> {
        self.connectors.get(usize::from(id.0))
    }

    /// What a rule may ask of a flow's ends, beyond its packets.
    pub fn ends_of(&self, key: &FlowKey) -> Ends {
        let learned = self.names.as_ref().and_then(|names| names.get(key.destination));
        self.ends_with(key, learned.map(|learned| learned.names).unwrap_or_default())
    }

    /// The same of a flow that was decided when these names were known: they are its own as long as it lives, whatever
    /// is learned or forgotten since. An answer to one host must not move what another one has open.
    pub fn ends_with(&self, key: &FlowKey, names: KnownNames) -> Ends {
        Ends { interface: self.lan.interface(key.source), names, ..Ends::default() }
    }

    /// What is known of the destination's names, if something is and all of it was learned before this flow began.
    pub fn names_at(&self, key: &FlowKey, began: Moment) -> Option<KnownNames> {
        let learned = self.names.as_ref()?.get(key.destination)?;
        (learned.since <= began).then_some(learned.names)
    }

    /// Changes when a name is learned.
    pub fn names_epoch(&self) -> u32 {
        self.names.as_ref().map_or(0, |names| names.epoch)
    }

    pub fn breakout(&self, link: LinkId) -> Option<&BreakoutFace> {
        self.breakouts.iter().find(|breakout| breakout.link == link)
    }

    pub fn path(&self, id: PathId) -> Option<&PathFace> {
        self.paths.get(usize::from(id.0))
    }

    pub fn link(&self, id: LinkId) -> Option<&LinkFace> {
        self.links.get(usize::from(id.0))
    }
}

#[derive(Clone, Debug)]
pub struct SiteFace {
    /// The site's native ranges: sources that may leave, and that may never arrive. Empty
    /// means that any source may leave.
    pub native: Box<[IpNet]>,
    /// The tunnels' private addresses: ours, whatever arrives from them is forged. In order.
    own: Box<[IpAddr]>,
    /// Who is asked inside tunnels otherwise than by ICMP echo. In order.
    asked: Box<[IpAddr]>,
    /// A gateway answers a flow on the path it arrived on until a rule, an unhealthy path or a
    /// re-steer moves it (seed: "and not the tunnel on which it arrived").
    pub answer_on_arrival: bool,
    /// What the license holds all links together to.
    pub cap: Cap,
}

impl SiteFace {
    pub fn new(
        native: Vec<IpNet>,
        own: impl Iterator<Item = IpAddr>,
        asked: impl Iterator<Item = IpAddr>,
        answer_on_arrival: bool,
    ) -> SiteFace {
        let (own, asked) = (in_order(own), in_order(asked));
        SiteFace { native: native.into(), own, asked, answer_on_arrival, cap: Cap::default() }
    }

    pub fn capped(self, cap: Cap) -> SiteFace {
        SiteFace { cap, ..self }
    }

    pub fn is_native(&self, address: IpAddr) -> bool {
        self.native.iter().any(|range| range.contains(&address))
    }

    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.binary_search(&address).is_ok()
    }

    pub fn is_asked(&self, address: IpAddr) -> bool {
        self.asked.binary_search(&address).is_ok()
    }
}

/// A gateway has thousands, and each packet that arrives is looked up.
fn in_order(addresses: impl Iterator<Item = IpAddr>) -> Box<[IpAddr]> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into()
}

#[derive(Clone, Debug)]
pub struct ConnectorFace {
    pub id: ConnectorId,
    pub active: Role,
    /// The tunnels of each role, by `Role::index`.
    pub roles: [ArrayVec<PathId, 3>; 2],
}

/// A tunnel as the packet road sees it.
#[derive(Clone, Debug)]
pub struct PathFace {
    pub id: PathId,
    pub connector: ConnectorId,
    pub role: Role,
    /// A flow pinned to this path under another epoch chooses again at its next packet.
    pub epoch: u32,
    /// It has a live Child SA and its verdict is not `Down`.
    pub usable: bool,
    pub verdict: Verdict,
    pub duty: Duty,
    pub link: LinkId,
    /// What is sent waits in the queue of its link, and what arrives is policed: by the link's cap, or the site's.
    pub shaped: bool,
    pub policed: bool,
    pub preference: u8,
    /// See `Candidate` of these.
    pub weight: u32,
    pub metered: bool,
    pub last_resort: bool,
    pub settled: bool,
    pub sla: SlaStanding,
    pub score: Option<u32>,
    pub doubt: u32,
    pub condition: Condition,
    /// The worker that numbers and sends this path's packets.
    pub home: WorkerId,
    pub leg: Leg,
    /// Largest inner packet, in bytes.
    pub mtu: u16,
    /// What the outer header says instead of the code point of the inner packet.
    pub outer_dscp: Option<Dscp>,
    /// The tunnel's own private address, for probes.
    pub private: Option<IpAddr>,
    /// The peer is a Trefoil, and each direction is measured by itself.
    pub kin: bool,
    pub children: Box<[ChildFace]>,
    pub live: Arc<PathCounters>,
}

/// RFC 8200 5: every link carries IPv6 packets of this size, if need be by cutting them outside.
const IPV6_MIN_MTU: u16 = 1280;

impl PathFace {
    /// Largest inner packet of an IP version, in bytes.
    pub fn mtu_for(&self, ipv4: bool) -> u16 {
        if ipv4 { self.mtu } else { self.mtu.max(IPV6_MIN_MTU) }
    }

    /// The traffic class of the outer header of a packet: RFC 4301 5.1.2.1 copies the DSCP or
    /// sets it, RFC 6040 4.1 copies the ECN field.
    pub fn outer_traffic_class(&self, inner: u8) -> u8 {
        self.outer_dscp.map_or(inner, |dscp| dscp.value() << 2 | inner & 0b11)
    }

    pub fn candidate(&self) -> Candidate {
        Candidate {
            path: self.id,
            link: self.link,
            verdict: self.verdict,
            preference: self.preference,
            weight: self.weight,
            metered: self.metered,
            last_resort: self.last_resort,
            drained: self.duty.is_drained(),
            settled: self.settled,
            sla: self.sla,
            score: self.score,
            doubt: self.doubt,
            condition: self.condition,
        }
    }
}

/// A link by which flows may leave outside of the tunnels.
#[derive(Clone, Debug)]
pub struct BreakoutFace {
    pub link: LinkId,
    /// It is up, and what translates addresses stands.
    pub usable: bool,
    pub live: Arc<BreakoutCounters>,
}

impl BreakoutFace {
    /// One of which nothing is known yet.
    pub fn new(link: LinkId) -> BreakoutFace {
        BreakoutFace { link, usable: false, live: Arc::default() }
    }
}

/// Counted by workers, read by control: packets, super-packets among them, and bytes.
#[derive(Debug, Default)]
pub struct BreakoutCounters {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
}

impl BreakoutCounters {
    pub fn sent(&self, bytes: u64) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
pub struct ChildFace {
    pub selectors: Arc<Selectors>,
    pub slot: OutboundSlot,
}

/// Counted by workers, read by control; inner packets and bytes.
#[derive(Debug, Default)]
pub struct PathCounters {
    pub packets_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub packets_in: AtomicU64,
    pub bytes_in: AtomicU64,
    /// `Moment` nanoseconds of the last authenticated packet; 0 before the first.
    pub last_in: AtomicU64,
    /// Packets of flows that leave by another path of the site.
    pub asymmetric_in: AtomicU64,
    pub drops_out: DropCounters,
    pub drops_in: DropCounters,
}

impl PathCounters {
    pub fn sent(&self, packets: u64, bytes: u64) {
        self.packets_out.fetch_add(packets, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn received(&self, packets: u64, bytes: u64) {
        self.packets_in.fetch_add(packets, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }
}
