use super::{Heard, Refusal};

/// "HTTP/1.1 200": as much of an answer as is looked at.
const STATUS_LINE: usize = 12;

/// A request, and what has come of its answer.
#[derive(Debug)]
pub(super) struct Http {
    request: Vec<u8>,
    wanted: Option<u16>,
    head: Vec<u8>,
}

impl Http {
    pub fn new(host: &str, path: &str, wanted: Option<u16>) -> Http {
        Http { request: request(host, path), wanted, head: Vec::with_capacity(STATUS_LINE) }
    }

    /// In one segment or record.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        self.head.extend(bytes.iter().take(STATUS_LINE - self.head.len()));
        if self.head.len() < STATUS_LINE {
            return Heard::Part;
        }
        match status(&self.head) {
            None => Heard::Malformed,
            Some(told) if self.wanted.is_none_or(|wanted| wanted == told) => Heard::Answered,
            Some(told) => Heard::Refused(Refusal::Status(told)),
        }
    }
}

/// A request that every server takes and that ends the connection by itself (RFC 9112 3, 9.6).
fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: trefoil\r\nAccept: */*\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

/// The status code of an answer that begins so (RFC 9112 4); `None` when it is none.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.first_chunk::<STATUS_LINE>()?;
    let (version, code) = line.split_at(9);
    let of_version = version.starts_with(b"HTTP/1.") && version[7].is_ascii_digit() && version[8] == b' ';
    let code = std::str::from_utf8(code).ok()?;
    let code: u16 = code.parse().ok().filter(|_| code.bytes().all(|digit| digit.is_ascii_digit()))?;
    (of_version && (100..600).contains(&code)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_is_one() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for wrong in
            [&b"HTTP/1.1 20"[..], b"HTTP/1.1 2x0", b"HTTP/2.0 200", b"HTTP/1.1 099", b"SSH-2.0-abcd", b"HTTP/1.1 +20"]
        {
            assert_eq!(status(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn the_longest_request_fits_into_the_smallest_segment() {
        let longest = "h".repeat(200);
        assert!(request(&longest, &longest).len() <= 536);
    }
}
