use super::*;
use crate::edge::{Destination, TunnelState};
use crate::ike::{CloseReason, Identity};

#[test]
fn what_is_urgent_reaches_the_disk_within_a_second_and_the_rest_within_thirty() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    let mut now = seconds(1);
    let mut tick = |writer: &mut Writer<Memory>, news: Vec<News>| {
        now = now + Duration::from_millis(250);
        writer.handle(batch(news.into_iter().map(|news| (now, news)).collect()), now).unwrap();
        let bytes: usize = disk.state().files.values().map(Vec::len).sum();
        (bytes, disk.state().syncs)
    };
    tick(&mut writer, vec![]);
    let begun = whole(&plan, seconds(1));
    tick(&mut writer, vec![begun]);
    for _ in 0..8 {
        tick(&mut writer, vec![judged()]);
    }
    let (bytes, syncs) = tick(&mut writer, vec![judged()]);
    let event = SiteEvent::Rekeyed { path: PathId(0), what: "IKE SA" };
    let (after, synced) = tick(&mut writer, vec![News::Event(Box::new(event.clone()))]);
    assert!(after > bytes && synced == syncs + 1, "at once, when nothing was for a second: {synced} {syncs}");
    let (more, again) = tick(&mut writer, vec![News::Event(Box::new(event))]);
    assert!(more > after && again == synced, "and not twice within one");
    let outcomes: Vec<usize> = (0..4).map(|_| tick(&mut writer, vec![]).1).collect();
    assert_eq!(outcomes[3], synced + 1, "though nothing more is told: {outcomes:?}");
    let quiet = (0..115).map(|_| tick(&mut writer, vec![judged()]).1).max().unwrap();
    assert_eq!(quiet, synced + 1);
    assert_eq!((0..12).map(|_| tick(&mut writer, vec![judged()]).1).max(), Some(synced + 2));
}

#[test]
fn a_clock_that_is_set_back_while_it_records_begins_a_block_and_disturbs_no_order() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    let back = ZERO - 7_200_000;
    for second in 1..120 {
        let now = seconds(second);
        let mut news = vec![(now, judged())];
        if writer.wants_whole() || second % 60 == 0 {
            news.push((now, whole(&plan, now)));
        }
        let unix_ms_at_zero = if second < 62 { ZERO } else { back };
        writer.handle(Batch { news, unix_ms_at_zero, ..Batch::default() }, now).unwrap();
    }
    writer.finish(seconds(120));
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let places = reader.index().unwrap();
    for place in &places {
        let expected = if place.header.first < seconds(62) { ZERO } else { back };
        assert_eq!(place.header.unix_ms_at_zero, expected, "a block has one clock: {place:?}");
        assert!(place.header.last < seconds(62) || place.header.first >= seconds(62), "{place:?}");
    }
    assert!(
        places.is_sorted_by_key(|place| place.header.number) && places.is_sorted_by_key(|place| place.header.first)
    );
    let told = report(folder.path());
    assert_eq!((told.differences.len(), told.troubles.len()), (0, 0), "{told:?}");
    let clocks: Vec<u64> = told.steps.iter().filter(|step| step.what == "clock").map(|step| step.at_ms).collect();
    assert_eq!(clocks, [ZERO + 2_000, back + 62_000]);
    assert_eq!(writer.status().extent.last_unix_ms, Some(back + 119_000));
}

#[test]
fn nothing_that_is_told_names_a_peer_or_its_address() {
    let mut plan = plan().as_ref().clone();
    let tunnel = &mut plan.tunnels[0];
    tunnel.destination = Some(Destination::Fqdn("pop1.example.net".to_owned()));
    tunnel.remote_id = Some(Identity::Fqdn("id.example.org".to_owned()));
    let path = PathId(0);
    let state = |reason: &str| SiteEvent::TunnelState {
        path,
        from: TunnelState::Waiting,
        to: TunnelState::Connecting,
        reason: reason.to_owned(),
    };
    let address = [192, 0, 2, 77].into();
    let expected = Identity::Fqdn("id.example.org".to_owned());
    let found = Identity::KeyId(b"not, but example of.others".to_vec());
    let stranger = CloseReason::IdentityMismatch { expected: expected.clone(), found: found.clone() }.to_string();
    let other_us = CloseReason::LocalIdentityMismatch { expected, found }.to_string();
    let events = [
        state(&stranger),
        state(&other_us),
        state("calling 192.0.2.77"),
        state("refused (192.0.2.77 to 192.0.2.0-192.0.2.77, 192.0.2.77/32)"),
        state("pop1.example.net (192.0.2.77:4500), answered by id.example.org: no proposal"),
        SiteEvent::AddressChanged { path, name: "pop1.example.net".to_owned(), from: address, to: address },
        SiteEvent::ResolutionFailed {
            path,
            name: "pop1.example.net".to_owned(),
            reason: "pop1.example.net: no such name".to_owned(),
            fallback: Some(address),
        },
        SiteEvent::RolesAlike { connector: ConnectorId(0), address },
    ];
    for event in &events {
        let line = Line { at: Moment::ZERO, entry: Entry::Told(Told::of(event, &plan)) };
        let text = serde_json::to_string(&line).unwrap();
        assert!(!["192.0.2.77", "example"].iter().any(|secret| text.contains(secret)), "{text}");
    }
    let reason = |event: &SiteEvent| Told::of(event, &plan).reason;
    assert_eq!(reason(&events[0]), "the peer calls itself (a name), but remote_id is (a name)");
    assert_eq!(reason(&events[1]), "the peer calls us (a name), but local_id is (a name)");
    assert_eq!(reason(&events[4]), "(a name) ((an address)), answered by (a name): no proposal");
}
