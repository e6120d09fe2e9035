use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::http::Http;
use super::{Heard, Refusal};

/// Record header (RFC 8446 5.1), and the first two bytes behind it.
const RECORD_HEAD: usize = 7;

static CONFIG: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
    let mut config = ClientConfig::builder_with_details(Arc::new(aws_lc_rs::default_provider()), Arc::new(NoTime))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(aws_lc_rs::default_provider())))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Some(Arc::new(config))
});

/// A ClientHello, which a ServerHello or an alert answers.
#[derive(Debug)]
pub(super) struct Hello {
    bytes: Vec<u8>,
    head: Vec<u8>,
}

/// A handshake, and a request over what it makes.
#[derive(Debug)]
pub(super) struct Https {
    connection: ClientConnection,
    http: Http,
    asked: bool,
}

impl Hello {
    pub fn new(name: Option<&str>, address: IpAddr) -> Option<Hello> {
        let bytes = written(&mut connection(name, address)?);
        Some(Hello { bytes, head: Vec::with_capacity(RECORD_HEAD) })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        self.head.extend(bytes.iter().take(RECORD_HEAD - self.head.len()));
        match self.head.first_chunk() {
            None => Heard::Part,
            Some(head) if is_answer(head) => Heard::Answered,
            Some(_) => Heard::Malformed,
        }
    }
}

impl Https {
    /// `host` as in a URL, with a port or without.
    pub fn new(host: &str, address: IpAddr, http: Http) -> Option<Https> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        Some(Https { connection: connection(Some(name), address)?, http, asked: false })
    }

    /// What is to be sent now.
    pub fn say(&mut self) -> Vec<u8> {
        written(&mut self.connection)
    }

    /// Takes the next bytes of the server's stream.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Heard {
        while !bytes.is_empty() {
            if !self.connection.read_tls(&mut bytes).is_ok_and(|read| read > 0) {
                return Heard::Malformed;
            }
            match self.connection.process_new_packets() {
                Ok(_) => {}
                Err(Error::AlertReceived(alert)) => return Heard::Refused(Refusal::Alert(alert.into())),
                Err(_) => return Heard::Malformed,
            }
            let mut text = [0; 64];
            while let Ok(length @ 1..) = self.connection.reader().read(&mut text) {
                match self.http.hear(text.get(..length).unwrap_or_default()) {
                    Heard::Part => {}
                    told => return told,
                }
            }
        }
        if !self.asked && !self.connection.is_handshaking() {
            self.asked = true;
            if self.connection.writer().write_all(self.http.request()).is_err() {
                return Heard::Malformed;
            }
        }
        Heard::Part
    }
}

/// To whom has no name in DNS, none is sent (RFC 6066 3).
fn connection(name: Option<&str>, address: IpAddr) -> Option<ClientConnection> {
    let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    ClientConnection::new(CONFIG.clone()?, name.unwrap_or(ServerName::IpAddress(address.into()))).ok()
}

fn written(connection: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() && connection.write_tls(&mut bytes).is_ok() {}
    bytes
}

/// Does an answer begin with a ServerHello, or with an alert, in a TLS record?
fn is_answer(head: &[u8; RECORD_HEAD]) -> bool {
    let length = u16::from_be_bytes([head[3], head[4]]);
    match head[0] {
        // ServerHello is handshake message 2 (RFC 8446 4), shorter than 65,536 bytes.
        22 => head[1] == 3 && (4..=16_384).contains(&length) && head[5] == 2 && head[6] == 0,
        // A warning or a fatal one (RFC 8446 6).
        21 => head[1] == 3 && length == 2 && matches!(head[5], 1 | 2),
        _ => false,
    }
}

/// A probe asks whether a service answers over a path. Who it is it leaves to those who talk to it: a certificate
/// that has run out is no fault of the path's.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Only certificates and tickets have a time, and neither is looked at.
#[derive(Debug)]
struct NoTime;

impl TimeProvider for NoTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_fits_into_the_smallest_segment_and_names_only_what_has_a_name() {
        let address = "10.9.0.1".parse().unwrap();
        let longest = ["a".repeat(62), "b".repeat(62), "c".repeat(62), "d".repeat(62)].join(".");
        for name in [None, Some("10.9.0.1"), Some("a.example"), Some(longest.as_str())] {
            let hello = Hello::new(name, address).unwrap();
            let named = name.filter(|name| !name.starts_with("10."));
            assert!(hello.bytes().len() <= 536, "{} bytes", hello.bytes().len());
            assert_eq!(hello.bytes()[..3], [22, 3, 1]);
            let shows = |text: &str| hello.bytes().windows(text.len()).any(|bytes| bytes == text.as_bytes());
            assert!(named.is_none_or(shows) && !shows("10.9.0.1"), "{name:?}");
        }
    }

    #[test]
    fn a_server_hello_or_an_alert_is_an_answer_and_nothing_else() {
        assert!(is_answer(&[22, 3, 3, 0, 122, 2, 0]));
        assert!(is_answer(&[21, 3, 3, 0, 2, 2, 40]));
        for wrong in [[22, 3, 3, 0, 122, 1, 0], [22, 3, 3, 0xff, 0, 2, 0], [23, 3, 3, 0, 122, 2, 0], *b"HTTP/1."] {
            assert!(!is_answer(&wrong), "{wrong:?}");
        }
    }
}
