//! Which names addresses have, learned from the DNS answers that pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::status::NamesStatus;
use crate::forward::NameTable;
use crate::model::{Moment, NameId, protocol};
use crate::packet::{Fragment, parse};
use crate::steer::{KnownNames, NamePatterns};

/// Questions that wait for their answers; beyond, the oldest are given up.
const ASKED_MAX: usize = 4_096;

/// An answer that comes later than this is not waited for by anybody.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names of addresses that are kept, some 200 bytes each: more than a large office uses in a day. Beyond,
/// those go whose time is over first.
const KEPT_MAX: usize = 16_384;

/// A name is kept for its TTL, but at least so long: programs keep it longer than they should ...
const SHORTEST: Duration = Duration::from_secs(60);
/// ... and at most so long: whoever answers must not fill us up for years.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Records of one answer that are looked at, and steps of a chain of aliases.
const RECORDS_MAX: usize = 64;
const ALIASES_MAX: usize = 16;

const DNS: u16 = 53;
const UDP_HEADER: usize = 8;

/// The names that rules ask for, as far as they were seen to be answered.
#[derive(Debug, Default)]
pub struct NameBook {
    asked: BTreeMap<Question, Moment>,
    /// As they were asked.
    waiting: VecDeque<(Moment, Question)>,
    known: BTreeMap<IpAddr, BTreeMap<String, Moment>>,
    /// When their time is over.
    ends: BTreeSet<(Moment, IpAddr, String)>,
    /// As it is published; `None` when it is to be made anew.
    table: Option<Arc<NameTable>>,
    /// Without those that are kept.
    counts: NamesStatus,
}

/// Only who was asked this may answer it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Question {
    client: SocketAddr,
    server: SocketAddr,
    id: u16,
    name: String,
    record: u16,
}

impl NameBook {
    /// A whole IP packet with a DNS message over UDP. `true`: some address has other names now.
    pub fn handle_message(&mut self, packet: &[u8], patterns: &NamePatterns, now: Moment) -> bool {
        let Some((source, destination, message)) = read(packet) else {
            self.counts.malformed += 1;
            return false;
        };
        let [query] = &message.queries[..] else { return false };
        let asks = matches!(query.query_type(), RecordType::A | RecordType::AAAA);
        if !asks || query.query_class() != DNSClass::IN {
            return false;
        }
        let (id, name, record) = (message.metadata.id, text(query.name()), query.query_type().into());
        match message.metadata.message_type {
            MessageType::Query if destination.port() == DNS => {
                self.ask(Question { client: source, server: destination, id, name, record }, now);
                false
            }
            MessageType::Response if source.port() == DNS => {
                let question = Question { client: destination, server: source, id, name, record };
                // The first answer counts, and no later one.
                if self.asked.remove(&question).is_none_or(|at| now.since(at) > PATIENCE) {
                    self.counts.unasked += 1;
                    return false;
                }
                message.metadata.response_code == ResponseCode::NoError
                    && self.learn(&question.name, &message, patterns, now)
            }
            MessageType::Query | MessageType::Response => false,
        }
    }

    /// Forgets the names whose time is over. `true`: some address has other names now.
    pub fn handle_timeout(&mut self, now: Moment) -> bool {
        let before = self.ends.len();
        while let Some((end, address, name)) = self.ends.first().filter(|(end, ..)| *end <= now).cloned() {
            self.ends.remove(&(end, address, name.clone()));
            self.forget(address, &name);
        }
        self.ends.len() < before
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        self.ends.first().map(|(end, ..)| *end)
    }

    /// The names of an address, with the end of their time.
    pub fn of(&self, address: IpAddr) -> impl Iterator<Item = (&str, Moment)> {
        self.known.get(&address).into_iter().flatten().map(|(name, end)| (name.as_str(), *end))
    }

    /// By address, the patterns that its names match.
    pub fn table(&mut self, patterns: &NamePatterns) -> Arc<NameTable> {
        let known = &self.known;
        let make = || {
            let of = |(address, names): (&IpAddr, &BTreeMap<String, Moment>)| {
                let found: BTreeSet<NameId> = names.keys().flat_map(|name| patterns.matching(name)).collect();
                (*address, KnownNames::new(found))
            };
            Arc::new(known.iter().map(of).collect())
        };
        self.table.get_or_insert_with(make).clone()
    }

    pub fn status(&self) -> NamesStatus {
        NamesStatus { kept: self.ends.len() as u64, ..self.counts.clone() }
    }

    fn ask(&mut self, question: Question, now: Moment) {
        while self.waiting.front().is_some_and(|(at, _)| self.waiting.len() >= ASKED_MAX || now.since(*at) > PATIENCE) {
            let Some((at, oldest)) = self.waiting.pop_front() else { break };
            // It may have been answered, and asked again since.
            if self.asked.get(&oldest) == Some(&at) {
                self.asked.remove(&oldest);
            }
        }
        self.asked.insert(question.clone(), now);
        self.waiting.push_back((now, question));
    }

    /// The addresses of a name, and of what it is an alias of.
    fn learn(&mut self, asked: &str, answer: &Message, patterns: &NamePatterns, now: Moment) -> bool {
        let records = || answer.answers.iter().take(RECORDS_MAX).filter(|record| record.dns_class == DNSClass::IN);
        let mut chain = vec![asked.to_owned()];
        let mut shortest = u32::MAX;
        while let Some(last) = chain.last().filter(|_| chain.len() < ALIASES_MAX) {
            let next = records().find_map(|record| match &record.data {
                RData::CNAME(target) if text(&record.name) == *last => Some((text(&target.0), record.ttl)),
                _ => None,
            });
            let Some((next, ttl)) = next.filter(|(next, _)| !chain.contains(next)) else { break };
            shortest = shortest.min(ttl);
            chain.push(next);
        }
        let owner = chain.last().cloned().unwrap_or_default();
        chain.retain(|name| !patterns.matching(name).is_empty());
        let mut changed = false;
        for record in records().filter(|record| text(&record.name) == owner) {
            let address = match &record.data {
                RData::A(address) => IpAddr::V4(address.0),
                RData::AAAA(address) => IpAddr::V6(address.0),
                _ => continue,
            };
            let ttl = Duration::from_secs(shortest.min(record.ttl).into()).clamp(SHORTEST, LONGEST);
            for name in &chain {
                changed |= self.keep(address, name, now + ttl);
            }
        }
        changed
    }

    /// `true`: it is new.
    fn keep(&mut self, address: IpAddr, name: &str, end: Moment) -> bool {
        let known = self.known.entry(address).or_default().insert(name.to_owned(), end);
        if let Some(before) = known {
            self.ends.remove(&(before, address, name.to_owned()));
        }
        self.ends.insert((end, address, name.to_owned()));
        self.counts.learned += u64::from(known.is_none());
        if self.ends.len() > KEPT_MAX
            && let Some((_, address, name)) = self.ends.pop_first()
        {
            self.counts.pushed_out += 1;
            self.forget(address, &name);
        }
        if known.is_none() {
            self.table = None;
        }
        known.is_none()
    }

    fn forget(&mut self, address: IpAddr, name: &str) {
        self.table = None;
        if let Some(names) = self.known.get_mut(&address) {
            names.remove(name);
            if names.is_empty() {
                self.known.remove(&address);
            }
        }
    }
}

/// Both ends and the message of a packet.
fn read(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, Message)> {
    let parsed = parse(packet)?;
    if parsed.key.protocol != protocol::UDP || parsed.fragment != Fragment::Whole {
        return None;
    }
    let message = packet.get(..parsed.total_len)?.get(parsed.transport + UDP_HEADER..)?;
    let key = parsed.key;
    let message = Message::from_vec(message).ok()?;
    let (source, destination) = ((key.source, key.source_port), (key.destination, key.destination_port));
    Some((source.into(), destination.into(), message))
}

/// In lower case, without the last dot; octets that are no text are escaped.
fn text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use etherparse::PacketBuilder;
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME};
    use proptest::prelude::*;

    use super::*;

    const CLIENT: [u8; 4] = [10, 20, 0, 5];
    const SERVER: [u8; 4] = [10, 0, 0, 53];
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

    fn patterns() -> NamePatterns {
        NamePatterns::new(["*.example.com", "cdn.example.net"].map(str::to_owned).to_vec())
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn question(id: u16, asked: &str) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.queries.push(Query::query(name(asked), RecordType::A));
        message
    }

    fn answer(id: u16, asked: &str, records: Vec<Record>) -> Message {
        let mut message = question(id, asked);
        message.metadata.message_type = MessageType::Response;
        message.answers = records;
        message
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(203, 0, 113, last)))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn packet(payload: &[u8], from_server: bool, port: u16) -> Vec<u8> {
        let (source, destination) = if from_server { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
        let ports = if from_server { (DNS, port) } else { (port, DNS) };
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4(source, destination, 64).udp(ports.0, ports.1);
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    impl NameBook {
        fn see(&mut self, message: &Message, from_server: bool, port: u16, now: Moment) -> bool {
            self.handle_message(&packet(&message.to_vec().unwrap(), from_server, port), &patterns(), now)
        }

        fn ids(&mut self) -> Vec<u16> {
            let found = self.table(&patterns()).get(&ADDRESS).copied().unwrap_or_default();
            found.iter().map(|id| id.0).collect()
        }
    }

    #[test]
    fn an_answer_that_was_asked_for_names_its_addresses_and_those_of_its_aliases_for_their_time() {
        let mut book = NameBook::default();
        assert!(!book.see(&question(7, "WWW.Example.com."), false, 4_000, at(1)));
        let records = vec![
            alias("www.example.com.", 400, "cdn.example.net."),
            a("cdn.example.net.", 300, 9),
            a("other.example.com.", 9, 8),
        ];
        assert!(book.see(&answer(7, "www.example.com.", records.clone()), true, 4_000, at(2)));
        assert_eq!(book.ids(), [1, 2]);
        assert_eq!(book.of(ADDRESS).collect::<Vec<_>>(), [("cdn.example.net", at(302)), ("www.example.com", at(302))]);
        assert_eq!((book.status().kept, book.status().learned), (2, 2), "the other record is of another name");

        // The same again: later, and nothing new.
        book.see(&question(8, "www.example.com."), false, 4_001, at(200));
        assert!(!book.see(&answer(8, "www.example.com.", records), true, 4_001, at(200)));
        assert_eq!(book.poll_timeout(), Some(at(500)));
        assert!(!book.handle_timeout(at(499)) && book.handle_timeout(at(500)));
        assert_eq!((book.ids(), book.status().kept, book.poll_timeout()), (vec![], 0, None));
    }

    #[test]
    fn only_the_first_answer_of_who_was_asked_is_believed_and_only_in_time() {
        let mut book = NameBook::default();
        let told = |id, asked: &str| answer(id, asked, vec![a(asked, 300, 9)]);
        let ask = |book: &mut NameBook| book.see(&question(7, "www.example.com."), false, 4_000, at(1));
        ask(&mut book);
        assert!(!book.see(&told(8, "www.example.com."), true, 4_000, at(2)), "another id");
        assert!(!book.see(&told(7, "ftp.example.com."), true, 4_000, at(2)), "another question");
        assert!(!book.see(&told(7, "www.example.com."), true, 4_001, at(2)), "another port");
        assert!(!book.see(&told(7, "www.example.com."), false, 4_000, at(2)), "another way");
        assert_eq!(book.status().unasked, 3);
        assert!(book.see(&told(7, "www.example.com."), true, 4_000, at(2)));
        let forged = answer(7, "www.example.com.", vec![a("www.example.com.", 300, 66)]);
        assert!(!book.see(&forged, true, 4_000, at(2)), "a second one");
        ask(&mut book);
        assert!(!book.see(&forged, true, 4_000, at(30)), "too late");
        assert_eq!(book.status().kept, 1);
    }

    #[test]
    fn times_and_numbers_are_held_within_bounds() {
        let mut book = NameBook::default();
        for (ttl, kept) in [(0, 60), (u32::MAX, 86_400)] {
            book.see(&question(1, "www.example.com."), false, 4_000, at(0));
            book.see(&answer(1, "www.example.com.", vec![a("www.example.com.", ttl, 9)]), true, 4_000, at(0));
            assert_eq!(book.poll_timeout(), Some(at(kept)));
        }
        // A chain that leads to itself, and one without an end.
        let circle = vec![alias("a.example.com.", 9, "b.example.com."), alias("b.example.com.", 9, "a.example.com.")];
        book.see(&question(2, "a.example.com."), false, 4_000, at(0));
        assert!(!book.see(&answer(2, "a.example.com.", circle), true, 4_000, at(0)));
        for number in 0..20_000u32 {
            let [_, b, c, d] = number.to_be_bytes();
            book.keep(IpAddr::from([10, b, c, d]), "www.example.com", at(100 + u64::from(number)));
            let asked = Question {
                client: ([10, 20, 0, 5], 1_000).into(),
                server: ([10, 0, 0, 53], DNS).into(),
                id: number as u16,
                name: format!("n{number}.example.com"),
                record: 1,
            };
            book.ask(asked, at(1));
        }
        assert_eq!(book.status().kept as usize, KEPT_MAX);
        assert!(book.status().pushed_out > 3_000);
        assert!(book.asked.len() <= ASKED_MAX && book.waiting.len() <= ASKED_MAX);
        assert!(book.known.contains_key(&IpAddr::from([10, 0, 0x4e, 0x1f])), "what ends first went");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whoever answers may send anything: it costs only itself.
        #[test]
        fn hostile_answers_do_no_harm(
            noise in proptest::collection::vec(any::<u8>(), 0..300),
            changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..12),
        ) {
            let mut book = NameBook::default();
            book.handle_message(&noise, &patterns(), at(1));
            book.handle_message(&packet(&noise, true, 4_000), &patterns(), at(1));
            book.see(&question(7, "www.example.com."), false, 4_000, at(1));
            let records = vec![alias("www.example.com.", 400, "cdn.example.net."), a("cdn.example.net.", 300, 9)];
            let mut message = answer(7, "www.example.com.", records).to_vec().unwrap();
            for (place, byte) in changes {
                if let Some(changed) = message.get_mut(place) {
                    *changed = byte;
                }
            }
            book.handle_message(&packet(&message, true, 4_000), &patterns(), at(2));
            prop_assert!(book.status().kept <= (2 * RECORDS_MAX) as u64);
            prop_assert!(book.poll_timeout().is_none_or(|end| end <= at(2) + LONGEST));
            book.handle_timeout(at(2) + LONGEST);
            prop_assert!(book.known.is_empty() && book.table(&patterns()).is_empty());
        }
    }
}
