use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::forward::{ChildFace, Duty, Forwarding, PathFace};
use crate::model::{
    ConnectorId, Leg, LinkId, OutboundSlot, PathId, Role, Selectors, UnderlayId, Verdict, WeekMinute, WorkerId,
};
use crate::steer::{Condition, SlaStanding};

/// Child SAs of one path, at most: no plan has more, and a recording with more was not made by one.
const CHILDREN_MAX: usize = 16;

/// A published value, as far as flows are decided by it: what has changed since the one before.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Published {
    pub generation: u64,
    pub policy_epoch: u32,
    /// In which the hours of the rules are looked at.
    pub minute: WeekMinute,
    /// By `ConnectorId`.
    pub active: Vec<Role>,
    pub paths: Vec<(PathId, FaceRecord)>,
    /// The links by which flows could leave outside of the tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakouts: Vec<LinkId>,
}

/// A path as workers see it: see `PathFace` of the same names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FaceRecord {
    pub connector: ConnectorId,
    pub role: Role,
    pub link: LinkId,
    pub epoch: u32,
    pub usable: bool,
    pub verdict: Verdict,
    #[serde(default)]
    pub duty: Duty,
    pub preference: u8,
    pub weight: u32,
    pub metered: bool,
    pub last_resort: bool,
    pub settled: bool,
    pub sla: SlaStanding,
    pub score: Option<u32>,
    #[serde(default)]
    pub doubt: u32,
    #[serde(default)]
    pub condition: Condition,
    #[serde(default)]
    pub mtu: u16,
    /// Of each Child SA.
    pub children: Vec<Arc<Selectors>>,
}

impl FaceRecord {
    pub fn of(path: &PathFace) -> FaceRecord {
        // Named one by one, so that a new field is recorded or left out on purpose.
        let PathFace {
            id: _,
            connector,
            role,
            epoch,
            usable,
            verdict,
            duty,
            link,
            preference,
            weight,
            metered,
            last_resort,
            settled,
            sla,
            score,
            doubt,
            condition,
            home: _,
            leg: _,
            mtu,
            // How packets are marked outside decides nothing about their way.
            outer_dscp: _,
            // Nor does when they leave.
            shaped: _,
            policed: _,
            private: _,
            kin: _,
            children,
            live: _,
        } = path;
        FaceRecord {
            connector: *connector,
            role: *role,
            link: *link,
            epoch: *epoch,
            usable: *usable,
            verdict: *verdict,
            duty: *duty,
            preference: *preference,
            weight: *weight,
            metered: *metered,
            last_resort: *last_resort,
            settled: *settled,
            sla: *sla,
            score: *score,
            doubt: *doubt,
            condition: *condition,
            mtu: *mtu,
            children: children.iter().map(|child| child.selectors.clone()).collect(),
        }
    }

    /// The path again, as far as decisions rest on it.
    fn face(&self, id: PathId) -> PathFace {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let child = |selectors: &Arc<Selectors>| ChildFace { selectors: selectors.clone(), slot: OutboundSlot(0) };
        PathFace {
            id,
            connector: self.connector,
            role: self.role,
            epoch: self.epoch,
            usable: self.usable,
            verdict: self.verdict,
            duty: self.duty,
            link: self.link,
            preference: self.preference,
            weight: self.weight,
            metered: self.metered,
            last_resort: self.last_resort,
            settled: self.settled,
            sla: self.sla,
            score: self.score,
            doubt: self.doubt,
            condition: self.condition,
            home: WorkerId(0),
            leg: Leg { underlay: UnderlayId(0), natt: true, local: nowhere, remote: nowhere },
            mtu: self.mtu,
            outer_dscp: None,
            shaped: false,
            policed: false,
            private: None,
            kin: false,
            children: self.children.iter().take(CHILDREN_MAX).map(child).collect(),
            live: Arc::default(),
        }
    }
}

impl Published {
    /// What is otherwise than in `known`, which then is the same.
    pub(super) fn since(known: &mut Vec<FaceRecord>, forwarding: &Forwarding) -> Published {
        let mut paths = Vec::new();
        for (index, path) in forwarding.paths.iter().enumerate() {
            let face = FaceRecord::of(path);
            match known.get_mut(index) {
                Some(before) if *before == face => continue,
                Some(before) => *before = face.clone(),
                None => known.push(face.clone()),
            }
            paths.push((path.id, face));
        }
        Published {
            generation: forwarding.generation,
            policy_epoch: forwarding.policy_epoch,
            minute: forwarding.minute,
            active: forwarding.connectors.iter().map(|connector| connector.active).collect(),
            paths,
            breakouts: forwarding.breakouts.iter().filter(|face| face.usable).map(|face| face.link).collect(),
        }
    }

    /// The value that was published after `before`; what does not belong to it is left out.
    pub(super) fn after(&self, before: &Forwarding) -> Forwarding {
        let mut next = before.clone();
        (next.generation, next.policy_epoch, next.minute) = (self.generation, self.policy_epoch, self.minute);
        for (connector, active) in next.connectors.iter_mut().zip(&self.active) {
            connector.active = *active;
        }
        for face in &mut next.breakouts {
            face.usable = self.breakouts.contains(&face.link);
        }
        let mut paths = std::mem::take(&mut next.paths).into_vec();
        for (id, record) in &self.paths {
            let known = paths.len();
            match paths.get_mut(usize::from(id.0)) {
                Some(path) => *path = record.face(*id),
                None if known == usize::from(id.0) => paths.push(record.face(*id)),
                None => {}
            }
        }
        next.paths = paths.into();
        next
    }
}
