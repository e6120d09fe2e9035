use std::net::IpAddr;

use super::Candidate;
use crate::model::{FlowKey, PathId};

/// Weighted rendezvous hashing: flow and path together give each path a score, and the lowest
/// wins. Flows fall to paths in proportion to their weights. A path that comes or goes moves only
/// its own flows, and a changed weight only as many as the shares differ by.
///
/// Constants and arithmetic are fixed here, so the same flow gets the same path in every
/// process and on every machine.
pub(super) fn winner(flow: u64, candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    let mut best: Option<(f64, Candidate)> = None;
    for candidate in candidates {
        let score = score(flow, candidate.path, candidate.weight);
        let better = match best {
            None => true,
            Some((lowest, leader)) => score < lowest || (score == lowest && candidate.path < leader.path),
        };
        if better {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// -ln(u)/w with u uniform in (0, 1): the first arrival of a Poisson process of rate w. Of
/// several, each is the first with probability w / sum of all w.
fn score(flow: u64, path: PathId, weight: u32) -> f64 {
    // 52 bits and a half, so that neither end of (0, 1) is reached.
    let bits = mix(flow, u64::from(path.0)) >> 12;
    let uniform = (bits as f64 + 0.5) / (1u64 << 52) as f64;
    -natural_logarithm(uniform) / f64::from(weight.max(1))
}

/// The flow's hash: every field of the key takes part.
pub(super) fn flow_hash(key: &FlowKey) -> u64 {
    let (source_high, source_low) = words(key.source);
    let (destination_high, destination_low) = words(key.destination);
    let rest = u64::from(key.source_port) << 32
        | u64::from(key.destination_port) << 16
        | u64::from(key.protocol) << 8
        | u64::from(key.segment);
    let source = mix(source_low, source_high);
    let both = mix(source ^ destination_low, destination_high);
    mix(both, rest)
}

fn words(address: IpAddr) -> (u64, u64) {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    ((bits >> 64) as u64, bits as u64)
}

/// Numbers with evenly spread bits: fractional parts of pi and of the golden ratio.
const PI: u64 = 0x243f_6a88_85a3_08d3;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiply, fold the two halves together, then finish as splitmix64 does, so that keys which
/// differ in one bit have nothing in common.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ PI) * u128::from(b ^ GOLDEN);
    let mut z = (product as u64) ^ ((product >> 64) as u64);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// ln(x) for normal x > 0, to some 12 digits. Only additions, multiplications and divisions,
/// which IEEE 754 fixes to the last bit; `f64::ln` may differ between C libraries.
fn natural_logarithm(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for denominator in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / denominator;
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_agrees_with_the_library_over_the_whole_range() {
        let mut x = 1e-17;
        while x < 1.0 {
            let difference = (natural_logarithm(x) - x.ln()).abs();
            assert!(difference < 1e-11, "{x}: {difference}");
            x *= 1.01;
        }
    }

    #[test]
    fn the_hash_of_a_flow_is_the_same_in_every_process() {
        let key = FlowKey {
            segment: 0,
            protocol: 6,
            source: IpAddr::from([10, 1, 0, 5]),
            destination: IpAddr::from([203, 0, 113, 9]),
            source_port: 51_000,
            destination_port: 443,
        };
        assert_eq!(flow_hash(&key), 0xc470_0dd2_577c_afb8);
    }

    #[test]
    fn every_bit_of_a_flow_changes_its_hash() {
        let bits = |key: &FlowKey| flow_hash(key).count_ones();
        let v6 = |bits: u128| FlowKey {
            segment: 0,
            protocol: 17,
            source: IpAddr::V6(bits.into()),
            destination: IpAddr::V6((!bits).into()),
            source_port: 1,
            destination_port: 2,
        };
        let mut seen = std::collections::BTreeSet::from([flow_hash(&v6(0))]);
        for bit in 0..128 {
            let key = v6(1 << bit);
            assert!(seen.insert(flow_hash(&key)), "bit {bit} of the addresses is lost");
            assert!((12..52).contains(&bits(&key)), "bit {bit}: {} bits set", bits(&key));
        }
    }
}
