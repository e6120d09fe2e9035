use super::road::Road;
use crate::forward::{PathFace, ToControl, Way};
use crate::model::{DropReason, Moment, PathId};
use crate::probe::{MEASURE_BYTES, Measure};

impl Road<'_> {
    /// Says to the Trefoil at the other end of a path what control has written, with the time.
    pub fn measure(&mut self, path: PathId, bytes: &mut [u8; MEASURE_BYTES]) {
        Measure::stamp(bytes, self.now);
        if let Err(reason) = self.send_measure(path, bytes) {
            self.count_drop(self.drops_out(path), reason);
        }
    }

    fn send_measure(&mut self, path: PathId, bytes: &[u8]) -> Result<(), DropReason> {
        let path = self.forwarding.path(path).ok_or(DropReason::NoPath)?;
        // It is in no selectors, so any Child SA will do.
        let mut ways = path.children.iter().enumerate().map(|child| Way { path, child });
        let way = ways.find(|way| self.forwarding.has_sa(*way)).ok_or(DropReason::NoPath)?;
        let place = self.forwarding.sas.outbound(way.child.1.slot).ok_or(DropReason::NoPath)?.load();
        let sa = place.as_ref().ok_or(DropReason::NoPath)?;
        let wire = self.seal_nothing(way, sa, bytes)?;
        if path.shaped {
            self.exits.shaper.charge(path.link, wire, self.now);
        }
        Ok(())
    }

    /// Something came in a packet that says that there is nothing in it. It is no sign of what the path carries.
    pub fn measured(&mut self, path: &PathFace, content: &[u8], at: Moment) -> Result<(), DropReason> {
        let bytes: Option<&[u8; MEASURE_BYTES]> = content.first_chunk().filter(|_| Measure::read(content).is_some());
        // Of a peer that has not said that it is a Trefoil, it would be nothing to control.
        let bytes = bytes.filter(|_| path.kin && self.may_measure(path.id)).ok_or(DropReason::Dummy)?;
        self.tell(ToControl::Measure { path: path.id, at, bytes: *bytes });
        Ok(())
    }
}
