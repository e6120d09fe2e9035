use super::*;
use crate::forward::SaTable;
use crate::model::Permille;

#[test]
fn a_tunnel_comes_up_is_lost_with_its_link_and_comes_back() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    assert!(pair.run(5 * SECOND).both_healthy(), "{}", pair.story());
    pair.cut = true;
    pair.run(10 * SECOND);
    assert!(!pair.tunnel(0).usable && !pair.tunnel(1).usable, "{}", pair.story());
    pair.run(120 * SECOND);
    assert_eq!((pair.tunnel(1).state.as_str(), pair.tunnel(1).verdict.as_str()), ("listening", "down"));
    pair.cut = false;
    assert!(pair.run(30 * SECOND).both_healthy(), "{}", pair.story());
}

#[test]
fn why_a_tunnel_went_down_is_told_until_it_is_up_again_whatever_comes_of_further_attempts() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    pair.run(5 * SECOND);
    assert_eq!(pair.tunnel(0).went_down, None);
    pair.cut = true;
    let (at, now) = (pair.now.as_nanos() / 1_000_000, pair.now);
    pair.ends[0].handle_link_down(UnderlayId(0), now);
    for seconds in [1, 30, 90] {
        pair.run(seconds * SECOND);
        let told = pair.tunnel(0).went_down.expect("it is down");
        assert!(told.reason.ends_with("were not answered, after its interface went down"), "{told:?}");
        assert!((at..at + 1_000).contains(&told.at_ms), "{told:?}");
    }
    let failed = pair.tunnel(0).last_failure.expect("nobody answers").reason;
    assert!(failed.contains("no answer to IKE_SA_INIT"), "{failed}");
    pair.cut = false;
    assert!(pair.run(30 * SECOND).both_healthy(), "{}", pair.story());
    assert_eq!((pair.tunnel(0).went_down, pair.tunnel(0).last_failure), (None, None));
}

#[test]
fn of_a_tunnel_that_is_not_steady_yet_status_says_that_flows_keep_off_it() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    pair.run(5 * SECOND);
    assert_eq!(pair.tunnel(0).note, None);
    pair.cut = true;
    pair.run(2 * SECOND);
    pair.cut = false;
    while !pair.tunnel(0).usable {
        pair.run(SECOND / 10);
    }
    let note = pair.tunnel(0).note.unwrap_or_default();
    assert!(note.contains("a few seconds after it came up: flows keep off it for a while"), "{note}");
    pair.run(60 * SECOND);
    assert_eq!(pair.tunnel(0).note, None);
}

#[test]
fn of_a_silent_peer_it_is_told_who_is_called_and_that_no_answer_came_yet() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    pair.cut = true;
    let told = |pair: &Pair, end: usize| {
        let tunnel = pair.tunnel(end);
        (tunnel.state, tunnel.remote, tunnel.note)
    };
    let called = Some("198.51.100.1:500".to_owned());
    pair.run(Duration::from_millis(400));
    assert_eq!(told(&pair, 0), ("connecting".to_owned(), called.clone(), None));
    pair.run(Duration::from_millis(200));
    let note = Some("no answer yet to 2 requests".to_owned());
    assert_eq!(told(&pair, 0), ("connecting".to_owned(), called.clone(), note));
    assert_eq!(told(&pair, 1), ("listening".to_owned(), None, None));
    while pair.tunnel(0).state == "connecting" {
        pair.run(SECOND);
    }
    assert_eq!(told(&pair, 0), ("waiting".to_owned(), called, None));
    pair.cut = false;
    assert!(pair.run(60 * SECOND).both_healthy(), "{}", pair.story());
    assert_eq!(pair.tunnel(0).remote, Some("198.51.100.1:4500".to_owned()));
}

#[test]
fn nothing_is_said_in_band_before_the_other_end_listens() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    pair.run(5 * SECOND);
    for (end, said) in pair.said.iter().enumerate() {
        assert!(said.len() > 20 && said.iter().all(|(_, listens)| *listens), "{end}: {said:?}");
    }
}

#[test]
fn over_a_link_that_one_end_pays_for_both_say_no_more_than_that_end_wants() {
    for metered in [None, Some(0), Some(1)] {
        let mut plans = [plan(0, Mode::Initiator), plan(1, Mode::Responder)];
        if let Some(end) = metered {
            plans[end].links[0].metered = true;
        }
        let mut pair = Pair::new(plans);
        pair.run(26 * SECOND);
        let said = [0, 1].map(|end| pair.said[end].len());
        let wanted = if metered.is_some() { 24..=36 } else { 125..=130 };
        assert!(said.iter().all(|said| wanted.contains(said)), "{metered:?}: {said:?}");
        let lost = [0, 1].map(|end| pair.ends[end].tunnels[0].directions(pair.now).and_then(|(sent, _)| sent.loss));
        assert_eq!(lost, [Some(Permille::ZERO); 2], "{metered:?}");
    }
}

#[test]
fn two_ends_that_call_at_the_same_moment_agree_on_one_tunnel() {
    let mut pair = Pair::new([plan(0, Mode::Bidirectional), plan(1, Mode::Bidirectional)]);
    pair.run(10 * SECOND);
    assert!(pair.both_healthy(), "{}", pair.story());
    pair.cut = true;
    pair.run(15 * SECOND);
    pair.cut = false;
    pair.run(40 * SECOND);
    assert!(pair.both_healthy(), "{}", pair.story());
    let told = pair.events[0].len();
    pair.run(600 * SECOND);
    assert_eq!(pair.events[0].len(), told, "{}", pair.story());
}

#[test]
fn a_child_sa_that_cannot_be_installed_gives_its_place_back() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    let table = std::mem::replace(&mut pair.ends[0].table, Arc::new(SaTable::new(0, 0)));
    // Far more attempts than there are places.
    pair.run(300 * SECOND);
    assert!(!pair.tunnel(0).usable);
    pair.ends[0].table = table;
    pair.run(30 * SECOND);
    assert!(pair.both_healthy(), "{}", pair.story());
}

#[test]
fn probes_farther_apart_than_the_limit_of_silence_tear_no_tunnel_down() {
    let rare = |mut plan: Plan| {
        plan.health.interval = 30 * SECOND;
        plan.tunnels[0].keepalive = None;
        plan.tunnels[0].dead_after = 10 * SECOND;
        plan
    };
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)].map(rare));
    pair.run(300 * SECOND);
    assert!(pair.both_healthy(), "{}", pair.story());
    assert!(pair.events[0].iter().all(|(at, _)| *at < Moment::from_millis(10_000)), "{}", pair.story());
}

#[test]
fn a_peer_is_asked_whether_it_lives_at_the_keepalive_interval_however_rare_the_probes() {
    let mut rare = plan(0, Mode::Initiator);
    rare.health.interval = 60 * SECOND;
    rare.tunnels[0].keepalive = Some(2 * SECOND);
    let mut pair = Pair::new([rare, plan(1, Mode::Responder)]);
    assert!(pair.run(70 * SECOND).both_healthy(), "{}", pair.story());
    pair.cut = true;
    pair.run(8 * SECOND);
    assert_eq!(pair.tunnel(0).verdict, "down", "{}", pair.story());
}

#[test]
fn a_late_packet_of_the_tunnel_before_does_not_move_the_new_one_to_its_old_address() {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    pair.run(5 * SECOND);
    let spi_in_use = |pair: &Pair| pair.ends[1].tunnels[0].children().next().map(|child| child.current()).unwrap();
    let old = spi_in_use(&pair);
    let leg = pair.ends[1].tunnels[0].leg().unwrap();
    let elsewhere = Leg { remote: ([203, 0, 113, 9], 4500).into(), ..leg };
    // While it is in use, the peer's NAT may give it another address.
    let now = pair.now;
    pair.ends[1].handle_message(ToControl::Rebind { spi: old, path: PathId(0), leg: elsewhere }, now);
    assert_eq!(pair.ends[1].tunnels[0].leg(), Some(elsewhere));

    // The peer sets the tunnel up anew.
    pair.cut = true;
    pair.run(60 * SECOND);
    pair.cut = false;
    pair.run(10 * SECOND);
    assert!(pair.both_healthy(), "{}", pair.story());
    assert_ne!(spi_in_use(&pair), old);
    let now = pair.now;
    pair.ends[1].handle_message(ToControl::Rebind { spi: old, path: PathId(0), leg: elsewhere }, now);
    assert_eq!(pair.ends[1].tunnels[0].leg(), Some(leg));
}
