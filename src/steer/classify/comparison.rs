use std::collections::{BTreeMap, BTreeSet};

use super::{Row, STEPS_MAX, STEPS_OF_TAKING};
use crate::steer::{NewFlow, Rule, RuleSet};

/// Parts that what two rules have in common may fall into while earlier rules take theirs.
const PARTS_MAX: usize = 128;

/// Flows tried of each part where there are too many parts to take them all apart.
const TRIALS: u64 = 8;

/// Two policies, and for which flows another rule decides in the one than in the other.
pub struct Comparison<'a> {
    old: Side<'a>,
    new: Side<'a>,
    /// By its place, where the rule of the same name that matches the same stands in the other policy.
    new_of: Vec<Option<usize>>,
    old_of: Vec<Option<usize>>,
}

/// The rules, and behind the last one what no rule matches.
struct Side<'a> {
    set: &'a RuleSet,
    rows: Vec<Vec<Row>>,
}

/// What was found of two policies.
#[derive(Debug, Default)]
pub struct Witnesses {
    /// One for each pair of an old and a new rule by which some flows go that the rules treat otherwise.
    pub flows: Vec<NewFlow>,
    /// Too much overlaps: there may be more.
    pub is_cut_short: bool,
}

/// What came of the search for one flow.
enum Sought {
    Found(NewFlow),
    /// There is none.
    Nothing,
    /// There may be one.
    CutShort,
}

impl<'a> Comparison<'a> {
    pub fn new(old: &'a RuleSet, new: &'a RuleSet) -> Comparison<'a> {
        let by_name: BTreeMap<&str, usize> =
            new.rules().iter().enumerate().map(|(index, rule)| (rule.name.as_str(), index)).collect();
        let counterpart = |rule: &Rule| {
            let other = *by_name.get(rule.name.as_str())?;
            (new.rules().get(other)?.matcher == rule.matcher).then_some(other)
        };
        let mut new_of: Vec<Option<usize>> = old.rules().iter().map(counterpart).collect();
        new_of.push(Some(new.rules().len()));
        let mut old_of = vec![None; new.rules().len() + 1];
        for (old, new) in new_of.iter().enumerate() {
            if let Some(place) = new.and_then(|new| old_of.get_mut(new)) {
                *place = Some(old);
            }
        }
        Comparison { old: Side::new(old), new: Side::new(new), new_of, old_of }
    }

    /// Rules that match the same in both and stand before others now that they stood behind: as few as explain the
    /// order, by their places in the old policy and in the new.
    pub fn moved(&self) -> Vec<(usize, usize)> {
        // What is not part of a longest row of rules whose order is the same has moved (patience sorting).
        let pairs = self.new_of.iter().enumerate().filter_map(|(old, new)| Some((old, (*new)?)));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let mut piles: Vec<usize> = Vec::new();
        let mut before = vec![None; pairs.len()];
        for (index, (_, new)) in pairs.iter().enumerate() {
            let pile = piles.partition_point(|top| pairs.get(*top).is_some_and(|(_, other)| other < new));
            if let Some(slot) = before.get_mut(index) {
                *slot = pile.checked_sub(1).and_then(|below| piles.get(below)).copied();
            }
            match piles.get_mut(pile) {
                Some(top) => *top = index,
                None => piles.push(index),
            }
        }
        let mut kept = vec![false; pairs.len()];
        let mut next = piles.last().copied();
        while let Some(index) = next {
            if let Some(kept) = kept.get_mut(index) {
                *kept = true;
            }
            next = before.get(index).copied().flatten();
        }
        pairs.into_iter().zip(kept).filter(|(_, kept)| !kept).map(|(pair, _)| pair).collect()
    }

    /// Up to `most` flows for which another rule decides, of those pairs of rules that `differ` in what they do;
    /// `None` stands for no rule.
    pub fn witnesses(&self, most: usize, differ: impl Fn(Option<&Rule>, Option<&Rule>) -> bool) -> Witnesses {
        let mut found = Witnesses::default();
        let mut steps = 0;
        let moved = self.moved();
        let is_own = |of: &[Option<usize>], place: usize| of.get(place).copied().flatten().is_none();
        let (mut olds, mut news): (BTreeSet<usize>, BTreeSet<usize>) = moved.into_iter().unzip();
        olds.extend((0..self.old.rows.len()).filter(|place| is_own(&self.new_of, *place)));
        news.extend((0..self.new.rows.len()).filter(|place| is_own(&self.old_of, *place)));
        for (old, rows) in self.old.rows.iter().enumerate() {
            // Of rules that stand in both in one order only a rule and itself can matter.
            let itself = self.new_of.get(old).copied().flatten();
            let others: Vec<usize> = match olds.contains(&old) {
                true => (0..self.new.rows.len()).collect(),
                false => news.iter().copied().chain(itself).collect(),
            };
            for new in others {
                steps += 1;
                let Some(others) = self.new.rows.get(new).filter(|_| self.may_trade(old, new)) else { continue };
                if !differ(self.old.rule(old), self.new.rule(new)) {
                    continue;
                }
                steps += (rows.len() * others.len()) as u64;
                if found.flows.len() >= most || steps > STEPS_MAX {
                    found.is_cut_short = true;
                    return found;
                }
                let pairs = rows.iter().flat_map(|row| others.iter().map(move |other| (row, other)));
                let mut common = pairs.filter_map(|(row, other)| row.common(other));
                let mut is_cut_short = false;
                let witness = common.find_map(|row| match self.witness(row, old, new, &mut steps) {
                    Sought::Found(flow) => Some(flow),
                    Sought::Nothing => None,
                    Sought::CutShort => {
                        is_cut_short = true;
                        None
                    }
                });
                found.is_cut_short |= is_cut_short && witness.is_none();
                found.flows.extend(witness);
            }
        }
        found
    }

    /// May there be flows that go by the one in the old policy and by the other in the new? Not by two rules that
    /// stand in both and in one order: the first of them would take such a flow in either.
    fn may_trade(&self, old: usize, new: usize) -> bool {
        let place = |of: &[Option<usize>], place: usize| of.get(place).copied().flatten();
        match (place(&self.new_of, old), place(&self.old_of, new)) {
            (Some(old_now), Some(new_before)) => old_now == new || (new_before > old && old_now > new),
            (None, _) | (_, None) => true,
        }
    }

    /// A flow of this row that both rules decide, for no earlier one matches it.
    fn witness(&self, row: Row, old: usize, new: usize, steps: &mut u64) -> Sought {
        let decide = |flow: &NewFlow| self.old.first(flow) == old && self.new.first(flow) == new;
        let flow = row.sample();
        if decide(&flow) {
            return Sought::Found(flow);
        }
        let mut left = vec![row];
        let earlier = self.old.rows.iter().take(old).chain(self.new.rows.iter().take(new)).flatten();
        for taken in earlier {
            *steps += left.len() as u64;
            if !left.iter().any(|part| part.meets(taken)) {
                continue;
            }
            *steps += left.len() as u64 * STEPS_OF_TAKING;
            left = left.iter().flat_map(|part| part.without(taken)).collect();
            if left.is_empty() {
                return Sought::Nothing;
            }
            if left.len() > PARTS_MAX || *steps > STEPS_MAX {
                // What is left may be taken by rules that were not looked at.
                let others = left.iter().flat_map(|part| (0..TRIALS).map(|trial| part.sample_of(trial)));
                return left.iter().map(Row::sample).chain(others).find(decide).map_or(Sought::CutShort, Sought::Found);
            }
        }
        left.iter().map(Row::sample).find(decide).map_or(Sought::Nothing, Sought::Found)
    }
}

impl<'a> Side<'a> {
    fn new(set: &'a RuleSet) -> Side<'a> {
        let mut rows: Vec<Vec<Row>> = set.rules().iter().map(|rule| Row::all_of(&rule.matcher)).collect();
        rows.push(Row::all_of(&Default::default()));
        Side { set, rows }
    }

    fn rule(&self, place: usize) -> Option<&Rule> {
        self.set.rules().get(place)
    }

    fn first(&self, flow: &NewFlow) -> usize {
        self.set.first_match(flow).map_or(self.set.rules().len(), |(id, _)| id.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::LinkId;
    use crate::steer::{Action, Matcher};

    fn rule(name: &str, matcher: Matcher, link: u16) -> Rule {
        Rule { name: name.to_owned(), place: String::new(), matcher, action: Action::prefer([LinkId(link)]) }
    }

    fn ports(first: u16, last: u16) -> Matcher {
        Matcher { destination_ports: vec![(first, last)], ..Matcher::default() }
    }

    fn to(network: &str) -> Matcher {
        Matcher { destinations: vec![network.parse().unwrap()], ..Matcher::default() }
    }

    fn found(old: Vec<Rule>, new: Vec<Rule>) -> (Vec<NewFlow>, Vec<(usize, usize)>) {
        let (old, new) = (RuleSet::new(old, Vec::new()), RuleSet::new(new, Vec::new()));
        let comparison = Comparison::new(&old, &new);
        let differ =
            |one: Option<&Rule>, other: Option<&Rule>| one.map(|rule| &rule.action) != other.map(|rule| &rule.action);
        let witnesses = comparison.witnesses(1_000, differ);
        assert!(!witnesses.is_cut_short);
        (witnesses.flows, comparison.moved())
    }

    #[test]
    fn a_range_that_grew_is_shown_by_what_it_took_and_one_that_shrank_by_what_it_left() {
        let (flows, moved) = found(vec![rule("a", ports(1, 1_000), 0)], vec![rule("a", ports(1, 2_000), 0)]);
        assert_eq!(flows.iter().map(|flow| flow.key.destination_port).collect::<Vec<_>>(), [1_001]);
        assert!(moved.is_empty());
        let (flows, _) = found(vec![rule("a", to("10.0.0.0/8"), 0)], vec![rule("a", to("10.0.0.0/9"), 0)]);
        assert_eq!(flows.iter().map(|flow| flow.key.destination.to_string()).collect::<Vec<_>>(), ["10.128.0.1"]);
    }

    #[test]
    fn an_exchange_of_two_rules_is_shown_by_a_flow_that_both_match_and_says_which_moved() {
        let (voice, web, rest) = (to("10.1.0.0/16"), ports(443, 443), Matcher::default());
        let rules = |order: [usize; 3]| {
            let all = [rule("voice", voice.clone(), 0), rule("web", web.clone(), 1), rule("rest", rest.clone(), 2)];
            order.map(|index| all[index].clone()).to_vec()
        };
        let (flows, moved) = found(rules([0, 1, 2]), rules([1, 0, 2]));
        assert_eq!((flows.len(), moved.len()), (1, 1));
        assert!(voice.matches(&flows[0]) && web.matches(&flows[0]));
        let (flows, moved) = found(rules([0, 1, 2]), rules([0, 1, 2]));
        assert!(flows.is_empty() && moved.is_empty());
        // Nothing is between them that both match and an earlier one does not.
        let apart = |order: [usize; 2]| {
            let all = [rule("a", ports(1, 9), 0), rule("b", ports(10, 19), 1)];
            order.map(|index| all[index].clone()).to_vec()
        };
        let (flows, moved) = found(apart([0, 1]), apart([1, 0]));
        assert_eq!((flows.len(), moved.len()), (0, 1));
    }

    #[test]
    fn what_many_earlier_rules_leave_of_a_changed_one_is_found_or_said_to_be_unknown() {
        let policy = |first: Matcher, second: Matcher, rest: u16| {
            let mut rules: Vec<Rule> = (1..=200u16)
                .map(|number| {
                    let matcher =
                        Matcher { destination_ports: vec![(number, number)], ..to(&format!("10.0.{number}.0/24")) };
                    rule(&format!("r{number}"), matcher, 0)
                })
                .collect();
            rules.extend([rule("first", first, 0), rule("second", second, 0), rule("rest", Matcher::default(), rest)]);
            RuleSet::new(rules, Vec::new())
        };
        let witnesses = |first: Matcher, second: Matcher| {
            let (old, new) = (policy(first.clone(), second.clone(), 0), policy(first, second, 1));
            let differ = |one: Option<&Rule>, other: Option<&Rule>| {
                one.map(|rule| &rule.action) != other.map(|rule| &rule.action)
            };
            Comparison::new(&old, &new).witnesses(10, differ)
        };
        // Everyday flows go by those before it, and the rest of the world by the one that changed.
        let found = witnesses(to("203.0.0.0/8"), to("10.0.0.0/8"));
        assert_eq!((found.flows.len(), found.is_cut_short), (1, false), "{:?}", found.flows);
        // All but one address: nothing that is tried is there.
        let all_but_one = |but: u32| {
            let part =
                |bits: u32| ipnet::Ipv4Net::new((but ^ 1 << (32 - bits)).into(), bits as u8).unwrap().trunc().into();
            (1..=32).map(part).collect::<Vec<ipnet::IpNet>>()
        };
        let most = Matcher { destinations: all_but_one(u32::from_be_bytes([198, 51, 100, 7])), ..Matcher::default() };
        let found = witnesses(most, to("::/0"));
        assert_eq!((found.flows.len(), found.is_cut_short), (0, true), "{:?}", found.flows);
    }

    /// Rules over a few ports, so that every flow there is can be tried.
    fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
        proptest::collection::vec((0_u16..10, 0_u16..10, 0_u16..3, 0_usize..6), 0..6).prop_map(|all| {
            let mut rules: Vec<Rule> = Vec::new();
            for (one, other, link, name) in all {
                let name = format!("r{name}");
                if rules.iter().all(|rule| rule.name != name) {
                    rules.push(rule(&name, ports(one.min(other), one.max(other)), link));
                }
            }
            rules
        })
    }

    proptest! {
        #[test]
        fn flows_that_are_treated_otherwise_are_found_if_there_are_any(old in some_rules(), new in some_rules()) {
            let action = |rules: &[Rule], port: u16| {
                let hit = rules.iter().find(|rule| rule.matcher.destination_ports[0].0 <= port && port <= rule.matcher.destination_ports[0].1);
                hit.map(|rule| rule.action.clone())
            };
            let differs = |port: &u16| action(&old, *port) != action(&new, *port);
            let expected = (0..10).any(|port| differs(&port));
            let (flows, _) = found(old.clone(), new.clone());
            prop_assert_eq!(!flows.is_empty(), expected);
            for flow in flows {
                prop_assert!(differs(&flow.key.destination_port));
            }
        }
    }
}
