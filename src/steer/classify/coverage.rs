use std::net::{IpAddr, Ipv4Addr};

use super::row::SITE;
use super::{Family, Row, STEPS_MAX, STEPS_OF_TAKING};
use crate::model::{Dscp, protocol};
use crate::steer::{Rule, SiteId};

/// Parts that a row may fall into while earlier rows are taken from it. Beyond, nothing is said: it
/// would take a rule as ragged as nobody writes.
const PARTS_MAX: usize = 256;

/// Flows tried of each row: one that no earlier rule matches shows that its rule is reached.
const TRIALS: u64 = 8;

/// Something about a rule that its author can hardly have meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// What it asks for excludes itself, as a port of a protocol without ports.
    Impossible { rule: usize },
    /// Earlier rules take every flow that it would match.
    Unreachable { rule: usize, taken_by: Vec<usize> },
}

/// Two rules that some flows match both, the earlier of which also matches others, and that do different
/// things: the order alone decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overlap {
    pub earlier: usize,
    pub later: usize,
    /// One such flow, in words.
    pub example: String,
    /// The site that it leaves.
    pub site: SiteId,
}

/// Looks at the rules as they stand in the file.
pub struct Coverage<'a> {
    rules: &'a [Rule],
    rows: Vec<Vec<Row>>,
}

impl Coverage<'_> {
    pub fn new(rules: &[Rule]) -> Coverage<'_> {
        Coverage { rules, rows: rules.iter().map(|rule| Row::all_of(&rule.matcher)).collect() }
    }

    /// In the order of the rules.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut steps = 0;
        for (rule, rows) in self.rows.iter().enumerate() {
            if rows.is_empty() {
                findings.push(Finding::Impossible { rule });
                continue;
            }
            if let Some(taken_by) = self.taken_by(rule, rows, &mut steps) {
                findings.push(Finding::Unreachable { rule, taken_by });
            }
            if steps > STEPS_MAX {
                break;
            }
        }
        findings
    }

    /// The earlier rules that leave nothing of these rows.
    fn taken_by(&self, rule: usize, rows: &[Row], steps: &mut u64) -> Option<Vec<usize>> {
        if self.is_seen_reached(rule, rows, steps) {
            return None;
        }
        let mut left: Vec<Row> = rows.to_vec();
        let mut taken_by = Vec::new();
        for (earlier, its_rows) in self.rows.iter().enumerate().take(rule) {
            for row in its_rows {
                *steps += left.len() as u64;
                if !left.iter().any(|part| part.meets(row)) {
                    continue;
                }
                *steps += left.len() as u64 * STEPS_OF_TAKING;
                left = left.iter().flat_map(|part| part.without(row)).collect();
                if taken_by.last() != Some(&earlier) {
                    taken_by.push(earlier);
                }
                if left.is_empty() {
                    return Some(taken_by);
                }
                if left.len() > PARTS_MAX || *steps > STEPS_MAX {
                    return None;
                }
            }
        }
        None
    }

    /// Does one of a few flows of these rows pass all earlier rules? Nearly every rule of a sound
    /// file is found reached here, without the work of taking rows apart.
    fn is_seen_reached(&self, rule: usize, rows: &[Row], steps: &mut u64) -> bool {
        let earlier = || self.rows.iter().take(rule).flatten();
        rows.iter().flat_map(|row| (0..TRIALS).map(move |trial| (row.family, row.spot(trial)))).any(|(family, spot)| {
            let mut looked_at = 0;
            let passes = earlier().inspect(|_| looked_at += 1).all(|row| row.family != family || !row.holds(&spot));
            *steps += looked_at;
            passes
        })
    }

    /// Up to `most` overlaps, in the order of the later rule.
    pub fn overlaps(&self, most: usize) -> Vec<Overlap> {
        let mut overlaps = Vec::new();
        let mut steps = 0;
        for (later, rows) in self.rows.iter().enumerate() {
            for (earlier, its_rows) in self.rows.iter().enumerate().take(later) {
                steps += (rows.len() * its_rows.len()) as u64;
                if overlaps.len() == most || steps > STEPS_MAX {
                    return overlaps;
                }
                if self.rules.get(earlier).map(|rule| &rule.action) == self.rules.get(later).map(|rule| &rule.action) {
                    continue;
                }
                let pairs = || its_rows.iter().flat_map(|row| rows.iter().map(move |other| (row, other)));
                let Some((row, other)) = pairs().find(|(row, other)| row.meets(other)) else { continue };
                // An exception before the rule that it is an exception of is how lists are written.
                let is_exception = its_rows.iter().all(|row| rows.iter().any(|other| row.is_within(other)));
                if !is_exception {
                    let (example, site) = (example(row, other), common_site(row, other));
                    overlaps.push(Overlap { earlier, later, example, site });
                }
            }
        }
        overlaps
    }
}

/// One that no rule names, unless the rows are for some only.
fn common_site(row: &Row, other: &Row) -> SiteId {
    let common = row.axes[SITE].intersection(&other.axes[SITE]).first().unwrap_or(0);
    SiteId(u16::try_from(common).unwrap_or_default())
}

/// A flow that two rows have in common, with what can be said of it in few words.
fn example(row: &Row, other: &Row) -> String {
    let common: Vec<u128> =
        row.axes.iter().zip(&other.axes).map(|(ours, theirs)| ours.intersection(theirs).first().unwrap_or(0)).collect();
    let value = |axis: usize| common.get(axis).copied().unwrap_or(0);
    let narrow = |axis: usize| {
        let both = row.axes.get(axis).zip(other.axes.get(axis)).map(|(ours, theirs)| ours.intersection(theirs));
        both.is_some_and(|both| both != super::Ranges::whole(super::last_values(row.family)[axis]))
    };
    let address = |axis: usize| if narrow(axis) { host(row.family, value(axis)).to_string() } else { "any".into() };
    let port = |axis: usize| if narrow(axis) { format!(":{}", value(axis)) } else { String::new() };
    // Of all protocols the one that people think of.
    let tcp = row.axes[2].contains(protocol::TCP.into()) && other.axes[2].contains(protocol::TCP.into());
    let protocol = match if tcp { u128::from(protocol::TCP) } else { value(2) } {
        6 => "tcp".to_string(),
        17 => "udp".to_string(),
        number => format!("protocol {number}"),
    };
    let dscp = u8::try_from(value(5)).ok().and_then(Dscp::new).filter(|_| narrow(5));
    let dscp = dscp.map_or_else(String::new, |dscp| format!(" dscp {dscp}"));
    format!("{protocol} {}{} -> {}{}{dscp}", address(0), port(3), address(1), port(4))
}

fn host(family: Family, value: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(value).unwrap_or(u32::MAX)).into(),
        Family::V6 => std::net::Ipv6Addr::from_bits(value).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Dscp, LinkId};
    use crate::steer::{Action, Matcher};

    fn to(networks: &[&str]) -> Matcher {
        let destinations = networks.iter().map(|net| net.parse().expect("a network")).collect();
        Matcher { destinations, ..Matcher::default() }
    }

    fn rules(matchers: Vec<Matcher>) -> Vec<Rule> {
        let rule = |(index, matcher)| Rule {
            name: format!("rule {index}"),
            place: String::new(),
            matcher,
            action: Action::prefer([LinkId(index as u16)]),
        };
        matchers.into_iter().enumerate().map(rule).collect()
    }

    #[test]
    fn a_rule_is_unreachable_when_earlier_ones_take_all_of_it_together() {
        let web = Matcher { protocols: vec![6], destination_ports: vec![(443, 443)], ..to(&["10.1.0.0/16"]) };
        let rules = rules(vec![
            to(&["10.1.0.0/17"]),
            web.clone(),
            to(&["10.1.128.0/17", "10.2.0.0/16"]),
            to(&["10.1.0.0/16"]),
            to(&["10.1.0.0/16", "10.3.0.0/16"]),
            web,
            Matcher { protocols: vec![1], destination_ports: vec![(1, 1)], ..Matcher::default() },
        ]);
        let found = Coverage::new(&rules).findings();
        assert_eq!(
            found,
            [
                Finding::Unreachable { rule: 3, taken_by: vec![0, 1, 2] },
                Finding::Unreachable { rule: 5, taken_by: vec![0, 1] },
                Finding::Impossible { rule: 6 },
            ]
        );
    }

    #[test]
    fn an_exception_before_its_rule_is_no_overlap_and_a_crossing_is_one() {
        let voice = Matcher { dscp: vec![Dscp::new(46).unwrap()], ..Matcher::default() };
        let rules = rules(vec![to(&["10.1.2.0/24"]), to(&["10.1.0.0/16"]), voice, Matcher::default()]);
        let overlaps = Coverage::new(&rules).overlaps(10);
        let example = "tcp any -> 10.1.2.0 dscp ef".to_string();
        let site = SiteId::default();
        let wider = "tcp any -> 10.1.0.0 dscp ef".to_string();
        assert_eq!(
            overlaps,
            [Overlap { earlier: 0, later: 2, example, site }, Overlap { earlier: 1, later: 2, example: wider, site }]
        );
    }
}
