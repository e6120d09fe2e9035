use std::fmt;
use std::net::Ipv4Addr;

use crate::ike::Identity;

const ID_IPV4_ADDR: u8 = 1;
const ID_FQDN: u8 = 2;
const ID_RFC822_ADDR: u8 = 3;
const ID_KEY_ID: u8 = 11;

/// The body of an IDi or IDr payload as it was on the wire: AUTH covers it byte for byte, the
/// reserved ones included (RFC 7296 2.15).
#[derive(Clone, PartialEq, Eq)]
pub struct IdBody {
    pub kind: u8,
    pub reserved: [u8; 3],
    pub data: Vec<u8>,
}

impl IdBody {
    pub fn new(identity: &Identity) -> IdBody {
        let (kind, data) = match identity {
            Identity::Ipv4(address) => (ID_IPV4_ADDR, address.octets().to_vec()),
            Identity::Fqdn(name) => (ID_FQDN, name.as_bytes().to_vec()),
            Identity::Email(name) => (ID_RFC822_ADDR, name.as_bytes().to_vec()),
            Identity::KeyId(bytes) => (ID_KEY_ID, bytes.clone()),
        };
        IdBody { kind, reserved: [0; 3], data }
    }

    /// `None` for the types that no configuration can name (certificates' names, IPv6), and for
    /// names that are not UTF-8.
    pub fn identity(&self) -> Option<Identity> {
        match self.kind {
            ID_IPV4_ADDR => <[u8; 4]>::try_from(self.data.as_slice()).ok().map(Ipv4Addr::from).map(Identity::Ipv4),
            ID_FQDN => String::from_utf8(self.data.clone()).ok().map(Identity::Fqdn),
            ID_RFC822_ADDR => String::from_utf8(self.data.clone()).ok().map(Identity::Email),
            ID_KEY_ID => Some(Identity::KeyId(self.data.clone())),
            _ => None,
        }
    }

    /// For messages to the operator: an identity of any type, as bytes where nothing fits better.
    pub fn any_identity(&self) -> Identity {
        self.identity().unwrap_or_else(|| Identity::KeyId(self.data.clone()))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.data.len());
        bytes.push(self.kind);
        bytes.extend_from_slice(&self.reserved);
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

impl fmt::Debug for IdBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            Some(identity) => write!(f, "{identity}"),
            None => write!(f, "type {} {}", self.kind, self.data.escape_ascii()),
        }
    }
}
