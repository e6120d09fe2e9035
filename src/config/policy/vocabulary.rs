use std::cell::RefCell;

use crate::config::diagnostic::Report;
use crate::config::source::Spot;
use crate::config::table::Value;
use crate::config::wording;
use crate::edge::{LinkPlan, Plan, SiteKind};
use crate::model::{ConnectorId, LinkId};

/// What a policy may refer to by name: the WAN links and connectors of its site. A policy that is
/// looked at by itself may name any, and they are taken to be alike.
pub struct Vocabulary {
    /// By `LinkId`.
    links: RefCell<Vec<PolicyLink>>,
    /// By `ConnectorId`.
    connectors: RefCell<Vec<String>>,
    is_open: bool,
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
    pub fn of_names(links: impl Iterator<Item = String>, connectors: impl Iterator<Item = String>) -> Vocabulary {
        Vocabulary {
            links: RefCell::new(links.map(PolicyLink::plain).collect()),
            connectors: RefCell::new(connectors.collect()),
            is_open: false,
        }
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
        Vocabulary {
            links: RefCell::new(plan.links.iter().map(link).collect()),
            connectors: RefCell::new(plan.connectors.iter().map(|connector| connector.name.clone()).collect()),
            is_open: false,
        }
    }

    /// Without a site: these names, and any other.
    pub fn open(links: Vec<PolicyLink>, connectors: Vec<String>) -> Vocabulary {
        Vocabulary { links: RefCell::new(links), connectors: RefCell::new(connectors), is_open: true }
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

    /// By their numbers.
    pub fn into_names(self) -> (Vec<PolicyLink>, Vec<String>) {
        (self.links.into_inner(), self.connectors.into_inner())
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
