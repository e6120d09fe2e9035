use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Failback;
use crate::model::{Moment, Role};

/// How long after the start the primary role takes over at once when it comes up second: the
/// tunnels of both roles are set up side by side, and there is little to move yet. Long enough
/// for a set-up with lost packets, short enough that few flows have begun.
pub(super) const START_WAIT: Duration = Duration::from_secs(10);

/// Switches that nobody has asked for yet; the oldest is forgotten. Each fact makes at most one.
const MAX_UNREAD: usize = 8;

/// Which role of a connector carries its traffic.
///
/// The primary role does while one of its tunnels is usable; when the last one goes, the secondary
/// role does at once; when traffic goes back, `Failback` says. An operator may send it to either
/// role, and it stays there. Order: `handle_*`, then `poll_switch` until `None`, then `poll_timeout`.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RoleSelector {
    state: State,
    /// By `Role::index`, of configured roles only.
    usable: [bool; 2],
    configured: [bool; 2],
    failback: Failback,
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
    /// The secondary carries: the primary is not usable, or its time has not come.
    Secondary,
    /// The secondary carries, the primary has been usable since then and must prove to last.
    Returning { since: Moment },
    /// The secondary carries since an operator said so, whatever the primary can do.
    Held,
    /// Neither is usable; this one carried last. Nothing is carried.
    Stranded(Role),
}

impl RoleSelector {
    /// `configured` by `Role::index`. Until the first role is usable, the primary is the active
    /// one if it is configured.
    pub fn new(configured: [bool; 2], failback: Failback, now: Moment) -> RoleSelector {
        RoleSelector {
            state: State::Starting { until: now + START_WAIT },
            usable: [false; 2],
            configured,
            failback,
            switches: VecDeque::new(),
        }
    }

    /// An operator sends the traffic to a role. On the secondary it stays, whatever `Failback` says,
    /// until it is sent back or that role has no usable tunnel. `false`: the role has none, and
    /// nothing was done.
    #[must_use]
    pub fn fail_over(&mut self, to: Role, now: Moment) -> bool {
        let usable = self.usable[to.index()];
        if usable {
            let next = match to {
                Role::Primary => State::Primary,
                Role::Secondary => State::Held,
            };
            self.enter(next, "an operator said so", now);
        }
        usable
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
            State::Returning { since } => self.failback.hold().map(|hold| since + hold),
            State::Starting { .. }
            | State::EarlySecondary { .. }
            | State::Primary
            | State::Secondary
            | State::Held
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

    /// An operator has sent the traffic to the secondary role, and it stays there.
    pub fn is_held(&self) -> bool {
        self.state == State::Held
    }

    fn active_in(&self, state: State) -> Role {
        match state {
            State::Starting { .. } if self.configured == [false, true] => Role::Secondary,
            State::Starting { .. } | State::Primary => Role::Primary,
            State::EarlySecondary { .. } | State::Secondary | State::Returning { .. } | State::Held => Role::Secondary,
            State::Stranded(role) => role,
        }
    }

    fn advance(&mut self, now: Moment) {
        let (next, reason) = step(self.state, self.usable, self.failback, now);
        self.enter(next, reason, now);
    }

    fn enter(&mut self, next: State, reason: &str, now: Moment) {
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
fn step(state: State, [primary, secondary]: [bool; 2], failback: Failback, now: Moment) -> (State, &'static str) {
    use Failback::{After, Immediate, Manual};
    use State::{EarlySecondary, Held, Primary, Returning, Secondary, Starting, Stranded};
    const FIRST: &str = "the first role with a usable tunnel";
    const LOST: &str = "no tunnel of the primary role is usable";
    const START: &str = "a tunnel of the primary role became usable soon after the start";
    const AT_ONCE: &str = "the primary role has a usable tunnel again";
    const LASTED: &str = "the primary role has been usable for the whole hold time";
    const FORCED: &str = "no tunnel of the secondary role is usable, and the primary role has one";
    const SAME: &str = "the same role carries on";
    match (state, primary, secondary) {
        (Starting { until }, false, false) => (Starting { until }, SAME),
        (Starting { .. }, true, false | true) => (Primary, FIRST),
        (Starting { until }, false, true) => (EarlySecondary { until }, FIRST),

        (EarlySecondary { until }, false, true) => (EarlySecondary { until }, SAME),
        (EarlySecondary { until }, true, true) if now < until => (Primary, START),
        (EarlySecondary { .. }, true, true) => step(Secondary, [true, true], failback, now),
        (EarlySecondary { .. }, true, false) => (Primary, FORCED),
        (EarlySecondary { .. }, false, false) => (Stranded(Role::Secondary), SAME),

        (Primary, true, false | true) => (Primary, SAME),
        (Primary, false, true) => (Secondary, LOST),
        (Primary, false, false) => (Stranded(Role::Primary), SAME),

        (Secondary, false, true) => (Secondary, SAME),
        (Secondary, true, true) => match failback {
            Immediate => (Primary, AT_ONCE),
            After(hold) if hold.is_zero() => (Primary, AT_ONCE),
            After(_) => (Returning { since: now }, SAME),
            Manual => (Secondary, SAME),
        },
        (Secondary, true, false) => (Primary, FORCED),
        (Secondary, false, false) => (Stranded(Role::Secondary), SAME),

        (Returning { since }, true, true) => match failback {
            After(hold) if now >= since + hold => (Primary, LASTED),
            Immediate | After(_) | Manual => (Returning { since }, SAME),
        },
        (Returning { .. }, true, false) => (Primary, FORCED),
        (Returning { .. }, false, true) => (Secondary, SAME),
        (Returning { .. }, false, false) => (Stranded(Role::Secondary), SAME),

        (Held, false | true, true) => (Held, SAME),
        (Held, true, false) => (Primary, FORCED),
        (Held, false, false) => (Stranded(Role::Secondary), SAME),

        (Stranded(role), false, false) => (Stranded(role), SAME),
        // Nothing is carried, so there is nothing to hold back for.
        (Stranded(_), true, false | true) => (Primary, FORCED),
        (Stranded(_), false, true) => (Secondary, LOST),
    }
}
