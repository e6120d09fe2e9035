use crate::model::Chance;

/// Record header (RFC 8446 5.1), and the first two bytes behind it.
pub(super) const RECORD_HEAD: usize = 7;

/// A ClientHello (RFC 8446 4.1.2) for TLS 1.3 and 1.2, with common suites and an X25519 key share. The key is
/// made up: the handshake goes no further than the answer to this.
pub(super) fn client_hello(name: Option<&str>, chance: &mut Chance) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        // server_name (RFC 6066 3): a list of one host name.
        let entry = [&[0][..], &counted(name.as_bytes())].concat();
        extension(&mut extensions, 0, &counted(&entry));
    }
    // supported_groups: X25519, secp256r1, secp384r1.
    extension(&mut extensions, 10, &[0, 6, 0, 29, 0, 23, 0, 24]);
    // ec_point_formats, for TLS 1.2: uncompressed.
    extension(&mut extensions, 11, &[1, 0]);
    // signature_algorithms: ECDSA and RSA with SHA-2.
    extension(&mut extensions, 13, &[0, 12, 4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1]);
    // supported_versions: 1.3 and 1.2.
    extension(&mut extensions, 43, &[4, 3, 4, 3, 3]);
    let share = [&[0, 29][..], &counted(&chance.bytes::<32>())].concat();
    extension(&mut extensions, 51, &counted(&share));

    let mut hello = vec![3, 3];
    hello.extend(chance.bytes::<32>());
    hello.push(32);
    hello.extend(chance.bytes::<32>());
    // AES-GCM and ChaCha20 suites of TLS 1.3, ECDHE with AES-GCM of 1.2.
    hello.extend(counted(&[0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30]));
    hello.extend([1, 0]);
    hello.extend(counted(&extensions));

    let mut message = vec![1, 0];
    message.extend(counted(&hello));
    let mut record = vec![22, 3, 1];
    record.extend(counted(&message));
    record
}

/// Does an answer begin with a ServerHello, or with an alert, in a TLS record?
pub(super) fn is_answer(head: &[u8]) -> bool {
    let Some(head) = head.first_chunk::<RECORD_HEAD>() else { return false };
    let length = u16::from_be_bytes([head[3], head[4]]);
    match head[0] {
        // ServerHello is handshake message 2 (RFC 8446 4), shorter than 65,536 bytes.
        22 => head[1] == 3 && (4..=16_384).contains(&length) && head[5] == 2 && head[6] == 0,
        // A warning or a fatal one (RFC 8446 6).
        21 => head[1] == 3 && length == 2 && matches!(head[5], 1 | 2),
        _ => false,
    }
}

/// The bytes behind their number in two bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length[..], bytes].concat()
}

fn extension(out: &mut Vec<u8>, number: u16, content: &[u8]) {
    out.extend(number.to_be_bytes());
    out.extend(counted(content));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_of_a_client_hello_agree() {
        let name = "n".repeat(253);
        for name in [None, Some("a.example"), Some(name.as_str())] {
            let record = client_hello(name, &mut Chance::from_number(1));
            let word = |at: usize| usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
            assert_eq!((record[0], record[5], record[6]), (22, 1, 0));
            assert_eq!((word(3), word(7)), (record.len() - 5, record.len() - 9));
            // Version, random, session, suites, compression: then the extensions up to the end.
            let extensions = 9 + 2 + 32 + 33 + 16 + 2;
            assert_eq!(word(extensions), record.len() - extensions - 2);
            assert!(record.len() <= 536, "{}", record.len());
        }
    }

    #[test]
    fn a_server_hello_or_an_alert_is_an_answer_and_nothing_else() {
        assert!(is_answer(&[22, 3, 3, 0, 122, 2, 0]));
        assert!(is_answer(&[21, 3, 3, 0, 2, 2, 40]));
        for wrong in [[22, 3, 3, 0, 122, 1, 0], [22, 3, 3, 0xff, 0, 2, 0], [23, 3, 3, 0, 122, 2, 0], *b"HTTP/1."] {
            assert!(!is_answer(&wrong), "{wrong:?}");
        }
        assert!(!is_answer(&[22, 3, 3, 0, 122, 2]));
    }
}
