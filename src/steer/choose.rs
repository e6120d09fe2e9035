use arrayvec::ArrayVec;

use super::rendezvous::{flow_hash, winner};
use super::{Action, Candidate, Choice, Links, NewFlow, RuleSet, Why};
use crate::model::{FlowKey, LinkId, PathId, Permille, Verdict};

/// Three tunnels in each of two roles.
pub const MAX_CANDIDATES: usize = 6;

/// Decides the path of one flow. The candidates are up, of the active role, and cover the flow;
/// one that is `Down` is passed over. Depends on nothing but its arguments, allocates nothing.
///
/// Health comes before everything: `Healthy`, then `Unknown`, then `Degraded`. Within it a rule's
/// links decide, else the links' preference; what is then equal shares the flows by weight.
pub fn choose(rules: &RuleSet, flow: &NewFlow, candidates: &[Candidate]) -> Choice {
    let key = &flow.key;
    let Some((rule, matched)) = rules.first_match(flow) else {
        let (path, why) = balance(key, candidates);
        return Choice { rule: None, path, why };
    };
    let (path, why) = match &matched.action {
        Action::Steer(steering) => match &steering.links {
            Links::Any => balance(key, candidates),
            Links::Prefer(links) => prefer(key, candidates, links),
            Links::Strict(links) => strict(key, candidates, links),
        },
        Action::Drop => (None, Why::RuleDrop),
    };
    Choice { rule: Some(rule), path, why }
}

/// What part of the flows without a rule each candidate can expect, in the order given; together
/// exactly 1,000, or all zero when none is up.
///
/// Candidates beyond `MAX_CANDIDATES` are left out.
pub fn shares(candidates: &[Candidate]) -> ArrayVec<(PathId, Permille), MAX_CANDIDATES> {
    let shown = candidates.get(..MAX_CANDIDATES).unwrap_or(candidates);
    let tier = Tier::best(shown, |_| true);
    let carries = |candidate: &Candidate| tier.is_some_and(|tier| tier.holds(candidate));
    let weight = |candidate: &Candidate| u64::from(candidate.weight.max(1));
    let whole: u64 = shown.iter().filter(|candidate| carries(candidate)).map(weight).sum();
    let mut upto = 0;
    let mut told = 0;
    let part = |candidate: &Candidate| {
        if carries(candidate) {
            upto += weight(candidate);
        }
        // Differences of rounded sums: single rounded shares might add up to 999.
        let sum = Permille::of(upto, whole).value();
        let share = Permille::new(sum.saturating_sub(told)).unwrap_or(Permille::ZERO);
        told = sum;
        (candidate.path, share)
    };
    shown.iter().map(part).collect()
}

/// The health and, in it, the link preference that carries flows without a rule.
#[derive(Clone, Copy)]
struct Tier {
    verdict: Verdict,
    preference: u8,
    among: u8,
}

impl Tier {
    fn best(candidates: &[Candidate], eligible: impl Fn(&Candidate) -> bool) -> Option<Tier> {
        let verdict = best_verdict(candidates, &eligible)?;
        let alike = |candidate: &&Candidate| candidate.verdict == verdict && eligible(candidate);
        let preference = candidates.iter().filter(alike).map(|candidate| candidate.preference).min()?;
        let among = candidates.iter().filter(alike).filter(|candidate| candidate.preference == preference).count();
        Some(Tier { verdict, preference, among: u8::try_from(among).unwrap_or(u8::MAX) })
    }

    fn holds(&self, candidate: &Candidate) -> bool {
        candidate.verdict == self.verdict && candidate.preference == self.preference
    }
}

fn balance(key: &FlowKey, candidates: &[Candidate]) -> (Option<PathId>, Why) {
    let Some(tier) = Tier::best(candidates, |_| true) else { return (None, Why::NoCandidate) };
    let path = spread(key, candidates, |candidate| tier.holds(candidate));
    let why = match tier.among {
        1 if candidates.iter().filter(|candidate| is_up(candidate)).count() == 1 => Why::OnlyCandidate,
        1 => Why::Best { verdict: tier.verdict },
        among => Why::Share { verdict: tier.verdict, among },
    };
    (path, why)
}

fn prefer(key: &FlowKey, candidates: &[Candidate], links: &[LinkId]) -> (Option<PathId>, Why) {
    let named = |candidate: &Candidate| links.contains(&candidate.link);
    let others = Tier::best(candidates, |candidate| !named(candidate));
    let Some(verdict) = best_verdict(candidates, named) else {
        let Some(tier) = others else { return (None, Why::NoCandidate) };
        let path = spread(key, candidates, |candidate| !named(candidate) && tier.holds(candidate));
        return (path, Why::FellBackNoLink { among: tier.among });
    };
    // Only a link known to be healthy is a reason to leave the ones that the rule names: an
    // unknown one might be no better.
    if let Some(tier) = others
        && tier.verdict == Verdict::Healthy
        && verdict != Verdict::Healthy
    {
        let path = spread(key, candidates, |candidate| !named(candidate) && tier.holds(candidate));
        return (path, Why::FellBackHealth { verdict, among: tier.among });
    }
    first_link(key, candidates, links, verdict)
}

fn strict(key: &FlowKey, candidates: &[Candidate], links: &[LinkId]) -> (Option<PathId>, Why) {
    match best_verdict(candidates, |candidate| links.contains(&candidate.link)) {
        Some(verdict) => first_link(key, candidates, links, verdict),
        None if candidates.iter().any(is_up) => (None, Why::StrictNoLink),
        None => (None, Why::NoCandidate),
    }
}

/// The first of the links that has a path of this verdict, which at least one has.
fn first_link(key: &FlowKey, candidates: &[Candidate], links: &[LinkId], verdict: Verdict) -> (Option<PathId>, Why) {
    for (index, &link) in links.iter().enumerate() {
        let path = spread(key, candidates, |candidate| candidate.link == link && candidate.verdict == verdict);
        if path.is_some() {
            let place = u8::try_from(index + 1).unwrap_or(u8::MAX);
            return (path, Why::RuleLink { link, place, verdict });
        }
    }
    (None, Why::StrictNoLink)
}

fn spread(key: &FlowKey, candidates: &[Candidate], eligible: impl Fn(&Candidate) -> bool) -> Option<PathId> {
    let eligible = candidates.iter().copied().filter(|candidate| is_up(candidate) && eligible(candidate));
    winner(flow_hash(key), eligible).map(|candidate| candidate.path)
}

fn best_verdict(candidates: &[Candidate], eligible: impl Fn(&Candidate) -> bool) -> Option<Verdict> {
    // `Verdict` is ordered from best to worst.
    let up = candidates.iter().filter(|candidate| is_up(candidate) && eligible(candidate));
    up.map(|candidate| candidate.verdict).min()
}

fn is_up(candidate: &Candidate) -> bool {
    match candidate.verdict {
        Verdict::Healthy | Verdict::Unknown | Verdict::Degraded => true,
        Verdict::Down => false,
    }
}
