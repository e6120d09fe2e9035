use std::time::Duration;

use super::impairment::LinkModel;
use super::wan::WanLink;
use crate::model::{Mbps, Permille};

/// The three WAN links of the demo's branch. The positions are link numbers everywhere.
pub const LINKS: [Line; 3] = [
    Line { name: "fibre", upstream: 30, downstream: 60, delay_ms: 5, jitter_ms: 1, loss_permille: 0 },
    Line { name: "dsl", upstream: 12, downstream: 24, delay_ms: 12, jitter_ms: 4, loss_permille: 1 },
    Line { name: "lte", upstream: 6, downstream: 12, delay_ms: 28, jitter_ms: 12, loss_permille: 3 },
];

pub const FIBRE: usize = 0;
pub const DSL: usize = 1;

/// By number; the first holds the primary role.
pub const POPS: [Pop; 2] =
    [Pop { name: "pop1.demo.example", place: "Frankfurt" }, Pop { name: "pop2.demo.example", place: "Zurich" }];
pub const PRIMARY_POP: usize = 0;

/// A WAN link of the demo; bandwidths in Mbps, delays one-way.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub name: &'static str,
    pub upstream: u32,
    pub downstream: u32,
    pub delay_ms: u64,
    pub jitter_ms: u64,
    pub loss_permille: u16,
}

#[derive(Clone, Copy, Debug)]
pub struct Pop {
    pub name: &'static str,
    pub place: &'static str,
}

/// What a link in trouble does on top of its usual self.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub loss_percent: u16,
    pub delay_ms: u64,
    pub jitter_ms: u64,
}

/// A link that is up and yet unfit for voice.
pub const BROWNOUT: Trouble = Trouble { loss_percent: 8, delay_ms: 60, jitter_ms: 60 };

/// What a home router holds, and what bulk traffic fills.
const QUEUE: Duration = Duration::from_millis(80);

impl Line {
    pub fn usual(&self) -> WanLink {
        let model = |rate| LinkModel {
            delay: Duration::from_millis(self.delay_ms),
            jitter: Duration::from_millis(self.jitter_ms),
            loss: Permille::new(self.loss_permille).unwrap_or(Permille::FULL),
            rate: mbps(rate),
            queue: QUEUE,
        };
        WanLink { up: model(self.upstream), down: model(self.downstream) }
    }

    pub fn in_trouble(&self, trouble: Trouble) -> WanLink {
        let worse = |model: LinkModel| LinkModel {
            delay: model.delay + Duration::from_millis(trouble.delay_ms),
            jitter: model.jitter + Duration::from_millis(trouble.jitter_ms),
            loss: Permille::new(model.loss.value() + 10 * trouble.loss_percent).unwrap_or(Permille::FULL),
            ..model
        };
        let usual = self.usual();
        WanLink { up: worse(usual.up), down: worse(usual.down) }
    }

    /// Its configured part of the site's upstream bandwidth.
    pub fn configured_percent(&self) -> f64 {
        let total: u32 = LINKS.iter().map(|line| line.upstream).sum();
        f64::from(self.upstream) * 100.0 / f64::from(total)
    }
}

/// A bandwidth of the scenery, none of which is zero.
pub fn mbps(value: u32) -> Mbps {
    const LEAST: Mbps = match Mbps::new(1) {
        Some(least) => least,
        None => panic!("1 is a bandwidth"),
    };
    Mbps::new(value).unwrap_or(LEAST)
}
