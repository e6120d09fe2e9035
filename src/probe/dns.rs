use super::Record;

const HEADER: usize = 12;
/// RFC 1035 2.3.4.
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 255;

/// A query for one record that asks for recursion (RFC 1035 4.1). `None`: the name is none.
pub(super) fn query(id: u16, name: &str, record: Record) -> Option<Vec<u8>> {
    let [high, low] = id.to_be_bytes();
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).ok().filter(|length| usize::from(*length) <= LABEL_MAX)?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() > HEADER + NAME_MAX {
        return None;
    }
    message.extend(record.number().to_be_bytes());
    // Class IN.
    message.extend([0, 1]);
    Some(message)
}

/// The response code of an answer to this query; `None` when it is none, or not well formed.
pub(super) fn answer(query: &[u8], message: &[u8]) -> Option<u8> {
    let head = message.first_chunk::<HEADER>()?;
    let (question, rcode) = (query.get(HEADER..)?, head[3] & 0x0f);
    // The same ID, a response, a standard query (RFC 1035 4.1.1).
    let ours = query.first_chunk::<2>() == message.first_chunk::<2>() && head[2] & 0xf8 == 0x80;
    let asked = match u16::from_be_bytes([head[4], head[5]]) {
        // A server that could not read, or will not answer, may leave the question out.
        0 => rcode != 0,
        1 => message.get(HEADER..HEADER + question.len()).is_some_and(|told| told.eq_ignore_ascii_case(question)),
        _ => false,
    };
    (ours && asked).then_some(rcode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(query: &[u8], flags: [u8; 2]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&flags);
        message
    }

    #[test]
    fn a_query_is_as_the_rfc_draws_it() {
        let message = query(0x1234, "a.Example.", Record::Aaaa).unwrap();
        assert_eq!(message, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07Example\x00\x00\x1c\x00\x01");
        assert_eq!(query(1, ".", Record::Ns).unwrap().len(), HEADER + 1 + 4);
        assert_eq!(query(1, &"x".repeat(64), Record::A), None);
        assert_eq!(query(1, &"x.".repeat(128), Record::A), None);
    }

    #[test]
    fn only_an_answer_to_the_very_question_counts() {
        let asked = query(7, "pop.example", Record::A).unwrap();
        assert_eq!(answer(&asked, &answered(&asked, [0x81, 0x80])), Some(0));
        let mut other_case = answered(&asked, [0x81, 0x83]);
        other_case[13] = b'P';
        assert_eq!(answer(&asked, &other_case), Some(3));
        // Refused, with nothing but the header.
        let mut bare = answered(&asked, [0x81, 0x05])[..HEADER].to_vec();
        bare[5] = 0;
        assert_eq!(answer(&asked, &bare), Some(5));

        assert_eq!(answer(&asked, &asked), None, "a query is no answer");
        let mut other_id = answered(&asked, [0x81, 0x80]);
        other_id[1] = 8;
        assert_eq!(answer(&asked, &other_id), None);
        let mut other_name = answered(&asked, [0x81, 0x80]);
        other_name[14] = b'x';
        assert_eq!(answer(&asked, &other_name), None);
        for length in 0..asked.len() {
            assert_eq!(answer(&asked, &answered(&asked, [0x81, 0x80])[..length]), None, "cut at {length}");
        }
    }
}
