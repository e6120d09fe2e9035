//! Round trips of one small datagram at a time.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Bed, SERVER};

const PORT: u16 = 9_001;
const BYTES: usize = 64;
/// Between two questions: nobody's queue holds more than one packet, and everybody may fall asleep.
const PAUSE: Duration = Duration::from_millis(1);
const LOST_AFTER: Duration = Duration::from_millis(200);

pub struct RoundTrips {
    sorted: Vec<Duration>,
}

impl RoundTrips {
    /// Asks for so long.
    pub fn measure(bed: &Bed, limit: Duration) -> RoundTrips {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = bed.server.enter(|| bound(PORT));
        let echo = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut buffer = [0; 2_048];
                while !stop.load(Ordering::Acquire) {
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                }
            }
        });
        let socket = bed.client.enter(|| bound(0));
        socket.connect((SERVER, PORT)).expect("a connected socket");
        let mut sorted = ask(&socket, limit);
        stop.store(true, Ordering::Release);
        let _ = echo.join();
        sorted.sort_unstable();
        RoundTrips { sorted }
    }

    /// `None` when nothing came back.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.sorted.len().checked_sub(1)?;
        self.sorted.get(last * percent / 100).copied()
    }
}

fn bound(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the port of the ping-pong");
    socket.set_read_timeout(Some(LOST_AFTER)).expect("a timeout");
    socket
}

fn ask(socket: &UdpSocket, limit: Duration) -> Vec<Duration> {
    let mut payload = [0; BYTES];
    let mut trips = Vec::new();
    let start = Instant::now();
    let mut number = 0u64;
    while start.elapsed() < limit {
        number += 1;
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let asked = Instant::now();
        if socket.send(&payload).is_ok() && answered(socket, number) {
            trips.push(asked.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
    trips
}

/// Answers to earlier questions, given up, are passed over.
fn answered(socket: &UdpSocket, number: u64) -> bool {
    let mut buffer = [0; BYTES];
    while socket.recv(&mut buffer).is_ok() {
        if buffer[..8] == number.to_be_bytes() {
            return true;
        }
    }
    false
}
