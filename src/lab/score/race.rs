use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;
use std::time::Duration;
use std::vec;

use super::contender::{Contender, Parcel};
use super::e_model::PACKET_TIME;
use super::field::{Field, Way};
use super::figures::Figures;
use super::hearing::{Hearing, WINDOW};
use super::traffic::{PlannedTransfer, Program};
use super::transfer::{ACK, PACKET, Receipt, Transfer};
use crate::config::Scenario;
use crate::lab::impairment::NetworkLoss;
use crate::lab::relay::Direction;
use crate::model::{Dscp, FlowKey, Moment};

/// The scenario begins when tunnels are up, settled and measured, whoever steers: later than the
/// hold-down and the minimum dwell.
pub const BEGINS: Moment = Moment::from_millis(60_000);

/// What transfers send goes out in steps of this.
const STEP: Duration = Duration::from_millis(10);

/// Bytes of a packet of a call on the line: 160 of G.711, and RTP, UDP, IP and a tunnel around them.
const VOICE_BYTES: usize = 260;
/// Of these inside the tunnel.
const VOICE_INNER: u64 = 200;

/// One scenario, steered by one contender.
pub struct Race<'a> {
    contender: &'a mut dyn Contender,
    field: Field,
    now: Moment,
    ends: Moment,
    calls: Vec<Call>,
    /// By a number that is never used again.
    transfers: BTreeMap<u64, Transfer>,
    to_come: Peekable<vec::IntoIter<PlannedTransfer>>,
    begun: u64,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    sequence: u64,
    moves: u64,
    overtaken: u64,
    over: Vec<FlowFigures>,
}

/// What came of one flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowFigures {
    pub key: FlowKey,
    /// Bytes that a transfer brought to its end, each once.
    pub delivered: u64,
    /// Nothing of it arrived, in the worse direction, for longer than is taken for chance.
    pub silence: Duration,
}

struct Call {
    key: FlowKey,
    dscp: Dscp,
    until: Moment,
    way: Option<Way>,
    /// The far end answers on the way that it was last reached by.
    back: Option<Way>,
    ears: [Hearing; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A call has its next packet at both ends.
    Talk(usize),
    /// A packet of a call has reached the far end by this way, or the site.
    Heard {
        call: usize,
        way: Way,
        direction: Direction,
    },
    /// A burst has reached its receiver, which acknowledges it.
    Data {
        transfer: u64,
        way: Way,
        receipt: Receipt,
    },
    Receipt {
        transfer: u64,
        way: Way,
        receipt: Receipt,
    },
}

impl<'a> Race<'a> {
    /// With the traffic of the scenario.
    pub fn new(scenario: &Scenario, contender: &'a mut dyn Contender) -> Race<'a> {
        Race::with(Program::new(scenario), scenario, contender)
    }

    /// With other traffic.
    pub fn with(program: Program, scenario: &Scenario, contender: &'a mut dyn Contender) -> Race<'a> {
        let at = |time: Duration| BEGINS + time;
        let mut race = Race {
            contender,
            field: Field::new(scenario, BEGINS),
            now: Moment::ZERO,
            ends: at(scenario.duration),
            calls: Vec::new(),
            transfers: BTreeMap::new(),
            to_come: program.transfers.into_iter().peekable(),
            begun: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            moves: 0,
            overtaken: 0,
            over: Vec::new(),
        };
        for (number, call) in program.calls.iter().enumerate() {
            // Not all at the same moment.
            let offset = PACKET_TIME * (number % 16) as u32 / 16;
            race.push(at(call.from) + offset, Event::Talk(number));
            let ears = [Hearing::default(), Hearing::default()];
            race.calls.push(Call {
                key: call.key,
                dscp: call.dscp,
                until: at(call.until),
                way: None,
                back: None,
                ears,
            });
        }
        race
    }

    /// Plays it to the end.
    pub fn run(self) -> Figures {
        self.run_each().0
    }

    /// Plays it to the end, and tells of each flow too.
    pub fn run_each(mut self) -> (Figures, Vec<FlowFigures>) {
        let mut step = Moment::ZERO;
        while self.now < self.ends {
            let event = self.events.peek().map(|Reverse((at, _, _))| *at);
            let timeout = self.contender.poll_timeout();
            let next = [Some(step), event, timeout].into_iter().flatten().min().unwrap_or(self.ends);
            self.now = next.max(self.now).min(self.ends);
            let stepping = self.now >= step;
            if stepping {
                self.field.follow(self.now);
            }
            self.contender.advance(&mut self.field, self.now);
            self.handle_events();
            if stepping {
                step = step + STEP;
                if self.now >= BEGINS {
                    self.send_transfers();
                }
            }
        }
        self.finish()
    }

    fn handle_events(&mut self) {
        while self.events.peek().is_some_and(|Reverse((at, _, _))| *at <= self.now) {
            let Some(Reverse((_, _, event))) = self.events.pop() else { return };
            match event {
                Event::Talk(call) => self.talk(call),
                Event::Heard { call, way, direction: Direction::Up } => {
                    if let Some(call) = self.calls.get_mut(call) {
                        call.back = Some(way);
                    }
                }
                Event::Heard { way, direction: Direction::Down, .. } => {
                    self.contender.handle_arrival(way, 1, VOICE_INNER, self.now);
                }
                Event::Data { transfer, way, receipt } => self.acknowledge(transfer, way, receipt),
                Event::Receipt { transfer, way, receipt } => self.receive(transfer, way, receipt),
            }
        }
    }

    /// Both ends of a call send a packet.
    fn talk(&mut self, number: usize) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(number).filter(|call| now < call.until) else { return };
        let parcel = Parcel { key: call.key, dscp: call.dscp, packets: 1, bytes: VOICE_INNER, upload: true };
        let way = self.contender.route(&parcel, &self.field, now);
        self.moves += u64::from(has_moved(&mut call.way, way));
        let up = way.and_then(|way| self.field.send(way, Direction::Up, VOICE_BYTES, now));
        let down = call.back.and_then(|back| self.field.send(back, Direction::Down, VOICE_BYTES, now));
        let [far, near] = &mut call.ears;
        far.handle_packet(now, up);
        // Until the far end knows of the call, it says nothing.
        if call.back.is_some() {
            near.handle_packet(now, down);
        }
        let back = call.back;
        for (arrives, way, direction) in [(up, way, Direction::Up), (down, back, Direction::Down)] {
            if let (Some(arrives), Some(way)) = (arrives, way) {
                self.push(arrives, Event::Heard { call: number, way, direction });
            }
        }
        self.push(now + PACKET_TIME, Event::Talk(number));
    }

    fn send_transfers(&mut self) {
        let now = self.now;
        while let Some(planned) = self.to_come.next_if(|planned| BEGINS + planned.at <= now) {
            let until = planned.until.map(|until| BEGINS + until);
            let transfer = Transfer::new((planned.key, planned.dscp), planned.upload, planned.bytes, until, now);
            self.transfers.insert(self.begun, transfer);
            self.begun += 1;
        }
        // Turns change, so that no transfer always finds the shortest queue.
        let mut numbers: Vec<u64> = self.transfers.keys().copied().collect();
        let turn = (now.as_nanos() / STEP.as_nanos() as u64) as usize % numbers.len().max(1);
        numbers.rotate_left(turn);
        for number in numbers {
            self.send_transfer(number);
        }
    }

    fn send_transfer(&mut self, number: u64) {
        let now = self.now;
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let packets = transfer.poll_send(STEP, now);
        if packets == 0 {
            return;
        }
        let upload = transfer.upload;
        // Of a download the site sends what acknowledges it.
        let bytes = u64::from(packets) * if upload { PACKET as u64 } else { ACK as u64 / 2 };
        let parcel = Parcel { key: transfer.key, dscp: transfer.dscp, packets, bytes, upload };
        let way = self.contender.route(&parcel, &self.field, now);
        self.moves += u64::from(has_moved(&mut transfer.way, way));
        let Some(way) = way else {
            transfer.handle_sent(packets, None, now);
            return;
        };
        let direction = if upload { Direction::Up } else { Direction::Down };
        let burst = self.field.send_many(way, direction, (packets, PACKET), now);
        let generation = transfer.generation();
        let (arrives, receipt) = match burst {
            Ok(burst) => {
                let receipt = Receipt { passed: burst.passed, lost: burst.lost, sent: now, generation };
                (Some(burst.arrives), Some((burst.arrives, receipt)))
            }
            // Those behind it tell that it is missing.
            Err(NetworkLoss::Random | NetworkLoss::QueueFull) => {
                let at = now + self.field.delay(way, direction, now);
                (None, Some((at, Receipt { passed: 0, lost: packets, sent: now, generation })))
            }
            Err(NetworkLoss::Cut) => (None, None),
        };
        transfer.handle_sent(packets, arrives, now);
        if let Some((at, receipt)) = receipt {
            self.push(at, Event::Data { transfer: number, way, receipt });
        }
    }

    fn acknowledge(&mut self, number: u64, way: Way, receipt: Receipt) {
        let now = self.now;
        let Some(transfer) = self.transfers.get(&number) else { return };
        let (back, upload) = (if transfer.upload { Direction::Down } else { Direction::Up }, transfer.upload);
        if !upload {
            self.contender.handle_arrival(way, receipt.passed, u64::from(receipt.passed) * PACKET as u64, now);
        }
        // What is acknowledged by one packet that is lost is so by the next.
        let acknowledgements = (receipt.passed + receipt.lost).div_ceil(2);
        let arrives = match self.field.send_many(way, back, (acknowledgements, ACK), now) {
            Ok(burst) => burst.arrives,
            Err(NetworkLoss::Cut) => return,
            Err(_) => now + self.field.delay(way, back, now),
        };
        self.push(arrives, Event::Receipt { transfer: number, way, receipt });
    }

    fn receive(&mut self, number: u64, way: Way, receipt: Receipt) {
        let now = self.now;
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        if transfer.upload {
            let acknowledgements = (receipt.passed + receipt.lost).div_ceil(2);
            self.contender.handle_arrival(way, acknowledgements, u64::from(acknowledgements) * 40, now);
        }
        transfer.handle_receipt(receipt, now);
        if transfer.is_over(now)
            && let Some(mut over) = self.transfers.remove(&number)
        {
            self.count(&mut over);
            self.contender.forget(&over.key);
        }
    }

    fn count(&mut self, transfer: &mut Transfer) {
        transfer.finish(self.now);
        self.overtaken += transfer.overtaken();
        let (key, delivered, silence) = (transfer.key, transfer.delivered(), transfer.silence());
        self.over.push(FlowFigures { key, delivered, silence });
    }

    fn finish(mut self) -> (Figures, Vec<FlowFigures>) {
        for mut transfer in std::mem::take(&mut self.transfers).into_values() {
            self.count(&mut transfer);
        }
        let goodput_bytes = self.over.iter().map(|transfer| transfer.delivered).sum();
        let calls = self.calls.len().max(1) as f64;
        let (mut windows, mut bad, mut silent) = (0u32, 0u32, Duration::ZERO);
        for call in &mut self.calls {
            let until = call.until.min(self.now);
            for ear in &mut call.ears {
                ear.finish(until);
                self.overtaken += ear.overtaken();
            }
            let [far, near] = &call.ears;
            let ((judged, far_bad), (_, near_bad)) = (far.windows(), near.windows());
            windows += judged;
            bad += far_bad.max(near_bad);
            let silence = far.silence().max(near.silence());
            silent += silence;
            self.over.push(FlowFigures { key: call.key, delivered: 0, silence });
        }
        let minutes = |windows: u32| f64::from(windows) * WINDOW.as_secs_f64() / 60.0 / calls;
        let figures = Figures {
            voice_minutes: minutes(windows),
            voice_minutes_bad: minutes(bad),
            outage_seconds: silent.as_secs_f64() / calls,
            goodput_bytes,
            reordered: self.overtaken,
            moves: self.moves,
        };
        (figures, self.over)
    }

    fn push(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

/// Takes the new way; true when it is another one.
fn has_moved(place: &mut Option<Way>, way: Option<Way>) -> bool {
    let Some(way) = way else { return false };
    place.replace(way).is_some_and(|before| before != way)
}
