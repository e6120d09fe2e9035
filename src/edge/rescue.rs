use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::machine::Edge;
use super::tunnel::Tunnel;
use crate::health::PeerSigns;
use crate::model::{Leg, Moment, PathId, Verdict};

/// How long an answer over the way that lives is waited for, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(300));
/// The same while its round trip is not known.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(200);

impl Edge {
    /// When the other tunnels of the same role to the same peer last showed signs of life.
    pub(super) fn peer_signs(&self, index: usize) -> PeerSigns {
        let mut signs = PeerSigns::default();
        let Some(remote) = self.tunnels.get(index).and_then(Tunnel::leg).map(|leg| leg.remote.ip()) else {
            return signs;
        };
        for sibling in self.siblings(index).filter_map(|sibling| self.tunnels.get(sibling)) {
            if sibling.leg().is_some_and(|leg| leg.remote.ip() == remote) {
                signs.esp = signs.esp.max(sibling.last_in());
                signs.ike = signs.ike.max(sibling.last_answer());
            }
        }
        signs
    }

    /// After a tunnel had its turn: asks its siblings whether their common peer answers, and tells
    /// the peer of its death through one of them.
    pub(super) fn look_after(&mut self, index: usize, now: Moment) {
        let signs = self.peer_signs(index);
        let Some(tunnel) = self.tunnels.get(index) else { return };
        if tunnel.health().wants_witness(signs, now) {
            self.ask_siblings(index, now);
        }
        if self.tunnels.get(index).is_some_and(|tunnel| tunnel.wants_rescue(now)) {
            self.rescue(index, now);
        }
    }

    fn rescue(&mut self, index: usize, now: Moment) {
        let way = self.way_around(index);
        if way.is_none() {
            self.ask_siblings(index, now);
        }
        self.with_tunnel(index, now, |tunnel, context| tunnel.rescue(way, context));
    }

    /// Another link by which the tunnel's peer can be told that the tunnel is dead: its name, the
    /// way, and how long an answer may take. It must have shown life since the tunnel last did.
    fn way_around(&self, index: usize) -> Option<(String, Leg, Duration)> {
        let dead = self.tunnels.get(index)?;
        let (leg, heard) = (dead.leg()?, dead.health().heard());
        let lives = |sibling: &&Tunnel| {
            let health = sibling.health();
            let recent = health.heard().is_some_and(|life| heard.is_none_or(|heard| life > heard));
            sibling.usable() && sibling.verdict() != Verdict::Down && !health.is_suspicious() && recent
        };
        let others = self.siblings(index).filter_map(|sibling| self.tunnels.get(sibling)).filter(lives);
        let other = others
            .filter(|other| other.leg().is_some_and(|other| other.underlay != leg.underlay))
            .max_by_key(|other| other.health().heard())?;
        let underlay = other.leg()?.underlay;
        let fact = self.underlay(underlay)?;
        let port = if leg.natt { fact.natt_port } else { fact.ike_port };
        let way = Leg { underlay, local: SocketAddr::new(IpAddr::V4(fact.address), port), ..leg };
        let pause = other.health().round_trip().map_or(UNKNOWN_PAUSE, |pause| pause.clamp(PAUSE.0, PAUSE.1));
        let name = self.plan.links.get(usize::from(other.link_id(&self.plan).0))?.name.clone();
        Some((name, way, pause))
    }

    fn ask_siblings(&mut self, index: usize, now: Moment) {
        let siblings: Vec<usize> = self.siblings(index).collect();
        for sibling in siblings {
            self.with_tunnel(sibling, now, |tunnel, context| tunnel.bear_witness(context));
        }
    }

    /// The other tunnels of the same role of the same connector, three at most in all.
    pub(super) fn siblings(&self, index: usize) -> impl Iterator<Item = usize> {
        let tunnel = self.plan.tunnels.get(index);
        let connector = tunnel.and_then(|tunnel| self.plan.connectors.get(usize::from(tunnel.connector.0)));
        let role = connector.zip(tunnel).and_then(|(connector, tunnel)| connector.roles[tunnel.role.index()].as_ref());
        let paths = role.map_or(&[][..], |role| &role.tunnels).iter().map(|PathId(path)| usize::from(*path));
        paths.filter(move |path| *path != index)
    }
}
