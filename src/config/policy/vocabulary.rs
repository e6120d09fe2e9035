use crate::config::site::SiteDraft;
use crate::config::table::Value;
use crate::config::wording;
use crate::model::{ConnectorId, LinkId};

/// What a policy may refer to by name: the WAN links and connectors of its site.
pub struct Vocabulary {
    /// By `LinkId`.
    links: Vec<String>,
    /// By `ConnectorId`.
    connectors: Vec<String>,
}

impl Vocabulary {
    pub fn of_site(site: &SiteDraft) -> Vocabulary {
        Vocabulary {
            links: site.wan.names().map(|(_, name)| name.value.clone()).collect(),
            connectors: site.connectors.iter().map(|connector| connector.name.value.clone()).collect(),
        }
    }

    pub fn link(&self, item: &Value<'_>) -> Option<LinkId> {
        position(&self.links, item, "WAN link").map(LinkId)
    }

    pub fn connector(&self, item: &Value<'_>) -> Option<ConnectorId> {
        position(&self.connectors, item, "connector").map(ConnectorId)
    }
}

fn position(names: &[String], item: &Value<'_>, noun: &str) -> Option<u16> {
    let text = item.text()?;
    let found = names.iter().position(|name| name == text);
    if found.is_none() {
        item.error(format!("unknown {noun} {}", wording::quoted(text)), wording::known(names));
    }
    u16::try_from(found?).ok()
}
