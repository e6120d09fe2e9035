use crate::model::Moment;

/// Bytes of a message.
pub const MEASURE_BYTES: usize = 44;

/// What begins each, with the version at its end.
const MAGIC: [u8; 4] = *b"TFL1";

/// Where the time of sending stands.
const SENT: std::ops::Range<usize> = 12..20;

/// A message from one Trefoil to another, in the content of a packet of ESP that says of itself that there is nothing in it
/// (Next Header 59, RFC 4303 2.6): so nobody else makes anything of it, and it needs no address. It measures the
/// direction that it travels, and tells of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measure {
    /// Chosen anew by the sender for each IKE SA that it sets up; never 0. The lowest bit is clear where the sender is
    /// sparing: it says little over this path, which is metered or one of very many, and wants to be told no more.
    pub session: u32,
    /// Counts the sender's messages of the session.
    pub number: u32,
    /// In microseconds of the sender's clock, stamped as it is sent.
    pub sent: u64,
    pub report: Option<Report>,
}

/// What has arrived of the receiver's own messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Of which session; never 0.
    pub session: u32,
    /// The highest number that has arrived.
    pub highest: u32,
    /// Of it and the 63 before it, which have arrived: the highest is bit 0.
    pub arrived: u64,
    /// Mean difference of the delays of one and the next (RFC 3550 6.4.1), in microseconds.
    pub jitter: u32,
    /// By how much delays of late exceed the least, in microseconds: what queues on the way add.
    pub rise: u32,
}

impl Measure {
    pub fn write(&self) -> [u8; MEASURE_BYTES] {
        let report = self.report.unwrap_or(Report { session: 0, highest: 0, arrived: 0, jitter: 0, rise: 0 });
        let mut bytes = [0; MEASURE_BYTES];
        let words = [MAGIC, self.session.to_be_bytes(), self.number.to_be_bytes()];
        let told = [report.session.to_be_bytes(), report.highest.to_be_bytes()];
        let measured = [report.jitter.to_be_bytes(), report.rise.to_be_bytes()];
        let (sent, arrived) = (self.sent.to_be_bytes(), report.arrived.to_be_bytes());
        let all = words.iter().flatten().chain(&sent).chain(told.iter().flatten()).chain(&arrived);
        for (place, byte) in bytes.iter_mut().zip(all.chain(measured.iter().flatten())) {
            *place = *byte;
        }
        bytes
    }

    /// `None`: it is none of ours.
    pub fn read(bytes: &[u8]) -> Option<Measure> {
        let bytes: &[u8; MEASURE_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
        let long = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
        if bytes.first_chunk::<4>() != Some(&MAGIC) {
            return None;
        }
        let report =
            Report { session: word(20)?, highest: word(24)?, arrived: long(28)?, jitter: word(36)?, rise: word(40)? };
        let report = Some(report).filter(|report| report.session != 0);
        let session = word(4).filter(|session| *session != 0)?;
        Some(Measure { session, number: word(8)?, sent: long(SENT.start)?, report })
    }

    /// Puts the time into a message that is about to leave.
    pub fn stamp(bytes: &mut [u8; MEASURE_BYTES], now: Moment) {
        if let Some(place) = bytes.get_mut(SENT) {
            place.copy_from_slice(&micros(now).to_be_bytes());
        }
    }
}

/// Whether who chose this session is sparing.
pub(super) fn is_sparing(session: u32) -> bool {
    session & 1 == 0
}

/// A moment as messages tell it.
pub(super) fn micros(moment: Moment) -> u64 {
    moment.as_nanos() / 1_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_none_of_ours_or_are_written_the_same_again(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60), ours in any::<bool>()
        ) {
            if ours {
                bytes.resize(MEASURE_BYTES, 0);
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[7] |= 1;
            }
            match Measure::read(&bytes) {
                Some(read) if read.report.is_some() => {
                    let mut again = read.write();
                    again[SENT].copy_from_slice(&read.sent.to_be_bytes());
                    prop_assert_eq!(&again[..], &bytes[..]);
                }
                // Without a session there is no report, whatever stands in its place.
                Some(read) => prop_assert_eq!(Measure::read(&read.write()), Some(read)),
                None => prop_assert!(!ours),
            }
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_stamped() {
        let report = Report { session: 9, highest: 77, arrived: u64::MAX / 3, jitter: 1_234, rise: 5 };
        for report in [Some(report), None] {
            let measure = Measure { session: 4, number: 5, sent: 0, report };
            let mut bytes = measure.write();
            Measure::stamp(&mut bytes, Moment::from_millis(7));
            assert_eq!(Measure::read(&bytes), Some(Measure { sent: 7_000, ..measure }));
        }
    }

    #[test]
    fn what_is_of_another_length_or_version_is_none() {
        let bytes = Measure { session: 4, number: 5, sent: 0, report: None }.write();
        assert_eq!(Measure::read(&bytes[..43]), None);
        assert_eq!(Measure::read(&[&bytes[..], &[0]].concat()), None);
        let mut other = bytes;
        other[3] = b'2';
        assert_eq!((Measure::read(&other), Measure::read(&[])), (None, None));
        // Nothing could be reported of it.
        assert_eq!(Measure::read(&Measure { session: 0, number: 5, sent: 0, report: None }.write()), None);
    }
}
