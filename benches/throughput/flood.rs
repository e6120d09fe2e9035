//! UDP with as little work for the hosts as the system calls allow: iperf3 spends more on a small
//! datagram than the roads that are measured. `sendmmsg` and `recvmmsg` without segmentation or
//! coalescing: on the wire to A, every datagram is a packet of its own.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt::RcvBufForce};

use crate::bed::{Bed, server_address};

/// Datagrams of one system call.
const BATCH: usize = 64;

/// Of the receiving socket, in bytes: a sleep of the receiver shall not count as loss.
const RECEIVE_BUFFER: usize = 16 << 20;

const PORT: u16 = 9_000;

/// How a load is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Of the UDP payload.
    pub bytes: usize,
    /// Packets of the flows alternate one by one.
    pub flows: u8,
    pub pace: Pace,
}

#[derive(Clone, Copy, Debug)]
pub enum Pace {
    AsFastAsPossible,
    /// So many packets each time.
    Every(Duration, usize),
}

/// A load that runs.
pub struct Flood {
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    pub fn start(bed: &Bed, load: Load) -> Flood {
        let [stop_sending, stop_receiving] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [sent, received] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let sink = bed.server.enter(move || {
            let socket = UdpSocket::bind(("0.0.0.0", PORT)).expect("the flood's port");
            setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).expect("a receive buffer");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            socket
        });
        let source = bed.client.enter(|| UdpSocket::bind(("0.0.0.0", 0)).expect("a socket"));
        let receiver = {
            let (stop, received) = (stop_receiving.clone(), received.clone());
            std::thread::spawn(move || receive(&sink, &stop, &received))
        };
        let sender = {
            let (stop, sent) = (stop_sending.clone(), sent.clone());
            std::thread::spawn(move || send(&source, load, &stop, &sent))
        };
        Flood { stop_sending, stop_receiving, sent, received, threads: vec![receiver, sender] }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }
}

/// Who queues without a limit goes on for a while after the load has ended, and it must not be
/// counted as the next one's: the flood ends when so long nothing has come.
const SILENCE: Duration = Duration::from_millis(200);
const LONGEST_DRAIN: Duration = Duration::from_secs(10);

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop_sending.store(true, Ordering::Release);
        let deadline = Instant::now() + LONGEST_DRAIN;
        loop {
            let before = self.received();
            std::thread::sleep(SILENCE);
            if self.received() == before || Instant::now() > deadline {
                break;
            }
        }
        self.stop_receiving.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, received: &AtomicU64) {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffers = vec![[0u8; 2_048]; BATCH];
    while !stop.load(Ordering::Acquire) {
        let mut slices: Vec<[IoSliceMut; 1]> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        // The timeout of the socket makes an error of silence.
        if let Ok(batch) = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)
        {
            received.fetch_add(batch.count() as u64, Ordering::AcqRel);
        }
    }
}

fn send(socket: &UdpSocket, load: Load, stop: &AtomicBool, sent: &AtomicU64) {
    let batch = match load.pace {
        Pace::AsFastAsPossible => BATCH,
        Pace::Every(_, packets) => packets,
    };
    let addresses: Vec<Option<SockaddrIn>> = (0..batch)
        .map(|index| server_address((index % usize::from(load.flows)) as u8))
        .map(|address| Some(SockaddrIn::from(SocketAddrV4::new(address, PORT))))
        .collect();
    let payload = vec![0x5a; load.bytes];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(batch, None);
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        if let Pace::Every(pause, _) = load.pace {
            // Late turns are made up for, without a pause between them.
            due += pause;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let slices = vec![[IoSlice::new(&payload)]; batch];
        // A full queue of the network below is no reason to stop.
        if let Ok(batch) = sendmmsg(socket.as_raw_fd(), &mut headers, slices.iter(), &addresses, [], MsgFlags::empty())
        {
            sent.fetch_add(batch.count() as u64, Ordering::AcqRel);
        }
    }
}
