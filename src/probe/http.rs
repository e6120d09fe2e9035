use super::{Heard, Refusal};

/// "HTTP/1.1 200": as much of an answer as is looked at.
const STATUS_LINE: usize = 12;
/// Of interim answers so much is passed over: more hints than any server gives.
const MOST_INTERIM: usize = 16_384;

/// A request, and what has come of its answer.
#[derive(Debug)]
pub(super) struct Http {
    request: Vec<u8>,
    wanted: Option<u16>,
    head: Vec<u8>,
    interim: Option<Line>,
    /// Of interim answers, after their status.
    passed_over: usize,
}

/// In the rest of an interim answer: the end of its status line, and its fields.
#[derive(Debug)]
enum Line {
    Empty,
    Filled,
}

impl Http {
    pub fn new(host: &str, path: &str, wanted: Option<u16>) -> Http {
        let head = Vec::with_capacity(STATUS_LINE);
        Http { request: request(host, path), wanted, head, interim: None, passed_over: 0 }
    }

    /// In one segment or record.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    pub fn hear(&mut self, mut bytes: &[u8]) -> Heard {
        loop {
            if self.interim.is_some() {
                let Some(after) = self.pass_over(bytes) else {
                    return if self.passed_over > MOST_INTERIM { Heard::Malformed } else { Heard::Part };
                };
                bytes = after;
            }
            let (head, after) = bytes.split_at(bytes.len().min(STATUS_LINE - self.head.len()));
            self.head.extend(head);
            bytes = after;
            if self.head.len() < STATUS_LINE {
                return Heard::Part;
            }
            match status(&self.head) {
                None => return Heard::Malformed,
                Some(told) if self.wanted == Some(told) => return Heard::Answered,
                // RFC 9110 15.2: the answer comes after it. 101 is the last that is HTTP.
                Some(100 | 102..200) => {
                    self.head.clear();
                    self.interim = Some(Line::Filled);
                }
                Some(_) if self.wanted.is_none() => return Heard::Answered,
                Some(told) => return Heard::Refused(Refusal::Status(told)),
            }
        }
    }

    /// What comes after an interim answer, once its end is there: an empty line, also where LF alone ends lines
    /// (RFC 9112 2.2).
    fn pass_over<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first().filter(|_| self.passed_over <= MOST_INTERIM) {
            (rest, self.passed_over) = (after, self.passed_over + 1);
            match (byte, &self.interim) {
                (b'\n', Some(Line::Empty)) => {
                    self.interim = None;
                    return Some(rest);
                }
                (b'\n', _) => self.interim = Some(Line::Empty),
                (b'\r', _) => {}
                _ => self.interim = Some(Line::Filled),
            }
        }
        None
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
    fn interim_answers_are_passed_over_however_they_are_cut() {
        let hints = "HTTP/1.1 100\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>;\r\n b\r\nX: y\r\n\r\n";
        for (last, wanted, expected) in [
            ("200 OK", None, Heard::Answered),
            ("204 None", Some(204), Heard::Answered),
            ("503 No", Some(200), Heard::Refused(Refusal::Status(503))),
            ("101 Other", Some(200), Heard::Refused(Refusal::Status(101))),
        ] {
            for hints in [hints.to_owned(), hints.replace('\r', "")] {
                let told = format!("{hints}HTTP/1.1 {last}\r\n\r\n");
                for size in 1..=told.len() {
                    let mut http = Http::new("a.example", "/", wanted);
                    let heard =
                        told.as_bytes().chunks(size).map(|part| http.hear(part)).find(|one| *one != Heard::Part);
                    assert_eq!(heard, Some(expected), "{size} bytes at a time of {told:?}");
                }
            }
        }
        let mut http = Http::new("a.example", "/", Some(103));
        assert_eq!(http.hear(hints.as_bytes()), Heard::Answered, "who wants it gets it");
    }

    #[test]
    fn a_server_that_gives_hints_without_end_is_no_http() {
        for more in ["X: y\r\n", "HTTP/1.1 103 \r\n\r\n"] {
            let mut http = Http::new("a.example", "/", None);
            assert_eq!(http.hear(b"HTTP/1.1 103 \r\n"), Heard::Part);
            let heard: Vec<Heard> = (0..20_000).map(|_| http.hear(more.as_bytes())).collect();
            assert_eq!((heard[1], heard[19_999]), (Heard::Part, Heard::Malformed), "{more:?}");
        }
    }

    #[test]
    fn the_longest_request_fits_into_the_smallest_segment() {
        let longest = "h".repeat(200);
        assert!(request(&longest, &longest).len() <= 536);
    }
}
