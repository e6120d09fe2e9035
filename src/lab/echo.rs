use std::net::Ipv4Addr;
use std::time::Duration;

use super::datagram::{Datagram, payload};
use super::ledger::Ledger;
use crate::model::{Dscp, Moment};
use crate::packet::Parsed;

/// A number of UDP streams at a steady pace, each packet of which a server sends back: voice
/// calls, and the many light flows that show how traffic is spread.
pub struct EchoStreams {
    shape: EchoShape,
    streams: Vec<Stream>,
    pub ledger: Ledger,
}

/// How all streams of a kind look.
#[derive(Clone, Copy, Debug)]
pub struct EchoShape {
    pub streams: u16,
    /// Time between two packets of one stream.
    pub interval: Duration,
    /// UDP payload in bytes; at least `HEADER`.
    pub payload: usize,
    pub dscp: Dscp,
    pub server: (Ipv4Addr, u16),
    /// The first of the local addresses, over which the streams are spread.
    pub first_host: Ipv4Addr,
    pub hosts: u8,
}

struct Stream {
    source: (Ipv4Addr, u16),
    next: Moment,
}

/// Every payload begins with the stream's number and the moment it was sent.
const HEADER: usize = 10;

const FIRST_PORT: u16 = 20_000;

impl EchoStreams {
    /// Streams that start at `start`, evenly over their first interval.
    pub fn new(shape: EchoShape, start: Moment) -> EchoStreams {
        let count = shape.streams.max(1);
        let streams = (0..count).map(|number| {
            let host = u32::from(shape.first_host) + u32::from(number) % u32::from(shape.hosts.max(1));
            Stream {
                source: (Ipv4Addr::from(host), FIRST_PORT + number),
                next: start + shape.interval * u32::from(number) / u32::from(count),
            }
        });
        EchoStreams { shape, streams: streams.collect(), ledger: Ledger::new(usize::from(count)) }
    }

    /// Whether a packet from this address and port is an answer to one of these streams.
    pub fn is_answer(&self, parsed: &Parsed) -> bool {
        let (address, port) = self.shape.server;
        parsed.key.source == address && parsed.key.source_port == port
    }

    pub fn handle_packet(&mut self, packet: &[u8], parsed: &Parsed, now: Moment) {
        let Some(payload) = payload(packet, parsed) else { return };
        let Some((number, rest)) = payload.split_first_chunk::<2>() else { return };
        let Some(sent) = rest.first_chunk::<8>() else { return };
        let sent = Moment::from_nanos(u64::from_be_bytes(*sent));
        self.ledger.handle_answer(usize::from(u16::from_be_bytes(*number)), sent, now);
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Moment, send: &mut impl FnMut(Vec<u8>)) {
        for (stream, number) in self.streams.iter_mut().zip(0u16..) {
            while stream.next <= now {
                stream.next = stream.next + self.shape.interval;
                // After a stall of the machine the missed packets are skipped, not sent in a burst.
                if stream.next <= now {
                    continue;
                }
                let mut payload = vec![0; self.shape.payload.max(HEADER)];
                payload[..2].copy_from_slice(&number.to_be_bytes());
                payload[2..HEADER].copy_from_slice(&now.as_nanos().to_be_bytes());
                let (source, destination) = (stream.source, self.shape.server);
                self.ledger.handle_sent(now);
                send(Datagram { source, destination, dscp: self.shape.dscp }.packet(&payload));
            }
        }
    }

    pub fn streams(&self) -> u16 {
        self.shape.streams
    }
}
