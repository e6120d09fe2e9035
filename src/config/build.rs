//! From drafts that were found right to the `Plan`.

use std::sync::Arc;

use super::connector::ConnectorDraft;
use super::profile::{CBC_BELOW_MBPS, Profiles};
use super::site::SiteDraft;
use super::source::At;
use super::tunnel::{RoleDraft, TunnelDraft};
use super::wan::Wan;
use crate::edge::{ConnectorPlan, LanPlan, Plan, RolePlan, SitePlan, TunnelPlan};
use crate::model::{ConnectorId, LinkId, Mbps, PathId, TrafficSelector};
use crate::steer::RuleSet;

/// The plan; `None` when a required part is missing, which was reported where it is.
pub fn build(site: SiteDraft, profiles: &Profiles, rules: RuleSet, lan: LanPlan) -> Option<Plan> {
    let (underlays, links) = site.wan.plan()?;
    let mut connectors = Vec::new();
    let mut tunnels = Vec::new();
    for (index, draft) in site.connectors.iter().enumerate() {
        let id = ConnectorId(u16::try_from(index).ok()?);
        connectors.push(build_connector(draft, id, &site, profiles, &mut tunnels)?);
    }
    let name = site.name?;
    Some(Plan {
        recording: site.recording.plan(&name),
        site: SitePlan {
            name,
            kind: site.kind,
            country: site.country,
            state: site.state,
            license: site.license.as_ref().map(|at| at.value),
            cap: site.cap,
            native: values(&site.native),
        },
        underlays,
        links,
        lan,
        connectors,
        tunnels,
        rules: Arc::new(rules.with_utc_offset(site.utc_offset)),
        resolvers: site.resolvers,
        health: site.health,
        steering: site.steering,
        local_ports: site.local_ports,
        remote_ports: site.remote_ports,
        routes: site.routes,
        dataplane: site.dataplane,
        control_socket: site.control_socket,
    })
}

fn build_connector(
    draft: &ConnectorDraft,
    id: ConnectorId,
    site: &SiteDraft,
    profiles: &Profiles,
    tunnels: &mut Vec<TunnelPlan>,
) -> Option<ConnectorPlan> {
    let site_is_fast = site.bandwidth_mbps() >= CBC_BELOW_MBPS;
    let (phase1, keepalive) = profiles.phase1(draft.phase1_name())?;
    let phase1 = phase1.resolve(site_is_fast);
    let phase2 = profiles.phase2(draft.phase2_name())?.resolve(site_is_fast);
    let keepalive = draft.keepalive.over(keepalive).plan();
    let mut roles = [None, None];
    for role in draft.roles() {
        let mut paths = Vec::new();
        for tunnel in role.tunnels() {
            let (downstream, upstream) = share(tunnel, role, &site.wan)?;
            paths.push(PathId(u16::try_from(tunnels.len()).ok()?));
            tunnels.push(TunnelPlan {
                name: tunnel.name.as_ref()?.value.clone(),
                connector: id,
                role: role.role,
                link: tunnel.link.as_ref()?.value,
                destination: tunnel.destination.get().map(|at| at.value.clone()),
                local_id: tunnel.local_id.get().map(|at| at.value.clone()),
                remote_id: tunnel.remote_id.get().map(|at| at.value.clone()),
                public_ip: tunnel.public_ip.get().map(|at| at.value),
                psk: tunnel.psk.clone()?,
                private_local: tunnel.private_local.get().map(|at| at.value),
                private_remote: tunnel.private_remote.get().map(|at| at.value),
                downstream,
                upstream,
                probes: tunnel.probes.plan(),
                phase1: Arc::clone(&phase1),
                phase2: Arc::clone(&phase2),
                retransmission: keepalive.retransmission,
                keepalive: keepalive.keepalive,
                rebuild_interval: keepalive.rebuild_interval,
                dead_after: keepalive.dead_after,
            });
        }
        let plan = RolePlan { pop_location: role.pop_location.as_ref().map(|at| at.value.clone()), tunnels: paths };
        if let Some(place) = roles.get_mut(role.role.index()) {
            *place = Some(plan);
        }
    }
    Some(ConnectorPlan {
        name: draft.name.value.clone(),
        labels: draft.labels.clone(),
        description: draft.description.clone(),
        mode: draft.mode,
        ranges: values(&draft.ranges),
        local_selectors: draft.offered_local_selectors(site),
        peer_selectors: draft.offered_peer_selectors(site),
        mtu: draft.mtu,
        pmtu_discovery: draft.pmtu_discovery,
        outer_dscp: draft.outer_dscp,
        roles,
        failback: draft.failback,
    })
}

impl ConnectorDraft {
    /// As configured; else the native ranges of the site. A route-based connector, or a site
    /// without native ranges, offers everything.
    fn offered_local_selectors(&self, site: &SiteDraft) -> Vec<TrafficSelector> {
        if !self.local_selectors.is_empty() {
            return values(&self.local_selectors);
        }
        if self.is_route_based || site.native.is_empty() {
            return everything(site);
        }
        site.native.iter().map(|at| TrafficSelector::of_network(at.value)).collect()
    }

    /// As configured; else the network ranges; without any, everything.
    pub fn offered_peer_selectors(&self, site: &SiteDraft) -> Vec<TrafficSelector> {
        if !self.peer_selectors.is_empty() {
            return values(&self.peer_selectors);
        }
        if self.is_route_based {
            return everything(site);
        }
        self.ranges.iter().map(|at| TrafficSelector::of_network(at.value.range)).collect()
    }
}

/// Seed: "implicit: 0.0.0.0 <> 0.0.0.0"; IPv6 as well where the site has some.
fn everything(site: &SiteDraft) -> Vec<TrafficSelector> {
    let has_ipv6 = site.native.iter().any(|at| at.value.addr().is_ipv6());
    let mut selectors = vec![TrafficSelector::ANY_IPV4];
    selectors.extend(has_ipv6.then_some(TrafficSelector::ANY_IPV6));
    selectors
}

/// The last-mile bandwidth of a tunnel, downstream and upstream: its own, or an equal part of
/// what the role's other tunnels on its link leave.
fn share(tunnel: &TunnelDraft, role: &RoleDraft, wan: &Wan) -> Option<(Mbps, Mbps)> {
    let link = tunnel.link.as_ref()?.value;
    let (downstream, upstream) = wan.bandwidth(link)?;
    let on_link = || role.tunnels().iter().filter(move |one| is_on(one, link));
    let own_downstream: Vec<Option<Mbps>> = on_link().map(|one| one.downstream.as_ref().map(|at| at.value)).collect();
    let own_upstream: Vec<Option<Mbps>> = on_link().map(|one| one.upstream.as_ref().map(|at| at.value)).collect();
    let position = on_link().position(|one| std::ptr::eq(one, tunnel))?;
    Some((divide(downstream, &own_downstream, position)?, divide(upstream, &own_upstream, position)?))
}

fn is_on(tunnel: &TunnelDraft, link: LinkId) -> bool {
    tunnel.link.as_ref().is_some_and(|at| at.value == link)
}

/// The part of the tunnel at `position`; `own` is what each of the tunnels has claimed. The first
/// ones get what does not divide evenly, and nobody gets less than 1 Mbps.
fn divide(link: Mbps, own: &[Option<Mbps>], position: usize) -> Option<Mbps> {
    if let Some(Some(mbps)) = own.get(position) {
        return Some(*mbps);
    }
    let claimed = own.iter().flatten().fold(0u32, |sum, mbps| sum.saturating_add(mbps.value()));
    let left = link.value().saturating_sub(claimed);
    let sharers = u32::try_from(own.iter().filter(|one| one.is_none()).count()).ok()?;
    let before = u32::try_from(own.iter().take(position).filter(|one| one.is_none()).count()).ok()?;
    let extra = u32::from(before < left.checked_rem(sharers)?);
    Mbps::new((left.checked_div(sharers)? + extra).max(1))
}

fn values<T: Clone>(items: &[At<T>]) -> Vec<T> {
    items.iter().map(|item| item.value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_without_a_bandwidth_of_their_own_divide_what_the_link_has_left() {
        let mbps = |value| Mbps::new(value).unwrap();
        let parts = |own: &[Option<Mbps>]| -> Vec<u32> {
            (0..own.len()).map(|position| divide(mbps(100), own, position).unwrap().value()).collect()
        };
        assert_eq!(parts(&[None]), [100]);
        assert_eq!(parts(&[None, None, None]), [34, 33, 33]);
        assert_eq!(parts(&[None, Some(mbps(60)), None]), [20, 60, 20]);
        assert_eq!(parts(&[Some(mbps(300)), None]), [300, 1]);
    }
}
