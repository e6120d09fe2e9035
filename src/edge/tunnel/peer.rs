use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Context, Tunnel};
use crate::edge::Destination;
use crate::ike::{Identity, Peer};
use crate::model::TrafficSelector;

impl Tunnel {
    /// Tells IKE whom to expect. A responder must know before the peer calls; identities that
    /// default to addresses are known only with the underlay.
    pub(super) fn announce_peer(&mut self, context: &mut Context) {
        if let Some(peer) = self.peer(self.destination(context), context) {
            context.endpoint.set_peer(self.path, Arc::new(peer));
        }
    }

    /// Where the peer is, as far as it is known.
    pub(super) fn destination(&self, context: &Context) -> Option<Ipv4Addr> {
        match &self.plan(context.plan).destination {
            Some(Destination::Ipv4(address)) => Some(*address),
            Some(Destination::Fqdn(_)) => self.last_good,
            None => None,
        }
    }

    pub(super) fn peer(&self, remote: Option<Ipv4Addr>, context: &Context) -> Option<Peer> {
        let plan = self.plan(context.plan);
        let connector = context.plan.connectors.get(usize::from(plan.connector.0))?;
        let link = context.plan.links.get(usize::from(plan.link.0))?;
        let own = context.underlays.get(usize::from(link.underlay.0)).copied().flatten().map(|fact| fact.address);
        let local_id = plan.local_id.clone().or(plan.public_ip.or(own).map(Identity::Ipv4))?;
        let remote_id = plan.remote_id.clone().or(remote.map(Identity::Ipv4))?;
        // The tunnel's own address is offered by itself, so that a PoP can tell by it which
        // tunnel a probe's answer belongs to.
        let private = |address: Option<ipnet::IpNet>| {
            address.map(|address| TrafficSelector::of_network(ipnet::IpNet::from(address.addr())))
        };
        let mut local_selectors: Vec<_> = private(plan.private_local).into_iter().collect();
        local_selectors.extend_from_slice(&connector.local_selectors);
        let mut remote_selectors: Vec<_> = private(plan.private_remote).into_iter().collect();
        for target in &plan.probes.targets {
            let target = TrafficSelector::of_network(ipnet::IpNet::from(target.address));
            let covered =
                connector.peer_selectors.iter().any(|selector| selector.intersection(&target) == Some(target));
            if !covered && !remote_selectors.contains(&target) {
                remote_selectors.push(target);
            }
        }
        remote_selectors.extend_from_slice(&connector.peer_selectors);
        Some(Peer {
            name: plan.full_name(&context.plan.connectors),
            local_id,
            remote_id,
            psk: plan.psk.clone(),
            phase1: plan.phase1.clone(),
            phase2: plan.phase2.clone(),
            local_selectors,
            remote_selectors,
            retransmission: plan.retransmission,
        })
    }
}
