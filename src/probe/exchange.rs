use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::conversation::{Conversation, MSS, Session, WINDOW};
use super::http::Http;
use super::tls::{Hello, Https};
use super::{Ask, Target, dns};
use crate::model::{Chance, FlowKey, Moment};
use crate::packet::{Parsed, TcpSegment, udp_data, udp_packet};

/// Where our questions come from: ports that neither the system (32,768 to 60,999 on Linux) nor a service
/// takes of itself, on addresses that nothing else uses.
pub const PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// Data that comes back from a UDP echo: nobody guesses it.
const TOKEN: usize = 16;
/// Packets that are read of one answer: a status line byte by byte, each of them twice, or the longest chain of
/// certificates. After that the target plays with us.
const MOST_HEARD: u8 = 64;

/// One question of a kind other than ICMP echo, until it is answered.
///
/// The first packet is sent once: whether it and its answer get through is what is measured. A TCP handshake
/// may begin a conversation.
#[derive(Debug)]
pub struct Exchange {
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    /// A handshake was done, and a conversation has begun.
    has_talked: bool,
    heard: u8,
    /// To be sent now.
    waiting: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum State {
    Echo {
        token: [u8; TOKEN],
    },
    Dns {
        query: Vec<u8>,
        rcode: Option<u8>,
    },
    /// A SYN was sent with the number `first`.
    Greeting {
        first: u32,
        next: Option<Session>,
    },
    Talking(Conversation),
    Over,
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
    /// Nobody takes connections there.
    Closed,
    /// The connection was taken, and then broken off.
    Reset,
    /// Another HTTP status than the one wanted.
    Status(u16),
    /// Another DNS response code than the one wanted.
    Rcode(u8),
    /// The TLS handshake has failed (RFC 8446 6.2).
    Alert(u8),
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
            Ask::Tcp { .. } => greet(local, remote, None, chance)?,
            Ask::Http { host, path, status, secure, .. } => {
                let http = Http::new(host, path, *status);
                let session = match secure {
                    true => Session::Https(Box::new(Https::new(host, target.address, http)?)),
                    false => Session::Http(http),
                };
                greet(local, remote, Some(session), chance)?
            }
            Ask::Tls { name, .. } => {
                greet(local, remote, Some(Session::Tls(Hello::new(name.as_deref(), target.address)?)), chance)?
            }
        };
        Some(Exchange { local, remote, state, has_talked: false, heard: 0, waiting: Some(packet) })
    }

    /// Whether a packet with this key comes from whom was asked, to where the question came from.
    pub fn expects(&self, key: &FlowKey) -> bool {
        self.ends() == sides(key)
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
            State::Greeting { .. } | State::Talking(_) => match TcpSegment::read(packet, parsed) {
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
                    return Heard::Refused(Refusal::Closed);
                }
                if !segment.syn {
                    return Heard::Malformed;
                }
                let Some(session) = next.take() else {
                    self.say(TcpSegment { sequence: begun, rst: true, ..TcpSegment::default() });
                    return Heard::Answered;
                };
                let received = segment.sequence.wrapping_add(1);
                let mut conversation = Conversation::begin(session, begun, received, rtt, now);
                self.waiting = conversation.say().packet(self.local, self.remote);
                let until = conversation.until();
                (self.state, self.has_talked) = (State::Talking(conversation), true);
                Heard::Greeted { until }
            }
            State::Talking(conversation) => {
                let heard = conversation.handle_segment(segment, now);
                let reply = match heard {
                    Heard::Answered | Heard::Refused(Refusal::Status(_) | Refusal::Alert(_)) => {
                        Some(conversation.reset())
                    }
                    Heard::Part => conversation.reply(segment),
                    Heard::Malformed
                    | Heard::Greeted { .. }
                    | Heard::Refused(Refusal::Closed | Refusal::Reset | Refusal::Rcode(_)) => None,
                };
                if let Some(reply) = reply {
                    self.waiting = reply.packet(self.local, self.remote);
                }
                heard
            }
            State::Echo { .. } | State::Dns { .. } | State::Over => Heard::Malformed,
        }
    }

    /// Repeats what was said, or gives the connection up.
    pub fn handle_timeout(&mut self, now: Moment) {
        let State::Talking(conversation) = &mut self.state else { return };
        if conversation.until() <= now {
            let reset = conversation.reset();
            self.state = State::Over;
            self.say(reset);
        } else if let Some(again) = conversation.repeat(now) {
            self.waiting = again.packet(self.local, self.remote);
        }
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        match &self.state {
            State::Talking(conversation) => Some(conversation.timeout()),
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

    /// Its own and whom it asks.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    pub(super) fn has_talked(&self) -> bool {
        self.has_talked
    }

    fn say(&mut self, segment: TcpSegment<'_>) {
        self.waiting = segment.packet(self.local, self.remote);
    }
}

/// What ends a connection that nobody here knows of any more: a peer whose SYN-ACK we have answered with a reset
/// that was lost would ask for a minute (RFC 9293 3.10.7.1).
pub fn tidy(packet: &[u8], parsed: &Parsed) -> Option<Box<[u8]>> {
    let segment = TcpSegment::read(packet, parsed)?;
    (segment.syn && segment.ack && !segment.rst).then(|| reset(&segment, &parsed.key)).flatten()
}

/// What ends the connection that a segment is of.
pub(super) fn reset(segment: &TcpSegment<'_>, key: &FlowKey) -> Option<Box<[u8]>> {
    let (ours, theirs) = sides(key);
    TcpSegment { sequence: segment.acknowledged, rst: true, ..TcpSegment::default() }.packet(ours, theirs)
}

/// Where a packet that has come is to, and where it is from.
pub(super) fn sides(key: &FlowKey) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(key.destination, key.destination_port), SocketAddr::new(key.source, key.source_port))
}

fn greet(
    local: SocketAddr,
    remote: SocketAddr,
    next: Option<Session>,
    chance: &mut Chance,
) -> Option<(State, Box<[u8]>)> {
    let first = chance.next_u32();
    let syn = TcpSegment { sequence: first, syn: true, window: WINDOW, mss: Some(MSS), ..TcpSegment::default() };
    Some((State::Greeting { first, next }, syn.packet(local, remote)?))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Closed => f.write_str("connection refused"),
            Refusal::Reset => f.write_str("connection reset"),
            Refusal::Status(code) => write!(f, "HTTP status {code}"),
            Refusal::Rcode(code) => write!(f, "DNS response code {code}"),
            Refusal::Alert(code) => write!(f, "TLS alert {code}"),
        }
    }
}
