use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::http::{self, STATUS_LINE};
use super::tls::{self, RECORD_HEAD};
use super::{Ask, Target, dns};
use crate::model::{Chance, FlowKey, Moment};
use crate::packet::{Parsed, TcpSegment, udp_data, udp_packet};

/// Where our questions come from: ports that neither the system (32,768 to 60,999 on Linux) nor a service
/// takes of itself, on addresses that nothing else uses.
pub const PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// As small as every path carries (RFC 9293 3.7.1), so that an answer is never cut or lost for its size.
const MSS: u16 = 536;
/// Room for two segments: nobody sends us a page of which we read a line.
const WINDOW: u16 = 2 * MSS;
/// Data that comes back from a UDP echo: nobody guesses it.
const TOKEN: usize = 16;
/// Longer than this no server takes to answer a request that is there to see whether it does.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);
/// A request that nothing answers is sent again no sooner than this; a server thinks for a while.
const MIN_REPEAT: Duration = Duration::from_millis(250);
/// Packets that are read of one answer: a status line byte by byte, each of them twice. After that the target
/// plays with us.
const MOST_HEARD: u8 = 64;

/// One question of a kind other than ICMP echo, until it is answered.
///
/// The first packet is sent once: whether it and its answer get through is what is measured. After a TCP
/// handshake, segments are repeated as TCP does, so that only a server that does not answer fails, and not
/// a path for one lost segment more.
#[derive(Debug)]
pub struct Exchange {
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    heard: u8,
    /// To be sent now.
    waiting: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum State {
    Echo { token: [u8; TOKEN] },
    Dns { query: Vec<u8>, rcode: Option<u8> },
    Greeting { first: u32, next: Next },
    Asking(Asking),
    Over,
}

/// What follows the handshake.
#[derive(Clone, Debug)]
enum Next {
    Nothing,
    Http { request: Vec<u8>, status: Option<u16> },
    Tls { hello: Vec<u8> },
}

#[derive(Debug)]
struct Asking {
    /// The number of the request's first byte, and what it is.
    first: u32,
    next: Next,
    /// What the server has had of ours, and what we have had of its.
    acknowledged: u32,
    received: u32,
    head: Vec<u8>,
    repeat: Duration,
    repeat_at: Moment,
    until: Moment,
}

/// What a packet has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It is no answer, or none that can be read: nothing changes.
    Malformed,
    /// A part of an answer, or nothing new.
    Part,
    /// The handshake is done; what was asked may take until then.
    Greeted {
        until: Moment,
    },
    Answered,
    /// The target answers, and says no.
    Refused(Refusal),
}

/// How a target says no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    Reset,
    /// Another HTTP status than the one wanted.
    Status(u16),
    /// Another DNS response code than the one wanted.
    Rcode(u8),
}

impl Exchange {
    /// A question to `target` from `source`; its first packet waits to be sent. `None` for an ICMP target, and
    /// where the two addresses are of different families.
    pub fn begin(target: &Target, source: IpAddr, chance: &mut Chance) -> Option<Exchange> {
        let ports = u32::from(*PORTS.end() - *PORTS.start()) + 1;
        let port = PORTS.start() + chance.below(ports) as u16;
        let (local, remote) = (SocketAddr::new(source, port), target.socket());
        let (state, packet) = match &target.ask {
            Ask::Icmp => return None,
            Ask::Udp { .. } => {
                let token = chance.bytes();
                (State::Echo { token }, udp_packet(local, remote, &token)?)
            }
            Ask::Dns { name, record, rcode, .. } => {
                let query = dns::query(chance.next_u32() as u16, name, *record)?;
                let packet = udp_packet(local, remote, &query)?;
                (State::Dns { query, rcode: *rcode }, packet)
            }
            Ask::Tcp { .. } => greet(local, remote, Next::Nothing, chance)?,
            Ask::Http { host, path, status, .. } => {
                greet(local, remote, Next::Http { request: http::request(host, path), status: *status }, chance)?
            }
            Ask::Tls { name, .. } => {
                let hello = tls::client_hello(name.as_deref(), chance);
                greet(local, remote, Next::Tls { hello }, chance)?
            }
        };
        Some(Exchange { local, remote, state, heard: 0, waiting: Some(packet) })
    }

    /// Whether a packet with this key comes from whom was asked, to where the question came from.
    pub fn expects(&self, key: &FlowKey) -> bool {
        self.local == SocketAddr::new(key.destination, key.destination_port)
            && self.remote == SocketAddr::new(key.source, key.source_port)
    }

    /// Whether what answers one could be taken for an answer to the other.
    pub fn is_alike(&self, other: &Exchange) -> bool {
        (self.local, self.remote) == (other.local, other.remote)
    }

    /// A packet that is expected, `rtt` after the question left.
    pub fn handle_packet(&mut self, packet: &[u8], parsed: &Parsed, rtt: Duration, now: Moment) -> Heard {
        self.heard = self.heard.saturating_add(1);
        if self.heard > MOST_HEARD {
            return Heard::Malformed;
        }
        let heard = match &mut self.state {
            State::Echo { token } => match udp_data(packet, parsed) {
                Some(data) if data == token => Heard::Answered,
                Some(_) | None => Heard::Malformed,
            },
            State::Dns { query, rcode } => {
                match udp_data(packet, parsed).and_then(|message| dns::answer(query, message)) {
                    None => Heard::Malformed,
                    Some(told) if rcode.is_none_or(|wanted| wanted == told) => Heard::Answered,
                    Some(told) => Heard::Refused(Refusal::Rcode(told)),
                }
            }
            State::Greeting { .. } | State::Asking(_) => match TcpSegment::read(packet, parsed) {
                Some(segment) => self.handle_segment(&segment, rtt, now),
                None => Heard::Malformed,
            },
            State::Over => Heard::Malformed,
        };
        if matches!(heard, Heard::Answered | Heard::Refused(_)) {
            self.state = State::Over;
        }
        heard
    }

    fn handle_segment(&mut self, segment: &TcpSegment<'_>, rtt: Duration, now: Moment) -> Heard {
        match &mut self.state {
            State::Greeting { first, next } => {
                let begun = first.wrapping_add(1);
                // RFC 9293 3.10.7.3: without our number in it anybody may have made it up.
                if !segment.ack || segment.acknowledged != begun {
                    return Heard::Malformed;
                }
                if segment.rst {
                    return Heard::Refused(Refusal::Reset);
                }
                if !segment.syn {
                    return Heard::Malformed;
                }
                let (next, received) = (next.clone(), segment.sequence.wrapping_add(1));
                if matches!(next, Next::Nothing) {
                    self.say(TcpSegment { sequence: begun, rst: true, ..TcpSegment::default() });
                    return Heard::Answered;
                }
                let repeat = (rtt * 2).max(MIN_REPEAT);
                let until = now + REQUEST_PATIENCE;
                self.state = State::Asking(Asking {
                    first: begun,
                    next,
                    acknowledged: begun,
                    received,
                    head: Vec::new(),
                    repeat,
                    repeat_at: now + repeat,
                    until,
                });
                self.ask();
                Heard::Greeted { until }
            }
            State::Asking(asking) => {
                let heard = asking.handle_segment(segment);
                let asked = asking.asked();
                match heard {
                    Heard::Answered | Heard::Refused(Refusal::Status(_)) => {
                        let (sequence, acknowledged) = (asking.acknowledged, asking.received);
                        self.say(TcpSegment { sequence, acknowledged, ack: true, rst: true, ..TcpSegment::default() });
                    }
                    // Our acknowledgement was lost, or more is to come.
                    Heard::Part if segment.syn => self.ask(),
                    Heard::Part if !segment.data.is_empty() => {
                        let (sequence, acknowledged) = (asking.first.wrapping_add(asked), asking.received);
                        self.say(TcpSegment {
                            sequence,
                            acknowledged,
                            ack: true,
                            window: WINDOW,
                            ..TcpSegment::default()
                        });
                    }
                    Heard::Part | Heard::Malformed | Heard::Greeted { .. } | Heard::Refused(_) => {}
                }
                heard
            }
            State::Echo { .. } | State::Dns { .. } | State::Over => Heard::Malformed,
        }
    }

    /// Repeats the request, or gives the connection up.
    pub fn handle_timeout(&mut self, now: Moment) {
        let State::Asking(asking) = &mut self.state else { return };
        if asking.until <= now {
            let (sequence, acknowledged) = (asking.acknowledged, asking.received);
            self.state = State::Over;
            self.say(TcpSegment { sequence, acknowledged, ack: true, rst: true, ..TcpSegment::default() });
        } else if asking.repeat_at <= now {
            asking.repeat *= 2;
            asking.repeat_at = now + asking.repeat;
            self.ask();
        }
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        match &self.state {
            State::Asking(asking) => Some(asking.repeat_at.min(asking.until)),
            State::Echo { .. } | State::Dns { .. } | State::Greeting { .. } | State::Over => None,
        }
    }

    /// An inner packet to send by the tunnel that asks.
    pub fn poll_transmit(&mut self) -> Option<Box<[u8]>> {
        self.waiting.take()
    }

    /// Nothing more is expected.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Sends the request with its acknowledgement of the handshake.
    fn ask(&mut self) {
        let State::Asking(asking) = &self.state else { return };
        let data = asking.next.bytes();
        self.waiting = TcpSegment {
            sequence: asking.first,
            acknowledged: asking.received,
            ack: true,
            push: true,
            window: WINDOW,
            data,
            ..TcpSegment::default()
        }
        .packet(self.local, self.remote);
    }

    fn say(&mut self, segment: TcpSegment<'_>) {
        self.waiting = segment.packet(self.local, self.remote);
    }
}

impl Asking {
    fn handle_segment(&mut self, segment: &TcpSegment<'_>) -> Heard {
        if !segment.ack || segment.acknowledged.wrapping_sub(self.first) > self.asked() {
            return Heard::Malformed;
        }
        if segment.rst {
            // RFC 5961 3.2: a reset counts at exactly the next number.
            return if segment.sequence == self.received { Heard::Refused(Refusal::Reset) } else { Heard::Malformed };
        }
        if segment.acknowledged.wrapping_sub(self.acknowledged) <= self.asked() {
            self.acknowledged = segment.acknowledged;
        }
        if segment.syn {
            return if segment.sequence.wrapping_add(1) == self.received { Heard::Part } else { Heard::Malformed };
        }
        let known = self.received.wrapping_sub(segment.sequence);
        let Some(new) = usize::try_from(known).ok().and_then(|known| segment.data.get(known..)) else {
            // A gap: the server will send what is missing.
            return Heard::Part;
        };
        let wanted = self.next.head().saturating_sub(self.head.len());
        self.head.extend(new.iter().take(wanted));
        self.received = self.received.wrapping_add(new.len() as u32);
        if self.head.len() < self.next.head() {
            return if segment.fin { Heard::Malformed } else { Heard::Part };
        }
        self.next.judge(&self.head)
    }

    /// Bytes of the request.
    fn asked(&self) -> u32 {
        self.next.bytes().len() as u32
    }
}

impl Next {
    fn bytes(&self) -> &[u8] {
        match self {
            Next::Nothing => &[],
            Next::Http { request, .. } => request,
            Next::Tls { hello } => hello,
        }
    }

    /// Bytes of the answer that are looked at.
    fn head(&self) -> usize {
        match self {
            Next::Nothing => 0,
            Next::Http { .. } => STATUS_LINE,
            Next::Tls { .. } => RECORD_HEAD,
        }
    }

    fn judge(&self, head: &[u8]) -> Heard {
        match self {
            Next::Nothing => Heard::Answered,
            Next::Http { status, .. } => match http::status(head) {
                None => Heard::Malformed,
                Some(told) if status.is_none_or(|wanted| wanted == told) => Heard::Answered,
                Some(told) => Heard::Refused(Refusal::Status(told)),
            },
            Next::Tls { .. } if tls::is_answer(head) => Heard::Answered,
            Next::Tls { .. } => Heard::Malformed,
        }
    }
}

/// What ends a connection that nobody here knows of any more: a peer whose SYN-ACK we have answered with a reset
/// that was lost would ask for a minute (RFC 9293 3.10.7.1).
pub fn tidy(packet: &[u8], parsed: &Parsed) -> Option<Box<[u8]>> {
    let segment = TcpSegment::read(packet, parsed)?;
    let reset = TcpSegment { sequence: segment.acknowledged, rst: true, ..TcpSegment::default() };
    let end = |address, port| SocketAddr::new(address, port);
    let (ours, theirs) =
        (end(parsed.key.destination, parsed.key.destination_port), end(parsed.key.source, parsed.key.source_port));
    (segment.syn && segment.ack && !segment.rst).then(|| reset.packet(ours, theirs)).flatten()
}

fn greet(local: SocketAddr, remote: SocketAddr, next: Next, chance: &mut Chance) -> Option<(State, Box<[u8]>)> {
    let first = chance.next_u32();
    let syn = TcpSegment { sequence: first, syn: true, window: WINDOW, mss: Some(MSS), ..TcpSegment::default() };
    Some((State::Greeting { first, next }, syn.packet(local, remote)?))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Reset => f.write_str("connection refused"),
            Refusal::Status(code) => write!(f, "HTTP status {code}"),
            Refusal::Rcode(code) => write!(f, "DNS response code {code}"),
        }
    }
}
