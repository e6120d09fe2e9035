use crate::forward::{ToControl, ToWorker};
use crate::packet::{Batch, Datagram, PacketBuf};

/// A worker's whole world. Production puts a TUN device and UDP sockets behind it, simulation
/// and demo something in memory. No method waits.
pub trait RoadIo {
    /// Fills free slots with packets that the site sent, while some wait.
    fn receive_site(&mut self, batch: &mut Batch<PacketBuf>);

    /// Hands all filled slots to the site, in order, and returns how many were refused.
    fn send_site(&mut self, batch: &mut Batch<PacketBuf>) -> usize;

    /// Fills free slots with datagrams of any underlay, while some wait.
    fn receive_wan(&mut self, batch: &mut Batch<Datagram>);

    /// Sends all filled slots, in order for each leg. What a socket refuses is reported with its
    /// index and errno; the rest is sent all the same.
    fn send_wan(&mut self, batch: &mut Batch<Datagram>, refused: &mut dyn FnMut(usize, i32));

    /// The next order from control.
    fn next_order(&mut self) -> Option<ToWorker>;

    /// Queues a message for control; `false` when the queue is full and the message lost.
    fn tell_control(&mut self, message: ToControl) -> bool;
}
