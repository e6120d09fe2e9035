use super::{Context, Tunnel};
use crate::edge::snapshot::inner_mtu;
use crate::edge::{Effect, SiteEvent};
use crate::forward::{ProbeOrder, ToWorker};
use crate::health::PathMtu;
use crate::model::Moment;
use crate::probe::{Ask, Target};

/// The number of every probe for a size: what it asks is in its length.
const SIZE_PROBE: u64 = 0;

/// Answers longer than this are to probes for a size; those of health have 54 or 74 bytes.
const LONGEST_SMALL_PROBE: u16 = 100;

/// Path-MTU discovery of one tunnel, where it is wanted and there is a target to ask.
pub(super) struct Search {
    machine: PathMtu,
    /// What was last told.
    told: u16,
}

impl Search {
    pub fn poll_timeout(&self) -> Moment {
        self.machine.poll_timeout()
    }
}

impl Tunnel {
    /// The IKE SA is new, and perhaps its path.
    pub(super) fn restart_path_mtu(&mut self, context: &Context) {
        let configured = self.plan(context.plan);
        let connector = context.plan.connectors.get(usize::from(configured.connector.0));
        let wanted = connector.is_some_and(|connector| connector.pmtu_discovery);
        self.path_mtu = (wanted && self.size_probe(0, context).is_some()).then(|| {
            let ceiling = inner_mtu(context.plan, configured.connector, context.underlays);
            Search { machine: PathMtu::new(ceiling, context.now), told: ceiling }
        });
    }

    /// Does what is due: while the tunnel is down, probes would tell nothing.
    pub(super) fn search_path_mtu(&mut self, context: &mut Context) {
        if !self.usable() {
            return;
        }
        let ceiling = inner_mtu(context.plan, self.plan(context.plan).connector, context.underlays);
        let Some(search) = &mut self.path_mtu else { return };
        search.machine.handle_ceiling(ceiling, context.now);
        search.machine.handle_timeout(context.now);
        if let Some(size) = search.machine.poll_probe(context.now)
            && let Some(order) = self.size_probe(size, context)
        {
            context.effects.push_back(Effect::Order(context.plan.home(self.path), ToWorker::Probe(order)));
        }
        self.report_path_mtu(context);
    }

    /// The answer to a probe that left by this tunnel; `false` for one of health's. Whichever
    /// tunnel the answer came by: that the probe has got through is what it tells.
    pub(super) fn handle_size_answer(&mut self, length: u16, context: &mut Context) -> bool {
        if length <= LONGEST_SMALL_PROBE {
            return false;
        }
        if let Some(search) = &mut self.path_mtu {
            search.machine.handle_answer(length, context.now);
            self.search_path_mtu(context);
        }
        true
    }

    /// The host has refused a packet as larger than the path's MTU.
    pub fn handle_too_big(&mut self, context: &mut Context) {
        if let Some(search) = &mut self.path_mtu {
            search.machine.handle_too_big(context.now);
            self.search_path_mtu(context);
        }
    }

    /// The largest inner packet that the path carries as far as is known, where it is looked for.
    pub fn path_mtu(&self) -> Option<u16> {
        self.path_mtu.as_ref().map(|search| search.machine.mtu())
    }

    /// The same, once it is proven.
    pub fn proven_path_mtu(&self) -> Option<u16> {
        self.path_mtu.as_ref().filter(|search| search.machine.is_proven()).map(|search| search.machine.mtu())
    }

    fn report_path_mtu(&mut self, context: &mut Context) {
        let Some(search) = &mut self.path_mtu else { return };
        let (from, to) = (search.told, search.machine.mtu());
        if search.machine.is_proven() && from != to {
            search.told = to;
            context.effects.push_back(Effect::Event(SiteEvent::PathMtu { path: self.path, from, to }));
        }
    }

    fn size_probe(&self, length: u16, context: &Context) -> Option<ProbeOrder> {
        let configured = self.plan(context.plan);
        let source = configured.private_local?.addr();
        let asks = |target: &&Target| target.ask == Ask::Icmp && target.address.is_ipv4() == source.is_ipv4();
        let target = configured.probes.targets.iter().find(asks)?.address;
        Some(ProbeOrder { path: self.path, id: SIZE_PROBE, source, target, length })
    }
}
