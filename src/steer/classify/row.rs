use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Ranges;
use crate::model::{ConnectorId, Dscp, FlowKey, InterfaceId, NameId, WeekMinute, protocol};
use crate::steer::{Ends, KnownNames, Matcher, NewFlow, Service, SiteId};

/// The last values of the axes: source, destination, protocol, source port, destination port, DSCP,
/// connector, minute of the week, interface of the source, name of the destination, site.
pub const AXES: usize = 11;

/// The axes of addresses and ports.
const ENDS: [usize; 4] = [0, 1, 3, 4];

/// The axis of the site.
pub const SITE: usize = 10;

/// The axes in the order in which rules differ most.
const BY_VARIETY: [usize; AXES] = [1, 0, SITE, 4, 2, 3, 5, 6, 7, 8, 9];

/// One way to match a rule, for one address family: on every axis, one of some ranges of values.
/// The order is that of the axes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub family: Family,
    pub axes: [Ranges; AXES],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub const fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub const fn last_address(self) -> u128 {
        match self {
            Family::V4 => u32::MAX as u128,
            Family::V6 => u128::MAX,
        }
    }
}

/// The last value of each axis.
pub fn last_values(family: Family) -> [u128; AXES] {
    let address = family.last_address();
    let port = u128::from(u16::MAX);
    [address, address, 255, port, port, 63, port, u128::from(WeekMinute::LAST.value()), u128::from(u8::MAX), port, port]
}

pub const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Numbers without a visible order (splitmix64), the same in every run.
fn scatter(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Row {
    /// All ways to match: together they match exactly what the matcher does.
    pub fn all_of(matcher: &Matcher) -> Vec<Row> {
        let whole = [Service::default()];
        let services = if matcher.services.is_empty() { &whole[..] } else { &matcher.services };
        let rows = services.iter().flat_map(|service| Family::ALL.map(|family| Row::new(matcher, service, family)));
        rows.flatten().collect()
    }

    /// `None` when nothing can match.
    fn new(matcher: &Matcher, service: &Service, family: Family) -> Option<Row> {
        let last = last_values(family);
        let networks = |list: &[IpNet]| match list {
            [] => Ranges::whole(family.last_address()),
            some => {
                let of_family = some.iter().filter(|net| Family::of(net.addr()) == family);
                Ranges::of(of_family.map(|net| (number(net.network()), number(net.broadcast()))))
            }
        };
        let numbers = |list: &[u8]| match list {
            [] => Ranges::whole(255),
            some => Ranges::of(some.iter().map(|one| ((*one).into(), (*one).into()))),
        };
        let ports = |list: &[(u16, u16)]| match list {
            [] => Ranges::whole(u16::MAX.into()),
            some => Ranges::of(some.iter().map(|(first, last)| ((*first).into(), (*last).into()))),
        };
        let mut protocols = numbers(&matcher.protocols).intersection(&numbers(&service.protocols));
        let asks_for_ports = [&matcher.source_ports, &matcher.destination_ports, &service.destination_ports];
        if asks_for_ports.iter().any(|list| !list.is_empty()) {
            protocols = protocols.intersection(&numbers(&[protocol::TCP, protocol::UDP]));
        }
        let dscp: Vec<u8> = matcher.dscp.iter().map(|dscp| dscp.value()).collect();
        let connectors = matcher.connectors.iter().map(|id| (id.0.into(), id.0.into()));
        let minutes = matcher.minutes.iter().map(|(first, last)| (first.value().into(), last.value().into()));
        let interfaces = matcher.interfaces.iter().map(|id| (id.0.into(), id.0.into()));
        let names = matcher.names.iter().map(|id| (id.0.into(), id.0.into()));
        let sites = matcher.sites.iter().map(|id| (id.0.into(), id.0.into()));
        let some_or_whole = |is_any: bool, ranges: Ranges, axis: usize| match is_any {
            true => Ranges::whole(last.get(axis).copied().unwrap_or(0)),
            false => ranges,
        };
        let axes = [
            networks(&matcher.sources),
            networks(&matcher.destinations).intersection(&networks(&service.destinations)),
            protocols,
            ports(&matcher.source_ports),
            ports(&matcher.destination_ports).intersection(&ports(&service.destination_ports)),
            some_or_whole(dscp.is_empty(), numbers(&dscp), 5),
            some_or_whole(matcher.connectors.is_empty(), Ranges::of(connectors), 6),
            some_or_whole(matcher.minutes.is_empty(), Ranges::of(minutes), 7),
            some_or_whole(matcher.interfaces.is_empty(), Ranges::of(interfaces), 8),
            some_or_whole(matcher.names.is_empty(), Ranges::of(names), 9),
            some_or_whole(matcher.sites.is_empty(), Ranges::of(sites), SITE),
        ];
        let possible = axes.iter().all(|ranges| !ranges.is_empty());
        possible.then_some(Row { family, axes })
    }

    /// A flow that it contains, with everyday values where it leaves a choice.
    pub fn sample(&self) -> NewFlow {
        let pick = |axis: usize, wished: u128| match &self.axes[axis] {
            ranges if ranges.contains(wished) => wished,
            // The second address of a network looks more like a host than the first.
            ranges => ranges
                .iter()
                .next()
                .map_or(0, |(first, last)| if axis < 2 { last.min(first.saturating_add(1)) } else { first }),
        };
        let address = |axis: usize, v4: [u8; 4], v6: u16| match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(pick(axis, u32::from_be_bytes(v4).into()) as u32)),
            Family::V6 => {
                let wished = Ipv6Addr::new(0x2001, 0xdb8, 0, v6, 0, 0, 0, 1);
                IpAddr::V6(Ipv6Addr::from_bits(pick(axis, wished.to_bits())))
            }
        };
        let number = pick(2, protocol::TCP.into()) as u8;
        let port = |axis: usize, wished: u128| match number {
            protocol::TCP | protocol::UDP => pick(axis, wished) as u16,
            _ => 0,
        };
        NewFlow {
            key: FlowKey {
                segment: 0,
                protocol: number,
                source: address(0, [10, 0, 0, 1], 1),
                destination: address(1, [203, 0, 113, 9], 2),
                source_port: port(3, 50_000),
                destination_port: port(4, 443),
            },
            dscp: Dscp::new(pick(5, 0) as u8).unwrap_or(Dscp::DEFAULT),
            connector: ConnectorId(pick(6, 0) as u16),
            minute: WeekMinute::new(pick(7, 9 * 60) as u16).unwrap_or_default(),
            ends: Ends {
                site: SiteId(pick(SITE, 0) as u16),
                interface: InterfaceId(pick(8, 0) as u8),
                names: KnownNames::new([NameId(pick(9, 0) as u16)]),
            },
        }
    }

    /// Another flow of it for each number, with ends that nobody would choose.
    pub fn sample_of(&self, number: u64) -> NewFlow {
        let mut row = self.clone();
        let spot = self.spot(number);
        for axis in ENDS {
            row.axes[axis] = Ranges::of([(spot[axis], spot[axis])]);
        }
        row.sample()
    }

    /// Values that it holds, one for each axis; another choice of them for each number.
    pub fn spot(&self, number: u64) -> [u128; AXES] {
        let mut state = number;
        self.axes.each_ref().map(|ranges| {
            let count = ranges.iter().count().max(1) as u64;
            let range = ranges.iter().nth((scatter(&mut state) % count) as usize);
            range.map_or(0, |(first, last)| match last - first {
                u128::MAX => scatter(&mut state).into(),
                span => first + u128::from(scatter(&mut state)) % (span + 1),
            })
        })
    }

    pub fn holds(&self, spot: &[u128; AXES]) -> bool {
        BY_VARIETY.into_iter().all(|axis| self.axes[axis].contains(spot[axis]))
    }

    pub fn is_within(&self, other: &Row) -> bool {
        self.family == other.family && self.axes.iter().zip(&other.axes).all(|(ours, theirs)| ours.is_within(theirs))
    }

    pub fn meets(&self, other: &Row) -> bool {
        let meet = |axis: usize| self.axes[axis].meets(&other.axes[axis]);
        self.family == other.family && BY_VARIETY.into_iter().all(meet)
    }

    /// What both have; `None` when that is nothing.
    pub fn common(&self, other: &Row) -> Option<Row> {
        self.meets(other).then(|| {
            let axes = std::array::from_fn(|axis| self.axes[axis].intersection(&other.axes[axis]));
            Row { family: self.family, axes }
        })
    }

    /// What `self` has and `other` has not, in parts that do not meet each other.
    pub fn without(&self, other: &Row) -> Vec<Row> {
        if !self.meets(other) {
            return vec![self.clone()];
        }
        let mut parts = Vec::new();
        let mut common = self.clone();
        for (axis, theirs) in other.axes.iter().enumerate() {
            let Some(ours) = common.axes.get(axis) else { continue };
            let (outside, inside) = (ours.without(theirs), ours.intersection(theirs));
            if !outside.is_empty() {
                let mut part = common.clone();
                part.axes[axis] = outside;
                parts.push(part);
            }
            common.axes[axis] = inside;
        }
        parts
    }
}
