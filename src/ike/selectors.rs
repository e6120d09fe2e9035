use crate::model::TrafficSelector;

/// 64 selectors in an answer: a connector has a handful of ranges. A subset is a valid answer.
const NARROWED_MAX: usize = 64;

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
    fn an_answer_must_stay_within_the_proposal() {
        let proposed = [network("10.0.0.0/8"), network("192.168.1.0/24")];
        assert!(is_narrowing(&[network("10.1.0.0/16")], &proposed));
        assert!(!is_narrowing(&[TrafficSelector::ANY_IPV4], &proposed));
        assert!(!is_narrowing(&[], &proposed));
    }
}
