use super::child_rekey::ChildRequest;
use super::context::Context;
use super::ike_rekey::IkeRekeyRequest;
use crate::crypto::DhGroup;
use crate::model::{Selectors, Spi};

/// What an established IKE SA wants to ask its peer, waiting for the window.
#[derive(Clone, PartialEq, Debug)]
pub enum Task {
    Liveness,
    /// The group is the peer's, after INVALID_KE_PAYLOAD.
    RekeyChild {
        inbound: Spi,
        group: Option<DhGroup>,
    },
    /// In place of one that the peer no longer knows (RFC 7296 2.25).
    CreateChild {
        selectors: Selectors,
        group: Option<DhGroup>,
    },
    DeleteChild {
        inbound: Spi,
    },
    RekeyIke {
        group: Option<DhGroup>,
    },
}

/// What the answer to an outstanding request is for.
pub enum Purpose {
    /// IKE_AUTH, whose state waits for it.
    Authentication,
    Liveness,
    Child(Box<ChildRequest>),
    DeleteChild {
        inbound: Spi,
    },
    RekeyIke(Box<IkeRekeyRequest>),
    DeleteIke,
}

impl Purpose {
    /// Nothing comes of it: gives back what it holds.
    pub fn release(self, context: &mut Context<'_>) {
        match self {
            Purpose::Child(request) => request.release(context),
            Purpose::Authentication
            | Purpose::Liveness
            | Purpose::DeleteChild { .. }
            | Purpose::RekeyIke(_)
            | Purpose::DeleteIke => {}
        }
    }
}
