/// The two bits of explicit congestion notification in an IP header (RFC 3168 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ecn {
    NotCapable,
    Capable1,
    Capable0,
    Congested,
}

impl Ecn {
    pub const fn of_traffic_class(byte: u8) -> Ecn {
        match byte & 0b11 {
            0b00 => Ecn::NotCapable,
            0b01 => Ecn::Capable1,
            0b10 => Ecn::Capable0,
            _ => Ecn::Congested,
        }
    }

    pub const fn bits(self) -> u8 {
        match self {
            Ecn::NotCapable => 0b00,
            Ecn::Capable1 => 0b01,
            Ecn::Capable0 => 0b10,
            Ecn::Congested => 0b11,
        }
    }

    /// What an inner packet leaves the tunnel with when its outer header arrived with `outer`
    /// (RFC 6040 4.2, figure 4). `None`: it must be dropped, since the underlay met congestion
    /// and the sender would not understand the mark.
    pub const fn after_tunnel(self, outer: Ecn) -> Option<Ecn> {
        match (self, outer) {
            (Ecn::NotCapable, Ecn::Congested) => None,
            (Ecn::NotCapable, Ecn::NotCapable | Ecn::Capable0 | Ecn::Capable1) => Some(Ecn::NotCapable),
            (Ecn::Congested, _) => Some(Ecn::Congested),
            (Ecn::Capable0 | Ecn::Capable1, Ecn::Congested) => Some(Ecn::Congested),
            (Ecn::Capable0, Ecn::Capable1) => Some(Ecn::Capable1),
            (Ecn::Capable0 | Ecn::Capable1, _) => Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ecn;

    const N: Ecn = Ecn::NotCapable;
    const E0: Ecn = Ecn::Capable0;
    const E1: Ecn = Ecn::Capable1;
    const CE: Ecn = Ecn::Congested;

    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        let columns = [N, E0, E1, CE];
        let rows = [
            (N, [Some(N), Some(N), Some(N), None]),
            (E0, [Some(E0), Some(E0), Some(E1), Some(CE)]),
            (E1, [Some(E1), Some(E1), Some(E1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, results) in rows {
            for (outer, result) in columns.into_iter().zip(results) {
                assert_eq!(inner.after_tunnel(outer), result, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn bits_come_back_as_they_went() {
        for byte in 0..=255 {
            assert_eq!(Ecn::of_traffic_class(byte).bits(), byte & 3);
        }
    }
}
