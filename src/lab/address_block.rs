use std::net::{Ipv4Addr, UdpSocket};

/// The loopback addresses and ports of one run: a /24 of 127.0.0.0/8 in which the edge's WAN
/// links, the relays and the PoPs each have their own address, and two ports which are the same
/// for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressBlock {
    network: u16,
    ike: u16,
}

/// Of 127.0.0.0/8, the /24s of 127.64.0.0/10 are tried: far from 127.0.0.1 and from the
/// addresses that resolvers like to sit on.
const FIRST_NETWORK: u16 = 64 << 8;
const NETWORKS: u16 = 64 << 8;

/// Below the kernel's usual ephemeral range (32,768 and up), and not registered for anything.
const FIRST_PORT: u16 = 24_500;
const PORTS: u16 = 4_000;

impl AddressBlock {
    /// The `attempt`-th block to try. `salt` differs between runs, so that two demos that start
    /// together try different ones.
    pub fn nth(attempt: u16, salt: u32) -> AddressBlock {
        // An odd step meets every block before it repeats one.
        let step = (salt >> 16) as u16 | 1;
        let position = (salt as u16).wrapping_add(attempt.wrapping_mul(step));
        AddressBlock { network: FIRST_NETWORK + position % NETWORKS, ike: FIRST_PORT + position % (PORTS / 2) * 2 }
    }

    /// Whether everything outside the relays can be bound here. The relays are bound for good
    /// before this is asked and keep another run away; the edge and the PoPs open theirs later.
    pub fn is_free_for(self, links: u8, pops: u8) -> bool {
        let edges = (0..links).map(|link| self.edge(link));
        let mut addresses = edges.chain((0..pops).map(|pop| self.pop(pop)));
        addresses.all(|address| self.ports().iter().all(|port| UdpSocket::bind((address, *port)).is_ok()))
    }

    pub fn ike_port(self) -> u16 {
        self.ike
    }

    pub fn natt_port(self) -> u16 {
        self.ike + 1
    }

    pub fn ports(self) -> [u16; 2] {
        [self.ike_port(), self.natt_port()]
    }

    /// The edge's own address on a WAN link.
    pub fn edge(self, link: u8) -> Ipv4Addr {
        self.address(1 + link)
    }

    /// Where the edge finds a PoP over a WAN link.
    pub fn relay(self, link: u8, pop: u8) -> Ipv4Addr {
        self.address(20 + 20 * pop + link)
    }

    /// The edge's address on a WAN link as the PoP sees it, behind the link's 1:1 NAT.
    pub fn public(self, link: u8, pop: u8) -> Ipv4Addr {
        self.address(120 + 20 * pop + link)
    }

    /// A PoP's own address.
    pub fn pop(self, pop: u8) -> Ipv4Addr {
        self.address(220 + pop)
    }

    fn address(self, host: u8) -> Ipv4Addr {
        let [high, low] = self.network.to_be_bytes();
        Ipv4Addr::new(127, high, low, host)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_addresses_of_a_block_differ_and_are_loopback() {
        let block = AddressBlock::nth(3, 0xdead_beef);
        let mut addresses = BTreeSet::new();
        for link in 0..3 {
            addresses.insert(block.edge(link));
            for pop in 0..2 {
                addresses.insert(block.relay(link, pop));
                addresses.insert(block.public(link, pop));
            }
        }
        addresses.extend((0..2).map(|pop| block.pop(pop)));
        assert_eq!(addresses.len(), 3 + 6 + 6 + 2);
        assert!(addresses.iter().all(Ipv4Addr::is_loopback));
    }

    #[test]
    fn attempts_lead_to_other_blocks_and_stay_in_range() {
        for salt in [0, 1, 0xffff_ffff, 0x1234_5678] {
            let blocks: BTreeSet<_> = (0..100).map(|attempt| AddressBlock::nth(attempt, salt).edge(0)).collect();
            assert_eq!(blocks.len(), 100);
            for attempt in 0..1000 {
                let block = AddressBlock::nth(attempt, salt);
                assert!((64..128).contains(&block.edge(0).octets()[1]));
                assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&block.ike_port()));
                assert!(block.natt_port() < FIRST_PORT + PORTS);
            }
        }
    }

    #[test]
    fn a_block_in_use_is_not_free() {
        let block = AddressBlock::nth(0, std::process::id());
        let taken = UdpSocket::bind((block.pop(1), block.natt_port()));
        if taken.is_ok() {
            assert!(!block.is_free_for(3, 2));
        }
    }
}
