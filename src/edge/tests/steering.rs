//! What steering makes of what it is told of a site with three links.

use super::*;
use crate::edge::memory::Memory;
use crate::edge::steering::Steering;
use crate::forward::HeavyFlow;
use crate::model::{FlowKey, Permille, Verdict};
use crate::steer::{Quality, Recent};

const MBPS: [u32; 3] = [20, 8, 5];

/// With so many connectors of three tunnels each, over the same links.
fn site(connectors: usize) -> Plan {
    let one = plan(0, Mode::Initiator);
    let links = (0..3u16).map(|link| LinkPlan { underlay: UnderlayId(link), ..one.links[0].clone() });
    let tunnels = (0..connectors * 3).map(|number| TunnelPlan {
        connector: ConnectorId((number / 3) as u16),
        link: LinkId((number % 3) as u16),
        upstream: Mbps::new(MBPS[number % 3]).unwrap(),
        downstream: Mbps::new(MBPS[number % 3]).unwrap(),
        ..one.tunnels[0].clone()
    });
    let of = |connector: usize| (0..3).map(|path| PathId((connector * 3 + path) as u16)).collect();
    let connector = |number| ConnectorPlan {
        roles: [Some(RolePlan { pop_location: None, tunnels: of(number) }), None],
        ..one.connectors[0].clone()
    };
    Plan {
        links: links.collect(),
        connectors: (0..connectors).map(connector).collect(),
        tunnels: tunnels.collect(),
        ..one.clone()
    }
}

fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1_000)
}

fn rtt(millis: u64) -> Quality {
    let rtt = Some(Duration::from_millis(millis));
    let (loss, jitter) = (Some(Permille::ZERO), Some(Duration::ZERO));
    Quality { loss, rtt, jitter, latest: rtt, source: Some(0), ..Quality::default() }
}

/// Carrying so much.
fn busy(mbps: u32, millis: u64) -> Quality {
    Quality { sent_kbps: mbps * 1_000, ..rtt(millis) }
}

/// Losing so many of a thousand.
fn losing(permille: u16, quality: Quality) -> Quality {
    let loss = Permille::new(permille).unwrap();
    let recent = Recent { rtt: quality.rtt.unwrap(), jitter: Duration::ZERO, loss, loss_least: loss, loss_most: loss };
    Quality { recent: Some(recent), ..quality }
}

struct Scene {
    plan: Plan,
    steering: Steering,
    verdicts: Vec<Verdict>,
    second: u64,
    sent: Vec<u64>,
}

impl Scene {
    /// Up and well for a minute.
    fn new(connectors: usize) -> Scene {
        let plan = site(connectors);
        let count = plan.tunnels.len();
        let steering = Steering::new(&plan, at(0));
        let mut scene =
            Scene { plan, steering, verdicts: vec![Verdict::Healthy; count], second: 0, sent: vec![0; count] };
        scene.follow();
        scene.play(60, &vec![rtt(18); count]);
        scene
    }

    fn follow(&mut self) {
        self.steering.follow(&self.plan, self.verdicts.iter().copied(), at(self.second));
    }

    fn turn(&mut self, path: usize, verdict: Verdict) {
        self.verdicts[path] = verdict;
        self.follow();
    }

    /// So many seconds in which this is measured; every ten a re-steer.
    fn play(&mut self, seconds: u64, measured: &[Quality]) {
        for _ in 0..seconds {
            self.second += 1;
            self.steering.judge(&self.plan, measured.iter().copied(), at(self.second));
            for (sent, measured) in self.sent.iter_mut().zip(measured) {
                *sent += u64::from(measured.sent_kbps) * 125;
            }
            if self.second.is_multiple_of(10) {
                self.steering.count(&self.plan, self.sent.iter().copied(), at(self.second));
            }
        }
    }

    fn memory(&self, path: u16) -> &Memory {
        self.steering.path(PathId(path)).unwrap()
    }

    /// From which path to which flows are to go, in the survey of this number.
    fn shifts(&self, number: u64, flows: &[HeavyFlow]) -> Vec<(u16, u16)> {
        let active = vec![Role::Primary; self.plan.connectors.len()];
        let shifts = self.steering.shifts(number, flows, &active, &self.plan, at(self.second));
        shifts.into_iter().map(|shift| (shift.from.0, shift.to.0)).collect()
    }

    /// At a re-steer now.
    fn resteer(&mut self, flows: &[HeavyFlow]) -> Vec<(u16, u16)> {
        let number = self.steering.count(&self.plan, self.sent.iter().copied(), at(self.second));
        self.shifts(number, flows)
    }
}

fn flow(number: u16, path: u16, kbps: u64) -> HeavyFlow {
    let key = FlowKey {
        segment: 0,
        protocol: 6,
        source: [10, 0, 0, 1].into(),
        destination: [10, 1, 0, 1].into(),
        source_port: number,
        destination_port: 443,
    };
    HeavyFlow { key, path: PathId(path), peers: 0b111, rate: kbps * 125, moved_at: None }
}

#[test]
fn a_path_that_is_slow_by_the_site_s_own_doing_is_forgiven_and_one_that_loses_is_not() {
    let mut scene = Scene::new(1);
    let full = busy(19, 450);
    scene.play(5, &[full, rtt(18), rtt(18)]);
    assert!(scene.memory(0).condition.strained);
    scene.turn(0, Verdict::Degraded);
    scene.play(1, &[Quality { only_slow: true, ..full }, rtt(18), rtt(18)]);
    assert!(scene.memory(0).condition.strained);
    let epoch = scene.memory(0).epoch;
    // Now it loses as well.
    scene.play(1, &[full, rtt(18), rtt(18)]);
    assert!(!scene.memory(0).condition.strained && scene.memory(0).condition.full);
    assert_ne!(scene.memory(0).epoch, epoch, "its flows choose again");
}

#[test]
fn an_outage_of_one_path_leaves_what_is_known_of_the_others() {
    let flows = [flow(1, 0, 2_000), flow(2, 0, 1_000), flow(3, 1, 1_000), flow(4, 3, 1_000)];
    let carried = [busy(16, 20), busy(2, 20), busy(4, 20), rtt(20), rtt(20), rtt(20)];
    let told = |outage: bool| {
        let mut scene = Scene::new(2);
        scene.play(25, &carried);
        if outage {
            // Of the other connector.
            scene.turn(3, Verdict::Down);
            scene.play(2, &carried);
            scene.turn(3, Verdict::Healthy);
            scene.play(3, &carried);
        } else {
            scene.play(5, &carried);
        }
        scene.resteer(&flows)
    };
    assert_eq!(told(false), [(0, 1)]);
    assert_eq!(told(true), told(false));
}

#[test]
fn what_a_path_could_not_carry_while_it_was_down_is_not_made_up_for() {
    let mut scene = Scene::new(1);
    scene.turn(0, Verdict::Down);
    // The others carry all of it, by their bandwidths.
    scene.play(30, &[rtt(20), busy(8, 20), busy(5, 20)]);
    scene.turn(0, Verdict::Healthy);
    scene.play(10, &[busy(8, 20), busy(3, 20), busy(2, 20)]);
    let flows = [flow(1, 1, 1_000), flow(2, 2, 600), flow(3, 1, 300), flow(4, 2, 300)];
    assert_eq!(scene.resteer(&flows), [], "each sends its share now");
}

#[test]
fn what_becomes_better_or_crowded_at_one_connector_is_nothing_to_the_others() {
    let mut scene = Scene::new(2);
    // At the first one all is well; of the second, the second link is full and the first is down.
    let mut measured = [busy(10, 20), busy(4, 20), busy(2, 20), rtt(20), busy(3, 20), rtt(20)];
    scene.turn(3, Verdict::Down);
    scene.play(10, &measured);
    measured[4] = busy(8, 90);
    measured[1] = busy(1, 20);
    scene.turn(3, Verdict::Healthy);
    let epochs = |scene: &Scene| -> Vec<u32> { (0..6).map(|path| scene.memory(path).epoch).collect() };
    let before = epochs(&scene);
    scene.turn(5, Verdict::Down);
    scene.turn(5, Verdict::Healthy);
    let after = epochs(&scene);
    assert_eq!(after[..3], before[..3]);
    assert!(after[3..].iter().zip(&before[3..]).all(|(after, before)| after != before));
    scene.play(5, &measured);
    assert!(scene.steering.wants_relief(at(scene.second)));
    let number = scene.steering.relieve(&scene.plan, at(scene.second));
    assert!(!scene.steering.wants_relief(at(scene.second + 1)), "a survey takes its time");
    let flows = [flow(1, 1, 1_000), flow(2, 4, 4_000), flow(3, 4, 2_000)];
    assert!(scene.shifts(number, &flows).iter().all(|(from, _)| *from == 4));
    assert!(!scene.shifts(number, &flows).is_empty());
}

#[test]
fn flows_that_crawl_on_a_lossy_link_go_where_nothing_is_carried() {
    // Five transfers get 0.8 Mbps each where 2 % are lost at 150 ms; the third link has nothing to do.
    let mut scene = Scene::new(1);
    scene.play(40, &[losing(20, busy(4, 150)), busy(7, 40), rtt(60)]);
    let mut flows: Vec<HeavyFlow> = (1..6).map(|number| flow(number, 0, 800)).collect();
    flows.push(flow(6, 1, 7_000));
    let shifts = scene.resteer(&flows);
    assert!(!shifts.is_empty() && shifts.iter().all(|shift| *shift == (0, 2)), "{shifts:?}");
    // Without the loss they have what they want, and stay.
    let mut scene = Scene::new(1);
    scene.play(40, &[busy(4, 150), busy(7, 40), rtt(60)]);
    assert!(!scene.resteer(&flows).contains(&(0, 2)));
}

#[test]
fn flows_that_send_far_less_than_a_lossy_link_lets_through_stay_with_its_share() {
    let mut scene = Scene::new(1);
    // In proportion to the bandwidths, of which all lose a little on the first.
    let kbps = [1_500, 600, 375];
    let measured: Vec<Quality> = kbps.iter().map(|kbps| Quality { sent_kbps: *kbps, ..rtt(18) }).collect();
    scene.play(65, &[losing(80, measured[0]), measured[1], measured[2]]);
    let flows = [flow(0, 0, 750), flow(1, 0, 750), flow(2, 1, 600), flow(3, 2, 375)];
    assert_eq!(scene.resteer(&flows), []);
}

#[test]
fn no_flow_is_sent_where_certainly_more_is_lost_for_the_sake_of_shares() {
    let mut scene = Scene::new(1);
    let flows = [flow(0, 0, 500), flow(1, 0, 500), flow(2, 0, 500)];
    let all = Quality { sent_kbps: 1_500, ..rtt(18) };
    scene.play(36, &[all, losing(100, rtt(18)), losing(100, rtt(18))]);
    assert_eq!(scene.resteer(&flows), []);
    let lost_one = Quality { loss: Permille::new(33), ..rtt(18) };
    scene.play(39, &[all, losing(100, rtt(18)), lost_one]);
    assert_eq!(scene.resteer(&flows), [(0, 2)], "one lost of a window says nothing");
    scene.play(36, &[losing(100, all), losing(100, rtt(18)), rtt(18)]);
    assert!(!scene.resteer(&flows).is_empty(), "all lose alike");
}
