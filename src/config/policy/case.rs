//! `[[test]]`: what the author of the rules expects of them, written beside them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::definitions::Definitions;
use super::fields;
use super::vocabulary::Vocabulary;
use super::{flow, hours};
use crate::config::diagnostic::Report;
use crate::config::table::{Table, Value};
use crate::config::wording;
use crate::config::words;
use crate::model::{ConnectorId, Dscp, InterfaceId, LinkId, Permille, Verdict};
use crate::steer::{Ends, NewFlow, Quality};

/// A link of which a test says nothing is healthy and measures this.
const WELL: Quality = Quality {
    loss: Some(Permille::ZERO),
    rtt: Some(Duration::from_millis(20)),
    jitter: Some(Duration::from_millis(1)),
    recent: None,
    latest: None,
    source: None,
    only_slow: false,
    sent_kbps: 0,
    received_kbps: 0,
};

/// One expectation.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    pub name: String,
    /// As `policy/branch.toml:50`.
    pub place: String,
    pub flow: NewFlow,
    /// The links that are not simply well.
    pub state: Vec<(LinkId, LinkState)>,
    pub expect: Option<Expected>,
    /// `Some(None)`: no rule matches.
    pub rule: Option<Option<String>>,
}

/// How a link is while a flow is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkState {
    pub verdict: Verdict,
    pub quality: Quality,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// One of these, and no other.
    Links(Vec<LinkId>),
    /// One of these, outside of the tunnels.
    Breakout(Vec<LinkId>),
    Refused,
}

impl LinkState {
    pub const HEALTHY: LinkState = LinkState { verdict: Verdict::Healthy, quality: WELL };
}

/// A test; `Some(None)` when it is for another site than the one that is meant, `None` when something of it is
/// wrong, which was reported. `rules` are the names of all of them.
pub fn read(
    mut table: Table<'_>,
    vocabulary: &Vocabulary,
    definitions: &Definitions,
    rules: &BTreeSet<String>,
    report: &Report,
) -> Option<Option<PolicyTest>> {
    let spot = table.spot().clone();
    let errors_before = report.error_count();
    let named_sites = fields::sites(&mut table, definitions);
    if let Some(second) = named_sites.get(1) {
        report.error(&second.spot, "a test for several sites", "one site for each test");
    }
    let sites = vocabulary.for_sites(&named_sites, report);
    let open = Vocabulary::open();
    let vocabulary = if sites.is_some() { vocabulary } else { &open };
    let name =
        table.required("name", "name = \"calls leave a brownout\"").and_then(|value| value.parse(words::free_text));
    let key = table.required("flow", "flow = \"udp 10.20.1.5:40000 203.0.113.9:5060\"");
    let key = key.and_then(|value| value.parse(flow::flow));
    let dscp = table.value("dscp").and_then(|value| fields::dscp(&value)).unwrap_or(Dscp::DEFAULT);
    let connector = table.value("connector").and_then(|value| vocabulary.connector(&value));
    let hours = table.value("time").and_then(|value| value.parse(hours::moment));
    let fqdn = table.value("fqdn").and_then(|value| value.parse(words::name_pattern));
    let interface = read_interface(&mut table, vocabulary);
    let mut state = Vec::new();
    if let Some(mut links) = table.table("state") {
        for (name, value) in links.named_values() {
            let link = vocabulary.link_stated(name.value, &name.spot, report);
            let told = read_state(&value);
            state.extend(link.zip(told));
        }
    }
    let expect = table.value("expect").map(|value| read_expected(&value, vocabulary));
    let breakout = table.value("breakout");
    if let Some(value) = breakout.as_ref().filter(|_| expect.is_some()) {
        value.error("breakout beside expect", "only one of them");
    }
    let breakout = breakout.map(|value| read_links(&value, "breakout", "a link, or several", vocabulary));
    let expect = expect.or(breakout.map(|links| links.map(Expected::Breakout)));
    let rule = table.value("rule").and_then(|value| value.parse_at(words::name));
    if let Some(rule) = rule.as_ref().filter(|rule| rule.value != words::NO_RULE && !rules.contains(&rule.value)) {
        let test = name.as_deref().map(wording::quoted).unwrap_or_default();
        let what =
            format!("test {test} expects the rule {}, and there is none of that name", wording::quoted(&rule.value));
        report.warn(&rule.spot, what, wording::known(rules));
    }
    let rule = rule.map(|rule| Some(rule.value).filter(|name| name != words::NO_RULE));
    table.finish();
    if expect.is_none() && rule.is_none() && report.error_count() == errors_before {
        report.missing(
            &spot,
            "the test expects nothing",
            "expect = \"fibre\", expect = \"refused\", breakout = \"dsl\", or rule = \"voice\"",
        );
    }
    if report.error_count() > errors_before {
        return None;
    }
    let Some(sites) = sites else { return Some(None) };
    let site = sites.first().copied().unwrap_or_default();
    let flow = NewFlow {
        key: key?,
        dscp,
        connector: connector.unwrap_or(ConnectorId(0)),
        minute: hours.unwrap_or_default(),
        ends: Ends { site, interface, names: fqdn.map_or_else(Default::default, |name| vocabulary.names_of(&name)) },
    };
    Some(Some(PolicyTest { name: name?, place: spot.to_string(), flow, state, expect: expect.flatten(), rule }))
}

/// By which the source of the flow is reached: an interface, or the first of a segment.
fn read_interface(table: &mut Table<'_>, vocabulary: &Vocabulary) -> InterfaceId {
    let named = table.value("interface").and_then(|value| vocabulary.interface(&value));
    let segment = table.value("segment");
    if let Some(value) = segment.as_ref().filter(|_| named.is_some()) {
        value.error("segment beside interface", "only one of them");
    }
    let of_segment = segment.and_then(|value| vocabulary.segment(&value)?.first().copied());
    named.or(of_segment).unwrap_or_default()
}

/// `"degraded"`, or `{ verdict = "healthy", loss_percent = 3.0, rtt_ms = 80 }`.
fn read_state(value: &Value<'_>) -> Option<LinkState> {
    if !value.is_table() {
        return value.parse(verdict).map(|verdict| LinkState { verdict, quality: WELL });
    }
    let mut table = value.clone().into_table(&format!("state.{}", wording::plain(&value.name)))?;
    let verdict = table.value("verdict").map(|value| value.parse(verdict));
    let loss = table.value("loss_percent").and_then(|value| value.decimal(0.0..=100.0, "per cent"));
    let mut time =
        |key| table.value(key).and_then(|value| value.number::<u64>(0..=10_000, "ms")).map(Duration::from_millis);
    let (rtt, jitter) = (time("rtt_ms"), time("jitter_ms"));
    table.finish();
    let loss = loss.and_then(|loss| Permille::new((loss * 10.0).round() as u16));
    let quality = Quality { loss: loss.or(WELL.loss), rtt: rtt.or(WELL.rtt), jitter: jitter.or(WELL.jitter), ..WELL };
    Some(LinkState { verdict: verdict.unwrap_or(Some(Verdict::Healthy))?, quality })
}

fn verdict(text: &str) -> Result<Verdict, wording::Complaint> {
    let all = [Verdict::Healthy, Verdict::Unknown, Verdict::Degraded, Verdict::Down];
    all.into_iter().find(|one| one.name() == text).ok_or_else(|| wording::Complaint {
        what: format!("unknown verdict {}", wording::quoted(text)),
        instead: wording::known(all.map(Verdict::name)),
    })
}

fn read_expected(value: &Value<'_>, vocabulary: &Vocabulary) -> Option<Expected> {
    if value.is_text("refused") {
        return Some(Expected::Refused);
    }
    read_links(value, "expect", "a link, several links, or \"refused\"", vocabulary).map(Expected::Links)
}

fn read_links(value: &Value<'_>, key: &str, instead: &str, vocabulary: &Vocabulary) -> Option<Vec<LinkId>> {
    let items = value.items(fields::VALUES_MAX);
    if items.is_empty() {
        value.error(format!("{key} is empty"), instead);
    }
    items.iter().map(|item| vocabulary.link(item)).collect()
}
