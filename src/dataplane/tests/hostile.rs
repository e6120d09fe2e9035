use super::*;

fn anything_from_wan() -> impl Strategy<Value = Vec<(u16, bool, Vec<u8>)>> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        // With the SPI of an SA, and with the non-ESP marker.
        (0..PATHS, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(path, rest)| [
            &spi(path).0.to_be_bytes()[..],
            &rest
        ]
        .concat()),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|rest| [&[0; 4][..], &rest].concat()),
    ];
    proptest::collection::vec((0..PATHS + 2, any::<bool>(), bytes), 0..20)
}

fn anything_inner() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let mutated =
        (udp_or_syn(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), 0_usize..40)
            .prop_map(|(mut packet, changes, cut)| {
                for (at, value) in changes {
                    let at = at.index(packet.len().min(48));
                    packet[at] = value;
                }
                packet.truncate(packet.len().saturating_sub(cut));
                packet
            });
    let any_bytes = proptest::collection::vec(any::<u8>(), 0..200);
    proptest::collection::vec(prop_oneof![mutated, any_bytes], 0..20)
}

fn udp_or_syn() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), any::<u16>(), 0_usize..1_900).prop_map(|(tcp, port, length)| {
        if !tcp {
            return udp_between([10, 1, 0, 5], [10, 9, 0, 7], port, 53, length);
        }
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 1, 0, 5], [10, 9, 0, 7], 9).tcp(port, 2, 3, 4).syn();
        let options = [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::WindowScale(3)];
        builder.options(&options).unwrap().write(&mut packet, &[]).unwrap();
        packet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_datagrams_and_packets_never_panic(wan in anything_from_wan(), site in anything_inner(), inner in anything_inner()) {
        let (mut edge, mut pop) = pair();
        for (path, natt, bytes) in wan {
            edge.io.from_wan.push_back((Leg { natt, ..leg(path) }, bytes.len() as u8, bytes));
        }
        edge.io.from_site.extend(site);
        edge.turn();
        cross(&mut edge, &mut pop);
        // Authentic, and nonsense inside. An SA seals only what has an IP version.
        let careless = CarelessPop::on(0);
        for packet in inner.into_iter().filter(|packet| packet.first().is_some_and(|first| matches!(first >> 4, 4 | 6))) {
            edge.io.from_wan.push_back(careless.sends(&packet));
        }
        edge.turn();
        // Whatever happened, the road still carries what is right.
        edge.delivered();
        pop.delivered();
        prop_assert_eq!(edge.send([udp_between([10, 1, 0, 200], [10, 9, 0, 201], 1, 2, 10)]).len(), 1);
        cross(&mut edge, &mut pop);
        prop_assert_eq!(pop.delivered().len(), 1);
    }
}
