use super::*;
use crate::edge::child::ChildLineage;
use crate::forward::SaTable;
use crate::model::OutboundSlot;

#[test]
fn a_late_first_packet_on_a_deleted_sa_does_not_turn_sending_back_to_it() {
    let (table, backends) = (SaTable::new(8, 4), Backends::only(Backend::AwsLc));
    let (path, slot) = (PathId(0), OutboundSlot(0));
    let [first, winner, redundant] = [1, 2, 3].map(|place| Spi::of_slot(place, 7));
    let selectors = [network(0), network(1)];
    let sends = || table.outbound(slot).and_then(|place| place.load_full()).map(|sa| sa.spi());
    // Both ends have rekeyed at once: the peer's SA came second, and is the redundant one.
    let mut lineage = ChildLineage::establish(&child(first, None, selectors), path, slot, &table, &backends).unwrap();
    lineage.succeed(&child(winner, Some(first), selectors), path, &table, &backends).unwrap();
    let theirs = ChildSa { initiator: false, ..child(redundant, Some(first), selectors) };
    lineage.succeed(&theirs, path, &table, &backends).unwrap();
    let now = Moment::from_millis(1_000);
    assert!(lineage.handle_deleted(redundant, now, &table));
    assert!(lineage.handle_deleted(first, now, &table));
    assert_eq!(sends(), Some(Spi(winner.0 ^ 0xffff)));
    // The peer's packet on it was on its way for longer than its DELETE.
    lineage.handle_first_use(redundant, &table);
    assert_eq!(sends(), Some(Spi(winner.0 ^ 0xffff)));
    assert_eq!(lineage.current(), winner);
}
