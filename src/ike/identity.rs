use std::fmt;
use std::net::Ipv4Addr;

/// An IKE identity (RFC 7296 3.5), in the forms that the seeds name: IPv4, FQDN, email, KEY_ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    Ipv4(Ipv4Addr),
    Fqdn(String),
    Email(String),
    KeyId(Vec<u8>),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Ipv4(address) => write!(f, "{address}"),
            Identity::Fqdn(name) | Identity::Email(name) => write!(f, "{}", name.escape_default()),
            Identity::KeyId(bytes) => write!(f, "keyid:{}", bytes.escape_ascii()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
