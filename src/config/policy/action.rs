//! What a rule does with its flows.

use super::definitions::Definitions;
use super::fields::{self, VALUES_MAX};
use super::vocabulary::Vocabulary;
use crate::config::diagnostic::Report;
use crate::config::source::{At, Spot, Written};
use crate::config::table::{Table, Value};
use crate::config::wording::{self, Complaint};
use crate::model::LinkId;
use crate::steer::{Action, Breakout, Links, OnFailback, PathStrategy, Steering};

#[derive(Clone, Copy, PartialEq, Eq)]
enum RuleMode {
    Prefer,
    Strict,
    Balance,
    BreakOut,
    Drop,
}

/// The action, unless something of it is wrong.
pub fn read(
    table: &mut Table<'_>,
    vocabulary: &Vocabulary,
    definitions: &Definitions,
    report: &Report,
) -> Option<Action> {
    let spot = table.spot().clone();
    let mode = table.written("mode", mode);
    let links_value = table.value("links");
    let links = links_value.as_ref().map(|value| (value.spot.clone(), links(value, vocabulary)));
    let strategy = table.written("strategy", |text| one_of("strategy", text, PathStrategy::ALL, PathStrategy::name));
    let sla = table.value("sla").map(|value| {
        let class = value.text().and_then(|text| {
            let class = definitions.sla(text);
            if class.is_none() {
                let what = format!("unknown SLA class {}", wording::quoted(text));
                value.error(what, definitions.known_sla());
            }
            class
        });
        value.at(class)
    });
    let on_failback =
        table.written("on_failback", |text| one_of("on_failback", text, OnFailback::ALL, OnFailback::name));
    let set_dscp = table.value("set_dscp").map(|value| value.at(fields::dscp(&value)));
    let further: Vec<(&str, &Spot)> = [
        ("strategy", strategy.get().map(|at| &at.spot)),
        ("sla", sla.as_ref().map(|at| &at.spot)),
        ("on_failback", on_failback.get().map(|at| &at.spot)),
        ("set_dscp", set_dscp.as_ref().map(|at| &at.spot)),
    ]
    .into_iter()
    .filter_map(|(key, spot)| Some((key, spot?)))
    .collect();
    let mode = match mode {
        Written::Wrong => return None,
        Written::No => None,
        Written::Yes(at) => Some(at.value),
    };
    let refused = match mode {
        Some(RuleMode::Drop) => Some((&further[..], "drops its flows")),
        // What is marked is marked there as well.
        Some(RuleMode::BreakOut) => {
            let marks = usize::from(set_dscp.is_some());
            Some((further.get(..further.len() - marks).unwrap_or(&[]), "lets its flows out of the tunnels"))
        }
        Some(RuleMode::Prefer | RuleMode::Strict | RuleMode::Balance) | None => None,
    };
    for (key, spot) in refused.iter().flat_map(|(further, _)| further.iter()) {
        let does = refused.map_or("", |(_, does)| does);
        report.error(spot, format!("{key} in a rule that {does}"), format!("no {key}, or another mode"));
    }
    if mode == Some(RuleMode::BreakOut) {
        let Some((_, links)) = links else {
            report.missing(&spot, "nothing says by which link the flows break out", "links = [\"dsl\"]");
            return None;
        };
        return Some(Action::BreakOut(Breakout { links, set_dscp: set_dscp.and_then(|at| at.value) }));
    }
    let says_something = !strategy.is_left_out() || sla.is_some() || !on_failback.is_left_out() || set_dscp.is_some();
    let links = where_to(mode, links, says_something, &spot, report)?;
    let strategy = match strategy {
        Written::Wrong => return None,
        Written::No if links == Some(Links::Any) => PathStrategy::Balance,
        Written::No => PathStrategy::Prefer,
        Written::Yes(at) => checked_strategy(at, mode, links.as_ref(), report),
    };
    let Some(links) = links else { return Some(Action::Drop) };
    Some(Action::Steer(Steering {
        links,
        strategy,
        sla: sla.and_then(|at| at.value),
        on_failback: on_failback.get().map(|at| at.value).unwrap_or_default(),
        set_dscp: set_dscp.and_then(|at| at.value),
    }))
}

/// Which links the rule allows; `Some(None)` when it drops.
fn where_to(
    mode: Option<RuleMode>,
    links: Option<(Spot, Vec<LinkId>)>,
    says_something: bool,
    spot: &Spot,
    report: &Report,
) -> Option<Option<Links>> {
    match (mode, links) {
        (Some(RuleMode::Prefer) | None, Some((_, links))) => Some(Some(Links::Prefer(links))),
        (Some(RuleMode::Strict), Some((_, links))) => Some(Some(Links::Strict(links))),
        (Some(RuleMode::Balance), None) => Some(Some(Links::Any)),
        (Some(RuleMode::Drop), None) => Some(None),
        (None, None) if says_something => Some(Some(Links::Any)),
        // Those came back before.
        (Some(RuleMode::BreakOut), _) => None,
        (Some(RuleMode::Balance | RuleMode::Drop), Some((links_spot, _))) => {
            report.error(
                &links_spot,
                "links in a rule that chooses none",
                "mode = \"prefer\", \"strict\" or \"breakout\", or no links",
            );
            None
        }
        (Some(RuleMode::Prefer | RuleMode::Strict) | None, None) => {
            report.missing(
                spot,
                "the rule says nothing about where its flows go",
                "links = [...], or mode = \"balance\" or \"drop\"",
            );
            None
        }
    }
}

fn checked_strategy(
    at: At<PathStrategy>,
    mode: Option<RuleMode>,
    links: Option<&Links>,
    report: &Report,
) -> PathStrategy {
    if mode == Some(RuleMode::Balance) {
        report.error(&at.spot, "strategy beside mode = \"balance\", which is one", "only one of them");
    } else if at.value == PathStrategy::Prefer && links == Some(&Links::Any) {
        report.error(&at.spot, "strategy prefer without links", "links = [...], or another strategy");
    }
    at.value
}

fn links(value: &Value<'_>, vocabulary: &Vocabulary) -> Vec<LinkId> {
    let mut links = Vec::new();
    for item in value.items(VALUES_MAX) {
        match vocabulary.link(&item) {
            Some(link) if links.contains(&link) => {
                item.error(format!("{} is listed twice", wording::quoted(item.text().unwrap_or_default())), "");
            }
            Some(link) => links.push(link),
            None => {}
        }
    }
    if value.is_empty_list() {
        value.error("links is empty", "at least one WAN link");
    }
    links
}

fn mode(text: &str) -> Result<RuleMode, Complaint> {
    match text {
        "prefer" => Ok(RuleMode::Prefer),
        "strict" => Ok(RuleMode::Strict),
        "balance" => Ok(RuleMode::Balance),
        "breakout" => Ok(RuleMode::BreakOut),
        "drop" => Ok(RuleMode::Drop),
        _ => Err(Complaint {
            what: format!("unknown mode {}", wording::quoted(text)),
            instead: wording::known(["prefer", "strict", "balance", "breakout", "drop"]),
        }),
    }
}

fn one_of<T: Copy, const N: usize>(
    key: &str,
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, Complaint> {
    all.into_iter().find(|one| name(*one) == text).ok_or_else(|| Complaint {
        what: format!("unknown {key} {}", wording::quoted(text)),
        instead: wording::known(all.map(name)),
    })
}
