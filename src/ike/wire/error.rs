use super::{Notify, NotifyType};

/// Why bytes are not an IKE message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    #[error("it ends too early")]
    Truncated,
    #[error("a length field disagrees with its contents")]
    BadLength,
    #[error("IKE version {0} is not 2")]
    Version(u8),
    #[error("more payloads, proposals, transforms or selectors than anybody needs")]
    TooMany,
    #[error("something follows the encrypted payload")]
    AfterEncrypted,
    #[error("an encrypted payload inside an encrypted payload")]
    NestedEncrypted,
    #[error("payload type {0} is unknown and critical")]
    UnsupportedCritical(u8),
    #[error("a field has a value that RFC 7296 forbids")]
    BadValue,
}

impl WireError {
    /// What the sender of an authentic request with such an error is told (RFC 7296 2.21).
    pub fn notify(self) -> Notify {
        match self {
            WireError::UnsupportedCritical(kind) => {
                Notify::with_data(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind])
            }
            WireError::Version(_) => Notify::new(NotifyType::INVALID_MAJOR_VERSION),
            WireError::Truncated
            | WireError::BadLength
            | WireError::TooMany
            | WireError::AfterEncrypted
            | WireError::NestedEncrypted
            | WireError::BadValue => Notify::new(NotifyType::INVALID_SYNTAX),
        }
    }
}
