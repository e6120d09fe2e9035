use crate::forward::{ToControl, ToWorker};
use crate::model::{LinkId, WorkerId};
use crate::packet::{Batch, SiteOffloads, SitePacket, Train};

/// A worker's whole world. Production puts a queue of a TUN device and UDP sockets behind it,
/// simulation and demo something in memory. No method waits.
pub trait RoadIo {
    /// Fills free slots with packets that the site sent, while some wait.
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>);

    /// Super-packets that `send_site` takes.
    fn site_offloads(&self) -> SiteOffloads;

    /// Hands all filled slots to the site, in order, and returns how many were refused.
    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize;

    /// Fills free slots with datagrams of any underlay, while some wait.
    fn receive_wan(&mut self, batch: &mut Batch<Train>);

    /// Sends all filled slots, in order for each leg. What a socket refuses is reported; the rest
    /// is sent all the same.
    fn send_wan(&mut self, batch: &mut Batch<Train>, refused: &mut dyn FnMut(Unsent));

    /// Sends a packet by a link outside of the tunnels; `false` when that is not there or refuses it.
    fn send_breakout(&mut self, _link: LinkId, _packet: &mut SitePacket) -> bool {
        false
    }

    /// The next order from control.
    fn next_order(&mut self) -> Option<ToWorker>;

    /// Queues a message for control; `false` when the queue is full and the message lost.
    fn tell_control(&mut self, message: ToControl) -> bool;

    /// Ends the wait of another worker, for which something was left.
    fn wake(&mut self, worker: WorkerId);
}

/// Datagrams that a socket refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsent {
    /// The slot that they were in.
    pub index: usize,
    /// How many of its datagrams.
    pub datagrams: usize,
    pub errno: i32,
}
