//! Which names addresses have, learned from the DNS answers that pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use ipnet::IpNet;

use super::status::NamesStatus;
use crate::forward::{Learned, NameTable};
use crate::model::{Moment, NameId, protocol};
use crate::packet::{Fragment, parse};
use crate::steer::{KnownNames, NAMES_OF_ADDRESS, NamePatterns};

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

/// Between two tables that are published: an office that opens its mail in the morning learns hundreds of names a
/// second, and each table is made of all of them. The first after a pause is published at once, before whoever
/// asked can have sent anything.
const PAUSE: Duration = Duration::from_millis(50);

/// Records of one answer that are looked at, and steps of a chain of aliases.
const RECORDS_MAX: usize = 64;
const ALIASES_MAX: usize = 16;

const DNS: u16 = 53;
const UDP_HEADER: usize = 8;

/// The names that rules ask for, as far as they were seen to be answered.
#[derive(Debug, Default)]
pub struct NameBook {
    /// Whose answers are believed; empty: of whomever a host asks.
    resolvers: Vec<IpNet>,
    asked: BTreeMap<Question, Moment>,
    /// As they were asked.
    waiting: VecDeque<(Moment, Question)>,
    known: BTreeMap<IpAddr, Address>,
    /// When their time is over.
    ends: BTreeSet<(Moment, IpAddr, String)>,
    /// When the table is to be published anew, if it is, and when it was last.
    due: Option<Moment>,
    published: Option<Moment>,
    /// See `NameTable`.
    epoch: u32,
    /// Without those that are kept.
    counts: NamesStatus,
}

/// A name of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptName {
    pub name: String,
    pub since: Moment,
    /// When its time is over.
    pub end: Moment,
    /// The patterns that it matches.
    patterns: ArrayVec<NameId, NAMES_OF_ADDRESS>,
}

/// In the order of the names, of which there is at least one.
#[derive(Debug, Default)]
struct Address {
    names: Vec<KeptName>,
    /// What all of them come to.
    learned: Learned,
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
    pub fn new(resolvers: Vec<IpNet>) -> NameBook {
        NameBook { resolvers, ..NameBook::default() }
    }

    /// A whole IP packet with a DNS message over UDP.
    pub fn handle_message(&mut self, packet: &[u8], patterns: &NamePatterns, now: Moment) {
        let Some((source, destination, message)) = read(packet) else {
            self.counts.malformed += 1;
            return;
        };
        let [query] = &message.queries[..] else { return };
        let asks = matches!(query.query_type(), RecordType::A | RecordType::AAAA);
        if !asks || query.query_class() != DNSClass::IN {
            return;
        }
        let (id, name, record) = (message.metadata.id, text(query.name()), query.query_type().into());
        match message.metadata.message_type {
            MessageType::Query if destination.port() == DNS => {
                if self.believes(destination.ip()) {
                    self.ask(Question { client: source, server: destination, id, name, record }, now);
                } else {
                    self.counts.untrusted += 1;
                }
            }
            MessageType::Response if source.port() == DNS => {
                let question = Question { client: destination, server: source, id, name, record };
                // The first answer counts, and no later one.
                if self.asked.remove(&question).is_none_or(|at| now.since(at) > PATIENCE) {
                    // It was counted when it was asked.
                    self.counts.unasked += u64::from(self.believes(source.ip()));
                } else if message.metadata.response_code == ResponseCode::NoError {
                    self.learn(&question.name, &message, patterns, now);
                }
            }
            MessageType::Query | MessageType::Response => {}
        }
    }

    /// An address has this name, for as long as any is kept.
    pub fn handle_name(&mut self, address: IpAddr, name: &str, patterns: &NamePatterns, now: Moment) {
        let found = patterns.matching(name);
        if !found.is_empty() {
            let name = KeptName { name: name.to_owned(), since: now, end: now + LONGEST, patterns: found };
            self.keep(address, name, now);
        }
    }

    /// Forgets the names whose time is over.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some((end, address, name)) = self.ends.first().filter(|(end, ..)| *end <= now).cloned() {
            self.ends.remove(&(end, address, name.clone()));
            self.forget(address, &name);
            self.change(now);
        }
    }

    /// What is to be published, when something is and it is time.
    pub fn poll_table(&mut self, now: Moment) -> Option<Arc<NameTable>> {
        self.due.filter(|due| *due <= now)?;
        (self.due, self.published) = (None, Some(now));
        let known = self.known.iter().map(|(address, of)| (*address, of.learned));
        Some(Arc::new(NameTable::new(known, self.epoch)))
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        self.ends.first().map(|(end, ..)| *end).into_iter().chain(self.due).min()
    }

    pub fn of(&self, address: IpAddr) -> &[KeptName] {
        self.known.get(&address).map_or(&[], |known| &known.names)
    }

    pub fn status(&self) -> NamesStatus {
        NamesStatus { kept: self.ends.len() as u64, ..self.counts.clone() }
    }

    fn believes(&self, server: IpAddr) -> bool {
        self.resolvers.is_empty() || self.resolvers.iter().any(|network| network.contains(&server))
    }

    /// The table is not what was published.
    fn change(&mut self, now: Moment) {
        let soonest = self.published.map_or(now, |last| (last + PAUSE).max(now));
        self.due.get_or_insert(soonest);
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
    fn learn(&mut self, asked: &str, answer: &Message, patterns: &NamePatterns, now: Moment) {
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
        let found = chain.into_iter().map(|name| (patterns.matching(&name), name));
        let chain: Vec<_> = found.filter(|(patterns, _)| !patterns.is_empty()).collect();
        for record in records().filter(|record| text(&record.name) == owner) {
            let address = match &record.data {
                RData::A(address) => IpAddr::V4(address.0),
                RData::AAAA(address) => IpAddr::V6(address.0),
                _ => continue,
            };
            let ttl = Duration::from_secs(shortest.min(record.ttl).into()).clamp(SHORTEST, LONGEST);
            for (patterns, name) in &chain {
                let kept = KeptName { name: name.clone(), since: now, end: now + ttl, patterns: patterns.clone() };
                self.keep(address, kept, now);
            }
        }
    }

    fn keep(&mut self, address: IpAddr, name: KeptName, now: Moment) {
        let known = self.known.entry(address).or_default();
        self.ends.insert((name.end, address, name.name.clone()));
        match known.names.binary_search_by(|one| one.name.cmp(&name.name)) {
            Ok(index) => {
                let Some(known) = known.names.get_mut(index) else { return };
                if known.end != name.end {
                    self.ends.remove(&(known.end, address, name.name));
                }
                known.end = name.end;
            }
            Err(index) => {
                known.names.insert(index, name);
                known.learned = Learned { names: known.all(), since: now };
                self.counts.learned += 1;
                self.epoch = self.epoch.wrapping_add(1);
                self.change(now);
            }
        }
        if self.ends.len() > KEPT_MAX
            && let Some((_, address, name)) = self.ends.pop_first()
        {
            self.counts.pushed_out += 1;
            self.forget(address, &name);
            self.change(now);
        }
    }

    /// That name alone: others of the address stay.
    fn forget(&mut self, address: IpAddr, name: &str) {
        let Some(known) = self.known.get_mut(&address) else { return };
        known.names.retain(|one| one.name != name);
        known.learned.names = known.all();
        if known.names.is_empty() {
            self.known.remove(&address);
        }
    }
}

impl Address {
    /// The patterns of all its names, those of the first rules first.
    fn all(&self) -> KnownNames {
        let found: BTreeSet<NameId> = self.names.iter().flat_map(|name| name.patterns.iter().copied()).collect();
        KnownNames::new(found)
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
        /// Whether something new was learned.
        fn see(&mut self, message: &Message, from_server: bool, port: u16, now: Moment) -> bool {
            let before = self.counts.learned;
            self.handle_message(&packet(&message.to_vec().unwrap(), from_server, port), &patterns(), now);
            self.counts.learned > before
        }

        /// Asked and answered.
        fn hear(&mut self, name: &str, records: Vec<Record>, now: Moment) -> bool {
            self.see(&question(7, name), false, 4_000, now);
            self.see(&answer(7, name, records), true, 4_000, now)
        }

        fn ids(&mut self) -> Vec<u16> {
            let found = self.known.get(&ADDRESS).map(|known| known.learned.names).unwrap_or_default();
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
        let kept: Vec<_> = book.of(ADDRESS).iter().map(|name| (name.name.as_str(), name.since, name.end)).collect();
        assert_eq!(kept, [("cdn.example.net", at(2), at(302)), ("www.example.com", at(2), at(302))]);
        assert!(book.poll_table(at(2)).is_some() && book.poll_table(at(2)).is_none(), "at once, and once");
        assert_eq!((book.status().kept, book.status().learned), (2, 2), "the other record is of another name");

        // The same again: later, and nothing new.
        book.see(&question(8, "www.example.com."), false, 4_001, at(200));
        assert!(!book.see(&answer(8, "www.example.com.", records), true, 4_001, at(200)));
        assert_eq!((book.poll_timeout(), book.poll_table(at(400)).is_none()), (Some(at(500)), true));
        book.handle_timeout(at(499));
        assert_eq!(book.status().kept, 2);
        book.handle_timeout(at(500));
        assert!(book.poll_table(at(500)).is_some_and(|table| table.is_empty()));
        assert_eq!((book.ids(), book.status().kept, book.poll_timeout()), (vec![], 0, None));
    }

    #[test]
    fn a_name_that_is_forgotten_leaves_the_others_of_its_address() {
        let mut book = NameBook::default();
        assert!(book.hear("www.example.com.", vec![a("www.example.com.", 60, 9)], at(0)));
        assert!(book.hear("cdn.example.net.", vec![a("cdn.example.net.", 600, 9)], at(10)));
        // The same name once more, which lasts longer now.
        assert!(!book.hear("cdn.example.net.", vec![a("cdn.example.net.", 900, 9)], at(10)));
        assert_eq!(book.ids(), [1, 2]);
        book.handle_timeout(at(60));
        assert_eq!((book.ids(), book.status().kept), (vec![2], 1));
        book.handle_timeout(at(909));
        assert_eq!(book.ids(), [2]);
        book.handle_timeout(at(910));
        assert!(book.known.is_empty() && book.ends.is_empty());
    }

    #[test]
    fn what_is_learned_together_is_published_together_and_only_what_is_new() {
        let mut book = NameBook::default();
        let ms = Moment::from_millis;
        book.hear("a.example.com.", vec![a("a.example.com.", 300, 9)], ms(1_000));
        let first = book.poll_table(ms(1_000)).unwrap();
        for number in 1..=40u8 {
            let name = format!("n{number}.example.com.");
            let now = ms(1_000 + u64::from(number));
            assert!(book.hear(&name, vec![a(&name, 300, number + 9)], now));
            assert!(book.poll_table(now).is_none());
        }
        assert_eq!(book.poll_timeout(), Some(ms(1_050)));
        let second = book.poll_table(ms(1_050)).unwrap();
        assert_ne!(first.epoch, second.epoch);
        let since = |table: &NameTable, last| table.get(IpAddr::from([203, 0, 113, last])).map(|one| one.since);
        assert_eq!([9, 49].map(|last| since(&first, last)), [Some(ms(1_000)), None]);
        assert_eq!([9, 49].map(|last| since(&second, last)), [Some(ms(1_000)), Some(ms(1_040))]);
        // What is forgotten is no reason for any flow to look again.
        book.handle_timeout(ms(900_000));
        assert_eq!(book.poll_table(ms(900_000)).unwrap().epoch, second.epoch);
    }

    #[test]
    fn only_resolvers_that_are_trusted_name_addresses_where_some_are_named() {
        let mut book = NameBook::new(vec!["10.0.0.54/32".parse().unwrap(), "192.0.2.0/24".parse().unwrap()]);
        assert!(!book.hear("www.example.com.", vec![a("www.example.com.", 300, 9)], at(1)));
        assert_eq!((book.status().untrusted, book.status().unasked, book.asked.len()), (1, 0, 0));
        let mut book = NameBook::new(vec!["10.0.0.0/24".parse().unwrap()]);
        assert!(book.hear("www.example.com.", vec![a("www.example.com.", 300, 9)], at(1)));
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
            book.poll_table(at(0));
            assert_eq!(book.poll_timeout(), Some(at(kept)));
        }
        // A chain that leads to itself, and one without an end.
        let circle = vec![alias("a.example.com.", 9, "b.example.com."), alias("b.example.com.", 9, "a.example.com.")];
        book.see(&question(2, "a.example.com."), false, 4_000, at(0));
        assert!(!book.see(&answer(2, "a.example.com.", circle), true, 4_000, at(0)));
        for number in 0..20_000u32 {
            let [_, b, c, d] = number.to_be_bytes();
            let name = "www.example.com".to_owned();
            let (since, end) = (at(1), at(100 + u64::from(number)));
            book.keep(IpAddr::from([10, b, c, d]), KeptName { name, since, end, patterns: ArrayVec::new() }, at(1));
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
            book.poll_table(at(2));
            prop_assert!(book.poll_timeout().is_none_or(|end| end <= at(2) + LONGEST));
            book.handle_timeout(at(2) + LONGEST);
            prop_assert!(book.known.is_empty() && book.ends.is_empty());
        }
    }
}
