//! Many flows that were there before: 10,000 UDP flows, opened by one packet each.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::bed::{Bed, sink_address};

/// Of what is in the flow table of the edge besides the flows that are measured.
pub const FLOWS: u64 = 10_000;

/// Sockets and, of each, destinations.
const SOCKETS: usize = 100;
const DESTINATIONS: u8 = 100;

/// Well within the time for which a flow without packets is remembered.
const REOPEN_AFTER: Duration = Duration::from_secs(120);

/// Keeps the flows in the table of the edge.
pub struct SteadyFlows {
    sockets: Vec<UdpSocket>,
    opened: Instant,
}

impl SteadyFlows {
    pub fn open(bed: &Bed) -> SteadyFlows {
        let sockets = bed.client.enter(|| {
            let socket = |_| UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            (0..SOCKETS).map(socket).collect()
        });
        let mut flows = SteadyFlows { sockets, opened: Instant::now() };
        flows.send();
        flows
    }

    pub fn keep(&mut self) {
        if self.opened.elapsed() > REOPEN_AFTER {
            self.send();
        }
    }

    /// Some 25,000 packets a second, for those who are slow to open a flow.
    pub fn send(&mut self) {
        for socket in &self.sockets {
            for index in 1..=DESTINATIONS {
                let _ = socket.send_to(b"open", (sink_address(index), 9));
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        self.opened = Instant::now();
    }
}
