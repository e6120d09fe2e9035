use super::Permille;

/// `n` losses among so many at this mean, a Poisson process has as many or more with a chance of
/// 1 %; by `n`, from 2. One loss proves nothing.
const MEANS: [f64; 9] = [0.149, 0.436, 0.823, 1.279, 1.785, 2.330, 2.906, 3.507, 4.130];

/// More than this is lost: with less, so many losses so close together come in one of a hundred cases. `lost` are the places
/// of what was lost, in order; that of the newest of all results is 1.
///
/// The newest losses are looked at by themselves, two, three, and more: loss that has begun now is not
/// thinned out by what was before.
pub fn certain_loss(lost: impl Iterator<Item = u32>) -> Permille {
    let least = lost.skip(1).zip(MEANS).map(|(results, mean)| mean / f64::from(results.max(1))).fold(0.0, f64::max);
    // Below one half, since 2 of 2 have a mean of 0.149.
    Permille::new((least * 1_000.0) as u16).unwrap_or(Permille::FULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_is_certain_of_nothing_and_two_close_together_of_much() {
        let certain = |places: &[u32]| certain_loss(places.iter().copied()).value();
        assert_eq!([certain(&[]), certain(&[1]), certain(&[1, 14]), certain(&[5, 150, 299])], [0, 0, 10, 1]);
        assert_eq!(certain(&[5, 20, 40]), 10, "three say more than the newest two");
        assert_eq!(certain(&[0, 0]), 149, "no place leads to more than that");
    }
}
