use std::time::Duration;

use crate::model::{Leg, Moment, Spi};

/// Datagrams kept, each of some 2 KiB: a millisecond of a gigabit, in which an IKE message is taken in.
const PLACES: usize = 128;

/// The longest outer packet.
const PLACE_BYTES: usize = 2_048;

/// A datagram whose SA is not there by then is none of ours.
const PATIENCE: Duration = Duration::from_millis(100);

/// ESP that has overtaken the message which tells of its SA: the peer may send as soon as it has answered our call, and
/// control needs a moment to read the answer.
#[derive(Default)]
pub(super) struct Early {
    places: Vec<Place>,
    used: usize,
}

struct Place {
    spi: Spi,
    leg: Leg,
    tos: u8,
    since: Moment,
    datagram: Vec<u8>,
}

/// One that was kept, to be opened now.
pub(super) struct Kept<'a> {
    pub spi: Spi,
    pub leg: Leg,
    pub tos: u8,
    pub datagram: &'a mut [u8],
}

impl Early {
    pub fn new() -> Early {
        let unspecified = ([0, 0, 0, 0], 0).into();
        let leg = Leg { underlay: crate::model::UnderlayId(0), natt: true, local: unspecified, remote: unspecified };
        let place =
            |_| Place { spi: Spi(0), leg, tos: 0, since: Moment::ZERO, datagram: Vec::with_capacity(PLACE_BYTES) };
        Early { places: (0..PLACES).map(place).collect(), used: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// `false`: there is no room for it.
    pub fn keep(&mut self, spi: Spi, leg: Leg, tos: u8, datagram: &[u8], now: Moment) -> bool {
        let Some(place) = self.places.get_mut(self.used).filter(|_| datagram.len() <= PLACE_BYTES) else {
            return false;
        };
        place.datagram.clear();
        place.datagram.extend_from_slice(datagram);
        (place.spi, place.leg, place.tos, place.since) = (spi, leg, tos, now);
        self.used += 1;
        true
    }

    /// Gives back, in the order of their coming, those whose SA `is_there` now, and returns how many were given up.
    pub fn take(&mut self, now: Moment, is_there: impl Fn(Spi) -> bool, mut open: impl FnMut(Kept)) -> u64 {
        let (mut left, mut given_up) = (0, 0);
        for index in 0..self.used {
            let Some(place) = self.places.get_mut(index) else { break };
            if is_there(place.spi) {
                open(Kept { spi: place.spi, leg: place.leg, tos: place.tos, datagram: &mut place.datagram });
            } else if now.since(place.since) >= PATIENCE {
                given_up += 1;
            } else {
                self.places.swap(left, index);
                left += 1;
            }
        }
        self.used = left;
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg() -> Leg {
        let end = ([192, 0, 2, 1], 4500).into();
        Leg { underlay: crate::model::UnderlayId(0), natt: true, local: end, remote: end }
    }

    #[test]
    fn what_came_early_is_given_back_in_order_when_its_sa_is_there_and_given_up_after_a_while() {
        let mut early = Early::new();
        let at = Moment::from_millis;
        for number in 0..4u8 {
            assert!(early.keep(Spi(u32::from(number % 2)), leg(), 0, &[number; 9], at(u64::from(number))));
        }
        let mut opened = Vec::new();
        assert_eq!(early.take(at(50), |spi| spi == Spi(1), |kept| opened.push(kept.datagram[0])), 0);
        assert_eq!(opened, [1, 3]);
        assert_eq!(early.take(at(100), |_| false, |_| panic!("nothing is there")), 1);
        assert_eq!(early.take(at(101), |_| true, |kept| opened.push(kept.datagram[0])), 0);
        assert_eq!((opened, early.is_empty()), (vec![1, 3, 2], true));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut early = Early::new();
        let kept = (0..1_000).filter(|_| early.keep(Spi(1), leg(), 0, &[0; 9], Moment::ZERO)).count();
        assert_eq!(kept, PLACES);
        let mut early = Early::new();
        assert!(!early.keep(Spi(1), leg(), 0, &[0; PLACE_BYTES + 1], Moment::ZERO));
    }
}
