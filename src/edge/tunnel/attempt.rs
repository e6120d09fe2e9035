use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Context, Tunnel};
use crate::edge::{Destination, Effect, ResolveFailure, SiteEvent, UnderlayFact};
use crate::ike::{Legs, SaId};
use crate::model::{Leg, Moment, UnderlayId};

/// The first pause after a failed attempt; doubled after each further one, up to the profile's
/// rebuild interval.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The first pause when the peer refused us: that takes a person to mend.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// The pause before a name is looked up again that gave no address.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);

/// A look-up that nobody answers by then has failed.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(20);

/// What is being done to set a tunnel up.
pub(super) enum Attempt {
    /// Up, or only the peer may open it.
    Idle,
    Waiting {
        until: Moment,
    },
    Resolving {
        until: Moment,
    },
    Connecting {
        sa: SaId,
    },
}

impl Tunnel {
    /// Answers to `Effect::Resolve`.
    pub fn handle_resolved(&mut self, answer: Result<Vec<Ipv4Addr>, ResolveFailure>, context: &mut Context) {
        if !matches!(self.attempt, Attempt::Resolving { .. }) {
            return;
        }
        let name = match &self.plan(context.plan).destination {
            Some(Destination::Fqdn(name)) => name.clone(),
            Some(Destination::Ipv4(_)) | None => return,
        };
        let failure = match answer {
            Ok(addresses) => {
                match self.last_good.filter(|good| addresses.contains(good)).or(addresses.first().copied()) {
                    Some(address) => {
                        if let Some(from) = self.last_good.replace(address).filter(|from| *from != address) {
                            let event = SiteEvent::AddressChanged { path: self.path, name, from, to: address };
                            context.effects.push_back(Effect::Event(event));
                        }
                        return self.connect(address, context);
                    }
                    None => ResolveFailure::Unavailable("the answer is empty".to_owned()),
                }
            }
            Err(failure) => failure,
        };
        let reason = failure.reason(&name);
        let event =
            SiteEvent::ResolutionFailed { path: self.path, name, reason: reason.clone(), fallback: self.last_good };
        context.effects.push_back(Effect::Event(event));
        self.failed(&reason, context.now);
        match self.last_good {
            Some(address) => self.connect(address, context),
            None => self.wait(RESOLVE_PAUSE, reason, context),
        }
    }

    pub(super) fn begin(&mut self, context: &mut Context) {
        match &self.plan(context.plan).destination {
            Some(Destination::Ipv4(address)) => self.connect(*address, context),
            Some(Destination::Fqdn(name)) => {
                let underlay = context.plan.links[usize::from(self.link(context.plan).0)].underlay;
                if let Err(reason) = self.underlay(context) {
                    // A look-up over a link without sockets would only hide the reason.
                    return self.wait(RESOLVE_PAUSE, reason, context);
                }
                context.effects.push_back(Effect::Resolve { path: self.path, name: name.clone(), underlay });
                self.attempt = Attempt::Resolving { until: context.now + RESOLVE_PATIENCE };
                self.report_state("looking its PoP up by name".to_owned(), context);
            }
            None => self.attempt = Attempt::Idle,
        }
    }

    fn connect(&mut self, remote: Ipv4Addr, context: &mut Context) {
        let (underlay, fact) = match self.underlay(context) {
            Ok(found) => found,
            Err(reason) => return self.wait(RESOLVE_PAUSE, reason, context),
        };
        let leg = |natt: bool| {
            let ports = context.plan.remote_ports;
            let (local, remote_port) = if natt { (fact.natt_port, ports.natt) } else { (fact.ike_port, ports.ike) };
            Leg {
                underlay,
                natt,
                local: SocketAddr::new(IpAddr::V4(fact.address), local),
                remote: SocketAddr::new(IpAddr::V4(remote), remote_port),
            }
        };
        let legs = Legs { ike: leg(false), natt: leg(true) };
        if let Some(peer) = self.peer(Some(remote), context) {
            context.endpoint.set_peer(self.path, Arc::new(peer));
        }
        match context.endpoint.initiate(self.path, legs, context.now) {
            Some(sa) => {
                self.attempt = Attempt::Connecting { sa };
                self.report_state(format!("calling {remote}"), context);
            }
            None => self.wait(REFUSED_PAUSE, "too many IKE SAs: the limit is reached".to_owned(), context),
        }
    }

    /// What its datagrams leave by, or why there is nothing.
    fn underlay(&self, context: &Context) -> Result<(UnderlayId, UnderlayFact), String> {
        let link = &context.plan.links[usize::from(self.link(context.plan).0)];
        let index = usize::from(link.underlay.0);
        match (context.underlays.get(index).copied().flatten(), context.faults.get(index)) {
            (Some(fact), _) => Ok((link.underlay, fact)),
            (None, Some(Some(fault))) => Err(format!("WAN link {}: {fault}", link.name)),
            (None, _) => Err(format!("WAN link {} has no IPv4 address", link.name)),
        }
    }

    pub(super) fn wait(&mut self, first: Duration, reason: String, context: &mut Context) {
        let limit = self.plan(context.plan).rebuild_interval;
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(limit).max(FIRST_PAUSE);
        // Up to a quarter more, so that the tunnels of many sites do not call at the same moment.
        let spread = context.chance.below(u32::try_from(pause.as_millis() / 4).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.failed(&reason, context.now);
        self.attempt = Attempt::Waiting { until: context.now + pause + Duration::from_millis(u64::from(spread)) };
        self.report_state(reason, context);
    }

    /// The tunnel answers again: the attempt to set it up anew is not needed.
    pub(super) fn cancel_attempt(&mut self, context: &mut Context) {
        let attempt = std::mem::replace(&mut self.attempt, Attempt::Idle);
        if let Attempt::Connecting { sa } = attempt {
            context.endpoint.abandon(sa, "the tunnel answers again");
        }
        self.failures = 0;
    }
}
