use super::wire::{IdBody, Notify, NotifyType, Payload, Proposal, WireError};
use crate::model::TrafficSelector;

/// By which a Trefoil knows another (RFC 7296 3.12): one that takes part in measuring each direction by itself. It is shown
/// in IKE_AUTH, where only who is called can read it.
pub const VENDOR_ID: &[u8] = b"trefoil in-band 1";

/// The payloads of one message by their meaning, whatever their order (RFC 7296 2.5: the order
/// must not be relied upon).
#[derive(Default)]
pub struct Parts {
    pub sa: Option<Vec<Proposal>>,
    /// Group number and public value.
    pub key_exchange: Option<(u16, Vec<u8>)>,
    pub id_initiator: Option<IdBody>,
    pub id_responder: Option<IdBody>,
    /// Method and data.
    pub auth: Option<(u8, Vec<u8>)>,
    pub nonce: Option<Vec<u8>>,
    pub selectors_initiator: Option<Vec<TrafficSelector>>,
    pub selectors_responder: Option<Vec<TrafficSelector>>,
    pub notifies: Vec<Notify>,
    /// Protocol and SPIs.
    pub deletes: Vec<(u8, Vec<u32>)>,
    /// It shows our own vendor ID.
    pub kin: bool,
}

impl Parts {
    /// A payload that may occur once and occurs twice makes the message invalid.
    pub fn of(payloads: Vec<Payload>) -> Result<Parts, WireError> {
        let mut parts = Parts::default();
        for payload in payloads {
            match payload {
                Payload::Sa(proposals) => set(&mut parts.sa, proposals)?,
                Payload::KeyExchange { group, data } => set(&mut parts.key_exchange, (group, data))?,
                Payload::IdInitiator(body) => set(&mut parts.id_initiator, body)?,
                Payload::IdResponder(body) => set(&mut parts.id_responder, body)?,
                Payload::Auth { method, data } => set(&mut parts.auth, (method, data))?,
                Payload::Nonce(nonce) => set(&mut parts.nonce, nonce)?,
                Payload::SelectorsInitiator(selectors) => set(&mut parts.selectors_initiator, selectors)?,
                Payload::SelectorsResponder(selectors) => set(&mut parts.selectors_responder, selectors)?,
                Payload::Notify(notify) => parts.notifies.push(notify),
                Payload::Delete { protocol, spis } => parts.deletes.push((protocol, spis)),
                Payload::Vendor(id) => parts.kin |= id == VENDOR_ID,
                Payload::Other { .. } => {}
            }
        }
        Ok(parts)
    }

    pub fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }

    /// The first error notification.
    pub fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|notify| notify.kind.is_error())
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), WireError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(WireError::BadValue),
    }
}
