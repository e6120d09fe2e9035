use std::time::Duration;

use proptest::prelude::*;

use super::selector::START_WAIT;
use super::*;
use crate::model::{Moment, Role};
use Role::{Primary, Secondary};

const HOLD: Duration = Duration::from_secs(60);
/// Late enough that the start is over.
const LATER: u64 = 100;

fn seconds(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

/// One fact a line: second, role, usable tunnels, the role that is active afterwards, and
/// whether the traffic moved.
type Line = (u64, Role, usize, Role, bool);

fn run(configured: [bool; 2], lines: &[Line]) -> Vec<Switch> {
    let mut selector = RoleSelector::new(configured, Failback::After(HOLD), Moment::ZERO);
    let mut all = Vec::new();
    for &(at, role, usable, active, moved) in lines {
        while let Some(due) = selector.poll_timeout().filter(|&due| due <= seconds(at)) {
            selector.handle_timeout(due);
            assert!(selector.poll_timeout().is_none_or(|next| next > due), "a timeout that stays due");
            all.extend(std::iter::from_fn(|| selector.poll_switch()));
        }
        selector.handle_usable(role, usable, seconds(at));
        let switches: Vec<_> = std::iter::from_fn(|| selector.poll_switch()).collect();
        assert_eq!((selector.active(), !switches.is_empty()), (active, moved), "at {at} s: {role} has {usable}");
        all.extend(switches);
    }
    all
}

#[test]
fn one_surviving_tunnel_of_the_primary_is_no_reason_to_switch() {
    run(
        [true, true],
        &[
            (1, Primary, 3, Primary, false),
            (1, Secondary, 3, Primary, false),
            (LATER, Primary, 2, Primary, false),
            (LATER, Primary, 1, Primary, false),
            (LATER, Primary, 0, Secondary, true),
        ],
    );
}

#[test]
fn traffic_goes_back_when_the_primary_was_usable_for_the_whole_hold_time() {
    let switches = run(
        [true, true],
        &[
            (1, Primary, 1, Primary, false),
            (1, Secondary, 1, Primary, false),
            (LATER, Primary, 0, Secondary, true),
            (LATER + 10, Primary, 1, Secondary, false),
            (LATER + 20, Primary, 3, Secondary, false),
            (LATER + 69, Secondary, 2, Secondary, false),
            (LATER + 71, Secondary, 3, Primary, false),
        ],
    );
    assert_eq!(switches.len(), 2);
    assert_eq!((switches[1].to, switches[1].at), (Primary, seconds(LATER + 70)));
    assert!(switches[1].reason.contains("hold"), "{switches:?}");
}

#[test]
fn a_primary_that_comes_and_goes_does_not_move_the_traffic() {
    let mut lines =
        vec![(1, Primary, 1, Primary, false), (1, Secondary, 1, Primary, false), (LATER, Primary, 0, Secondary, true)];
    for flap in 0..50 {
        lines.push((LATER + flap * 60 + 30, Primary, 2, Secondary, false));
        lines.push((LATER + flap * 60 + 59, Primary, 0, Secondary, false));
    }
    assert_eq!(run([true, true], &lines).len(), 1);
}

#[test]
fn with_both_down_whichever_comes_first_carries() {
    let down = [
        (1, Primary, 1, Primary, false),
        (1, Secondary, 1, Primary, false),
        (LATER, Secondary, 0, Primary, false),
        (LATER, Primary, 0, Primary, false),
    ];
    run([true, true], &[&down[..], &[(LATER + 1, Primary, 1, Primary, false)]].concat());
    run([true, true], &[&down[..], &[(LATER + 1, Secondary, 1, Secondary, true)]].concat());
    // From the secondary, too, the primary takes over without a hold when nothing is carried.
    let on_secondary = [(LATER + 1, Secondary, 1, Secondary, true), (LATER + 2, Secondary, 0, Secondary, false)];
    let back = [(LATER + 3, Primary, 1, Primary, true)];
    run([true, true], &[&down[..], &on_secondary, &back].concat());
}

#[test]
fn traffic_goes_back_at_once_when_the_secondary_has_no_tunnel_left() {
    run(
        [true, true],
        &[
            (1, Primary, 1, Primary, false),
            (1, Secondary, 1, Primary, false),
            (LATER, Primary, 0, Secondary, true),
            (LATER + 5, Primary, 1, Secondary, false),
            (LATER + 6, Secondary, 0, Primary, true),
            (LATER + 7, Secondary, 3, Primary, false),
        ],
    );
}

#[test]
fn at_the_start_the_secondary_carries_until_the_primary_is_there() {
    run([true, true], &[(1, Secondary, 1, Secondary, true), (2, Primary, 1, Primary, true)]);
    // After the start the primary has to prove itself as always.
    let switches = run(
        [true, true],
        &[(1, Secondary, 1, Secondary, true), (11, Primary, 1, Secondary, false), (72, Secondary, 2, Primary, false)],
    );
    assert_eq!(switches[1].at, seconds(71));
}

#[test]
fn a_connector_with_one_role_never_switches() {
    run([true, false], &[(1, Secondary, 3, Primary, false), (2, Primary, 1, Primary, false)]);
    run([true, false], &[(1, Primary, 3, Primary, false), (2, Primary, 0, Primary, false)]);
    run([false, true], &[(1, Secondary, 3, Secondary, false), (2, Secondary, 0, Secondary, false)]);
}

/// Failed over to the secondary role, and the primary is back since `LATER + 10`.
fn after_a_failover(failback: Failback) -> RoleSelector {
    let mut selector = RoleSelector::new([true, true], failback, Moment::ZERO);
    selector.handle_usable(Primary, 1, seconds(1));
    selector.handle_usable(Secondary, 1, seconds(1));
    selector.handle_usable(Primary, 0, seconds(LATER));
    assert_eq!(selector.active(), Secondary);
    selector.handle_usable(Primary, 1, seconds(LATER + 10));
    selector
}

/// Which role carries, a day later, and when it came to.
fn a_day_later(selector: &mut RoleSelector) -> (Role, Option<Moment>) {
    let mut last = None;
    while let Some(due) = selector.poll_timeout().filter(|&due| due < seconds(86_400)) {
        selector.handle_timeout(due);
    }
    while let Some(switch) = selector.poll_switch() {
        last = Some(switch.at);
    }
    (selector.active(), last)
}

#[test]
fn the_policy_says_when_traffic_goes_back() {
    let back_at = |failback| a_day_later(&mut after_a_failover(failback));
    let returned = seconds(LATER + 10);
    assert_eq!(back_at(Failback::Immediate), (Primary, Some(returned)));
    assert_eq!(back_at(Failback::After(Duration::ZERO)), (Primary, Some(returned)));
    assert_eq!(back_at(Failback::After(HOLD)), (Primary, Some(returned + HOLD)));
    assert_eq!(back_at(Failback::Manual), (Secondary, Some(seconds(LATER))));
}

#[test]
fn where_an_operator_fails_back_by_hand_a_lost_secondary_still_gives_the_traffic_to_the_primary() {
    let mut selector = after_a_failover(Failback::Manual);
    selector.handle_usable(Secondary, 0, seconds(LATER + 20));
    assert_eq!(selector.active(), Primary);
    selector.handle_usable(Secondary, 1, seconds(LATER + 30));
    assert_eq!(a_day_later(&mut selector).0, Primary);

    let mut selector = after_a_failover(Failback::Manual);
    assert!(selector.fail_over(Primary, seconds(LATER + 20)));
    assert_eq!(a_day_later(&mut selector), (Primary, Some(seconds(LATER + 20))));
}

#[test]
fn at_the_start_the_primary_takes_over_whatever_the_policy_and_later_it_decides() {
    let came_at = |second| {
        let mut selector = RoleSelector::new([true, true], Failback::Manual, Moment::ZERO);
        selector.handle_usable(Secondary, 1, seconds(1));
        selector.handle_usable(Primary, 1, seconds(second));
        a_day_later(&mut selector).0
    };
    assert_eq!((came_at(3), came_at(11)), (Primary, Secondary));
}

#[test]
fn what_an_operator_has_sent_to_the_secondary_stays_there_under_every_policy() {
    for failback in [Failback::Immediate, Failback::After(HOLD), Failback::Manual] {
        let mut selector = RoleSelector::new([true, true], failback, Moment::ZERO);
        selector.handle_usable(Primary, 1, seconds(1));
        selector.handle_usable(Secondary, 1, seconds(1));
        assert!(selector.fail_over(Secondary, seconds(LATER)));
        let switch = selector.poll_switch().unwrap();
        assert_eq!((switch.from, switch.to), (Primary, Secondary));
        assert!(switch.reason.contains("operator"), "{switch:?}");
        // The primary may come and go.
        selector.handle_usable(Primary, 0, seconds(LATER + 10));
        selector.handle_usable(Primary, 3, seconds(LATER + 20));
        assert_eq!((a_day_later(&mut selector), selector.is_held()), ((Secondary, None), true), "{failback:?}");
        assert!(selector.fail_over(Primary, seconds(90_000)));
        assert_eq!((selector.active(), selector.is_held()), (Primary, false));
    }
}

#[test]
fn an_operator_holds_traffic_that_is_about_to_go_back() {
    let mut selector = after_a_failover(Failback::After(HOLD));
    assert!(selector.fail_over(Secondary, seconds(LATER + 20)));
    assert_eq!(a_day_later(&mut selector), (Secondary, Some(seconds(LATER))));
}

#[test]
fn a_hold_ends_when_the_role_that_carries_has_no_tunnel_left() {
    let mut selector = after_a_failover(Failback::After(HOLD));
    assert!(selector.fail_over(Secondary, seconds(LATER + 20)));
    selector.handle_usable(Secondary, 0, seconds(LATER + 30));
    assert_eq!((selector.active(), selector.is_held()), (Primary, false));
    selector.handle_usable(Secondary, 1, seconds(LATER + 40));
    assert_eq!(a_day_later(&mut selector).0, Primary, "an order is obeyed once");
}

#[test]
fn a_role_without_a_usable_tunnel_gets_no_traffic_by_order() {
    let mut selector = RoleSelector::new([true, false], Failback::Immediate, Moment::ZERO);
    selector.handle_usable(Primary, 1, seconds(1));
    assert!(!selector.fail_over(Secondary, seconds(2)));
    let mut selector = RoleSelector::new([true, true], Failback::Immediate, Moment::ZERO);
    selector.handle_usable(Primary, 1, seconds(1));
    assert!(!selector.fail_over(Secondary, seconds(2)));
    assert_eq!(selector.active(), Primary);
    assert!(selector.poll_switch().is_none());
}

proptest! {
    #[test]
    fn no_sequence_of_facts_strands_traffic_or_makes_it_flap(
        facts in proptest::collection::vec((0u64..40_000, any::<bool>(), 0usize..4), 1..200)
    ) {
        let mut selector = RoleSelector::new([true, true], Failback::After(HOLD), Moment::ZERO);
        let mut now = Moment::ZERO;
        let mut usable = [0usize; 2];
        let mut primary_since = None;
        let mut last_switch: Option<Moment> = None;
        for (pause, primary, count) in facts {
            let next = now + Duration::from_millis(pause);
            let role = if primary { Primary } else { Secondary };
            let mut switched = Vec::new();
            while let Some(due) = selector.poll_timeout().filter(|&due| due <= next) {
                selector.handle_timeout(due);
                let moved = std::iter::from_fn(|| selector.poll_switch());
                switched.extend(moved.map(|switch| (switch, usable, primary_since)));
            }
            now = next;
            usable[role.index()] = count;
            primary_since = if usable[0] == 0 { None } else { primary_since.or(Some(now)) };
            selector.handle_usable(role, count, now);
            let moved = std::iter::from_fn(|| selector.poll_switch());
            switched.extend(moved.map(|switch| (switch, usable, primary_since)));
            for (switch, usable, primary_since) in switched {
                prop_assert!(usable[switch.to.index()] > 0, "moved to a role without a tunnel: {:?}", switch);
                let forced = usable[switch.from.index()] == 0 || switch.at < Moment::ZERO + START_WAIT;
                if !forced {
                    // Only ever back to the primary, and only after the hold time.
                    prop_assert_eq!(switch.to, Primary);
                    prop_assert!(primary_since.is_some_and(|since| switch.at.since(since) >= HOLD));
                    prop_assert!(last_switch.is_none_or(|last: Moment| switch.at.since(last) >= HOLD));
                }
                last_switch = Some(switch.at);
            }
            let active = selector.active();
            prop_assert!(usable[active.index()] > 0 || usable[active.other().index()] == 0);
        }
    }
}
