use std::net::Ipv4Addr;

const PAYLOAD: &[u8] = b"trefoil in simulated time";

/// An IPv4 UDP packet whose payload carries its sequence number and known bytes.
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, sport: u16, dport: u16, dscp: u8, sequence: u32) -> Vec<u8> {
    let length = 20 + 8 + 4 + PAYLOAD.len();
    let mut packet = vec![0; length];
    packet[0] = 0x45;
    packet[1] = dscp << 2;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&sport.to_be_bytes());
    packet[22..24].copy_from_slice(&dport.to_be_bytes());
    packet[24..26].copy_from_slice(&((length - 20) as u16).to_be_bytes());
    packet[28..32].copy_from_slice(&sequence.to_be_bytes());
    packet[32..].copy_from_slice(PAYLOAD);
    packet
}

/// The answer of the far end: the same payload back to where it came from.
pub fn echo(packet: &[u8]) -> Option<Vec<u8>> {
    let (sport, sequence) = read_ports(packet).map(|(sport, _, sequence)| (sport, sequence))?;
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    Some(udp(address(16), address(12), 7, sport, packet[1] >> 2, sequence))
}

/// The branch's port and the sequence number of a returned packet; `None` when it is damaged.
pub fn read(packet: &[u8]) -> Option<(u16, u32)> {
    read_ports(packet).map(|(_, dport, sequence)| (dport, sequence))
}

pub fn is_icmp(packet: &[u8]) -> bool {
    packet.get(9) == Some(&1)
}

fn read_ports(packet: &[u8]) -> Option<(u16, u16, u32)> {
    let intact = packet.len() == 32 + PAYLOAD.len() && packet[32..] == *PAYLOAD && checksum(&packet[..20]) == 0;
    intact.then(|| {
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        (word(20), word(22), u32::from(word(28)) << 16 | u32::from(word(30)))
    })
}

fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
