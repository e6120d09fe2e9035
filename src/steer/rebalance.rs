use serde::{Deserialize, Serialize};

use crate::model::{FlowKey, PathId, Permille};

/// Nothing is moved while every path would have its share of the bytes but for this part of all,
/// in thousandths.
const TOLERANCE: i64 = 8;

/// A move that improves the shares by less than this part of all bytes is left out, in thousandths.
const LEAST_GAIN: i64 = 4;

/// A path that certainly loses so much more than another seems to is no better for any flow of it, unless that can carry
/// no more; in thousandths of round trips.
const LOSSIER: u16 = 10;

/// Moves of one re-steer in one group of paths: what is left waits for the next.
const MOVES_AT_ONCE: usize = 16;

/// A path of a group that shares flows by weight, with what it has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    pub path: PathId,
    /// See `Candidate::weight`.
    pub weight: u32,
    /// Bytes sent in the past that still counts.
    pub sent: u64,
    /// Bytes that it will send in the time that is looked ahead, if no flow moves.
    pub expected: u64,
    /// Bytes that it can carry in that time.
    pub room: u64,
    /// Bytes that a single flow can get over it in that time: little, where much is lost.
    pub single: u64,
    /// See `Quality`.
    pub loss_least: Permille,
    pub loss_likely: Permille,
    /// See `Condition`.
    pub full: bool,
}

impl Load {
    fn is_no_better_than(&self, present: &Load) -> bool {
        !present.full && self.loss_least.value() > present.loss_likely.value() + LOSSIER
    }
}

/// A flow that may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elephant {
    pub key: FlowKey,
    pub path: PathId,
    /// Where it may be: bit n is the nth of the loads.
    pub peers: u8,
    /// Bytes that it will send in the time that is looked ahead.
    pub expected: u64,
}

/// One flow that is to go over to another path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Shift {
    pub key: FlowKey,
    pub from: PathId,
    pub to: PathId,
}

/// The fewest moves that bring the bytes of past and near future in proportion to the weights, as
/// far as whole flows can. Depends on nothing but its arguments; the order of the flows says
/// nothing.
///
/// Each step takes the one move that brings the shares closest: the flow whose bytes come nearest
/// to what one path has too much and another too little. So a large deviation costs one elephant,
/// not a hundred mice, and a small one nothing.
pub fn rebalance(loads: &[Load], elephants: &[Elephant]) -> Vec<Shift> {
    let all: i128 = loads.iter().map(|load| i128::from(load.sent) + i128::from(load.expected)).sum();
    let weights: i128 = loads.iter().map(|load| i128::from(load.weight.max(1))).sum();
    if all == 0 || loads.len() < 2 {
        return Vec::new();
    }
    // Too much is positive.
    let mut surplus: Vec<i128> = loads
        .iter()
        .map(|load| {
            let share = all * i128::from(load.weight.max(1)) / weights;
            i128::from(load.sent) + i128::from(load.expected) - share
        })
        .collect();
    // Shares are not worth a flow's throughput: it goes only where there is room for all of it.
    let mut ahead: Vec<i128> = loads.iter().map(|load| i128::from(load.expected)).collect();
    let part = |thousandths: i64| all * i128::from(thousandths) / 1_000;
    let mut left: Vec<&Elephant> = elephants.iter().filter(|flow| flow.expected > 0).collect();
    left.sort_unstable_by_key(|flow| flow.key);
    let mut shifts = Vec::new();
    while shifts.len() < MOVES_AT_ONCE && surplus.iter().any(|surplus| surplus.abs() > part(TOLERANCE)) {
        let mut best: Option<(i128, usize, usize, usize)> = None;
        for (index, flow) in left.iter().enumerate() {
            let Some((from, present)) = loads.iter().enumerate().find(|(_, load)| load.path == flow.path) else {
                continue;
            };
            for (to, load) in loads.iter().enumerate().filter(|(to, _)| flow.peers >> to & 1 == 1 && *to != from) {
                let (Some(had), Some(has)) = (surplus.get(from), surplus.get(to)) else { continue };
                let bytes = i128::from(flow.expected);
                let is_slow = flow.expected > load.single;
                let is_full = ahead.get(to).is_none_or(|ahead| ahead + bytes > i128::from(load.room));
                if is_slow || is_full || load.is_no_better_than(present) {
                    continue;
                }
                let gain = had.abs() + has.abs() - (had - bytes).abs() - (has + bytes).abs();
                if best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, index, from, to));
                }
            }
        }
        let Some((_, index, from, to)) = best.filter(|(gain, ..)| *gain > part(LEAST_GAIN)) else { break };
        let flow = left.remove(index);
        let bytes = i128::from(flow.expected);
        for (place, change) in [(from, -bytes), (to, bytes)] {
            if let (Some(surplus), Some(ahead)) = (surplus.get_mut(place), ahead.get_mut(place)) {
                *surplus += change;
                *ahead += change;
            }
        }
        if let (Some(from), Some(to)) = (loads.get(from), loads.get(to)) {
            shifts.push(Shift { key: flow.key, from: from.path, to: to.path });
        }
    }
    shifts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u32) -> FlowKey {
        FlowKey {
            segment: 0,
            protocol: 6,
            source: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            destination: [10, 9, 0, 1].into(),
            source_port: 1_000,
            destination_port: 443,
        }
    }

    fn elephant(number: u32, path: u16, expected: u64) -> Elephant {
        Elephant { key: key(number), path: PathId(path), peers: 0b111, expected }
    }

    fn load(path: u16, weight: u32, expected: u64) -> Load {
        let none = Permille::ZERO;
        Load {
            path: PathId(path),
            weight,
            sent: 0,
            expected,
            room: u64::MAX,
            single: u64::MAX,
            loss_least: none,
            loss_likely: none,
            full: false,
        }
    }

    /// What each path will have sent, after the moves.
    fn after(loads: &[Load], elephants: &[Elephant], shifts: &[Shift]) -> Vec<u64> {
        let mut sums: Vec<u64> = loads.iter().map(|load| load.sent + load.expected).collect();
        for shift in shifts {
            let flow = elephants.iter().find(|flow| flow.key == shift.key).unwrap();
            let place = |path| loads.iter().position(|load| load.path == path).unwrap();
            assert_eq!(flow.path, shift.from);
            sums[place(shift.from)] -= flow.expected;
            sums[place(shift.to)] += flow.expected;
        }
        sums
    }

    #[test]
    fn one_elephant_of_the_right_size_moves_rather_than_many_mice() {
        let mut flows: Vec<Elephant> = (0..100).map(|number| elephant(number, 0, 10)).collect();
        flows.push(elephant(200, 0, 500));
        flows.push(elephant(201, 0, 900));
        let loads = [load(0, 100, 2_000), load(1, 100, 1_000)];
        assert_eq!(rebalance(&loads, &flows), [Shift { key: key(200), from: PathId(0), to: PathId(1) }]);
    }

    #[test]
    fn nothing_moves_while_the_shares_are_near_enough() {
        let flows: Vec<Elephant> = (0..200).map(|number| elephant(number, (number % 2) as u16, 10)).collect();
        assert_eq!(rebalance(&[load(0, 1, 1_007), load(1, 1, 1_000)], &flows), []);
    }

    #[test]
    fn a_flow_too_large_to_help_stays() {
        let loads = [load(0, 100, 1_000), load(1, 100, 0)];
        assert_eq!(rebalance(&loads, &[elephant(1, 0, 1_000)]), [], "it would only change places");
    }

    #[test]
    fn a_flow_moves_only_where_it_may() {
        let loads = [load(0, 100, 1_000), load(1, 100, 0), load(2, 100, 0)];
        let bound = Elephant { peers: 0b101, ..elephant(1, 0, 300) };
        assert_eq!(rebalance(&loads, &[bound]), [Shift { key: key(1), from: PathId(0), to: PathId(2) }]);
        assert_eq!(rebalance(&loads, &[Elephant { peers: 0b001, ..bound }]), []);
    }

    #[test]
    fn an_elephant_stays_off_a_path_that_cannot_carry_it() {
        // It has sent more than its path's share, and would get less anywhere else.
        let loads = [
            Load { sent: 3_000, room: 2_000, ..load(0, 20, 1_900) },
            Load { room: 800, ..load(1, 8, 0) },
            Load { room: 500, ..load(2, 5, 0) },
        ];
        assert_eq!(rebalance(&loads, &[elephant(1, 0, 1_900)]), []);
        let small = elephant(2, 0, 700);
        let moved = rebalance(&loads, &[elephant(1, 0, 1_200), small]);
        assert_eq!(moved, [Shift { key: key(2), from: PathId(0), to: PathId(1) }]);
    }

    #[test]
    fn a_flow_stays_off_a_path_that_loses_so_much_that_it_would_get_less_there() {
        let loads = [load(0, 20, 1_200), Load { single: 200, ..load(1, 20, 100) }];
        assert_eq!(rebalance(&loads, &[elephant(1, 0, 600), elephant(2, 0, 600)]), []);
        let small = elephant(3, 0, 200);
        let moved = rebalance(&loads, &[elephant(1, 0, 1_000), small]);
        assert_eq!(moved, [Shift { key: key(3), from: PathId(0), to: PathId(1) }]);
    }

    #[test]
    fn no_flow_goes_where_certainly_more_is_lost_and_one_may_where_that_may_be_chance() {
        let part = |value| Permille::new(value).unwrap();
        let lossy = Load { loss_least: part(33), loss_likely: part(66), ..load(1, 1, 0) };
        let flows = [elephant(1, 0, 500), elephant(2, 0, 500)];
        assert_eq!(rebalance(&[load(0, 1, 1_000), lossy], &flows), []);
        let seems_alike = Load { loss_likely: part(33), ..load(0, 1, 1_000) };
        assert_eq!(rebalance(&[seems_alike, lossy], &flows).len(), 1);
        let full = Load { full: true, ..load(0, 1, 1_000) };
        assert_eq!(rebalance(&[full, lossy], &flows).len(), 1, "there they are in each other's way");
        let flows = [elephant(1, 1, 500), elephant(2, 1, 500)];
        assert_eq!(
            rebalance(&[load(0, 1, 0), Load { expected: 1_000, ..lossy }], &flows).len(),
            1,
            "from there it may"
        );
    }

    #[test]
    fn what_was_sent_in_the_past_is_made_up_for() {
        let flows = [elephant(1, 0, 100), elephant(2, 0, 100), elephant(3, 1, 100), elephant(4, 1, 100)];
        let loads = [Load { sent: 1_000, ..load(0, 1, 200) }, Load { sent: 800, ..load(1, 1, 200) }];
        assert_eq!(rebalance(&loads, &flows).len(), 1);
    }

    proptest! {
        #[test]
        fn the_shares_never_get_worse_and_the_order_of_the_flows_says_nothing(
            sizes in proptest::collection::vec((0u16..3, 1u64..100_000), 1..200),
            weights in proptest::array::uniform3(1u32..1_000),
            past in proptest::array::uniform3(0u64..1_000_000),
        ) {
            let flows: Vec<Elephant> =
                (0..).zip(&sizes).map(|(number, (path, size))| elephant(number, *path, *size)).collect();
            let expected =
                |path: u16| flows.iter().filter(|flow| flow.path == PathId(path)).map(|flow| flow.expected).sum();
            let loads: Vec<Load> = (0..3u16)
                .map(|path| Load { sent: past[usize::from(path)], ..load(path, weights[usize::from(path)], expected(path)) })
                .collect();
            let shifts = rebalance(&loads, &flows);
            let off = |sums: &[u64]| -> f64 {
                let all: u64 = sums.iter().sum();
                let whole: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
                sums.iter().zip(weights).map(|(sum, weight)| {
                    (*sum as f64 - all as f64 * f64::from(weight) / whole).abs()
                }).sum()
            };
            let before: Vec<u64> = loads.iter().map(|load| load.sent + load.expected).collect();
            prop_assert!(off(&after(&loads, &flows, &shifts)) <= off(&before) + 3.0);
            prop_assert!(shifts.len() <= MOVES_AT_ONCE);
            let mut turned = flows.clone();
            turned.reverse();
            prop_assert_eq!(rebalance(&loads, &turned), shifts);
        }
    }
}
