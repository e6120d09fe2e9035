use crate::model::TrafficSelector;

/// 64 selectors in an answer: a connector has a handful of ranges. A subset is a valid answer.
const NARROWED_MAX: usize = 64;

/// Selectors of each side that are told: a line of the log holds no more that anybody reads.
const TOLD_MAX: usize = 8;

/// What of the peer's proposal we accept: its intersection with what is configured
/// (RFC 7296 2.9). Empty means TS_UNACCEPTABLE.
pub fn narrow(proposed: &[TrafficSelector], configured: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for theirs in proposed {
        for ours in configured {
            let Some(common) = theirs.intersection(ours) else { continue };
            if narrowed.iter().any(|known| contains(known, &common)) {
                continue;
            }
            narrowed.retain(|known| !contains(&common, known));
            if narrowed.len() < NARROWED_MAX {
                narrowed.push(common);
            }
        }
    }
    narrowed
}

/// Whether an answer stays within what we proposed, and leaves something of it.
pub fn is_narrowing(answer: &[TrafficSelector], proposed: &[TrafficSelector]) -> bool {
    !answer.is_empty() && answer.iter().all(|theirs| proposed.iter().any(|ours| contains(ours, theirs)))
}

/// What the initiator offered, as people read it: `10.1.0.0-10.1.255.255 to 10.0.0.0-10.255.255.255`.
pub fn describe(from: &[TrafficSelector], to: &[TrafficSelector]) -> String {
    let side = |selectors: &[TrafficSelector]| {
        let mut told: Vec<String> = selectors.iter().take(TOLD_MAX).map(ToString::to_string).collect();
        if selectors.len() > TOLD_MAX {
            told.push(format!("{} more", selectors.len() - TOLD_MAX));
        }
        told.join(", ")
    };
    format!("{} to {}", side(from), side(to))
}

fn contains(outer: &TrafficSelector, inner: &TrafficSelector) -> bool {
    outer.intersection(inner).as_ref() == Some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> TrafficSelector {
        TrafficSelector::of_network(text.parse().unwrap())
    }

    #[test]
    fn the_intersection_remains_without_repetition() {
        let proposed = [network("10.1.2.3/32"), network("10.1.0.0/16"), network("fd00::/64")];
        assert_eq!(narrow(&proposed, &[network("10.0.0.0/8")]), [network("10.1.0.0/16")]);
        assert_eq!(narrow(&proposed, &[network("192.168.0.0/16")]), []);
        assert_eq!(
            narrow(&[TrafficSelector::ANY_IPV4], &[network("10.1.0.0/16"), network("10.2.0.0/16")]),
            [network("10.1.0.0/16"), network("10.2.0.0/16")]
        );
    }

    #[test]
    fn of_many_selectors_the_first_are_told_and_the_others_counted() {
        let to: Vec<TrafficSelector> = (0..10).map(|last| network(&format!("192.0.2.{last}/32"))).collect();
        assert_eq!(
            describe(&[network("10.1.0.0/16")], &to),
            "10.1.0.0-10.1.255.255 to 192.0.2.0, 192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4, 192.0.2.5, 192.0.2.6, \
             192.0.2.7, 2 more"
        );
    }

    #[test]
    fn an_answer_must_stay_within_the_proposal() {
        let proposed = [network("10.0.0.0/8"), network("192.168.1.0/24")];
        assert!(is_narrowing(&[network("10.1.0.0/16")], &proposed));
        assert!(!is_narrowing(&[TrafficSelector::ANY_IPV4], &proposed));
        assert!(!is_narrowing(&[], &proposed));
    }
}
