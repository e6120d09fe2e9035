use super::key_schedule::IkeKeySet;
use super::lifetime::Lifetime;
use super::parts::Parts;
use super::pending::Pending;
use super::proposal::IkeSuite;
use super::protect::Protection;
use super::task::Purpose;
use super::wire::{Exchange, Header, Message, Payload, WireError, decode_payloads};
use super::{Event, IkeKeys, Retransmission};
use crate::crypto::CryptoError;
use crate::model::{Leg, Moment};

/// One datagram that was read as an IKE message.
pub struct Input<'a> {
    pub leg: Leg,
    pub datagram: &'a [u8],
    pub message: Message,
}

/// The two SPIs of an IKE SA, and which is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spis {
    pub initiator: u64,
    pub responder: u64,
    pub we_initiated: bool,
}

impl Spis {
    pub fn local(&self) -> u64 {
        if self.we_initiated { self.initiator } else { self.responder }
    }

    fn header(&self, exchange: Exchange, response: bool, message_id: u32) -> Header {
        Header {
            initiator_spi: self.initiator,
            responder_spi: self.responder,
            exchange,
            from_initiator: self.we_initiated,
            response,
            message_id,
        }
    }
}

/// The keys and the message window of one IKE SA: one request of ours and one of the peer's at a
/// time (RFC 7296 2.3, a window of 1).
pub struct IkeSa {
    pub spis: Spis,
    pub suite: IkeSuite,
    pub keys: IkeKeySet,
    pub lifetime: Lifetime,
    pub outstanding: Option<Outstanding>,
    protection: Protection,
    next_request: u32,
    expected_request: u32,
    last_answer: Option<Vec<u8>>,
}

/// One request of the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestId {
    local_spi: u64,
    message_id: u32,
}

/// A request of ours on its way, with what its answer is for.
pub struct Outstanding {
    pub pending: Pending,
    pub purpose: Purpose,
}

/// What a datagram is to an IKE SA, once it proved to be the peer's.
pub enum Incoming {
    /// A new request; it must be answered.
    Request(Exchange, Result<Parts, WireError>),
    /// The answer to the outstanding request.
    Answer(Outstanding, Result<Parts, WireError>),
    /// A request that was answered before, with that answer.
    Repeated(Vec<u8>),
    /// Not authentic, out of the window, or an answer to nothing.
    Ignored,
}

impl IkeSa {
    pub fn new(spis: Spis, suite: IkeSuite, keys: IkeKeySet, lifetime: Lifetime) -> Result<IkeSa, CryptoError> {
        let protection = Protection::new(&suite, &keys, spis.we_initiated)?;
        Ok(IkeSa {
            spis,
            suite,
            keys,
            lifetime,
            outstanding: None,
            protection,
            next_request: 0,
            expected_request: 0,
            last_answer: None,
        })
    }

    /// After IKE_SA_INIT, which used the message ID 0 of its initiator.
    pub fn after_init(mut self) -> IkeSa {
        if self.spis.we_initiated {
            self.next_request = 1;
        } else {
            self.expected_request = 1;
        }
        self
    }

    pub fn receive(&mut self, input: &Input<'_>) -> Incoming {
        let header = &input.message.header;
        let Some(encrypted) = &input.message.encrypted else { return Incoming::Ignored };
        // Our own messages must not come back to us as the peer's.
        if header.from_initiator == self.spis.we_initiated
            || header.initiator_spi != self.spis.initiator
            || header.responder_spi != self.spis.responder
        {
            return Incoming::Ignored;
        }
        let Some(plain) = self.protection.open(input.datagram, encrypted) else { return Incoming::Ignored };
        let parts = || decode_payloads(encrypted.first, &plain).and_then(Parts::of);
        if header.response {
            let expected = |outstanding: &mut Outstanding| {
                outstanding.pending.message_id == header.message_id && outstanding.pending.exchange == header.exchange
            };
            return match self.outstanding.take_if(expected) {
                Some(outstanding) => Incoming::Answer(outstanding, parts()),
                None => Incoming::Ignored,
            };
        }
        if header.message_id == self.expected_request {
            self.expected_request = self.expected_request.wrapping_add(1);
            return Incoming::Request(header.exchange, parts());
        }
        match &self.last_answer {
            Some(answer) if header.message_id.wrapping_add(1) == self.expected_request => {
                Incoming::Repeated(answer.clone())
            }
            _ => Incoming::Ignored,
        }
    }

    /// Seals the next request and keeps it for retransmission; the caller sends what it returns.
    pub fn request(
        &mut self,
        exchange: Exchange,
        payloads: &[Payload],
        purpose: Purpose,
        schedule: Retransmission,
        now: Moment,
    ) -> Vec<u8> {
        let message_id = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        let bytes = self.protection.seal(&self.spis.header(exchange, false, message_id), payloads);
        let pending = Pending::new(exchange, message_id, bytes.clone(), schedule, now);
        self.outstanding = Some(Outstanding { pending, purpose });
        bytes
    }

    /// Seals the answer to the request received last and keeps it, should that come again.
    pub fn answer(&mut self, exchange: Exchange, payloads: &[Payload]) -> Vec<u8> {
        let message_id = self.expected_request.wrapping_sub(1);
        let bytes = self.protection.seal(&self.spis.header(exchange, true, message_id), payloads);
        self.last_answer = Some(bytes.clone());
        bytes
    }

    /// The newest request of the peer's. While it stays the newest, its answer may not have arrived.
    pub fn newest_request(&self) -> RequestId {
        RequestId { local_spi: self.spis.local(), message_id: self.expected_request.wrapping_sub(1) }
    }

    pub fn key_event(&self) -> Event {
        Event::Keys(Box::new(IkeKeys {
            initiator_spi: self.spis.initiator,
            responder_spi: self.spis.responder,
            encryption: self.suite.encryption,
            encryption_initiator: self.keys.encryption_initiator.clone(),
            encryption_responder: self.keys.encryption_responder.clone(),
        }))
    }
}
