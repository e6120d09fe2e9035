use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Permille;

/// Whether a path meets a class is one bit of a 64-bit word.
pub const SLA_CLASSES_MAX: usize = 64;

/// What an application needs of a path to work well. A limit that is `None` asks for nothing; one
/// that is there is met by what was measured, never by what is unknown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlaClass {
    pub name: String,
    pub loss_max: Option<Permille>,
    /// Of the round trip.
    pub rtt_max: Option<Duration>,
    pub jitter_max: Option<Duration>,
}

impl SlaClass {
    /// The classes that are always there, unless a policy file defines one of the same name.
    pub fn shipped() -> Vec<SlaClass> {
        let class = |name: &str, loss: Option<u16>, rtt_ms: Option<u64>, jitter_ms: Option<u64>| SlaClass {
            name: name.to_string(),
            loss_max: loss.and_then(Permille::new),
            rtt_max: rtt_ms.map(Duration::from_millis),
            jitter_max: jitter_ms.map(Duration::from_millis),
        };
        vec![
            // ITU-T G.114: up to 150 ms one way is acceptable to nearly all users. Cisco, Enterprise
            // QoS SRND: loss up to 1 %, jitter up to 30 ms.
            class("voice", Some(10), Some(300), Some(30)),
            // The same SRND asks of interactive video what it asks of voice in loss and delay; RFC 4594
            // 4.3 and the Medianet guide leave conferencing 50 ms of jitter.
            class("video", Some(10), Some(300), Some(50)),
            // ITU-T G.1010, table I.2: interactive data (games, telnet, transactions) up to 200 ms one
            // way. Loss is repaired by retransmission, which 2 % makes felt.
            class("interactive", Some(20), Some(400), None),
            // ITU-T G.1010, table I.2: bulk data has seconds. Beyond 5 % TCP gets next to nothing (RFC 3649 1).
            class("bulk", Some(50), None, None),
        ]
    }
}
