//! What names that are learned do to flows that are there, and to those that begin.

use std::net::IpAddr;

use super::*;
use crate::forward::{BreakoutFace, Learned, NameTable};
use crate::model::{LinkId, NameId};
use crate::steer::{KnownNames, NamePatterns, Rule};

const FAR: [u8; 4] = [10, 9, 0, 7];

/// Two names, each with a link of its own: that of path 1 and that of path 2.
fn named_rules(end: &End, actions: [Action; 2]) {
    let rule = |(action, name): (Action, u16)| Rule {
        name: format!("name {name}"),
        place: String::new(),
        matcher: Matcher { names: vec![NameId(name)], ..Matcher::default() },
        action,
    };
    let patterns = NamePatterns::new(["a.example", "b.example"].map(str::to_owned).to_vec());
    let all = Rule { name: "rest".into(), matcher: Matcher::default(), ..rule((Action::strict([LinkId(0)]), 0)) };
    let rules = actions.into_iter().zip(1..).map(rule).chain([all]).collect();
    end.publish(|next| {
        next.policy_epoch += 1;
        next.rules = Arc::new(RuleSet::new(rules, Vec::new()).with_names(patterns));
        next.names = Some(Arc::default());
    });
}

fn learn(end: &End, names: &[u16], since: Moment) {
    end.publish(|next| {
        let epoch = next.names_epoch() + 1;
        let learned = Learned { names: KnownNames::new(names.iter().map(|name| NameId(*name))), since };
        next.names = Some(Arc::new(NameTable::new([(IpAddr::from(FAR), learned)].into_iter(), epoch)));
    });
}

/// The links by which a packet of each flow leaves.
fn links(end: &mut End, flows: &[u16]) -> Vec<u16> {
    flows
        .iter()
        .map(|flow| {
            end.send([udp(*flow)]);
            let key = parse(&udp(*flow)).unwrap().key;
            let report = end.crew.flows.get(&key).unwrap();
            report.path.map_or(99, |path| path.0)
        })
        .collect()
}

#[test]
fn an_answer_steers_what_begins_after_it_and_leaves_alone_what_others_have_open() {
    let (mut edge, _) = pair();
    named_rules(&edge, [Action::strict([LinkId(1)]), Action::strict([LinkId(2)])]);
    assert_eq!(links(&mut edge, &[1]), [0]);
    edge.now = edge.now + Duration::from_secs(60);
    learn(&edge, &[1], edge.now);
    assert_eq!(links(&mut edge, &[1, 2]), [0, 1]);
    // Another name of the address, and all choose again for other reasons.
    edge.now = edge.now + Duration::from_secs(60);
    learn(&edge, &[2], edge.now);
    edge.publish(|next| next.policy_epoch += 1);
    assert_eq!(links(&mut edge, &[1, 2, 3]), [0, 1, 2]);
    // The names are forgotten: each flow keeps those that it began with.
    edge.publish(|next| (next.names, next.policy_epoch) = (Some(Arc::default()), next.policy_epoch + 1));
    assert_eq!(links(&mut edge, &[1, 2, 3, 4]), [0, 1, 2, 0]);
}

#[test]
fn a_flow_that_was_quicker_than_control_follows_and_one_that_was_there_before_does_not() {
    let (mut edge, _) = pair();
    named_rules(&edge, [Action::strict([LinkId(1)]), Action::strict([LinkId(2)])]);
    let answered = edge.now;
    // Both began after the answer to their host, and before it was published; one is connected by then, which another
    // tunnel does no harm.
    edge.now = edge.now + Duration::from_millis(1);
    assert_eq!(links(&mut edge, &[1, 2]), [0, 0]);
    edge.crew.flows.arrive(&parse(&udp(2)).unwrap().key, PathId(0), edge.now);
    learn(&edge, &[1], answered);
    edge.now = edge.now + Duration::from_secs(1);
    assert_eq!(links(&mut edge, &[1, 2, 3]), [1, 1, 1]);
    // The next answer came after all of them, and one was published very late.
    learn(&edge, &[2], edge.now + Duration::from_millis(1));
    assert_eq!(links(&mut edge, &[1, 2, 3]), [1, 1, 1]);
    learn(&edge, &[2], answered);
    edge.now = edge.now + Duration::from_millis(2_600);
    assert_eq!(links(&mut edge, &[1, 2, 3]), [1, 1, 2]);
}

#[test]
fn what_breaks_out_stays_outside_and_what_is_in_a_tunnel_inside_whatever_is_answered() {
    let (mut edge, _) = pair();
    let out = Action::BreakOut(crate::steer::Breakout { links: vec![LinkId(2)], set_dscp: None });
    named_rules(&edge, [out, Action::strict([LinkId(1)])]);
    edge.publish(|next| next.breakouts = [BreakoutFace { usable: true, ..BreakoutFace::new(LinkId(2)) }].into());
    assert_eq!(links(&mut edge, &[1]), [0]);
    edge.now = edge.now + Duration::from_secs(10);
    learn(&edge, &[1], edge.now);
    assert_eq!(links(&mut edge, &[1, 2]), [0, 99]);
    learn(&edge, &[2], edge.now);
    edge.now = edge.now + Duration::from_millis(100);
    assert_eq!(links(&mut edge, &[1, 2, 3]), [0, 99, 1]);

    // Quicker than control: what is connected by then stays inside, what is not goes out.
    edge.publish(|next| next.names = Some(Arc::default()));
    assert_eq!(links(&mut edge, &[4, 5]), [0, 0]);
    edge.crew.flows.arrive(&parse(&udp(4)).unwrap().key, PathId(0), edge.now);
    let answered = edge.now;
    edge.now = edge.now + Duration::from_millis(50);
    learn(&edge, &[1], answered);
    assert_eq!(links(&mut edge, &[4, 5, 4]), [0, 99, 0]);
}
