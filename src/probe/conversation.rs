use std::time::Duration;

use super::Heard;
use super::http::Http;
use super::tls::{Hello, Https};
use crate::model::Moment;
use crate::packet::TcpSegment;

/// As small as every path carries (RFC 9293 3.7.1), so that an answer is never cut or lost for its size.
pub(super) const MSS: u16 = 536;
/// Room for two segments: nobody sends us a page of which we read a line.
pub(super) const WINDOW: u16 = 2 * MSS;
/// A chain of certificates comes before the line.
const HTTPS_WINDOW: u16 = 16 * MSS;
/// Longer than this no server takes to answer a request that is there to see whether it does.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request that nothing answers is sent again no sooner than this; a server thinks for a while.
const MIN_REPEAT: Duration = Duration::from_millis(250);

/// What is said over a TCP connection, and what answers it.
#[derive(Debug)]
pub(super) enum Session {
    Http(Http),
    Tls(Hello),
    Https(Box<Https>),
}

/// A TCP connection behind its handshake, of which one segment at a time is under way. Segments are repeated
/// as TCP does, so that only a server that does not answer fails, and not a path for one lost segment more.
#[derive(Debug)]
pub(super) struct Conversation {
    session: Session,
    /// The number of our first byte.
    first: u32,
    /// From `acknowledged` on, what the server is yet to have of ours; so much of it is under way.
    outgoing: Vec<u8>,
    acknowledged: u32,
    under_way: usize,
    /// What we have had of its.
    received: u32,
    repeat: Duration,
    repeat_at: Moment,
    until: Moment,
}

impl Conversation {
    /// `first` and `received` are the next numbers of ours and of the server's.
    pub fn begin(mut session: Session, first: u32, received: u32, rtt: Duration, now: Moment) -> Conversation {
        let repeat = (rtt * 2).max(MIN_REPEAT);
        let (outgoing, until) = match &mut session {
            Session::Http(http) => (http.request().to_vec(), now + PATIENCE),
            Session::Tls(hello) => (hello.bytes().to_vec(), now + PATIENCE),
            // Two round trips for the handshake, and as many for a long chain.
            Session::Https(https) => (https.say(), now + PATIENCE + rtt * 4),
        };
        Conversation {
            session,
            first,
            outgoing,
            acknowledged: first,
            under_way: 0,
            received,
            repeat,
            repeat_at: now + repeat,
            until,
        }
    }

    pub fn until(&self) -> Moment {
        self.until
    }

    /// Takes a segment from whom was asked; `reply` answers one that has brought a part.
    pub fn handle_segment(&mut self, segment: &TcpSegment<'_>, now: Moment) -> Heard {
        if segment.rst {
            // RFC 9293 3.10.7.4: before its acknowledgement is looked at, which the reset of a host that has lost its
            // state does not have. RFC 5961 3.2: it counts at exactly the next number.
            let is_next = segment.sequence == self.received;
            return if is_next { Heard::Refused(super::Refusal::Reset) } else { Heard::Malformed };
        }
        let taken = segment.acknowledged.wrapping_sub(self.acknowledged) as usize;
        let is_old = self.acknowledged.wrapping_sub(segment.acknowledged) <= self.acknowledged.wrapping_sub(self.first);
        if !segment.ack || (taken > self.under_way && !is_old) {
            return Heard::Malformed;
        }
        if (1..=self.under_way).contains(&taken) {
            self.outgoing.drain(..taken);
            self.under_way -= taken;
            self.acknowledged = segment.acknowledged;
            self.repeat_at = now + self.repeat;
        }
        if segment.syn {
            // Our acknowledgement was lost.
            return if segment.sequence.wrapping_add(1) == self.received { Heard::Part } else { Heard::Malformed };
        }
        let known = self.received.wrapping_sub(segment.sequence);
        let Some(new) = usize::try_from(known).ok().and_then(|known| segment.data.get(known..)) else {
            // A gap: the server will send what is missing.
            return Heard::Part;
        };
        self.received = self.received.wrapping_add(new.len() as u32);
        let heard = match &mut self.session {
            Session::Http(http) => http.hear(new),
            Session::Tls(hello) => hello.hear(new),
            Session::Https(https) => {
                let heard = https.hear(new);
                self.outgoing.extend(https.say());
                heard
            }
        };
        if heard == Heard::Part && segment.fin { Heard::Malformed } else { heard }
    }

    /// What answers a segment that has brought a part.
    pub fn reply(&mut self, segment: &TcpSegment<'_>) -> Option<TcpSegment<'_>> {
        if segment.syn || (self.under_way == 0 && !self.outgoing.is_empty()) {
            return Some(self.say());
        }
        let sequence = self.acknowledged.wrapping_add(self.under_way as u32);
        (!segment.data.is_empty()).then(|| TcpSegment { sequence, ..self.segment() })
    }

    /// The next that the server has not acknowledged, with our acknowledgement.
    pub fn say(&mut self) -> TcpSegment<'_> {
        self.under_way = self.outgoing.len().min(usize::from(MSS));
        let data = self.outgoing.get(..self.under_way).unwrap_or_default();
        TcpSegment { push: true, data, ..self.segment() }
    }

    /// Ends it: at the number that the server waits for, as RFC 5961 3.2 wants it.
    pub fn reset(&self) -> TcpSegment<'static> {
        TcpSegment { rst: true, window: 0, ..self.segment() }
    }

    /// The next moment at which something is to be done.
    pub fn timeout(&self) -> Moment {
        if self.outgoing.is_empty() { self.until } else { self.until.min(self.repeat_at) }
    }

    /// What is to be said again by now.
    pub fn repeat(&mut self, now: Moment) -> Option<TcpSegment<'_>> {
        if self.outgoing.is_empty() || now < self.repeat_at {
            return None;
        }
        self.repeat *= 2;
        self.repeat_at = now + self.repeat;
        Some(self.say())
    }

    fn segment(&self) -> TcpSegment<'static> {
        let window = match self.session {
            Session::Http(_) | Session::Tls(_) => WINDOW,
            Session::Https(_) => HTTPS_WINDOW,
        };
        let (sequence, acknowledged) = (self.acknowledged, self.received);
        TcpSegment { sequence, acknowledged, ack: true, window, ..TcpSegment::default() }
    }
}
