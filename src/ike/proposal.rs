use std::fmt;

use super::wire::{Proposal, Transform, protocol_id, transform_type};
use super::{Phase1, Phase2};
use crate::crypto::{DhGroup, Encryption, Integrity, PacketSuite, PrfAlgorithm};

/// Transform ID 0: no integrity algorithm, no key exchange, no extended sequence numbers.
const NONE: u16 = 0;

/// What an IKE SA uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeSuite {
    pub encryption: Encryption,
    pub prf: PrfAlgorithm,
    pub group: DhGroup,
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, prf {}, group {}", self.encryption.name(), self.prf.name(), self.group)
    }
}

/// What a Child SA uses; a group only where it was rekeyed with a key exchange of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildSuite {
    pub encryption: Encryption,
    pub group: Option<DhGroup>,
}

/// Which key exchange a Child SA negotiation may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyExchangeRule {
    /// IKE_AUTH: none of its own (RFC 7296 1.2).
    Never,
    /// CREATE_CHILD_SA: as the profile says; with the group of the KE payload, if there is one.
    ByProfile { offered: Option<u16> },
}

/// What we offer for an IKE SA. Without a supported algorithm of each kind the list is empty.
/// AEAD and other ciphers may not share a proposal (RFC 5282 8); only AEADs are supported so far.
pub fn offer_ike(phase1: &Phase1, spi: &[u8]) -> Vec<Proposal> {
    let mut transforms = Vec::new();
    transforms.extend(aeads(&phase1.encryption).map(encryption_transform));
    transforms.extend(prfs(phase1).map(prf_transform));
    transforms.extend(groups(&phase1.groups).map(group_transform));
    let complete = [transform_type::ENCRYPTION, transform_type::PRF, transform_type::KEY_EXCHANGE]
        .iter()
        .all(|kind| transforms.iter().any(|transform| transform.kind == *kind));
    if !complete {
        return Vec::new();
    }
    vec![Proposal { number: 1, protocol: protocol_id::IKE, spi: spi.to_vec(), transforms }]
}

/// What we offer for a Child SA; with groups in a CREATE_CHILD_SA of a profile that has some.
pub fn offer_child(phase2: &Phase2, spi: u32, with_groups: bool) -> Vec<Proposal> {
    let mut transforms = Vec::new();
    transforms.extend(aeads(&phase2.encryption).map(encryption_transform));
    if transforms.is_empty() {
        return Vec::new();
    }
    if with_groups {
        transforms.extend(groups(&phase2.groups).map(group_transform));
    }
    transforms.push(Transform::new(transform_type::ESN, NONE));
    vec![Proposal { number: 1, protocol: protocol_id::ESP, spi: spi.to_be_bytes().to_vec(), transforms }]
}

/// The first group of ours that is supported.
pub fn first_group(configured: &[DhGroup]) -> Option<DhGroup> {
    groups(configured).next()
}

/// The group with this number, if it is one of ours.
pub fn our_group(configured: &[DhGroup], number: u16) -> Option<DhGroup> {
    groups(configured).find(|group| group.number() == number)
}

/// Chooses among the peer's proposals for an IKE SA, in the peer's order of proposals and our
/// order of algorithms; the group that the peer has sent a value for wins if it is ours, which
/// saves a round trip. Gives the suite, and the chosen proposal to answer with, our `spi` in it.
pub fn choose_ike(
    phase1: &Phase1,
    proposals: &[Proposal],
    offered_group: u16,
    spi: &[u8],
) -> Option<(IkeSuite, Proposal)> {
    proposals.iter().find_map(|proposal| {
        let known =
            [transform_type::ENCRYPTION, transform_type::PRF, transform_type::INTEGRITY, transform_type::KEY_EXCHANGE];
        if proposal.protocol != protocol_id::IKE || !only_kinds(proposal, &known) {
            return None;
        }
        let encryption = aeads(&phase1.encryption).find(|one| has(proposal, encryption_transform(*one)))?;
        let prf = prfs(phase1).find(|one| has(proposal, prf_transform(*one)))?;
        let group = pick_group(&phase1.groups, proposal, Some(offered_group))?;
        let mut transforms = vec![encryption_transform(encryption), prf_transform(prf), group_transform(group)];
        transforms.extend(no_integrity(proposal)?);
        let answer = Proposal { number: proposal.number, protocol: protocol_id::IKE, spi: spi.to_vec(), transforms };
        Some((IkeSuite { encryption, prf, group }, answer))
    })
}

/// Chooses among the peer's proposals for a Child SA. Gives the suite, the peer's SPI, and the
/// chosen proposal to answer with.
pub fn choose_child(
    phase2: &Phase2,
    proposals: &[Proposal],
    rule: KeyExchangeRule,
    spi: u32,
) -> Option<(ChildSuite, u32, Proposal)> {
    proposals.iter().find_map(|proposal| {
        let known =
            [transform_type::ENCRYPTION, transform_type::INTEGRITY, transform_type::KEY_EXCHANGE, transform_type::ESN];
        if proposal.protocol != protocol_id::ESP || !only_kinds(proposal, &known) {
            return None;
        }
        let outbound = esp_spi(proposal)?;
        let encryption = aeads(&phase2.encryption).find(|one| has(proposal, encryption_transform(*one)))?;
        let group = match rule {
            KeyExchangeRule::Never => None,
            KeyExchangeRule::ByProfile { offered } => {
                let none_allowed = !offers_kind(proposal, transform_type::KEY_EXCHANGE)
                    || has(proposal, Transform::new(transform_type::KEY_EXCHANGE, NONE));
                match pick_group(&phase2.groups, proposal, offered) {
                    Some(group) => Some(group),
                    None if phase2.groups.is_empty() && none_allowed => None,
                    None => return None,
                }
            }
        };
        let mut transforms = vec![encryption_transform(encryption)];
        transforms.extend(no_integrity(proposal)?);
        transforms.extend(group.map(group_transform));
        let no_esn = Transform::new(transform_type::ESN, NONE);
        if has(proposal, no_esn) {
            transforms.push(no_esn);
        } else if offers_kind(proposal, transform_type::ESN) {
            return None;
        }
        let answer = Proposal {
            number: proposal.number,
            protocol: protocol_id::ESP,
            spi: spi.to_be_bytes().to_vec(),
            transforms,
        };
        Some((ChildSuite { encryption, group }, outbound, answer))
    })
}

/// The suite that the peer chose from our offer; `None` when it is not one that we offered
/// (RFC 7296 2.7: the initiator must verify that).
pub fn accept_ike(phase1: &Phase1, offered: &[Proposal], answer: &[Proposal]) -> Option<IkeSuite> {
    let chosen = the_chosen(offered, answer)?;
    let encryption = aeads(&phase1.encryption).find(|one| has(chosen, encryption_transform(*one)))?;
    let prf = prfs(phase1).find(|one| has(chosen, prf_transform(*one)))?;
    let group = groups(&phase1.groups).find(|one| has(chosen, group_transform(*one)))?;
    Some(IkeSuite { encryption, prf, group })
}

/// The suite that the peer chose from our offer, and the peer's SPI.
pub fn accept_child(phase2: &Phase2, offered: &[Proposal], answer: &[Proposal]) -> Option<(ChildSuite, u32)> {
    let chosen = the_chosen(offered, answer)?;
    let encryption = aeads(&phase2.encryption).find(|one| has(chosen, encryption_transform(*one)))?;
    let group = groups(&phase2.groups).find(|one| has(chosen, group_transform(*one)));
    let group_was_offered = offered.iter().any(|proposal| offers_kind(proposal, transform_type::KEY_EXCHANGE));
    if group_was_offered != group.is_some() {
        return None;
    }
    Some((ChildSuite { encryption, group }, esp_spi(chosen)?))
}

/// The eight-byte SPI in a proposal for an IKE SA rekey.
pub fn ike_spi(proposals: &[Proposal], number: u8) -> Option<u64> {
    let proposal = proposals.iter().find(|proposal| proposal.number == number)?;
    let spi = u64::from_be_bytes(<[u8; 8]>::try_from(proposal.spi.as_slice()).ok()?);
    (spi != 0).then_some(spi)
}

/// For errors: what was offered, by name where we know it.
pub fn describe(proposals: &[Proposal]) -> String {
    let mut described = Vec::new();
    for proposal in proposals {
        let names: Vec<String> = proposal.transforms.iter().filter_map(transform_name).collect();
        described.push(names.join(" "));
    }
    described.join("; ")
}

fn esp_spi(proposal: &Proposal) -> Option<u32> {
    let spi = u32::from_be_bytes(<[u8; 4]>::try_from(proposal.spi.as_slice()).ok()?);
    // RFC 4303 2.1: 0 to 255 are reserved.
    (spi > 255).then_some(spi)
}

/// The one proposal of an answer, if it is a choice from our offer: one transform of each type,
/// all of them from the proposal with that number.
fn the_chosen<'a>(offered: &[Proposal], answer: &'a [Proposal]) -> Option<&'a Proposal> {
    let [chosen] = answer else { return None };
    let ours = offered.iter().find(|proposal| proposal.number == chosen.number)?;
    if ours.protocol != chosen.protocol {
        return None;
    }
    for (index, transform) in chosen.transforms.iter().enumerate() {
        let later = chosen.transforms.get(index + 1..).unwrap_or_default();
        let repeated = later.iter().any(|other| other.kind == transform.kind);
        // RFC 7296 3.3: "no integrity" may be written or left out with an AEAD.
        let implied = *transform == Transform::new(transform_type::INTEGRITY, NONE);
        if repeated || (!implied && !has(ours, *transform)) {
            return None;
        }
    }
    Some(chosen)
}

fn pick_group(configured: &[DhGroup], proposal: &Proposal, offered: Option<u16>) -> Option<DhGroup> {
    let common = || groups(configured).filter(|one| has(proposal, group_transform(*one)));
    common().find(|group| Some(group.number()) == offered).or_else(|| common().next())
}

/// With an AEAD the proposal must have no integrity algorithm, or allow for none; gives the
/// transform to answer with, if any.
fn no_integrity(proposal: &Proposal) -> Option<Option<Transform>> {
    let none = Transform::new(transform_type::INTEGRITY, NONE);
    match (offers_kind(proposal, transform_type::INTEGRITY), has(proposal, none)) {
        (false, _) => Some(None),
        (true, true) => Some(Some(none)),
        (true, false) => None,
    }
}

fn only_kinds(proposal: &Proposal, known: &[u8]) -> bool {
    proposal.transforms.iter().all(|transform| known.contains(&transform.kind))
}

fn offers_kind(proposal: &Proposal, kind: u8) -> bool {
    proposal.transforms.iter().any(|transform| transform.kind == kind)
}

fn has(proposal: &Proposal, transform: Transform) -> bool {
    proposal.transforms.contains(&transform)
}

impl Phase2 {
    /// Every suite that a Child SA may come to have.
    pub fn suites(&self) -> impl Iterator<Item = PacketSuite> {
        aeads(&self.encryption).filter_map(|encryption| PacketSuite::new(encryption, None).ok())
    }
}

fn aeads(configured: &[Encryption]) -> impl Iterator<Item = Encryption> {
    configured.iter().copied().filter(|one| one.is_aead() && one.is_supported())
}

fn prfs(phase1: &Phase1) -> impl Iterator<Item = PrfAlgorithm> {
    phase1.prf.iter().copied().filter(|one| one.is_supported())
}

fn groups(configured: &[DhGroup]) -> impl Iterator<Item = DhGroup> {
    configured.iter().copied().filter(|one| one.is_supported())
}

fn encryption_transform(encryption: Encryption) -> Transform {
    let transform = Transform::new(transform_type::ENCRYPTION, encryption.transform_id());
    Transform { key_bits: encryption.key_length_attribute(), ..transform }
}

fn prf_transform(prf: PrfAlgorithm) -> Transform {
    Transform::new(transform_type::PRF, prf.transform_id())
}

fn group_transform(group: DhGroup) -> Transform {
    Transform::new(transform_type::KEY_EXCHANGE, group.number())
}

/// `None` for what says nothing: no integrity, no extended sequence numbers.
fn transform_name(transform: &Transform) -> Option<String> {
    let Transform { id, key_bits, .. } = *transform;
    let known = |name: &str| name.to_string();
    Some(match transform.kind {
        transform_type::ENCRYPTION => Encryption::from_transform(id, key_bits)
            .map_or_else(|| format!("encryption {id}-{}", key_bits.unwrap_or(0)), |one| known(one.name())),
        transform_type::PRF => {
            PrfAlgorithm::from_transform(id).map_or_else(|| format!("prf {id}"), |one| format!("prf {}", one.name()))
        }
        transform_type::INTEGRITY | transform_type::ESN if id == NONE => return None,
        transform_type::INTEGRITY => {
            Integrity::from_transform(id).map_or_else(|| format!("integrity {id}"), |one| known(one.name()))
        }
        transform_type::KEY_EXCHANGE => format!("group {id}"),
        transform_type::ESN => known("extended sequence numbers"),
        kind => format!("transform {kind}-{id}"),
    })
}
