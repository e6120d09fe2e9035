//! Finds the first of many rules that matches a flow, without trying them one after another.
//!
//! Each rule becomes rows, and each axis (addresses, ports, ...) tells for a value which rows allow
//! it, as a bitmap. The intersection over all axes is what matches, and its lowest bit the answer
//! (Lakshman and Stiliadis, SIGCOMM 1998; the summaries are those of Baboescu and Varghese, 2001).

mod axis;
mod comparison;
mod coverage;
mod ranges;
mod row;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

use axis::{Allowed, Axis, WORD};
pub use comparison::{Comparison, Witnesses};
pub use coverage::{Coverage, Finding, Overlap};
pub use ranges::Ranges;
use row::last_values;
pub use row::{AXES, Family, Row};

use super::{NewFlow, Rule};
use crate::model::NameId;

/// Rows of one address family: 10,000 rules with an application or two among them.
const ROWS_MAX: usize = 65_536;

/// Words of one axis: 32 MiB. Only ranges that all overlap in different places come near; then
/// rules are tried one after another instead.
const WORDS_MAX: usize = 4 << 20;

/// Comparisons of rows in one look at all rules, or at two policies: about a second.
const STEPS_MAX: u64 = 200_000_000;

/// What taking one row from another costs, in comparisons.
const STEPS_OF_TAKING: u64 = 100;

/// So many words are looked at one by one.
const FEW_WORDS: u32 = 12;

/// Rules compiled for lookup.
pub struct Classifier {
    v4: Table<u32>,
    v6: Table<u128>,
}

struct Table<A> {
    /// By row: index of its rule.
    rules: Vec<u32>,
    addresses: [Axis<A>; 2],
    /// The others, in order.
    numbers: [Axis<u16>; AXES - 2],
    summary_len: usize,
}

impl Classifier {
    /// `None` when they have too many rows, or too many different combinations of them.
    pub fn new(rules: &[Rule]) -> Option<Classifier> {
        let mut rows: [Vec<(u32, Row)>; 2] = [Vec::new(), Vec::new()];
        for (index, rule) in (0u32..).zip(rules) {
            for row in Row::all_of(&rule.matcher) {
                let of_family = match row.family {
                    Family::V4 => &mut rows[0],
                    Family::V6 => &mut rows[1],
                };
                if of_family.len() == ROWS_MAX {
                    return None;
                }
                of_family.push((index, row));
            }
        }
        let [v4, v6] = &rows;
        Some(Classifier { v4: Table::new(v4, Family::V4)?, v6: Table::new(v6, Family::V6)? })
    }

    /// Index of the first rule that matches: the first of those that match one of the destination's names.
    pub fn first_match(&self, flow: &NewFlow) -> Option<u32> {
        if flow.ends.names.is_empty() {
            return self.first_match_of(flow, NameId::default());
        }
        flow.ends.names.iter().filter_map(|name| self.first_match_of(flow, name)).min()
    }

    fn first_match_of(&self, flow: &NewFlow, name: NameId) -> Option<u32> {
        match (flow.key.source, flow.key.destination) {
            (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
                self.v4.first_match(source.to_bits(), destination.to_bits(), flow, name)
            }
            (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
                self.v6.first_match(source.to_bits(), destination.to_bits(), flow, name)
            }
            // No packet has addresses of both families.
            _ => None,
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.v4.size() + self.v6.size()
    }
}

impl<A: Copy + Ord + TryFrom<u128>> Table<A> {
    fn new(rows: &[(u32, Row)], family: Family) -> Option<Table<A>> {
        let last = last_values(family);
        let axis = |index: usize| rows.iter().map(move |(_, row)| &row.axes[index]);
        Some(Table {
            rules: rows.iter().map(|(rule, _)| *rule).collect(),
            addresses: [Axis::new(axis(0), last[0], WORDS_MAX)?, Axis::new(axis(1), last[1], WORDS_MAX)?],
            numbers: [
                Axis::new(axis(2), last[2], WORDS_MAX)?,
                Axis::new(axis(3), last[3], WORDS_MAX)?,
                Axis::new(axis(4), last[4], WORDS_MAX)?,
                Axis::new(axis(5), last[5], WORDS_MAX)?,
                Axis::new(axis(6), last[6], WORDS_MAX)?,
                Axis::new(axis(7), last[7], WORDS_MAX)?,
                Axis::new(axis(8), last[8], WORDS_MAX)?,
                Axis::new(axis(9), last[9], WORDS_MAX)?,
                Axis::new(axis(10), last[10], WORDS_MAX)?,
            ],
            summary_len: rows.len().div_ceil(WORD).div_ceil(WORD),
        })
    }

    fn first_match(&self, source: A, destination: A, flow: &NewFlow, one_name: NameId) -> Option<u32> {
        let key = &flow.key;
        let [protocol, source_port, destination_port, dscp, connector, minute, interface, name, site] = &self.numbers;
        let [sources, destinations] = &self.addresses;
        // What tells most rows apart comes first: it empties most words.
        let mut axes: ArrayVec<Allowed<'_>, AXES> = ArrayVec::new();
        if !destinations.is_idle {
            axes.push(destinations.allowed(destination));
        }
        if !sources.is_idle {
            axes.push(sources.allowed(source));
        }
        for (axis, value) in [
            (destination_port, key.destination_port),
            (protocol, key.protocol.into()),
            (source_port, key.source_port),
            (dscp, dscp_value(flow)),
            (connector, flow.connector.0),
            (minute, flow.minute.value()),
            (interface, flow.ends.interface.0.into()),
            (name, one_name.0),
            (site, flow.ends.site.0),
        ] {
            if !axis.is_idle {
                axes.push(axis.allowed(value));
            }
        }
        if axes.is_empty() {
            return self.rules.first().copied();
        }
        let row = first_common(&mut axes, self.summary_len)?;
        self.rules.get(row).copied()
    }

    fn size(&self) -> usize {
        let addresses: usize = self.addresses.iter().map(Axis::size).sum();
        let numbers: usize = self.numbers.iter().map(Axis::size).sum();
        addresses + numbers + self.rules.len() * size_of::<u32>()
    }
}

fn dscp_value(flow: &NewFlow) -> u16 {
    flow.dscp.value().into()
}

/// The lowest row that all axes allow.
fn first_common(axes: &mut [Allowed<'_>], summary_len: usize) -> Option<usize> {
    for index in 0..summary_len {
        let mut words = axes.iter().fold(u64::MAX, |words, axis| words & axis.summary(index));
        if words.count_ones() > FEW_WORDS {
            let mut rows = [u64::MAX; WORD];
            axes.iter().for_each(|axis| axis.strike(index, &mut rows));
            if let Some((word, rows)) = rows.iter().enumerate().find(|(_, rows)| **rows != 0) {
                return Some((index * WORD + word) * WORD + rows.trailing_zeros() as usize);
            }
            words = 0;
        }
        while words != 0 {
            let bit = words.trailing_zeros();
            words &= words - 1;
            let mut rows = u64::MAX;
            for axis in axes.iter() {
                rows &= axis.rows(index, bit);
                if rows == 0 {
                    break;
                }
            }
            if rows != 0 {
                return Some((index * WORD + bit as usize) * WORD + rows.trailing_zeros() as usize);
            }
        }
        axes.iter_mut().for_each(|axis| axis.pass(index));
    }
    None
}
