//! Profiles: named IKE parameter sets, one file each, called by the file's name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::algorithm::Choice;
use super::diagnostic::Report;
use super::keepalive::Keepalive;
use super::label;
use super::source::{At, Spot};
use super::table::Table;
use super::wording;
use crate::crypto::{DhGroup, Encryption, Integrity, PrfAlgorithm};
use crate::ike::{Phase1, Phase2};

/// The profile that is always there.
pub const BUILT_IN: &str = "default";
/// Cato's rule (seed, Prerequisites): CBC only on sites with less than this.
pub const CBC_BELOW_MBPS: u64 = 100;

/// IKE SA lifetime where a phase 1 does not say: 4 hours (seed: F5's default).
const PHASE1_LIFETIME: Duration = Duration::from_secs(4 * 3600);
/// Child SA lifetime where a phase 2 does not say: 1 hour (seed: Cato's default).
const PHASE2_LIFETIME: Duration = Duration::from_secs(3600);
/// Below, rekeying would hardly finish before it starts again.
const LIFETIME_MIN: Duration = Duration::from_secs(2);
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// All profiles of a site, by name.
pub struct Profiles(BTreeMap<String, Profile>);

pub struct Profile {
    /// `None` for the built-in one.
    pub spot: Option<Spot>,
    pub phase1: Option<Phase1Profile>,
    pub phase2: Option<Phase2Profile>,
    pub keepalive: Keepalive,
}

pub struct Phase1Profile {
    cipher: Cipher,
    prf: Choice<PrfAlgorithm>,
    groups: Choice<DhGroup>,
    lifetime: Duration,
}

pub struct Phase2Profile {
    cipher: Cipher,
    /// `None`: no perfect forward secrecy.
    groups: Option<Choice<DhGroup>>,
    lifetime: Duration,
}

/// Encryption with the integrity that it needs, or must not have.
struct Cipher {
    encryption: Choice<Encryption>,
    integrity: Choice<Integrity>,
}

impl Profiles {
    pub fn built_in() -> Profiles {
        let automatic = || Cipher { encryption: Choice::Automatic, integrity: Choice::Automatic };
        let profile = Profile {
            spot: None,
            phase1: Some(Phase1Profile {
                cipher: automatic(),
                prf: Choice::Automatic,
                groups: Choice::Automatic,
                lifetime: PHASE1_LIFETIME,
            }),
            phase2: Some(Phase2Profile {
                cipher: automatic(),
                groups: Some(Choice::Automatic),
                lifetime: PHASE2_LIFETIME,
            }),
            keepalive: Keepalive::default(),
        };
        Profiles(BTreeMap::from([(BUILT_IN.to_string(), profile)]))
    }

    /// Adds the profile of one file.
    pub fn read(&mut self, name: &str, mut table: Table<'_>, report: &Report) {
        let spot = table.spot().clone();
        // For people and inventories: checked, but nothing depends on them.
        let _ = (label::read_labels(&mut table), label::read_description(&mut table));
        let phase1 = table.table("phase1").map(|table| Phase1Profile::read(table, report));
        let phase2 = table.table("phase2").map(|table| Phase2Profile::read(table, report));
        let keepalive = table.table("keepalive").map(|table| Keepalive::read(table, report)).unwrap_or_default();
        table.finish();
        if phase1.is_none() && phase2.is_none() {
            report.missing(&spot, "a profile without [phase1] and [phase2]", "at least one of them");
        }
        if name == BUILT_IN {
            report.error(&spot, format!("profile {} is built in", wording::quoted(name)), "another file name");
            return;
        }
        let earlier = self.0.get(name).and_then(|profile| profile.spot.clone());
        if let Some(earlier) = earlier {
            report.error(
                &spot,
                format!("profile {} is already in {earlier}", wording::quoted(name)),
                "another file name",
            );
            return;
        }
        self.0.insert(name.to_string(), Profile { spot: Some(spot), phase1, phase2, keepalive });
    }

    pub fn phase1(&self, name: &str) -> Option<(&Phase1Profile, &Keepalive)> {
        let profile = self.0.get(name)?;
        profile.phase1.as_ref().map(|phase1| (phase1, &profile.keepalive))
    }

    pub fn phase2(&self, name: &str) -> Option<&Phase2Profile> {
        self.0.get(name)?.phase2.as_ref()
    }

    /// Is there a file of this name that could not be read in full?
    pub fn is_broken(&self, name: &str) -> bool {
        self.0.get(name).and_then(|profile| profile.spot.as_ref()).is_some_and(|spot| spot.source.has_syntax_errors())
    }

    /// `known: cato-default, default`
    pub fn known(&self, has_phase: impl Fn(&Profile) -> bool) -> String {
        wording::known(self.0.iter().filter(|(_, profile)| has_phase(profile)).map(|(name, _)| name))
    }
}

impl Phase1Profile {
    fn read(mut table: Table<'_>, report: &Report) -> Phase1Profile {
        let cipher = Cipher::read(&mut table, report);
        let prf = table.value("prf").map_or(Choice::Automatic, |value| Choice::read(&value));
        let groups = table.value("dh_groups").map_or(Choice::Automatic, |value| Choice::read(&value));
        let lifetime = lifetime(&mut table, PHASE1_LIFETIME);
        table.finish();
        Phase1Profile { cipher, prf, groups, lifetime }
    }

    pub fn resolve(&self, site_is_fast: bool) -> Arc<Phase1> {
        let (encryption, integrity) = self.cipher.resolve(site_is_fast);
        let prf = self.prf.resolve(|_| true);
        Arc::new(Phase1 { encryption, integrity, prf, groups: self.groups.resolve(|_| true), lifetime: self.lifetime })
    }

    pub fn cbc(&self) -> Option<&At<Encryption>> {
        self.cipher.cbc()
    }
}

impl Phase2Profile {
    fn read(mut table: Table<'_>, report: &Report) -> Phase2Profile {
        let cipher = Cipher::read(&mut table, report);
        let pfs = table.value("pfs").and_then(|value| value.boolean()).unwrap_or(true);
        let groups = table.value("pfs_groups").map(|value| (value.spot.clone(), Choice::read(&value)));
        if let Some((spot, _)) = groups.as_ref().filter(|_| !pfs) {
            report.error(spot, "pfs_groups without perfect forward secrecy", "pfs = true, or no pfs_groups");
        }
        let groups = pfs.then(|| groups.map_or(Choice::Automatic, |(_, groups)| groups));
        let lifetime = lifetime(&mut table, PHASE2_LIFETIME);
        table.finish();
        Phase2Profile { cipher, groups, lifetime }
    }

    pub fn resolve(&self, site_is_fast: bool) -> Arc<Phase2> {
        let (encryption, integrity) = self.cipher.resolve(site_is_fast);
        let groups = self.groups.as_ref().map_or_else(Vec::new, |groups| groups.resolve(|_| true));
        Arc::new(Phase2 { encryption, integrity, groups, lifetime: self.lifetime })
    }

    pub fn cbc(&self) -> Option<&At<Encryption>> {
        self.cipher.cbc()
    }
}

impl Cipher {
    fn read(table: &mut Table<'_>, report: &Report) -> Cipher {
        let encryption_value = table.value("encryption");
        let integrity_value = table.value("integrity");
        let encryption = encryption_value.as_ref().map_or(Choice::Automatic, Choice::read);
        let integrity = match (&integrity_value, &encryption) {
            (Some(value), _) => Choice::read(value),
            (None, Choice::Automatic) => Choice::Automatic,
            (None, Choice::These(_)) => Choice::These(Vec::new()),
        };
        let cipher = Cipher { encryption, integrity };
        let named = cipher.encryption.these();
        let all_aead = !named.is_empty() && named.iter().all(|one| one.value.is_aead());
        let some_integrity = cipher.integrity.these().first();
        if let Some(integrity) = some_integrity.filter(|_| all_aead) {
            report.error(
                &integrity.spot,
                "integrity algorithm beside AEAD encryption, which brings its own",
                "no integrity with aes-gcm",
            );
        }
        let cbc = cipher.cbc();
        if let Some(cbc) = cbc.filter(|_| integrity_value.is_none()) {
            report.error(
                &cbc.spot,
                format!("{} without an integrity algorithm", cbc.value.name()),
                r#"such as integrity = ["sha2-256"]"#,
            );
        }
        cipher
    }

    fn cbc(&self) -> Option<&At<Encryption>> {
        self.encryption.these().iter().find(|one| !one.value.is_aead())
    }

    fn resolve(&self, site_is_fast: bool) -> (Vec<Encryption>, Vec<Integrity>) {
        let encryption = self.encryption.resolve(|one| one.is_aead() || !site_is_fast);
        let all_aead = encryption.iter().all(|one| one.is_aead());
        let integrity = if all_aead { Vec::new() } else { self.integrity.resolve(|_| true) };
        (encryption, integrity)
    }
}

fn lifetime(table: &mut Table<'_>, default: Duration) -> Duration {
    let value = table.value("lifetime");
    value.and_then(|value| value.duration(LIFETIME_MIN..=LIFETIME_MAX)).unwrap_or(default)
}
