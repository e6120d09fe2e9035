use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Every reason for which a packet is dropped, each counted by itself.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason { $($(#[doc = $doc])* $variant,)* }

        impl DropReason {
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// The name in `status --json` and in the logs.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Not an IPv4 or IPv6 packet whose lengths agree.
    Malformed = "malformed",
    /// From the site with a source, or to the site with a destination, outside the native ranges.
    NotNative = "not_native",
    /// No connector's network ranges cover the destination.
    NoRoute = "no_route",
    /// No path of the active role can carry it.
    NoPath = "no_path",
    /// No negotiated selectors of a usable path cover it.
    NoSelector = "no_selector",
    /// A rule says drop, or allows only links that have no path.
    Rule = "rule",
    /// A rule breaks out, and none of its WAN links is up; or it is IPv6.
    NoBreakout = "no_breakout",
    /// Larger than the path's inner MTU and not to be fragmented.
    TooBig = "too_big",
    /// The outbound SA has used up its sequence numbers.
    Exhausted = "exhausted",
    /// The socket refused it.
    SendFailed = "send_failed",
    /// The site device refused it.
    SiteWriteFailed = "site_write_failed",
    /// The flow table, a ring or a channel was full.
    QueueFull = "queue_full",
    /// The link's rate, or the license's, did not let it out in time: dropped to keep the queue short, or since that
    /// was full.
    Shaped = "shaped",
    /// More arrived than the link's rate, or the license's, lets in.
    Policed = "policed",
    /// Neither IKE nor ESP.
    NotIpsec = "not_ipsec",
    /// ESP with an SPI that is not ours.
    UnknownSpi = "unknown_spi",
    /// Seen before, or older than the replay window.
    Replayed = "replayed",
    /// The integrity check failed.
    BadTag = "bad_tag",
    /// Authenticated, but padding, next header or inner lengths are wrong.
    BadInner = "bad_inner",
    /// Authenticated, and meant to be thrown away: the peer hides its traffic pattern (RFC 4303 2.6).
    Dummy = "dummy",
    /// Marked on the way as having met congestion, and its sender would not understand the mark
    /// (RFC 6040 4.2).
    Congested = "congested",
    /// The inner packet is outside the negotiated selectors.
    SelectorMismatch = "selector_mismatch",
    /// The inner source does not route back to the connector it came from, or is our own.
    SourceMismatch = "source_mismatch",
}

/// One counter a reason; shared between a worker that adds and control that reads.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    pub fn count(&self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    pub fn count_many(&self, reason: DropReason, packets: u64) {
        self.0[reason as usize].fetch_add(packets, Ordering::Relaxed);
    }

    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained_where_operators_look_for_it() {
        let page = include_str!("../../docs/status.md");
        let explained: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | drop |").map(|(name, _)| name))
            .collect();
        let known: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(explained, known);
    }
}
