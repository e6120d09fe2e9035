use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::Exchange;
use super::exchange::{reset, sides};
use crate::model::{FlowKey, Moment};
use crate::packet::{Parsed, TcpSegment};

/// What a server still had to say comes within a round trip; if our reset was lost, it says it again, five times and
/// more within this.
const KEPT: Duration = Duration::from_secs(10);

/// As many as a tunnel may have open: some 50 KiB. More end within `KEPT` only where eight targets are asked ten times
/// a second, and their servers' last segments come long before.
const MOST: usize = 512;

/// Exchanges that are over, while their other ends may not know it yet.
#[derive(Debug, Default)]
pub struct Ended {
    /// In the order in which they ended.
    ends: VecDeque<End>,
}

#[derive(Debug)]
struct End {
    local: SocketAddr,
    remote: SocketAddr,
    has_talked: bool,
    target: usize,
    until: Moment,
}

/// What comes after the end of an exchange.
#[derive(PartialEq, Eq, Debug)]
pub enum After {
    /// The rest of a conversation: a page of which we have read the first line, and the server's FIN. The reset
    /// tells it again that nobody reads on (RFC 9293 3.10.7.1).
    Tail { reset: Option<Box<[u8]>> },
    /// An answer that was there before, from the target of this number.
    Again { target: usize },
}

impl Ended {
    pub fn remember(&mut self, exchange: &Exchange, target: usize, now: Moment) {
        while self.ends.front().is_some_and(|oldest| oldest.until <= now) || self.ends.len() >= MOST {
            self.ends.pop_front();
        }
        let ((local, remote), has_talked) = (exchange.ends(), exchange.has_talked());
        self.ends.push_back(End { local, remote, has_talked, target, until: now + KEPT });
    }

    /// A packet that no open exchange expects; `None`: neither does one that is over.
    pub fn handle_packet(&self, packet: &[u8], parsed: &Parsed, now: Moment) -> Option<After> {
        let end = self.find(&parsed.key, now)?;
        match TcpSegment::read(packet, parsed) {
            Some(segment) if end.has_talked && !segment.syn => {
                let answered = segment.ack && !segment.rst;
                Some(After::Tail { reset: answered.then(|| reset(&segment, &parsed.key)).flatten() })
            }
            Some(_) | None => Some(After::Again { target: end.target }),
        }
    }

    /// Ports come around: the one that ended last is meant.
    fn find(&self, key: &FlowKey, now: Moment) -> Option<&End> {
        let (ours, theirs) = sides(key);
        self.ends.iter().rev().find(|end| end.until > now && (end.local, end.remote) == (ours, theirs))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::model::Chance;
    use crate::packet::parse;
    use crate::probe::{Ask, Heard, Target};

    const START: Moment = Moment::from_millis(5_000);

    /// A question that was answered, with its own end and the target's.
    fn answered(ask: Ask, seed: u64) -> (Exchange, SocketAddr, SocketAddr) {
        let target = Target { address: "10.9.0.1".parse().unwrap(), ask };
        let mut exchange =
            Exchange::begin(&target, "10.1.0.1".parse().unwrap(), &mut Chance::from_number(seed)).unwrap();
        let syn = exchange.poll_transmit().unwrap();
        let parsed = parse(&syn).unwrap();
        let (ours, theirs) = (
            SocketAddr::new(parsed.key.source, parsed.key.source_port),
            SocketAddr::new(parsed.key.destination, parsed.key.destination_port),
        );
        let begun = TcpSegment::read(&syn, &parsed).unwrap().sequence.wrapping_add(1);
        let greeting = TcpSegment { sequence: 7, acknowledged: begun, syn: true, ack: true, ..TcpSegment::default() };
        let line = b"HTTP/1.1 200 OK\r\n";
        let line = TcpSegment { sequence: 8, acknowledged: begun, ack: true, data: line, ..TcpSegment::default() };
        for segment in [greeting, line] {
            if !exchange.is_over() {
                let packet = segment.packet(theirs, ours).unwrap();
                let heard = exchange.handle_packet(&packet, &parse(&packet).unwrap(), Duration::ZERO, START);
                assert!(matches!(heard, Heard::Answered | Heard::Greeted { .. }), "{heard:?}");
            }
        }
        assert!(exchange.is_over());
        (exchange, ours, theirs)
    }

    fn http() -> Ask {
        Ask::Http { port: 80, host: "app.example".into(), path: "/".into(), status: None, secure: false }
    }

    #[test]
    fn what_a_server_says_after_its_first_line_is_the_tail_of_that_conversation_alone() {
        let mut ended = Ended::default();
        let (connection, of_connection, theirs) = answered(Ask::Tcp { port: 80 }, 1);
        let (page, of_page, _) = answered(http(), 2);
        ended.remember(&connection, 0, START);
        ended.remember(&page, 1, START);
        let after = |segment: TcpSegment<'_>, ours: SocketAddr, now: Moment| {
            let packet = segment.packet(theirs, ours).unwrap();
            ended.handle_packet(&packet, &parse(&packet).unwrap(), now)
        };
        let fin = TcpSegment { sequence: 25, acknowledged: 99, ack: true, fin: true, ..TcpSegment::default() };
        for last in [fin, TcpSegment { data: b"body", ..fin }, TcpSegment { fin: false, ..fin }] {
            let Some(After::Tail { reset: Some(reset) }) = after(last, of_page, START) else { panic!("{last:?}") };
            let read = TcpSegment::read(&reset, &parse(&reset).unwrap()).unwrap();
            assert!(read.rst && read.sequence == 99);
        }
        let gone = TcpSegment { rst: true, ..fin };
        assert_eq!(after(gone, of_page, START), Some(After::Tail { reset: None }), "a reset is not answered");
        // A second greeting is an answer that comes twice, and who has only greeted has nothing more to say.
        let greeting = TcpSegment { syn: true, fin: false, ..fin };
        assert_eq!(after(greeting, of_page, START), Some(After::Again { target: 1 }));
        assert_eq!(after(greeting, of_connection, START), Some(After::Again { target: 0 }));
        assert_eq!(after(fin, of_connection, START), Some(After::Again { target: 0 }));
        let nobody = SocketAddr::new(of_page.ip(), of_page.port() ^ 1);
        assert_eq!((after(fin, nobody, START), after(fin, of_page, START + KEPT)), (None, None));
    }

    #[test]
    fn no_more_is_remembered_than_its_limit() {
        let mut ended = Ended::default();
        for seed in 0..2 * MOST as u64 {
            ended.remember(&answered(http(), seed).0, 0, START);
        }
        assert_eq!(ended.ends.len(), MOST);
        ended.remember(&answered(http(), 0).0, 0, START + KEPT);
        assert_eq!(ended.ends.len(), 1);
    }
}
