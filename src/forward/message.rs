use std::net::IpAddr;

use crate::model::{Leg, Moment, PathId, Spi};

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
}

/// From control to a worker, over a bounded queue.
#[derive(Debug)]
pub enum ToWorker {
    Probe(ProbeOrder),
}

/// Send one ICMP echo request inside a tunnel, from its private address.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOrder {
    pub path: PathId,
    pub id: u64,
    pub source: IpAddr,
    pub target: IpAddr,
}
