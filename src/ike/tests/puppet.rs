use super::pair::*;
use crate::crypto::{Backend, DhGroup, KeyExchange, SaltedKey};
use crate::ike::Event;
use crate::ike::proposal;
use crate::ike::wire::{
    Exchange, HEADER_BYTES, Header, Notify, NotifyType, Payload, encode_payloads, payload_type, protocol_id,
};
use crate::model::{Chance, Leg};

/// Takes the place of end b, which falls silent: it holds the keys of the IKE SA that end a has
/// set up, and says with them whatever a test wants. End a stays the real one.
pub struct Puppet {
    initiator_spi: u64,
    responder_spi: u64,
    key: SaltedKey,
    leg: Leg,
    chance: Chance,
    sealed: u64,
    next_request: u32,
    /// How many of a's datagrams have been looked at.
    seen: usize,
}

impl Puppet {
    /// Of a pair that is up.
    pub fn of(pair: &mut Pair) -> Puppet {
        pair.b.dead = true;
        let keys = pair.a.events.iter().rev().find_map(|(_, _, event)| match event {
            Event::Keys(keys) => Some(keys),
            _ => None,
        });
        let keys = keys.unwrap();
        let key = SaltedKey::new(Backend::RustCrypto, keys.encryption, keys.encryption_responder.expose()).unwrap();
        let leg = Pair::legs(&pair.a, &pair.b).natt;
        Puppet {
            initiator_spi: keys.initiator_spi,
            responder_spi: keys.responder_spi,
            key,
            leg,
            chance: Chance::from_number(99),
            sealed: 0,
            next_request: 0,
            seen: pair.a.sent.len(),
        }
    }

    /// Sends a request.
    pub fn ask(&mut self, pair: &mut Pair, exchange: Exchange, payloads: &[Payload]) {
        let message_id = self.next_request;
        self.next_request += 1;
        self.say(pair, exchange, false, message_id, payloads);
    }

    /// Answers each request of a's that has not been answered yet; gives how many there were.
    pub fn answer_all(&mut self, pair: &mut Pair, mut payloads: impl FnMut(&Header) -> Vec<Payload>) -> usize {
        let sent: Vec<Vec<u8>> = pair.a.sent[self.seen..].iter().map(|(_, bytes)| bytes.clone()).collect();
        self.seen = pair.a.sent.len();
        let mut answered = 0;
        for bytes in sent {
            let (header, _) = Header::decode(&bytes).unwrap();
            let ours = header.initiator_spi == self.initiator_spi;
            if ours && !header.response {
                answered += 1;
                self.say(pair, header.exchange, true, header.message_id, &payloads(&header));
            }
        }
        answered
    }

    /// The payloads that ask for a Child SA with this SPI; with REKEY_SA in place of the one with
    /// the SPI `replaces`.
    pub fn child_request(&mut self, spi: u32, replaces: Option<u32>) -> Vec<Payload> {
        let of_b = peer("b", "a");
        let key_exchange = KeyExchange::generate(DhGroup::Ecp256, &mut self.chance).unwrap();
        let mut payloads = Vec::new();
        payloads.extend(replaces.map(|spi| {
            let spi = spi.to_be_bytes().to_vec();
            Payload::Notify(Notify { protocol: protocol_id::ESP, spi, ..Notify::new(NotifyType::REKEY_SA) })
        }));
        payloads.extend([
            Payload::Sa(proposal::offer_child(&of_b.phase2, spi, true)),
            Payload::Nonce(self.chance.bytes::<32>().to_vec()),
            Payload::KeyExchange { group: DhGroup::Ecp256.number(), data: key_exchange.public().to_vec() },
            Payload::SelectorsInitiator(of_b.local_selectors),
            Payload::SelectorsResponder(of_b.remote_selectors),
        ]);
        payloads
    }

    fn say(&mut self, pair: &mut Pair, exchange: Exchange, response: bool, message_id: u32, payloads: &[Payload]) {
        let header = Header {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange,
            from_initiator: false,
            response,
            message_id,
        };
        let (first, mut body) = encode_payloads(payloads);
        body.push(0);
        let payload_bytes = 4 + 8 + body.len() + 16;
        let mut datagram = header.encode(payload_type::SK, (HEADER_BYTES + payload_bytes) as u32).to_vec();
        datagram.extend([first, 0]);
        datagram.extend((payload_bytes as u16).to_be_bytes());
        self.sealed += 1;
        // Far from the counter of the end whose key it is.
        let iv = (u64::MAX - self.sealed).to_be_bytes();
        let tag = self.key.seal(iv, &datagram, &mut body).unwrap();
        datagram.extend([&iv[..], &body, &tag].concat());
        pair.inject(true, self.leg, datagram);
    }
}
