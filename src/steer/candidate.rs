use crate::model::{LinkId, PathId, Verdict};

/// A path that could carry the flow: up, of the active role, and its selectors cover the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub path: PathId,
    pub link: LinkId,
    pub verdict: Verdict,
    /// The link's preference: 1 is first. Metered links come after all others of equal health
    /// unless a preference was configured.
    pub preference: u8,
    /// Proportional to the path's configured bandwidth in our sending direction; never 0.
    pub weight: u32,
}
