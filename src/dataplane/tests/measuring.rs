//! What two Trefoils say to each other inside a tunnel.

use super::*;
use crate::probe::Measure;

fn message(number: u32) -> Measure {
    Measure { session: 9, number, sent: 0, report: None }
}

fn told(end: &End) -> Vec<(PathId, Moment, Measure)> {
    let told = end.io.news.iter().filter_map(|news| match news {
        ToControl::Measure { path, at, bytes } => Some((*path, *at, Measure::read(bytes).unwrap())),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_message_goes_out_with_the_time_and_reaches_the_other_end_s_control_and_nothing_else() {
    let (mut edge, mut pop) = pair();
    // It needs no selectors, and goes on the path that was said whether or not that is usable.
    edge.publish(|next| next.paths[2].usable = false);
    edge.io.orders.push_back(ToWorker::Measure { path: PathId(2), bytes: message(7).write() });
    edge.turn();
    assert_eq!(edge.io.to_wan.iter().map(|(leg, ..)| leg.underlay.0).collect::<Vec<_>>(), [2]);
    assert_eq!(of(&edge.path(2).live.packets_out), 0, "it is no traffic");
    pop.now = pop.now + Duration::from_millis(3);
    cross(&mut edge, &mut pop);
    let sent = edge.now.as_nanos() / 1_000;
    assert_eq!(told(&pop), [(PathId(2), pop.now, Measure { sent, ..message(7) })]);
    let live = pop.path(2).live;
    assert_eq!((of(&live.packets_in), of(&live.last_in)), (0, 0), "nor a sign of what the path carries");
    assert_eq!((pop.delivered().len(), pop.drops_in()), (0, vec![]));
}

#[test]
fn what_else_says_that_it_is_nothing_is_thrown_away_and_a_flood_does_not_reach_control() {
    let (mut edge, _) = pair();
    let pop = CarelessPop::on(0);
    let whole = message(1).write();
    for content in [&[][..], &[0; 44], &whole[..43], &[&whole[..], &[0]].concat(), &[0x45; 1_300]] {
        edge.io.from_wan.push_back(pop.sends_as_nothing(content));
    }
    edge.turn();
    assert_eq!((told(&edge).len(), edge.drops_in()), (0, vec![(DropReason::Dummy, 5)]));
    edge.io.from_wan.extend((0..800).map(|number| pop.sends_as_nothing(&message(number).write())));
    while !edge.io.from_wan.is_empty() {
        edge.turn();
    }
    assert_eq!((told(&edge).len(), edge.drops_in()), (20, vec![(DropReason::Dummy, 785)]));
}

#[test]
fn who_floods_one_path_spoils_no_other_and_as_many_as_one_says_are_heard() {
    let (mut edge, _) = pair();
    let (loud, quiet) = (CarelessPop::on(0), CarelessPop::on(1));
    let mut said = 0;
    for second in 0..20 {
        for number in 0..5 {
            for _ in 0..100 {
                edge.io.from_wan.push_back(loud.sends_as_nothing(&message(said).write()));
            }
            edge.io.from_wan.push_back(quiet.sends_as_nothing(&message(second * 5 + number).write()));
            said += 1;
            edge.now = edge.now + Duration::from_millis(200);
            edge.turn();
        }
    }
    let of = |path| told(&edge).iter().filter(|(id, ..)| *id == PathId(path)).count();
    assert_eq!(of(1), 100, "all that it said");
    assert!((200..=220).contains(&of(0)), "{}", of(0));
}

#[test]
fn what_a_peer_says_that_is_no_trefoil_does_not_reach_control() {
    let (mut edge, _) = pair();
    edge.publish(|next| next.paths[0].kin = false);
    for path in [0, 1] {
        edge.io.from_wan.push_back(CarelessPop::on(path).sends_as_nothing(&message(1).write()));
    }
    edge.turn();
    assert_eq!(told(&edge).iter().map(|(path, ..)| path.0).collect::<Vec<_>>(), [1]);
    assert_eq!(edge.drops_in(), [(DropReason::Dummy, 1)]);
}

#[test]
fn a_path_without_an_sa_says_nothing_and_counts_it() {
    let (mut edge, _) = pair();
    edge.publish(|next| next.paths[1].children = [].into());
    edge.io.orders.push_back(ToWorker::Measure { path: PathId(1), bytes: message(1).write() });
    edge.turn();
    assert_eq!((edge.io.to_wan.len(), edge.drops_out()), (0, vec![(DropReason::NoPath, 1)]));
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
