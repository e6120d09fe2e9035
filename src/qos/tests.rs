//! The shaper in simulated time: whoever drives it wakes by whole milliseconds, as a worker does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Arriving, Fate, Search, Sent, Shaper};
use crate::model::{Chance, LinkId, Mbps, Moment};
use crate::packet::SitePacket;

/// Bytes around an inner packet.
const AROUND: u64 = 60;
const LONGEST: usize = 65_536;
/// Of a piece that a super-packet is cut into.
const PIECE: u64 = 1_400;
const MILLI: Duration = Duration::from_millis(1);

#[derive(Clone, Copy)]
struct Note {
    flow: u64,
    arrived: Moment,
}

#[derive(Default, Clone, Debug)]
struct Tally {
    /// Inner bytes, and packets.
    sent: u64,
    packets: u64,
    waits: Vec<Duration>,
    /// Dropped to make room, and by CoDel.
    lost: u64,
    struck: u64,
    marked: u64,
}

impl Tally {
    fn longest(&self) -> Duration {
        self.waits.iter().copied().max().unwrap_or_default()
    }

    fn median(&self) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort();
        waits.get(waits.len() / 2).copied().unwrap_or_default()
    }
}

/// A shaper, and what has come out of it.
struct Bench {
    shaper: Shaper<Note>,
    packet: SitePacket,
    now: Moment,
    flows: BTreeMap<u64, Tally>,
    wire: u64,
    markable: bool,
}

impl Bench {
    fn new(site: Option<u32>, links: &[Option<u32>]) -> Bench {
        let mut shaper = Shaper::default();
        let links: Vec<_> = links.iter().map(|rate| Some(rate.map(mbps))).collect();
        shaper.set(site.map(mbps), &links, LONGEST);
        let packet = SitePacket::with_capacity(LONGEST);
        let now = Moment::from_millis(1_000);
        Bench { shaper, packet, now, flows: BTreeMap::new(), wire: 0, markable: false }
    }

    fn push(&mut self, link: u16, flow: u64, length: usize) {
        self.push_with(link, flow, flow, length);
    }

    fn push_with(&mut self, link: u16, hash: u64, flow: u64, length: usize) {
        self.packet.packet.reset();
        self.packet.packet.set_len(length);
        let note = Note { flow, arrived: self.now };
        let arriving = Arriving { packet: &mut self.packet, hash, note, markable: self.markable };
        let flows = &mut self.flows;
        let lost = &mut |note: &Note| flows.entry(note.flow).or_default().lost += 1;
        assert!(self.shaper.push(LinkId(link), arriving, self.now, lost));
    }

    /// The flows of what is withdrawn.
    fn withdrawn(&mut self, wanted: impl Fn(LinkId, &Note) -> bool) -> Vec<u64> {
        let mut search = Search::default();
        let mut next = || self.shaper.withdraw(&mut search, &wanted, &mut self.packet).map(|note| note.flow);
        std::iter::from_fn(&mut next).collect()
    }

    /// Sends what may leave now; the flows of whole packets that have left, and of those that were struck.
    fn drain(&mut self) -> Vec<(u64, Fate)> {
        let mut gone = Vec::new();
        while let Some(due) = self.shaper.next(self.now) {
            let (packet, note) = self.shaper.packet(&due).unwrap();
            let (length, note) = (packet.packet.len() as u64, *note);
            let tally = self.flows.entry(note.flow).or_default();
            let mut sent = Sent { wire: 0, left: length };
            match due.fate {
                Fate::Drop => {
                    tally.struck += 1;
                    sent.left = length.saturating_sub(PIECE);
                }
                Fate::Pass | Fate::Mark => {
                    tally.marked += u64::from(due.fate == Fate::Mark);
                    while sent.left > 0 && (sent.wire == 0 || sent.wire < due.room) {
                        let piece = sent.left.min(PIECE);
                        sent.left -= piece;
                        sent.wire += piece + AROUND;
                        tally.sent += piece;
                    }
                }
            }
            packet.packet.truncate(sent.left as usize);
            if sent.left == 0 {
                gone.push((note.flow, due.fate));
                if due.fate != Fate::Drop {
                    tally.packets += 1;
                    tally.waits.push(self.now.since(note.arrived));
                }
            }
            self.wire += sent.wire;
            self.shaper.finish(&due, sent, self.now);
        }
        gone
    }

    /// Until then: wakes up at whole milliseconds after what is due, and each `every` to let `feed` push more.
    fn run(&mut self, span: Duration, every: Duration, mut feed: impl FnMut(&mut Bench)) {
        let end = self.now + span;
        let mut next_feed = self.now;
        while self.now < end {
            if self.now >= next_feed {
                feed(self);
                next_feed = next_feed + every;
            }
            self.drain();
            let wait = self.shaper.due().map(|due| due.since(self.now));
            let wait = wait.map(|wait| MILLI * wait.as_nanos().div_ceil(1_000_000) as u32);
            let next = wait.map_or(next_feed, |wait| (self.now + wait).min(next_feed));
            assert!(next > self.now, "the shaper says that it is due and gives nothing");
            self.now = next;
        }
    }

    fn of(&self, flow: u64) -> Tally {
        self.flows.get(&flow).cloned().unwrap_or_default()
    }

    fn waiting(&self) -> usize {
        self.shaper.state(LinkId(0)).unwrap().0
    }
}

fn mbps(value: u32) -> Mbps {
    Mbps::new(value).unwrap()
}

#[test]
fn the_rate_on_the_wire_is_the_configured_one() {
    for (rate, length) in [(1, 1_400), (20, 1_400), (20, 100), (100, 60_000), (1_000, 60_000), (10_000, 60_000)] {
        let mut bench = Bench::new(None, &[Some(rate)]);
        // Half as much again as may leave, so that the queue is never empty.
        let per_milli = (u64::from(rate) * 125 * 3 / 2).div_ceil(length as u64).max(1);
        bench.run(Duration::from_secs(5), MILLI, |bench| (0..per_milli).for_each(|_| bench.push(0, 1, length)));
        let reached = bench.wire as f64 * 8.0 / 5.0 / 1e6;
        assert!((reached / f64::from(rate) - 1.0).abs() < 0.01, "{rate} Mbps in packets of {length}: {reached}");
    }
}

#[test]
fn a_worker_that_comes_late_makes_up_for_it() {
    let mut bench = Bench::new(None, &[Some(20)]);
    for turn in 0..1_000u64 {
        (0..40).for_each(|_| bench.push(0, 1, 1_400));
        bench.drain();
        bench.now = bench.now + Duration::from_millis(turn % 17);
    }
    let reached = bench.wire as f64 * 8e-6 / bench.now.since(Moment::from_millis(1_000)).as_secs_f64();
    assert!((reached / 20.0 - 1.0).abs() < 0.01, "{reached}");
}

#[test]
fn a_sparse_flow_does_not_wait_for_bulk() {
    for length in [1_400, 60_000] {
        let mut bench = Bench::new(None, &[Some(20)]);
        let mut milli = 0u64;
        bench.run(Duration::from_secs(10), MILLI, |bench| {
            (0..3).for_each(|flow| bench.push(0, 10 + flow, length));
            if milli.is_multiple_of(20) {
                bench.push(0, 1, 200);
            }
            milli += 1;
        });
        let (voice, bulk) = (bench.of(1), bench.of(10));
        assert_eq!((voice.packets, voice.lost + voice.struck), (500, 0));
        assert!(voice.longest() < Duration::from_millis(5), "{:?} beside packets of {length}", voice.longest());
        assert!(bulk.sent > 6_000_000 && bulk.lost > 1_000, "{} bytes, {} lost", bulk.sent, bulk.lost);
    }
}

#[test]
fn flows_share_by_bytes_whatever_the_size_of_their_packets() {
    let mut bench = Bench::new(None, &[Some(50)]);
    bench.run(Duration::from_secs(5), MILLI, |bench| {
        (0..2).for_each(|_| bench.push(0, 1, 60_000));
        (0..6).for_each(|_| bench.push(0, 2, 1_400));
        (0..15).for_each(|_| bench.push(0, 3, 700));
    });
    // What is around them counts too.
    let wire = |flow, length: u64| bench.of(flow).sent as f64 * (length + AROUND) as f64 / length as f64;
    let (one, two, three) = (wire(1, 1_400), wire(2, 1_400), wire(3, 700));
    assert!((one / two - 1.0).abs() < 0.03 && (two / three - 1.0).abs() < 0.03, "{one} {two} {three}");
}

#[test]
fn what_does_not_fit_is_dropped_from_who_sends_most_and_counted() {
    for length in [1_400, 60_000] {
        let mut bench = Bench::new(None, &[Some(20)]);
        let (mut flood, mut modest) = (0u64, 0u64);
        bench.run(Duration::from_secs(2), MILLI, |bench| {
            for _ in 0..20 {
                bench.push(0, 1, length);
                flood += 1;
            }
            if bench.now.as_nanos().is_multiple_of(4_000_000) {
                bench.push(0, 2, 500);
                modest += 1;
            }
            assert!(bench.waiting() <= 1_200);
        });
        let (one, two) = (bench.of(1), bench.of(2));
        assert_eq!((two.packets, two.lost, two.struck), (modest, 0, 0), "of {modest}");
        let whole = if length > 1_400 { 0 } else { one.struck };
        assert_eq!(one.packets + one.lost + whole + bench.waiting() as u64, flood);
        assert!(one.lost > flood / 2);
    }
}

/// Senders that behave as TCP does: a window that grows by a packet each round trip and halves when one is lost.
#[test]
fn codel_keeps_the_queue_of_senders_that_listen_near_its_target() {
    for markable in [false, true] {
        let mut bench = Bench::new(None, &[Some(20)]);
        bench.markable = markable;
        let round_trip = Duration::from_millis(30);
        let (mut windows, mut out) = ([4.0f64; 4], [0u64; 4]);
        // When acknowledgements, or news of a loss, arrive: with the flow.
        let mut news: BTreeMap<(Moment, u64), (u64, bool)> = BTreeMap::new();
        let mut deaf = [Moment::ZERO; 4];
        let end = bench.now + Duration::from_secs(20);
        let mut number = 0;
        let start = bench.now;
        while bench.now < end {
            while let Some(((_, _), (flow, lost))) = news.first_key_value().filter(|((at, _), _)| *at <= bench.now) {
                let (index, lost) = (*flow as usize, *lost);
                news.pop_first();
                out[index] -= 1;
                if lost && bench.now >= deaf[index] {
                    windows[index] = (windows[index] / 2.0).max(2.0);
                    deaf[index] = bench.now + round_trip;
                } else if !lost {
                    windows[index] += 1.0 / windows[index];
                }
            }
            for flow in 0..4 {
                while (out[flow] as f64) < windows[flow] {
                    out[flow] += 1;
                    bench.push(0, flow as u64, 1_400);
                }
            }
            for (flow, fate) in bench.drain() {
                number += 1;
                news.insert((bench.now + round_trip, number), (flow, fate != Fate::Pass));
            }
            bench.now = bench.now + MILLI;
        }
        let steady: Vec<Duration> = (0..4).map(|flow| bench.of(flow).median()).collect();
        assert!(steady.iter().all(|wait| *wait < Duration::from_millis(12)), "{steady:?}");
        let reached = bench.wire as f64 * 8e-6 / bench.now.since(start).as_secs_f64();
        assert!(reached > 19.0, "{reached} Mbps");
        let told: Vec<(u64, u64)> = (0..4).map(|flow| (bench.of(flow).struck, bench.of(flow).marked)).collect();
        assert!(told.iter().all(|(struck, marked)| if markable { *struck == 0 && *marked > 5 } else { *struck > 5 }));
        assert!((0..4).all(|flow| bench.of(flow).lost == 0));
    }
}

#[test]
fn the_license_holds_over_all_links_and_each_link_s_rate_besides() {
    let mut bench = Bench::new(Some(50), &[Some(10), Some(100), None]);
    bench.run(Duration::from_secs(5), MILLI, |bench| {
        (0..10).for_each(|_| (0..3).for_each(|link| bench.push(link, 1 + u64::from(link), 1_400)));
    });
    let rate = |flow| bench.of(flow).sent as f64 * (1_460.0 / 1_400.0) * 8e-6 / 5.0;
    let all = bench.wire as f64 * 8e-6 / 5.0;
    assert!((all / 50.0 - 1.0).abs() < 0.01, "{all} Mbps in all");
    assert!((rate(1) / 10.0 - 1.0).abs() < 0.02, "{} Mbps of the slow link", rate(1));
    assert!((rate(2) / rate(3) - 1.0).abs() < 0.05, "{} and {} Mbps share the rest", rate(2), rate(3));
}

#[test]
fn what_leaves_without_waiting_counts_as_well() {
    let mut bench = Bench::new(None, &[Some(20)]);
    bench.run(Duration::from_secs(2), MILLI, |bench| {
        (0..4).for_each(|_| bench.push(0, 1, 1_400));
        bench.shaper.charge(LinkId(0), 1_000, bench.now);
    });
    let reached = bench.wire as f64 * 8e-6 / 2.0;
    assert!((reached - 12.0).abs() < 0.2, "{reached} beside 8 Mbps of others");
}

#[test]
fn a_new_rate_keeps_what_waits_for_the_other_links() {
    let mut bench = Bench::new(None, &[Some(20), Some(20)]);
    (0..10).for_each(|_| (0..2).for_each(|link| bench.push(link, 1, 1_400)));
    bench.shaper.set(None, &[Some(Some(mbps(20))), Some(Some(mbps(30)))], LONGEST);
    assert_eq!(bench.shaper.state(LinkId(0)).unwrap().0, 10);
    assert_eq!(bench.shaper.state(LinkId(1)).unwrap().0, 0);
    assert_eq!(bench.withdrawn(|_, _| false), [1; 10], "what waited by the old rate");
    bench.shaper.set(None, &[None, None], LONGEST);
    assert!(bench.shaper.due().is_none() && bench.shaper.next(bench.now).is_none());
    assert_eq!(bench.withdrawn(|_, _| false), [1; 10]);
    assert!(bench.shaper.is_empty());
}

#[test]
fn what_is_withdrawn_comes_in_order_and_what_is_not_leaves_as_if_nothing_had_been() {
    let mut chance = Chance::from_number(5);
    for _ in 0..200 {
        let mut bench = Bench::new(None, &[Some(50), Some(50)]);
        let mut expected: BTreeMap<(u16, u64), Vec<u64>> = BTreeMap::new();
        for number in 0..1 + u64::from(chance.below(60)) {
            // The hash is the flow's: those of one queue, some of which are wanted.
            let (link, queue) = (chance.below(2) as u16, u64::from(chance.below(3)));
            let length = if chance.below(3) == 0 { 9_000 } else { 100 };
            bench.push_with(link, queue, number, length);
            expected.entry((link, queue)).or_default().push(number);
        }
        // Some have begun to leave.
        (0..chance.below(3)).for_each(|_| bench.now = bench.now + MILLI);
        let gone: Vec<u64> = bench.drain().into_iter().map(|(flow, _)| flow).collect();
        let of_link = chance.below(2) as u16;
        let wanted = |link: LinkId, note: &Note| link.0 == of_link && !note.flow.is_multiple_of(3);
        let withdrawn = bench.withdrawn(wanted);
        let is_wanted =
            |link: u16, number: &u64| link == of_link && !number.is_multiple_of(3) && !gone.contains(number);
        for ((link, queue), numbers) in &expected {
            let of_queue: Vec<u64> = numbers.iter().copied().filter(|number| is_wanted(*link, number)).collect();
            let told: Vec<u64> = withdrawn.iter().copied().filter(|number| numbers.contains(number)).collect();
            assert_eq!(told, of_queue, "{link} {queue}");
        }
        let mut rest = gone.clone();
        while !bench.shaper.is_empty() {
            bench.now = bench.now + MILLI;
            rest.extend(bench.drain().into_iter().map(|(flow, _)| flow));
        }
        for ((link, _), numbers) in &expected {
            let stays: Vec<u64> = numbers.iter().copied().filter(|number| !is_wanted(*link, number)).collect();
            let told: Vec<u64> = rest.iter().copied().filter(|number| numbers.contains(number)).collect();
            assert_eq!(told, stays);
        }
        let state = |link| bench.shaper.state(LinkId(link)).map(|(packets, bytes, _)| (packets, bytes));
        assert_eq!([state(0), state(1)], [Some((0, 0)); 2]);
    }
}
