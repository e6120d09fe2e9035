//! Text that stands for a value: names, durations, networks, identities and the like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::wording::{Complaint, complain, known, quoted};
use crate::edge::{Destination, LabelledRange};
use crate::health::Sensitivity;
use crate::ike::Identity;
use crate::model::{Dscp, TrafficSelector, protocol};

/// RFC 1035 2.3.4.
const FQDN_MAX: usize = 253;
const FQDN_LABEL_MAX: usize = 63;
/// Names stand in logs, metrics and tables.
const NAME_MAX: usize = 63;
/// RFC 7296 sets no limit; 255 bytes is what peers are known to take.
const IDENTITY_MAX: usize = 255;
const TEXT_MAX: usize = 256;

/// A name for something of ours: it appears in logs, metrics, file names and commands.
pub fn name(text: &str) -> Result<String, Complaint> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let starts = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if starts && text.chars().all(safe) && text.len() <= NAME_MAX {
        return Ok(text.to_string());
    }
    complain(
        format!("{} is not a name", quoted(text)),
        format!("1 to {NAME_MAX} letters, digits, '.', '_' and '-', beginning with a letter or digit"),
    )
}

/// What a test says of a flow that no rule matches.
pub const NO_RULE: &str = "none";

/// The name of a rule: a test can tell it from none.
pub fn rule(text: &str) -> Result<String, Complaint> {
    if text == NO_RULE {
        return complain("a rule called \"none\"", "another name: a test says \"none\" of a flow that no rule matches");
    }
    name(text)
}

/// How nervously a path is watched.
pub fn sensitivity(text: &str) -> Result<Sensitivity, Complaint> {
    match Sensitivity::ALL.into_iter().find(|one| one.name() == text) {
        Some(sensitivity) => Ok(sensitivity),
        None => {
            complain(format!("unknown sensitivity {}", quoted(text)), known(Sensitivity::ALL.map(Sensitivity::name)))
        }
    }
}

/// Free text for people.
pub fn free_text(text: &str) -> Result<String, Complaint> {
    if text.chars().any(char::is_control) {
        return complain(format!("{} contains control characters", quoted(text)), "plain text on one line");
    }
    if text.chars().count() > TEXT_MAX {
        return complain(format!("{} is too long", quoted(text)), format!("at most {TEXT_MAX} characters"));
    }
    Ok(text.to_string())
}

/// The name of a Linux network device. In `%d` the kernel would put a number of its own, and `all`
/// and `default` are its settings for every device.
pub fn interface(text: &str) -> Result<String, Complaint> {
    let safe = |c: char| c.is_ascii_graphic() && !"/:%\"*\\".contains(c);
    let reserved = [".", "..", "all", "default"];
    if !text.is_empty() && text.len() <= 15 && text.chars().all(safe) && !reserved.contains(&text) {
        return Ok(text.to_string());
    }
    complain(format!("{} is not an interface name", quoted(text)), "1 to 15 characters, such as eth1")
}

/// The name of a host, or with `*.` in front all names below it.
pub fn name_pattern(text: &str) -> Result<String, Complaint> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(known)
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(text.to_ascii_lowercase());
    }
    complain(
        format!("{} is not a name", quoted(text)),
        "such as \"www.example.com\", or \"*.example.com\" for all below",
    )
}

/// `"500ms"`, `"60s"`, `"5m"`, `"4h"`, `"1d"`, in this range.
pub fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Complaint> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            return complain(
                format!("{} is not a duration", quoted(text)),
                "a whole number with ms, s, m, h or d, such as \"90s\"",
            );
        }
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds_per_unit));
    match milliseconds.map(Duration::from_millis) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => complain(
            format!("{} is out of range", quoted(text)),
            format!("{} to {}", duration_text(*range.start()), duration_text(*range.end())),
        ),
    }
}

/// In the largest unit that divides it: `90s`, `4h`.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let unit = units.iter().find(|(size, _)| milliseconds >= *size && milliseconds.is_multiple_of(*size));
    match unit {
        Some((size, unit)) => format!("{}{unit}", milliseconds / size),
        None if milliseconds == 0 => "0s".to_string(),
        None => format!("{milliseconds}ms"),
    }
}

/// A network, or an address for itself alone.
pub fn network(text: &str) -> Result<IpNet, Complaint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    match text.parse::<IpNet>() {
        Ok(network) if network.addr() == network.network() => Ok(network),
        Ok(network) => complain(
            format!("{} is not a network address: bits are set behind the prefix", quoted(text)),
            format!("\"{}\"", network.trunc()),
        ),
        Err(_) => complain(format!("{} is not a network", quoted(text)), "such as \"10.20.0.0/16\""),
    }
}

/// `label:range`, as the seeds write network ranges.
pub fn labelled_range(text: &str) -> Result<LabelledRange, Complaint> {
    let label_missing = text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok();
    match text.split_once(':') {
        Some((label, range)) if !label_missing => {
            Ok(LabelledRange { label: name(label.trim())?, range: network(range.trim())? })
        }
        _ => complain(
            format!("{} is not a labelled range", quoted(text)),
            format!("label:range, such as \"hq:{}\"", if label_missing { text } else { "10.0.0.0/8" }),
        ),
    }
}

/// An address of ours with the prefix of its network; alone it is a network of one.
pub fn address_with_prefix(text: &str) -> Result<IpNet, Complaint> {
    let usable = |address: IpAddr| !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(network) = parsed else {
        return complain(format!("{} is not an address with a prefix", quoted(text)), "such as \"169.254.10.2/30\"");
    };
    let is_v4 = network.addr().is_ipv4();
    // RFC 3021: in a /31 both addresses are a host's.
    let has_edges = is_v4 && network.prefix_len() < 31;
    let on_edge = has_edges && (network.addr() == network.network() || network.addr() == network.broadcast());
    if network.prefix_len() == 0 || on_edge || !usable(network.addr()) {
        return complain(
            format!("{} is not the address of a host", quoted(text)),
            "an address within its network, such as \"169.254.10.2/30\"",
        );
    }
    Ok(network)
}

pub fn host(text: &str) -> Result<IpAddr, Complaint> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => complain(format!("{} is not the address of a host", quoted(text)), "such as \"10.254.254.1\""),
    }
}

pub fn ipv4_host(text: &str) -> Result<Ipv4Addr, Complaint> {
    match host(text) {
        Ok(IpAddr::V4(address)) if !address.is_broadcast() => Ok(address),
        Ok(IpAddr::V6(_)) => {
            complain(format!("{} is an IPv6 address", quoted(text)), "the underlay is IPv4, such as \"192.0.2.10\"")
        }
        _ => complain(format!("{} is not an IPv4 address", quoted(text)), "such as \"192.0.2.10\""),
    }
}

/// A fully qualified domain name, in lower case and without the final dot.
pub fn fqdn(text: &str) -> Result<String, Complaint> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label_is_good = |label: &str| {
        let safe = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        safe && (1..=FQDN_LABEL_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let looks_numeric = name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    if name.len() <= FQDN_MAX && name.split('.').all(label_is_good) && !looks_numeric {
        return Ok(name);
    }
    complain(format!("{} is not a host name", quoted(text)), "such as \"pop.example.net\"")
}

pub fn destination(text: &str) -> Result<Destination, Complaint> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return complain(
            format!("{} is an IPv6 address, and tunnels run over IPv4", quoted(text)),
            "an IPv4 address or a name",
        );
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return ipv4_host(text).map(Destination::Ipv4);
    }
    fqdn(text).map(Destination::Fqdn).map_err(|complaint| Complaint {
        what: complaint.what.replace("is not a host name", "is neither an IPv4 address nor a host name"),
        instead: "such as \"pop.example.net\" or \"198.51.100.1\"".to_string(),
    })
}

/// `ipv4:`, `fqdn:`, `email:` or `keyid:` and the identity, or the identity alone where its form
/// tells its type.
pub fn identity(text: &str) -> Result<Identity, Complaint> {
    if text.len() > IDENTITY_MAX {
        return complain(format!("{} is too long", quoted(text)), format!("at most {IDENTITY_MAX} bytes"));
    }
    match text.split_once(':') {
        Some(("ipv4", rest)) => ipv4_host(rest).map(Identity::Ipv4),
        Some(("fqdn", rest)) => identity_fqdn(rest),
        Some(("email", rest)) => identity_email(rest),
        Some(("keyid", "")) => complain("the KEY_ID is empty", "such as \"keyid:branch-1\""),
        Some(("keyid", rest)) => Ok(Identity::KeyId(rest.as_bytes().to_vec())),
        Some(_) => complain(
            format!("{} has no known identity type", quoted(text)),
            "ipv4:, fqdn:, email: or keyid: and the identity",
        ),
        None if text.parse::<Ipv4Addr>().is_ok() => ipv4_host(text).map(Identity::Ipv4),
        None if text.contains('@') => identity_email(text),
        None => identity_fqdn(text),
    }
}

/// An FQDN identity is only compared, never resolved, so one label is enough, and its case stays.
fn identity_fqdn(text: &str) -> Result<Identity, Complaint> {
    match fqdn(text) {
        Ok(_) => Ok(Identity::Fqdn(text.to_string())),
        Err(_) => complain(
            format!("{} is not an FQDN", quoted(text)),
            "such as \"branch1.example\"; for other text use \"keyid:...\"",
        ),
    }
}

fn identity_email(text: &str) -> Result<Identity, Complaint> {
    let parts = text.split_once('@');
    let clean = text.chars().all(|c| c.is_ascii_graphic());
    match parts {
        Some((user, domain)) if !user.is_empty() && clean && fqdn(domain).is_ok() => {
            Ok(Identity::Email(text.to_string()))
        }
        _ => complain(format!("{} is not an email address", quoted(text)), "such as \"branch1@example.com\""),
    }
}

/// A network, an address, a range `first-last`, or `any` (all of IPv4).
pub fn selector(text: &str) -> Result<TrafficSelector, Complaint> {
    if text == "any" {
        return Ok(TrafficSelector::ANY_IPV4);
    }
    if let Some((first, last)) = text.split_once('-') {
        let ends = (first.trim().parse::<IpAddr>(), last.trim().parse::<IpAddr>());
        let selector = match ends {
            (Ok(first), Ok(last)) => TrafficSelector::new(0, (0, u16::MAX), first, last),
            _ => None,
        };
        return selector.map_or_else(
            || complain(format!("{} is not a range of addresses", quoted(text)), "such as \"10.0.0.1-10.0.0.9\""),
            Ok,
        );
    }
    network(text).map(TrafficSelector::of_network)
}

/// The name or number of a DSCP (RFC 2474, 2597, 3246, 5865, 8622).
pub fn dscp(text: &str) -> Result<Dscp, Complaint> {
    let lower = text.to_ascii_lowercase();
    let value = match lower.as_str() {
        "default" | "be" | "df" => Some(0),
        "le" => Some(1),
        "va" | "voice-admit" => Some(44),
        "ef" => Some(46),
        name => match name.as_bytes() {
            [b'c', b's', class @ b'0'..=b'7'] => Some((class - b'0') * 8),
            [b'a', b'f', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => Some((class - b'0') * 8 + (drop - b'0') * 2),
            _ => name.parse::<u8>().ok(),
        },
    };
    value.and_then(Dscp::new).map_or_else(
        || {
            complain(
                format!("{} is not a DSCP", quoted(text)),
                "ef, af11 to af43, cs0 to cs7, va, le, default, or 0 to 63",
            )
        },
        Ok,
    )
}

/// A code point, or `None` for `"copy"`.
pub fn outer_dscp(text: &str) -> Result<Option<Dscp>, Complaint> {
    if text == "copy" { Ok(None) } else { dscp(text).map(Some) }
}

pub fn ip_protocol(text: &str) -> Result<u8, Complaint> {
    let number = match text.to_ascii_lowercase().as_str() {
        "icmp" => Some(protocol::ICMP),
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        "gre" => Some(47),
        "esp" => Some(protocol::ESP),
        "ah" => Some(51),
        "icmpv6" => Some(protocol::ICMPV6),
        "sctp" => Some(132),
        other => other.parse::<u8>().ok(),
    };
    number.map_or_else(
        || {
            complain(
                format!("{} is not a protocol", quoted(text)),
                "tcp, udp, icmp, icmpv6, gre, esp, ah, sctp or 0 to 255",
            )
        },
        Ok,
    )
}

/// A port, or a range `first-last`.
pub fn ports(text: &str) -> Result<(u16, u16), Complaint> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => complain(format!("{} is not a port", quoted(text)), "0 to 65535, or a range such as \"5000-5100\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(result: Result<T, Complaint>) -> String {
        result.err().map(|complaint| format!("{} ({})", complaint.what, complaint.instead)).unwrap()
    }

    #[test]
    fn a_range_with_host_bits_is_told_its_network() {
        assert_eq!(
            refusal(network("10.0.0.1/8")),
            r#""10.0.0.1/8" is not a network address: bits are set behind the prefix ("10.0.0.0/8")"#
        );
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }

    #[test]
    fn identities_take_their_type_from_a_prefix_or_from_their_form() {
        assert_eq!(identity("fqdn:Branch1.example").unwrap(), Identity::Fqdn("Branch1.example".into()));
        assert_eq!(identity("branch1").unwrap(), Identity::Fqdn("branch1".into()));
        assert_eq!(identity("a@example.com").unwrap(), Identity::Email("a@example.com".into()));
        assert_eq!(identity("192.0.2.1").unwrap(), Identity::Ipv4(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(identity("keyid:a b:c").unwrap(), Identity::KeyId(b"a b:c".to_vec()));
        assert!(refusal(identity("x509:CN=a")).contains("ipv4:, fqdn:, email: or keyid:"));
        assert!(identity("two words").is_err());
        assert!(identity("keyid:").is_err());
        assert!(identity("@example.com").is_err());
    }

    #[test]
    fn dscp_names_are_those_of_the_rfcs() {
        let value = |text| dscp(text).unwrap().value();
        assert_eq!((value("ef"), value("AF41"), value("af13"), value("cs1"), value("le")), (46, 34, 14, 8, 1));
        assert_eq!((value("63"), value("cs0"), value("default")), (63, 0, 0));
        assert!(dscp("64").is_err() && dscp("af44").is_err() && dscp("cs8").is_err());
        assert!(refusal(dscp("af44")).contains("default"));
        // What is told of a code point is what may be written.
        for point in (0..64).filter_map(Dscp::new) {
            assert_eq!(dscp(&point.to_string()).unwrap(), point);
        }
        let told = |value| Dscp::new(value).unwrap().to_string();
        assert_eq!([0, 8, 34, 46, 63].map(told), ["default", "cs1", "af41", "ef", "63"]);
    }

    #[test]
    fn durations_have_a_unit_and_a_range() {
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        assert_eq!(duration("1m", range.clone()).unwrap(), Duration::from_secs(60));
        assert_eq!(refusal(duration("99ms", range.clone())), r#""99ms" is out of range (100ms to 1m)"#);
        assert!(refusal(duration("10", range.clone())).contains("is not a duration"));
        assert!(duration("99999999999999999999d", range.clone()).is_err());
        assert!(duration("", range).is_err());
    }

    #[test]
    fn a_network_range_needs_its_label() {
        let range = labelled_range("hq:10.0.0.0/8").unwrap();
        assert_eq!((range.label.as_str(), range.range.to_string().as_str()), ("hq", "10.0.0.0/8"));
        assert_eq!(labelled_range("v6:2001:db8::/32").unwrap().range.to_string(), "2001:db8::/32");
        assert!(refusal(labelled_range("2001:db8::/32")).contains("hq:2001:db8::/32"));
        assert!(refusal(labelled_range("hq:10.0.0.1/8")).contains("10.0.0.0/8"));
    }

    #[test]
    fn destinations_are_names_or_ipv4_addresses() {
        assert_eq!(destination("PoP.Example.net.").unwrap(), Destination::Fqdn("pop.example.net".into()));
        assert!(refusal(destination("2001:db8::1")).contains("IPv6"));
        assert!(destination("256.1.1.1").is_err());
        assert!(destination("0.0.0.0").is_err());
        assert!(destination("").is_err());
    }

    #[test]
    fn private_addresses_are_hosts_within_their_network() {
        assert!(address_with_prefix("169.254.10.2/30").is_ok());
        assert!(address_with_prefix("169.254.10.0/31").is_ok());
        assert!(address_with_prefix("169.254.10.0/30").is_err());
        assert!(address_with_prefix("169.254.10.3/30").is_err());
        assert!(address_with_prefix("169.254.10.3/0").is_err());
    }
}
