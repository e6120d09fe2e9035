use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Moment, Role};

/// How long after the start the primary role takes over at once when it comes up second: the
/// tunnels of both roles are set up side by side, and there is little to move yet. Long enough
/// for a set-up with lost packets, short enough that few flows have begun.
const START_WAIT: Duration = Duration::from_secs(10);

/// Switches that nobody has asked for yet; the oldest is forgotten. Each fact makes at most one.
const MAX_UNREAD: usize = 8;

/// Which role of a connector carries its traffic.
///
/// The primary role does while one of its tunnels is usable; when the last one goes, the secondary
/// role does at once; and when the primary has been usable without a break for the hold time,
/// traffic goes back. Order: `handle_*`, then `poll_switch` until `None`, then `poll_timeout`.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RoleSelector {
    state: State,
    /// By `Role::index`, of configured roles only.
    usable: [bool; 2],
    configured: [bool; 2],
    hold: Duration,
    #[serde(skip)]
    switches: VecDeque<Switch>,
}

/// The traffic of a connector went over to its other role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Switch {
    pub from: Role,
    pub to: Role,
    /// In plain words.
    pub reason: String,
    pub at: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Neither role has been usable since the start. Nothing is carried.
    Starting { until: Moment },
    /// The secondary came up first; the primary, if it comes before `until`, need not wait.
    EarlySecondary { until: Moment },
    /// The primary carries.
    Primary,
    /// The secondary carries, the primary is not usable.
    Secondary,
    /// The secondary carries, the primary has been usable since then and must prove to last.
    Returning { since: Moment },
    /// Neither is usable; this one carried last. Nothing is carried.
    Stranded(Role),
}

impl RoleSelector {
    /// `configured` by `Role::index`. Until the first role is usable, the primary is the active
    /// one if it is configured.
    pub fn new(configured: [bool; 2], hold: Duration, now: Moment) -> RoleSelector {
        RoleSelector {
            state: State::Starting { until: now + START_WAIT },
            usable: [false; 2],
            configured,
            hold,
            switches: VecDeque::new(),
        }
    }

    /// Tells how many tunnels of a role can carry traffic now. A role that is not configured has
    /// none.
    pub fn handle_usable(&mut self, role: Role, tunnels_usable: usize, now: Moment) {
        let [primary, secondary] = &mut self.usable;
        let configured = self.configured;
        match role {
            Role::Primary => *primary = tunnels_usable > 0 && configured[0],
            Role::Secondary => *secondary = tunnels_usable > 0 && configured[1],
        }
        self.advance(now);
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        self.advance(now);
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<Moment> {
        match self.state {
            State::Returning { since } => Some(since + self.hold),
            State::Starting { .. }
            | State::EarlySecondary { .. }
            | State::Primary
            | State::Secondary
            | State::Stranded(_) => None,
        }
    }

    pub fn poll_switch(&mut self) -> Option<Switch> {
        self.switches.pop_front()
    }

    /// The role that carries the traffic; when neither can, the one that did last.
    pub fn active(&self) -> Role {
        self.active_in(self.state)
    }

    fn active_in(&self, state: State) -> Role {
        match state {
            State::Starting { .. } if self.configured == [false, true] => Role::Secondary,
            State::Starting { .. } | State::Primary => Role::Primary,
            State::EarlySecondary { .. } | State::Secondary | State::Returning { .. } => Role::Secondary,
            State::Stranded(role) => role,
        }
    }

    fn advance(&mut self, now: Moment) {
        let (next, reason) = step(self.state, self.usable, self.hold, now);
        let (from, to) = (self.active(), self.active_in(next));
        self.state = next;
        if from != to {
            if self.switches.len() >= MAX_UNREAD {
                self.switches.pop_front();
            }
            self.switches.push_back(Switch { from, to, reason: reason.to_string(), at: now });
        }
    }
}

/// The table of transitions: the state, whether the primary and the secondary role are usable,
/// and what follows. The reason is told where the active role changes.
fn step(state: State, [primary, secondary]: [bool; 2], hold: Duration, now: Moment) -> (State, &'static str) {
    use State::{EarlySecondary, Primary, Returning, Secondary, Starting, Stranded};
    const FIRST: &str = "the first role with a usable tunnel";
    const LOST: &str = "no tunnel of the primary role is usable";
    const START: &str = "a tunnel of the primary role became usable soon after the start";
    const HELD: &str = "the primary role has been usable for the whole hold time";
    const FORCED: &str = "no tunnel of the secondary role is usable, and the primary role has one";
    const SAME: &str = "the same role carries on";
    match (state, primary, secondary) {
        (Starting { until }, false, false) => (Starting { until }, SAME),
        (Starting { .. }, true, false | true) => (Primary, FIRST),
        (Starting { until }, false, true) => (EarlySecondary { until }, FIRST),

        (EarlySecondary { until }, false, true) => (EarlySecondary { until }, SAME),
        (EarlySecondary { until }, true, true) if now < until || hold.is_zero() => (Primary, START),
        (EarlySecondary { .. }, true, true) => (Returning { since: now }, SAME),
        (EarlySecondary { .. }, true, false) => (Primary, FORCED),
        (EarlySecondary { .. }, false, false) => (Stranded(Role::Secondary), SAME),

        (Primary, true, false | true) => (Primary, SAME),
        (Primary, false, true) => (Secondary, LOST),
        (Primary, false, false) => (Stranded(Role::Primary), SAME),

        (Secondary, false, true) => (Secondary, SAME),
        (Secondary, true, true) if hold.is_zero() => (Primary, HELD),
        (Secondary, true, true) => (Returning { since: now }, SAME),
        (Secondary, true, false) => (Primary, FORCED),
        (Secondary, false, false) => (Stranded(Role::Secondary), SAME),

        (Returning { since }, true, true) if now >= since + hold => (Primary, HELD),
        (Returning { since }, true, true) => (Returning { since }, SAME),
        (Returning { .. }, true, false) => (Primary, FORCED),
        (Returning { .. }, false, true) => (Secondary, SAME),
        (Returning { .. }, false, false) => (Stranded(Role::Secondary), SAME),

        (Stranded(role), false, false) => (Stranded(role), SAME),
        // Nothing is carried, so there is nothing to hold back for.
        (Stranded(_), true, false | true) => (Primary, FORCED),
        (Stranded(_), false, true) => (Secondary, LOST),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
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
        let mut selector = RoleSelector::new(configured, HOLD, Moment::ZERO);
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
        let mut lines = vec![
            (1, Primary, 1, Primary, false),
            (1, Secondary, 1, Primary, false),
            (LATER, Primary, 0, Secondary, true),
        ];
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
            &[
                (1, Secondary, 1, Secondary, true),
                (11, Primary, 1, Secondary, false),
                (72, Secondary, 2, Primary, false),
            ],
        );
        assert_eq!(switches[1].at, seconds(71));
    }

    #[test]
    fn a_connector_with_one_role_never_switches() {
        run([true, false], &[(1, Secondary, 3, Primary, false), (2, Primary, 1, Primary, false)]);
        run([true, false], &[(1, Primary, 3, Primary, false), (2, Primary, 0, Primary, false)]);
        run([false, true], &[(1, Secondary, 3, Secondary, false), (2, Secondary, 0, Secondary, false)]);
    }

    #[test]
    fn without_a_hold_traffic_goes_back_at_once() {
        let mut selector = RoleSelector::new([true, true], Duration::ZERO, Moment::ZERO);
        selector.handle_usable(Primary, 1, seconds(1));
        selector.handle_usable(Secondary, 1, seconds(1));
        selector.handle_usable(Primary, 0, seconds(200));
        assert_eq!(selector.active(), Secondary);
        selector.handle_usable(Primary, 1, seconds(201));
        assert_eq!(selector.active(), Primary);
    }

    proptest! {
        #[test]
        fn no_sequence_of_facts_strands_traffic_or_makes_it_flap(
            facts in proptest::collection::vec((0u64..40_000, any::<bool>(), 0usize..4), 1..200)
        ) {
            let mut selector = RoleSelector::new([true, true], HOLD, Moment::ZERO);
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
}
