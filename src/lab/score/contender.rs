use super::field::{Field, Way};
use crate::model::{Dscp, FlowKey, Moment};

/// EF (RFC 3246): voice.
pub const VOICE: Dscp = match Dscp::new(46) {
    Some(dscp) => dscp,
    None => Dscp::DEFAULT,
};

/// Packets of one flow that leave the site together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parcel {
    pub key: FlowKey,
    pub dscp: Dscp,
    pub packets: u32,
    pub bytes: u64,
    /// What is carried in this direction; a call goes both ways.
    pub upload: bool,
}

impl Parcel {
    pub fn is_voice(&self) -> bool {
        self.dscp == VOICE
    }
}

/// Whoever steers the flows of a site. Order: `advance` to each moment that `poll_timeout` names and
/// to any other; between them `route` and `handle_arrival`.
pub trait Contender {
    /// Lets its probes and timers come to this moment.
    fn advance(&mut self, field: &mut Field, now: Moment);

    /// When `advance` has something to do.
    fn poll_timeout(&self) -> Option<Moment>;

    /// Where these packets go; `None`: they are refused.
    fn route(&mut self, parcel: &Parcel, field: &Field, now: Moment) -> Option<Way>;

    /// Packets of the site's flows have come in over this way.
    fn handle_arrival(&mut self, _way: Way, _packets: u32, _bytes: u64, _now: Moment) {}

    /// A flow has ended.
    fn forget(&mut self, _key: &FlowKey) {}
}
