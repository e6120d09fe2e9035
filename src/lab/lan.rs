use std::collections::VecDeque;
use std::time::Duration;

use super::echo::{EchoShape, EchoStreams};
use super::host::Host;
use super::network::{self, BULK_RATE};
use super::sessions::Sessions;
use super::transfers::Transfers;
use super::web::WebClients;
use crate::model::{Chance, Moment, protocol};
use crate::packet::parse;

/// The hosts of the branch and what they do over the tunnels.
pub struct Lan {
    pub voice: EchoStreams,
    pub light: EchoStreams,
    pub web: WebClients,
    pub transfers: Transfers,
    pub sessions: Sessions,
    leaving: VecDeque<Vec<u8>>,
}

/// G.711: 160 bytes of sound and 12 of RTP each 20 ms.
const VOICE: EchoShape = EchoShape {
    streams: 4,
    interval: Duration::from_millis(20),
    payload: 172,
    dscp: network::VOICE_DSCP,
    server: network::VOICE,
    first_host: network::PHONES,
    hosts: 4,
};

/// 240 flows of 20 kbps: enough for their spread over the links to be a matter of bandwidth and
/// not of luck, and most of the demo's traffic.
const LIGHT: EchoShape = EchoShape {
    streams: 240,
    interval: Duration::from_millis(200),
    payload: 480,
    dscp: network::LIGHT_DSCP,
    server: network::LIGHT,
    first_host: network::LIGHT_HOSTS,
    hosts: 40,
};

const WEB_CLIENTS: u16 = 8;
const TRANSFERS: u16 = 4;
const SESSIONS: u16 = 24;

/// Packets of one turn that wait to leave.
const LEAVING_LIMIT: usize = 8192;

impl Lan {
    pub fn new(start: Moment, seed: u64) -> Lan {
        let host = |address| Host::new(address, seed ^ u64::from(u32::from(address)));
        let bulk_servers = [network::UPLOAD, network::DOWNLOAD];
        Lan {
            voice: EchoStreams::new(VOICE, start),
            light: EchoStreams::new(LIGHT, start),
            web: WebClients::new(host(network::WEB_HOST), network::WEB, WEB_CLIENTS, start, Chance::from_number(seed)),
            transfers: Transfers::new(host(network::BULK_HOST), bulk_servers, TRANSFERS, BULK_RATE, start),
            sessions: Sessions::new(host(network::SESSION_HOST), network::SESSION, SESSIONS, start),
            leaving: VecDeque::new(),
        }
    }

    /// A packet from the edge.
    pub fn handle_packet(&mut self, packet: Vec<u8>, now: Moment) {
        let Some(parsed) = parse(&packet) else { return };
        if parsed.key.protocol == protocol::UDP {
            for streams in [&mut self.voice, &mut self.light] {
                if streams.is_answer(&parsed) {
                    streams.handle_packet(&packet, &parsed, now);
                }
            }
            return;
        }
        let to = parsed.key.destination;
        if to == network::WEB_HOST {
            self.web.host().handle_packet(packet);
        } else if to == network::BULK_HOST {
            self.transfers.host().handle_packet(packet);
        } else if to == network::SESSION_HOST {
            self.sessions.host().handle_packet(packet);
        }
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        let leaving = &mut self.leaving;
        let mut leave = |packet| {
            if leaving.len() < LEAVING_LIMIT {
                leaving.push_back(packet);
            }
        };
        self.voice.handle_timeout(now, &mut leave);
        self.light.handle_timeout(now, &mut leave);
        self.web.handle_timeout(now);
        self.transfers.handle_timeout(now);
        self.sessions.handle_timeout(now);
        for host in [self.web.host(), self.transfers.host(), self.sessions.host()] {
            while let Some(mut packet) = host.poll_packet() {
                if let Some(parsed) = parse(&packet) {
                    network::mark(&mut packet, parsed.key.destination_port);
                }
                leave(packet);
            }
        }
    }

    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.leaving.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::services::Services;
    use super::*;

    const PATH: Duration = Duration::from_millis(10);
    const TICK: Duration = Duration::from_millis(1);

    /// A LAN and the services with a plain path of 10 ms between them, in simulated time.
    struct World {
        lan: Lan,
        services: Services,
        now: Moment,
        pop: usize,
        up: VecDeque<(Moment, usize, Vec<u8>)>,
        down: VecDeque<(Moment, usize, Vec<u8>)>,
        /// Packets that came back through each PoP.
        returned: [u64; 2],
    }

    impl World {
        fn new() -> World {
            let (lan, services) = (Lan::new(Moment::ZERO, 1), Services::new(2));
            let (up, down) = (VecDeque::new(), VecDeque::new());
            World { lan, services, now: Moment::ZERO, pop: 0, up, down, returned: [0; 2] }
        }

        /// Runs until `end`; `open` says whether the path carries packets.
        fn run(&mut self, end: Moment, open: bool) {
            while self.now < end {
                self.now = self.now + TICK;
                self.lan.handle_timeout(self.now);
                while let Some(packet) = self.lan.poll_packet() {
                    if open {
                        self.up.push_back((self.now + PATH, self.pop, packet));
                    }
                }
                while self.up.front().is_some_and(|(at, ..)| *at <= self.now) {
                    let Some((_, pop, packet)) = self.up.pop_front() else { break };
                    self.services.handle_packet(pop, packet);
                }
                self.services.handle_timeout(self.now);
                while let Some((pop, packet)) = self.services.poll_packet() {
                    if open {
                        self.down.push_back((self.now + PATH, pop, packet));
                    }
                }
                while self.down.front().is_some_and(|(at, ..)| *at <= self.now) {
                    let Some((_, pop, packet)) = self.down.pop_front() else { break };
                    self.returned[pop] += 1;
                    self.lan.handle_packet(packet, self.now);
                }
            }
        }
    }

    #[test]
    fn every_kind_of_traffic_flows_over_a_good_path() {
        let mut world = World::new();
        let end = Moment::from_millis(10_000);
        world.run(end, true);
        let settled = Moment::from_millis(9_900);
        let voice = world.lan.voice.ledger.tally(Moment::ZERO, settled);
        assert_eq!((voice.sent, voice.lost()), (4 * 50 * 99 / 10, 0));
        assert!(voice.round_trip.is_some_and(|time| (20..24).contains(&time.as_millis())), "{voice:?}");
        let light = world.lan.light.ledger.tally(Moment::ZERO, settled);
        assert!(light.sent.abs_diff(240 * 5 * 99 / 10) <= 2 && light.lost() == 0, "{light:?}");
        let web = world.lan.web.tally(Moment::ZERO, end);
        assert!(web.completed > 100 && web.failed == 0, "{web:?}");
        assert!(web.median.is_some_and(|time| (40..200).contains(&time.as_millis())), "{web:?}");
        let expected = 2 * BULK_RATE * 10;
        for moved in [world.lan.transfers.uploaded, world.lan.transfers.downloaded] {
            assert!(moved > expected * 9 / 10 && moved <= expected, "{moved} of {expected}");
        }
        assert_eq!((world.lan.sessions.connected(), world.lan.sessions.broken), (24, 0));
    }

    #[test]
    fn an_outage_is_told_by_its_losses_and_breaks_no_connection() {
        let mut world = World::new();
        world.run(Moment::from_millis(3_000), true);
        world.run(Moment::from_millis(4_000), false);
        world.run(Moment::from_millis(12_000), true);
        let (cut, end) = (Moment::from_millis(3_000), Moment::from_millis(11_000));
        let voice = world.lan.voice.ledger.tally(cut, end);
        assert!((200..=204).contains(&voice.lost()), "{voice:?}");
        assert!((1000..1060).contains(&voice.longest_gap.as_millis()), "{voice:?}");
        let disturbance = world.lan.voice.ledger.disturbance(cut, end, 0);
        assert!(disturbance.is_some_and(|time| (900..=1100).contains(&time.as_millis())), "{disturbance:?}");
        assert_eq!((world.lan.sessions.broken, world.lan.transfers.broken), (0, 0));
        assert_eq!(world.lan.web.tally(Moment::ZERO, end).failed, 0);
    }

    #[test]
    fn answers_follow_the_branch_to_the_pop_by_which_it_came_last() {
        let mut world = World::new();
        world.run(Moment::from_millis(2_000), true);
        assert!(world.returned[0] > 0 && world.returned[1] == 0);
        world.pop = 1;
        // What was under way to the first PoP may still be answered through it.
        world.run(Moment::from_millis(2_100), true);
        let before = world.returned[0];
        world.run(Moment::from_millis(4_000), true);
        assert!(world.returned[1] > 0);
        assert_eq!(world.returned[0], before);
        assert_eq!((world.lan.sessions.broken, world.lan.transfers.broken), (0, 0));
    }
}
