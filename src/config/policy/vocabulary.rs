use std::cell::RefCell;

use crate::config::diagnostic::Report;
use crate::config::lan;
use crate::config::source::Spot;
use crate::config::table::Value;
use crate::config::wording;
use crate::config::words;
use crate::edge::{LanPlan, LinkPlan, Plan, SegmentPlan, SiteKind};
use crate::model::{ConnectorId, InterfaceId, LinkId, NameId};
use crate::steer::{KnownNames, NamePatterns};

/// What a policy may refer to by name: the WAN links and connectors of its site. A policy that is
/// looked at by itself may name any, and they are taken to be alike.
pub struct Vocabulary {
    /// By `LinkId`.
    links: RefCell<Vec<PolicyLink>>,
    /// By `ConnectorId`.
    connectors: RefCell<Vec<String>>,
    lan: RefCell<LanPlan>,
    patterns: RefCell<NamePatterns>,
    is_open: bool,
}

/// The names by their numbers, with those that the policy has added.
pub struct Names {
    pub links: Vec<PolicyLink>,
    pub connectors: Vec<String>,
    pub lan: LanPlan,
    /// By `NameId`.
    pub patterns: NamePatterns,
    pub is_open: bool,
}

/// A WAN link as rules see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyLink {
    pub name: String,
    pub preference: u8,
    pub weight: u32,
    pub metered: bool,
    pub last_resort: bool,
}

/// Names that a policy by itself may use: as many as a site has links.
const NAMES_MAX: usize = 256;

impl Vocabulary {
    /// Names alone: enough to read a policy.
    pub fn of_names(
        links: impl Iterator<Item = String>,
        connectors: impl Iterator<Item = String>,
        lan: LanPlan,
    ) -> Vocabulary {
        let (links, connectors) = (links.map(PolicyLink::plain).collect(), connectors.collect());
        Vocabulary::of(Names { links, connectors, lan, patterns: NamePatterns::default(), is_open: false })
    }

    /// Of a site with all that decides.
    pub fn of_plan(plan: &Plan) -> Vocabulary {
        let link = |link: &LinkPlan| PolicyLink {
            name: link.name.clone(),
            preference: link.preference,
            weight: match plan.site.kind {
                SiteKind::Branch => link.upstream.value(),
                SiteKind::CloudVpc => link.downstream.value(),
            },
            metered: link.metered,
            last_resort: link.last_resort,
        };
        let connectors = plan.connectors.iter().map(|connector| connector.name.clone());
        Vocabulary::of(Names {
            links: plan.links.iter().map(link).collect(),
            connectors: connectors.collect(),
            lan: plan.lan.clone(),
            patterns: plan.rules.names().clone(),
            is_open: false,
        })
    }

    /// Without a site: any name.
    pub fn open() -> Vocabulary {
        let (links, connectors, lan) = (Vec::new(), Vec::new(), LanPlan::default());
        Vocabulary::of(Names { links, connectors, lan, patterns: NamePatterns::default(), is_open: true })
    }

    pub fn of(names: Names) -> Vocabulary {
        let Names { links, connectors, lan, patterns, is_open } = names;
        Vocabulary {
            links: RefCell::new(links),
            connectors: RefCell::new(connectors),
            lan: RefCell::new(lan),
            patterns: RefCell::new(patterns),
            is_open,
        }
    }

    pub fn link(&self, item: &Value<'_>) -> Option<LinkId> {
        let text = item.text()?;
        let found = self.find_link(text);
        if found.is_none() {
            item.error(format!("unknown WAN link {}", wording::quoted(text)), self.known_links());
        }
        found
    }

    pub fn link_called(&self, name: &str, spot: &Spot, report: &Report) -> Option<LinkId> {
        let found = self.find_link(name);
        if found.is_none() {
            report.error(spot, format!("unknown WAN link {}", wording::quoted(name)), self.known_links());
        }
        found
    }

    pub fn connector(&self, item: &Value<'_>) -> Option<ConnectorId> {
        let text = item.text()?;
        let mut connectors = self.connectors.borrow_mut();
        let found = connectors.iter().position(|name| name == text);
        let found = found.or_else(|| {
            (self.is_open && connectors.len() < NAMES_MAX).then(|| {
                connectors.push(text.to_string());
                connectors.len() - 1
            })
        });
        if found.is_none() {
            item.error(format!("unknown connector {}", wording::quoted(text)), wording::known(connectors.iter()));
        }
        u16::try_from(found?).ok().map(ConnectorId)
    }

    /// An interface of the host; it need not be known.
    pub fn interface(&self, item: &Value<'_>) -> Option<InterfaceId> {
        let name = item.parse(words::interface)?;
        let found = lan::number_of(&mut self.lan.borrow_mut(), &name);
        if found.is_none() {
            item.error(lan::TOO_MANY, lan::AT_MOST);
        }
        found
    }

    /// The interfaces of a segment.
    pub fn segment(&self, item: &Value<'_>) -> Option<Vec<InterfaceId>> {
        let text = item.text()?;
        let lan = &mut *self.lan.borrow_mut();
        if let Some(known) = lan.segments.iter().find(|segment| segment.name == text) {
            return Some(known.interfaces.clone());
        }
        if !self.is_open {
            let known = wording::known(lan.segments.iter().map(|segment| &segment.name));
            item.error(format!("unknown segment {}", wording::quoted(text)), known);
            return None;
        }
        // A policy by itself does not know what belongs to it; one interface stands for all.
        let stand_in = lan::number_of(lan, &format!("any of {text}"));
        let interfaces: Vec<InterfaceId> = stand_in.into_iter().collect();
        lan.segments.push(SegmentPlan { name: text.to_string(), interfaces: interfaces.clone() });
        Some(interfaces)
    }

    /// A name, or all below it.
    pub fn pattern(&self, item: &Value<'_>) -> Option<NameId> {
        let text = item.parse(words::name_pattern)?;
        let found = self.patterns.borrow_mut().number_of(&text);
        if found.is_none() {
            item.error("one name too many", "at most 65,535 different ones in all rules");
        }
        found
    }

    /// What a name of a flow's destination comes to.
    pub fn names_of(&self, name: &str) -> KnownNames {
        KnownNames::new(self.patterns.borrow().matching(name))
    }

    /// The names that rules ask for.
    pub fn patterns(&self) -> NamePatterns {
        self.patterns.borrow().clone()
    }

    pub fn into_names(self) -> Names {
        let (links, connectors, lan) = (self.links.into_inner(), self.connectors.into_inner(), self.lan.into_inner());
        Names { links, connectors, lan, patterns: self.patterns.into_inner(), is_open: self.is_open }
    }

    fn find_link(&self, name: &str) -> Option<LinkId> {
        let mut links = self.links.borrow_mut();
        let found = links.iter().position(|link| link.name == name);
        let found = found.or_else(|| {
            (self.is_open && links.len() < NAMES_MAX).then(|| {
                links.push(PolicyLink::plain(name.to_string()));
                links.len() - 1
            })
        });
        u16::try_from(found?).ok().map(LinkId)
    }

    fn known_links(&self) -> String {
        wording::known(self.links.borrow().iter().map(|link| &link.name))
    }
}

impl PolicyLink {
    fn plain(name: String) -> PolicyLink {
        PolicyLink { name, preference: 1, weight: 1, metered: false, last_resort: false }
    }
}
