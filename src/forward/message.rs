use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FlowReport, HeavyFlow, MoveOrder};
use crate::model::{FlowKey, Leg, Moment, PathId, Spi};
use crate::probe::MEASURE_BYTES;

/// From a worker to control, over a bounded queue. When the queue is full the message is lost
/// and counted: IKE is retransmitted, probes count as lost, counters are polled anyway. What is
/// told only once (first use, soft limit) the worker tells again until it is taken.
#[derive(Clone, Debug)]
pub enum ToControl {
    /// An IKE message, without the non-ESP marker.
    Ike {
        leg: Leg,
        bytes: Box<[u8]>,
        at: Moment,
    },
    /// The answer to a `ProbeOrder`, with where it left and where it came back.
    Probe {
        id: u64,
        target: IpAddr,
        sent_on: PathId,
        arrived_on: PathId,
        sent: Moment,
        at: Moment,
        /// Of the inner packet, in bytes.
        length: u16,
    },
    /// A packet of TCP or UDP to a port from which control asks.
    Inner {
        arrived_on: PathId,
        at: Moment,
        packet: Box<[u8]>,
    },
    /// What a Trefoil at the other end says of each direction; see `probe::Measure`.
    Measure {
        path: PathId,
        at: Moment,
        bytes: [u8; MEASURE_BYTES],
    },
    /// The first packet that an inbound SA opened.
    FirstUse {
        spi: Spi,
    },
    /// An outbound SA is near the end of its sequence numbers: rekey it. Told once a SA.
    SoftLimit {
        spi: Spi,
        path: PathId,
    },
    /// An authenticated packet of this inbound SA came over another leg than the path's.
    Rebind {
        spi: Spi,
        path: PathId,
        leg: Leg,
    },
    SendError {
        leg: Leg,
        errno: i32,
    },
    /// A whole DNS message over UDP that passed, as an IP packet.
    Dns {
        at: Moment,
        packet: Box<[u8]>,
    },
    /// The answer to `ToWorker::Survey`: the flows that send most, of each path.
    Survey {
        number: u64,
        flows: Box<[HeavyFlow]>,
    },
    /// The answer to `ToWorker::List`.
    Flows {
        id: u64,
        flows: Box<[FlowReport]>,
        /// How many there are, of which `flows` has those that sent most.
        matching: u64,
    },
}

/// From control to a worker, over a bounded queue.
#[derive(Debug)]
pub enum ToWorker {
    Probe(ProbeOrder),
    Inner(InnerOrder),
    /// Say something to the Trefoil at the other end of a tunnel; stamped as it is sent.
    Measure {
        path: PathId,
        bytes: [u8; MEASURE_BYTES],
    },
    /// Measure every flow since the survey before. Asked of one worker at a time.
    Survey {
        number: u64,
    },
    Move(MoveOrder),
    List(FlowQuestion),
}

/// Which flows to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowQuestion {
    pub id: u64,
    /// This one alone.
    pub key: Option<FlowKey>,
    /// Only those that are not where they would be if every path were well.
    pub off_preferred: bool,
    /// Flows in the answer, at most.
    pub limit: u32,
}

/// Send one ICMP echo request inside a tunnel, from its private address.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOrder {
    pub path: PathId,
    pub id: u64,
    pub source: IpAddr,
    pub target: IpAddr,
    /// Of the inner packet, in bytes, which is never cut; as short as can be when it is less.
    pub length: u16,
}

/// Send one packet that control made inside a tunnel.
#[derive(Clone, Debug)]
pub struct InnerOrder {
    pub path: PathId,
    pub packet: Box<[u8]>,
    /// Where the time of sending is to be written.
    pub sent: Option<SentAt>,
}

/// When a packet was sent: written once by the worker that sends it, read by control.
#[derive(Clone, Debug, Default)]
pub struct SentAt(Arc<AtomicU64>);

impl SentAt {
    pub fn set(&self, now: Moment) {
        // `Moment::ZERO` stands for "not yet".
        self.0.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Moment> {
        Some(self.0.load(Ordering::Relaxed)).filter(|nanos| *nanos > 0).map(Moment::from_nanos)
    }
}
