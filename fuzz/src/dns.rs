use std::time::Duration;

use trefoil::edge::NameBook;
use trefoil::model::Moment;
use trefoil::steer::NamePatterns;

const CLIENT: [u8; 4] = [10, 20, 0, 5];
const SERVER: [u8; 4] = [10, 0, 0, 53];
const PORT: u16 = 4_000;
const DNS: u16 = 53;

/// An A record of `www.example.com`, with the number 7.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";

/// What one answer may leave: its records, for each name of a chain of aliases.
const KEPT_MAX: u64 = 64 * 16;

/// A DNS message that passes: as what a name server answers to a question that was seen, as a question, and as a
/// whole packet.
pub fn dns(bytes: &[u8]) {
    let patterns = NamePatterns::new(["*.example.com", "*.net", "www.example.com"].map(str::to_owned).to_vec());
    let asked = Moment::from_millis(1_000);
    let answered = asked + Duration::from_millis(20);
    let mut book = NameBook::new(Vec::new());
    book.handle_message(&packet((CLIENT, PORT), (SERVER, DNS), QUESTION), &patterns, asked);
    book.handle_message(&packet((SERVER, DNS), (CLIENT, PORT), bytes), &patterns, answered);
    let status = book.status();
    assert!(status.kept <= KEPT_MAX && status.kept == status.learned, "{status:?}");
    assert_eq!(book.poll_table(answered).is_some(), status.kept > 0);

    // Once it is answered, nobody else can say anything.
    if status.kept > 0 {
        book.handle_message(&packet((SERVER, DNS), (CLIENT, PORT), bytes), &patterns, answered);
        assert_eq!((book.status().kept, book.status().unasked), (status.kept, status.unasked + 1));
    }
    book.handle_message(&packet((CLIENT, PORT), (SERVER, DNS), bytes), &patterns, answered);
    book.handle_message(bytes, &patterns, answered);
    let day = Duration::from_secs(24 * 3_600);
    assert!(book.poll_timeout().is_none_or(|end| end <= answered + day));
    book.handle_timeout(answered + day);
    assert_eq!(book.status().kept, 0);
}

/// IPv4 and UDP around it; of the checksums nobody asks.
fn packet(source: ([u8; 4], u16), destination: ([u8; 4], u16), message: &[u8]) -> Vec<u8> {
    let udp = 8 + message.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.0);
    packet.extend(destination.0);
    packet.extend([source.1, destination.1, udp, 0].into_iter().flat_map(u16::to_be_bytes));
    packet.extend(message);
    packet
}
