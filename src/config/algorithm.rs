//! The names of algorithms in profiles, as this project, the seeds and vendors write them.

use super::source::At;
use super::table::Value;
use super::wording::{self, Complaint};
use crate::crypto::{DhGroup, Encryption, Integrity, PrfAlgorithm};

/// What a profile says of one kind of algorithm.
#[derive(Clone)]
pub enum Choice<T> {
    /// Whatever is supported and strong enough, best first.
    Automatic,
    These(Vec<At<T>>),
}

impl<T: Algorithm> Choice<T> {
    /// `"automatic"`, one name, or a list of names in order of preference.
    pub fn read(value: &Value<'_>) -> Choice<T> {
        if value.is_text("automatic") {
            return Choice::Automatic;
        }
        let items = value.items(T::ALL.len());
        if items.is_empty() {
            value.error(format!("{} is empty", value.name), r#"at least one, or "automatic""#);
        }
        let mut chosen: Vec<At<T>> = Vec::new();
        for item in items {
            let Some(algorithm) = T::read(&item) else { continue };
            if chosen.iter().any(|earlier| earlier.value == algorithm) {
                item.error(format!("{} {} is listed twice", T::KIND, algorithm.shown()), "");
            } else if !algorithm.is_supported() {
                item.error(
                    format!("{} {} is not yet supported by this build", T::KIND, algorithm.shown()),
                    format!("supported: {}", shown_list(T::ALL.iter().filter(|one| one.is_supported()))),
                );
            }
            chosen.push(item.at(algorithm));
        }
        Choice::These(chosen)
    }

    /// The algorithms to offer, in order; `automatic` takes those of its kind that `fits` admits.
    pub fn resolve(&self, fits: impl Fn(T) -> bool) -> Vec<T> {
        match self {
            Choice::Automatic => {
                let strong = T::ALL.iter().copied().filter(|one| one.is_supported() && one.is_strong());
                strong.filter(|one| fits(*one)).collect()
            }
            Choice::These(these) => these.iter().map(|one| one.value).collect(),
        }
    }

    pub fn these(&self) -> &[At<T>] {
        match self {
            Choice::Automatic => &[],
            Choice::These(these) => these,
        }
    }
}

/// One kind of algorithm that profiles choose from.
pub trait Algorithm: Copy + PartialEq + 'static {
    const ALL: &'static [Self];
    /// How messages call the kind.
    const KIND: &'static str;

    fn read(value: &Value<'_>) -> Option<Self>;
    fn shown(self) -> String;
    fn is_supported(self) -> bool;
    /// Good enough for `automatic`: neither MUST NOT, SHOULD NOT nor MUST- in RFC 8247.
    fn is_strong(self) -> bool;
}

impl Algorithm for Encryption {
    const ALL: &'static [Encryption] = Encryption::ALL;
    const KIND: &'static str = "encryption algorithm";

    fn read(value: &Value<'_>) -> Option<Encryption> {
        value.parse(|text| named(text, Self::ALL, Self::KIND, encryption))
    }

    fn shown(self) -> String {
        self.name().to_string()
    }

    fn is_supported(self) -> bool {
        Encryption::SUPPORTED.contains(&self)
    }

    fn is_strong(self) -> bool {
        true
    }
}

impl Algorithm for Integrity {
    const ALL: &'static [Integrity] = Integrity::ALL;
    const KIND: &'static str = "integrity algorithm";

    fn read(value: &Value<'_>) -> Option<Integrity> {
        value.parse(|text| named(text, Self::ALL, Self::KIND, integrity))
    }

    fn shown(self) -> String {
        self.name().to_string()
    }

    fn is_supported(self) -> bool {
        Integrity::SUPPORTED.contains(&self)
    }

    fn is_strong(self) -> bool {
        self != Integrity::Sha1
    }
}

impl Algorithm for PrfAlgorithm {
    const ALL: &'static [PrfAlgorithm] = PrfAlgorithm::ALL;
    const KIND: &'static str = "pseudo-random function";

    fn read(value: &Value<'_>) -> Option<PrfAlgorithm> {
        value.parse(|text| named(text, Self::ALL, Self::KIND, prf))
    }

    fn shown(self) -> String {
        self.name().to_string()
    }

    fn is_supported(self) -> bool {
        PrfAlgorithm::SUPPORTED.contains(&self)
    }

    fn is_strong(self) -> bool {
        self != PrfAlgorithm::Sha1
    }
}

impl Algorithm for DhGroup {
    const ALL: &'static [DhGroup] = DhGroup::ALL;
    const KIND: &'static str = "Diffie-Hellman group";

    fn read(value: &Value<'_>) -> Option<DhGroup> {
        let number: u16 = value.number(1..=i64::from(u16::MAX), "")?;
        let group = Self::ALL.iter().find(|group| group.number() == number).copied();
        if group.is_none() {
            value.error(
                format!("unknown {} {number}", Self::KIND),
                wording::known(Self::ALL.iter().map(|one| one.shown())),
            );
        }
        group
    }

    fn shown(self) -> String {
        self.to_string()
    }

    fn is_supported(self) -> bool {
        DhGroup::SUPPORTED.contains(&self)
    }

    fn is_strong(self) -> bool {
        !matches!(self, DhGroup::Modp1024 | DhGroup::Modp1536)
    }
}

fn shown_list<'a, T: Algorithm>(algorithms: impl Iterator<Item = &'a T>) -> String {
    let shown: Vec<String> = algorithms.map(|one| one.shown()).collect();
    if shown.is_empty() { "none".to_string() } else { shown.join(", ") }
}

fn named<T: Algorithm>(text: &str, all: &[T], kind: &str, spelling: fn(&str) -> Option<T>) -> Result<T, Complaint> {
    // `AES256_GCM`, `AES-GCM-256` and `aes-gcm-256` are the same name.
    let letters: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    spelling(&letters).ok_or_else(|| Complaint {
        what: format!("unknown {kind} {}", wording::quoted(text)),
        instead: wording::known(all.iter().map(|one| one.shown())),
    })
}

fn encryption(letters: &str) -> Option<Encryption> {
    match letters {
        "aesgcm256" | "aes256gcm" | "aes256gcm16" => Some(Encryption::AesGcm256),
        "aesgcm128" | "aes128gcm" | "aes128gcm16" => Some(Encryption::AesGcm128),
        "chacha20poly1305" => Some(Encryption::ChaCha20Poly1305),
        "aescbc256" | "aes256cbc" => Some(Encryption::AesCbc256),
        "aescbc128" | "aes128cbc" => Some(Encryption::AesCbc128),
        _ => None,
    }
}

fn integrity(letters: &str) -> Option<Integrity> {
    match letters {
        "sha1" => Some(Integrity::Sha1),
        "sha2256" | "sha256" => Some(Integrity::Sha256),
        "sha2384" | "sha384" => Some(Integrity::Sha384),
        "sha2512" | "sha512" => Some(Integrity::Sha512),
        _ => None,
    }
}

fn prf(letters: &str) -> Option<PrfAlgorithm> {
    match letters.strip_prefix("prf").unwrap_or(letters) {
        "sha1" => Some(PrfAlgorithm::Sha1),
        "sha2256" | "sha256" => Some(PrfAlgorithm::Sha256),
        "sha2384" | "sha384" => Some(PrfAlgorithm::Sha384),
        "sha2512" | "sha512" => Some(PrfAlgorithm::Sha512),
        _ => None,
    }
}
