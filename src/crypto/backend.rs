use std::fmt;

/// Whose implementation does the work. All give the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Backend {
    /// aws-lc: C and assembly.
    AwsLc,
    /// RustCrypto's aes-gcm and its relatives: portable, without C; for IKE payloads, and what
    /// `AwsLc` is tested against.
    RustCrypto,
}

impl Backend {
    /// The first one wins where they are equally fast.
    pub const ALL: [Backend; 2] = [Backend::AwsLc, Backend::RustCrypto];

    /// As configuration and logs write it: RustCrypto's goes by its best-known crate.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::AwsLc => "aws-lc",
            Backend::RustCrypto => "aes-gcm",
        }
    }

    pub fn from_name(name: &str) -> Option<Backend> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
