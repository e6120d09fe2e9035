use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Ranges;
use crate::config::diagnostic::Report;
use crate::config::lan;
use crate::config::source::{At, Spot};
use crate::config::table::Value;
use crate::config::wording;
use crate::config::words;
use crate::edge::{LanPlan, LinkPlan, Plan, SegmentPlan, SiteKind};
use crate::model::{ConnectorId, InterfaceId, LinkId, NameId};
use crate::steer::{KnownNames, NamePatterns, SiteId};

/// What a policy may refer to by name: the WAN links and connectors of its site. A policy that is
/// looked at by itself may name any, and they are taken to be alike.
pub struct Vocabulary {
    /// By `LinkId`.
    links: RefCell<Vec<PolicyLink>>,
    /// By `ConnectorId`.
    connectors: RefCell<Vec<String>>,
    lan: RefCell<LanPlan>,
    patterns: RefCell<NamePatterns>,
    /// The one that is meant, empty when it has no name; `None`: rules for all sites are looked at together.
    site: Option<String>,
    /// By `SiteId`, from 1.
    sites: RefCell<Vec<String>>,
    /// What is routed to the site's connectors; `None` where that is not known.
    ranges: Option<Ranges>,
    /// Links that only the state of a test has named so far, and where.
    stated: RefCell<BTreeMap<LinkId, Spot>>,
    is_open: bool,
}

/// The names by their numbers, with those that the policy has added.
pub struct Names {
    pub links: Vec<PolicyLink>,
    pub connectors: Vec<String>,
    pub lan: LanPlan,
    /// By `NameId`.
    pub patterns: NamePatterns,
    /// The one that is meant; `None`: rules for all sites are looked at together.
    pub site: Option<String>,
    /// By `SiteId`, from 1.
    pub sites: Vec<String>,
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

/// Sites that share a policy: more than one etcd or one repository serves.
pub const SITES_MAX: usize = 16_384;

impl Vocabulary {
    /// Names alone: enough to read a policy.
    pub fn of_names(
        site: &str,
        links: impl Iterator<Item = String>,
        connectors: impl Iterator<Item = String>,
        lan: LanPlan,
    ) -> Vocabulary {
        let (links, connectors) = (links.map(PolicyLink::plain).collect(), connectors.collect());
        let (patterns, site) = (NamePatterns::default(), Some(site.to_owned()));
        Vocabulary::of(Names { links, connectors, lan, patterns, site, sites: Vec::new(), is_open: false })
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
            site: Some(plan.site.name.clone()),
            sites: Vec::new(),
            is_open: false,
        })
        .with_ranges(Ranges::new(
            plan.connectors.iter().map(|connector| connector.ranges.iter().map(|one| one.range).collect()),
        ))
    }

    /// Without a site: any name.
    pub fn open() -> Vocabulary {
        let (links, connectors, lan) = (Vec::new(), Vec::new(), LanPlan::default());
        let (patterns, sites) = (NamePatterns::default(), Vec::new());
        Vocabulary::of(Names { links, connectors, lan, patterns, site: None, sites, is_open: true })
    }

    pub fn of(names: Names) -> Vocabulary {
        let Names { links, connectors, lan, patterns, site, sites, is_open } = names;
        Vocabulary {
            links: RefCell::new(links),
            connectors: RefCell::new(connectors),
            lan: RefCell::new(lan),
            patterns: RefCell::new(patterns),
            site,
            sites: RefCell::new(sites),
            ranges: None,
            stated: RefCell::default(),
            is_open,
        }
    }

    pub fn with_ranges(self, ranges: Ranges) -> Vocabulary {
        Vocabulary { ranges: Some(ranges), ..self }
    }

    pub fn ranges(&self) -> Option<&Ranges> {
        self.ranges.as_ref()
    }

    pub fn link(&self, item: &Value<'_>) -> Option<LinkId> {
        let text = item.text()?;
        let found = self.find_link(text);
        if found.is_none() {
            item.error(format!("unknown WAN link {}", wording::quoted(text)), self.known_links());
        }
        self.stated.borrow_mut().remove(&found?);
        found
    }

    /// A link that a test says how it is; by this alone it is not used.
    pub fn link_stated(&self, name: &str, spot: &Spot, report: &Report) -> Option<LinkId> {
        let known = self.links.borrow().len();
        let found = self.find_link(name);
        if let Some(new) = found.filter(|found| usize::from(found.0) >= known) {
            self.stated.borrow_mut().insert(new, spot.clone());
        }
        if found.is_none() {
            report.error(spot, format!("unknown WAN link {}", wording::quoted(name)), self.known_links());
        }
        found
    }

    /// Of a policy by itself, the links of which only tests say how they are: no rule and no expectation names them.
    pub fn warn_of_stated(&self, report: &Report) {
        let (stated, links) = (self.stated.borrow(), self.links.borrow());
        let numbered = || (0u16..).map(LinkId).zip(links.iter());
        let used = numbered().filter(|(id, _)| !stated.contains_key(id)).map(|(_, link)| &link.name);
        let used = wording::known(used);
        for (spot, link) in numbered().filter_map(|(id, link)| Some((stated.get(&id)?, link))) {
            let what = format!("no rule and no expectation names the link {}", wording::quoted(&link.name));
            report.warn(spot, what, &used);
        }
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
        let Some(stand_in) = lan::number_of(lan, &format!("any of {text}")) else {
            item.error(lan::TOO_MANY, lan::AT_MOST);
            return None;
        };
        let interfaces = vec![stand_in];
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

    /// The one that is meant, if one is.
    pub fn site(&self) -> Option<&str> {
        self.site.as_deref()
    }

    /// What is for these sites alone, by their numbers; empty: for whatever site is meant. `None`: it is for
    /// others.
    pub fn for_sites(&self, names: &[At<String>], report: &Report) -> Option<Vec<SiteId>> {
        match &self.site {
            _ if names.is_empty() => Some(Vec::new()),
            Some(site) => names.iter().any(|name| name.value == *site).then(Vec::new),
            None => {
                let numbers = names.iter().map_while(|name| {
                    let number = self.number_of_site(&name.value);
                    if number.is_none() {
                        report.error(
                            &name.spot,
                            "one site too many",
                            format!("at most {SITES_MAX} in all policy files"),
                        );
                    }
                    number
                });
                Some(numbers.collect())
            }
        }
    }

    /// `None`: there are too many.
    fn number_of_site(&self, name: &str) -> Option<SiteId> {
        let mut sites = self.sites.borrow_mut();
        let index = sites.iter().position(|known| known == name);
        let index = index.or_else(|| {
            (sites.len() < SITES_MAX).then(|| {
                sites.push(name.to_owned());
                sites.len() - 1
            })
        });
        u16::try_from(index?.checked_add(1)?).ok().map(SiteId)
    }

    pub fn into_names(self) -> Names {
        Names {
            links: self.links.into_inner(),
            connectors: self.connectors.into_inner(),
            lan: self.lan.into_inner(),
            patterns: self.patterns.into_inner(),
            site: self.site,
            sites: self.sites.into_inner(),
            is_open: self.is_open,
        }
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
