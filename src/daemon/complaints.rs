use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Moment, UnderlayId};

/// How often a complaint that stays the same is repeated: a log is read for what changes.
const REPEAT: Duration = Duration::from_secs(600);

/// What was last said of each underlay that has no sockets.
#[derive(Default)]
pub struct Complaints(BTreeMap<UnderlayId, (String, Moment)>);

impl Complaints {
    /// Whether to say this: it is new, or was last said long ago.
    pub fn is_due(&mut self, underlay: UnderlayId, reason: &str, now: Moment) -> bool {
        let known = self.0.get(&underlay);
        if known.is_some_and(|(said, at)| said == reason && now.since(*at) < REPEAT) {
            return false;
        }
        self.0.insert(underlay, (reason.to_owned(), now));
        true
    }

    pub fn settle(&mut self, underlay: UnderlayId) {
        self.0.remove(&underlay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_made_when_it_changes_and_then_rarely() {
        let mut complaints = Complaints::default();
        let (link, mut said) = (UnderlayId(0), Vec::new());
        for second in 0..1_300 {
            let reason =
                if second < 5 { "there is no interface eth1" } else { "interface eth1 has no IPv4 address yet" };
            if complaints.is_due(link, reason, Moment::from_millis(second * 1_000)) {
                said.push(second);
            }
        }
        assert_eq!(said, [0, 5, 605, 1_205]);
        complaints.settle(link);
        assert!(complaints.is_due(link, "there is no interface eth1", Moment::from_millis(1_300_000)));
    }
}
