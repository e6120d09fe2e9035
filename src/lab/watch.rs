use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::relay::Direction;
use super::scenery::{BROWNOUT, DSL, FIBRE, LINKS};
use super::timeline::Act;
use super::wan::WanCounters;
use crate::edge::{ConnectorStatus, SiteStatus, TunnelStatus};
use crate::model::{Moment, Role};

/// Watches a run from outside, as an operator would: the branch's status and what travels on
/// the WAN links. It tells what changed and how long each act's consequences took.
pub struct Watch {
    episodes: Vec<Episode>,
    /// The WAN link that carries voice.
    voice_on: Option<usize>,
    last_wan: Vec<[WanCounters; 2]>,
    tunnels: BTreeMap<(String, String), Seen>,
    active_role: Option<String>,
    calm_from: Option<Vec<[WanCounters; 2]>>,
    notes: VecDeque<Note>,
}

/// One act and what came of it.
#[derive(Clone, Debug)]
pub struct Episode {
    pub act: Act,
    pub begins: Moment,
    pub ends: Option<Moment>,
    /// Until the branch's status shows the change.
    pub detected: Option<Duration>,
    /// Until traffic goes where it should, as seen on the wire or in the active role.
    pub moved: Option<Duration>,
    before: Totals,
    after: Totals,
}

/// Counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Datagrams that the network lost, over all links and directions, by its reasons.
    pub lost_random: u64,
    pub lost_queue: u64,
    pub lost_cut: u64,
    /// TCP connections that broke.
    pub tcp_broken: u64,
}

/// Something worth a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    pub at: Moment,
    pub text: String,
}

#[derive(Clone, PartialEq, Eq)]
struct Seen {
    usable: bool,
    verdict: String,
}

/// Shares are measured from here on in the calm act, when the first packets of all flows are
/// through.
const SETTLING: Duration = Duration::from_secs(1);

impl Watch {
    pub fn new() -> Watch {
        Watch {
            episodes: Vec::new(),
            voice_on: None,
            last_wan: Vec::new(),
            tunnels: BTreeMap::new(),
            active_role: None,
            calm_from: None,
            notes: VecDeque::new(),
        }
    }

    /// An act begins, and the one before it ends.
    pub fn handle_act(&mut self, act: Act, totals: Totals, now: Moment) {
        self.handle_end(totals, now);
        let episode =
            Episode { act, begins: now, ends: None, detected: None, moved: None, before: totals, after: totals };
        self.episodes.push(episode);
        self.note(now, announcement(act));
    }

    /// The last act ends.
    pub fn handle_end(&mut self, totals: Totals, now: Moment) {
        if let Some(episode) = self.episodes.last_mut().filter(|episode| episode.ends.is_none()) {
            episode.ends = Some(now);
            episode.after = totals;
        }
    }

    /// Looks at everything; several times a second. `voice_lost` is the number of voice packets
    /// lost since the act began.
    pub fn handle_look(&mut self, status: &SiteStatus, wan: &[[WanCounters; 2]], voice_lost: u64, now: Moment) {
        let Some(connector) = status.connectors.first() else { return };
        self.look_at_tunnels(connector, now);
        self.look_at_role(connector, now);
        self.look_at_voice(wan, voice_lost, now);
        let over_dsl = up(wan, DSL).offered_bytes.saturating_sub(up(&self.last_wan, DSL).offered_bytes);
        let voice_on = self.voice_on;
        if let Some(episode) = self.episodes.last_mut() {
            let since = now.since(episode.begins);
            if episode.detected.is_none() && shows(episode.act, connector) {
                episode.detected = Some(since);
            }
            let moved = match episode.act {
                Act::Start | Act::Calm => true,
                Act::FibreBrownout => voice_on.is_some_and(|link| link != FIBRE),
                Act::FibreRecovers => voice_on == Some(FIBRE),
                // Nothing moves on the wire that is cut; the flows themselves tell.
                Act::DslCut => true,
                Act::DslBack => episode.detected.is_some() && over_dsl > MORE_THAN_PROBES,
                Act::PopLost => connector.active_role == Role::Secondary.name(),
                Act::PopBack => connector.active_role == Role::Primary.name(),
            };
            if episode.moved.is_none() && moved {
                episode.moved = Some(since);
            }
            if episode.act == Act::Calm && self.calm_from.is_none() && since >= SETTLING {
                self.calm_from = Some(wan.to_vec());
            }
        }
        self.last_wan = wan.to_vec();
    }

    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    pub fn note(&mut self, at: Moment, text: String) {
        self.notes.push_back(Note { at, text });
    }

    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// The name of the link that carries voice.
    pub fn voice_on(&self) -> Option<&'static str> {
        self.voice_on.and_then(|link| LINKS.get(link)).map(|line| line.name)
    }

    /// The counters at which the measurement of shares began.
    pub fn calm_from(&self) -> Option<&[[WanCounters; 2]]> {
        self.calm_from.as_deref()
    }

    fn look_at_tunnels(&mut self, connector: &ConnectorStatus, now: Moment) {
        let mut changes = Vec::new();
        for tunnel in &connector.tunnels {
            let seen = Seen { usable: tunnel.usable, verdict: tunnel.verdict.clone() };
            let key = (tunnel.role.clone(), tunnel.link.clone());
            let before = self.tunnels.insert(key, seen.clone());
            // During the start there is nothing but change, and the secondary role without
            // traffic goes through the same as the primary.
            let of_interest = tunnel.role == connector.active_role || tunnel.role == Role::Primary.name();
            if let Some(before) = before.filter(|before| *before != seen && of_interest)
                && self.episodes.last().is_some_and(|episode| episode.act != Act::Start)
            {
                changes.push(change(tunnel, &before));
            }
        }
        for text in changes {
            self.note(now, text);
        }
    }

    fn look_at_role(&mut self, connector: &ConnectorStatus, now: Moment) {
        let before = self.active_role.replace(connector.active_role.clone());
        if before.is_some_and(|before| before != connector.active_role) {
            let reason = connector.last_switch.as_ref().map(|switch| format!(": {}", switch.reason));
            let text = format!("traffic goes to the {} PoP{}", connector.active_role, reason.unwrap_or_default());
            self.note(now, text + &self.after_act(now));
        }
    }

    fn look_at_voice(&mut self, wan: &[[WanCounters; 2]], voice_lost: u64, now: Moment) {
        let sent = |link| up(wan, link).voice_bytes > up(&self.last_wan, link).voice_bytes;
        let links: Vec<usize> = (0..LINKS.len()).filter(|link| sent(*link)).collect();
        // Two at once are a move under way.
        let [link] = links.as_slice() else { return };
        let before = self.voice_on.replace(*link);
        if let Some(before) = before.filter(|before| before != link) {
            let name = |link: usize| LINKS.get(link).map_or("?", |line| line.name);
            let text = format!("voice moved from {} to {}", name(before), name(*link));
            let lost = format!("; {voice_lost} voice packets lost since then");
            self.note(now, text + &self.after_act(now) + if voice_lost > 0 { &lost } else { "" });
        }
    }

    fn after_act(&self, now: Moment) -> String {
        let Some(episode) = self.episodes.last() else { return String::new() };
        format!(", {:.1} s after \"{}\"", now.since(episode.begins).as_secs_f64(), episode.act.title())
    }
}

impl Default for Watch {
    fn default() -> Self {
        Watch::new()
    }
}

impl Totals {
    pub fn network_lost(&self) -> u64 {
        self.lost_random + self.lost_queue + self.lost_cut
    }
}

impl Episode {
    /// What was lost and broke while it lasted.
    pub fn losses(&self) -> Totals {
        Totals {
            lost_random: self.after.lost_random.saturating_sub(self.before.lost_random),
            lost_queue: self.after.lost_queue.saturating_sub(self.before.lost_queue),
            lost_cut: self.after.lost_cut.saturating_sub(self.before.lost_cut),
            tcp_broken: self.after.tcp_broken.saturating_sub(self.before.tcp_broken),
        }
    }
}

/// Bytes between two looks that are more than two tunnels' probes and keepalives.
const MORE_THAN_PROBES: u64 = 4_000;

/// Whether the branch's status shows what the act did.
fn shows(act: Act, connector: &ConnectorStatus) -> bool {
    let primary = |link: usize| {
        let name = LINKS.get(link).map(|line| line.name);
        let is = |tunnel: &&TunnelStatus| tunnel.role == Role::Primary.name() && Some(tunnel.link.as_str()) == name;
        connector.tunnels.iter().find(is)
    };
    let mut primaries = connector.tunnels.iter().filter(|tunnel| tunnel.role == Role::Primary.name());
    match act {
        Act::Start => !connector.tunnels.is_empty() && connector.tunnels.iter().all(|tunnel| tunnel.usable),
        Act::Calm => true,
        Act::FibreBrownout => {
            primary(FIBRE).is_some_and(|tunnel| !tunnel.usable || !["healthy", "unknown"].contains(&&*tunnel.verdict))
        }
        Act::FibreRecovers => primary(FIBRE).is_some_and(|tunnel| tunnel.usable && tunnel.verdict == "healthy"),
        Act::DslCut => primary(DSL).is_some_and(|tunnel| !tunnel.usable),
        Act::DslBack => primary(DSL).is_some_and(|tunnel| tunnel.usable),
        Act::PopLost => primaries.all(|tunnel| !tunnel.usable),
        Act::PopBack => primaries.any(|tunnel| tunnel.usable),
    }
}

fn up(wan: &[[WanCounters; 2]], link: usize) -> WanCounters {
    wan.get(link).map(|line| line[Direction::Up.index()]).unwrap_or_default()
}

fn change(tunnel: &TunnelStatus, before: &Seen) -> String {
    let name = format!("{}/{}", tunnel.role, tunnel.link);
    let change = tunnel.last_change.as_ref().filter(|change| change.to == tunnel.verdict);
    let reason = change.map(|change| format!(": {}", change.reason)).unwrap_or_default();
    let verdict = match (tunnel.verdict == before.verdict, tunnel.usable) {
        (true, true) => "usable again",
        (true, false) => "not usable",
        (false, true) if tunnel.verdict == "unknown" => "up again, and not measured yet",
        (false, _) => &tunnel.verdict,
    };
    format!("tunnel {name} is {verdict}{reason}")
}

fn announcement(act: Act) -> String {
    let text = match act {
        Act::Start => "six tunnels to two PoPs over fibre, DSL and LTE are being set up".into(),
        Act::Calm => "three good links, traffic starts".into(),
        Act::FibreBrownout => format!(
            "{}: {} % loss, {} ms more delay, {} ms more jitter, each way",
            act.title(),
            BROWNOUT.loss_percent,
            BROWNOUT.delay_ms,
            BROWNOUT.jitter_ms
        ),
        Act::FibreRecovers | Act::DslBack | Act::PopBack => act.title().into(),
        Act::DslCut => format!("{}: nothing passes", act.title()),
        Act::PopLost => format!("{}: no link leads to it", act.title()),
    };
    format!("== {text}")
}

#[cfg(test)]
mod tests {
    use super::super::samples::status;
    use super::*;

    const GOOD: [&str; 3] = ["healthy"; 3];

    struct Scene {
        watch: Watch,
        wan: Vec<[WanCounters; 2]>,
        now: Moment,
    }

    impl Scene {
        fn new(act: Act) -> Scene {
            let mut watch = Watch::new();
            let wan = vec![[WanCounters::default(); 2]; LINKS.len()];
            watch.handle_act(act, Totals::default(), Moment::ZERO);
            Scene { watch, wan, now: Moment::ZERO }
        }

        /// 100 ms pass in which voice uses one link.
        fn look(&mut self, voice: usize, status: &SiteStatus) {
            self.now = self.now + Duration::from_millis(100);
            self.wan[voice][Direction::Up.index()].voice_bytes += 1000;
            self.watch.handle_look(status, &self.wan, 3, self.now);
        }

        fn notes(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.watch.poll_note()).map(|note| note.text).collect()
        }
    }

    #[test]
    fn a_brownout_is_detected_by_its_verdict_and_over_when_voice_has_left() {
        let mut scene = Scene::new(Act::FibreBrownout);
        scene.look(FIBRE, &status(Role::Primary, GOOD));
        scene.look(FIBRE, &status(Role::Primary, GOOD));
        scene.look(FIBRE, &status(Role::Primary, ["degraded", "healthy", "healthy"]));
        scene.look(DSL, &status(Role::Primary, ["degraded", "healthy", "healthy"]));
        let episode = &scene.watch.episodes()[0];
        assert_eq!(episode.detected, Some(Duration::from_millis(300)));
        assert_eq!(episode.moved, Some(Duration::from_millis(400)));
        assert_eq!(scene.watch.voice_on(), Some("dsl"));
        let notes = scene.notes();
        assert_eq!(notes[1], "tunnel primary/fibre is degraded: so it is");
        assert_eq!(
            notes[2],
            "voice moved from fibre to dsl, 0.4 s after \"fibre brownout\"; 3 voice packets lost since then"
        );
    }

    #[test]
    fn a_lost_pop_is_detected_when_no_primary_tunnel_is_left() {
        let mut scene = Scene::new(Act::PopLost);
        scene.look(FIBRE, &status(Role::Primary, GOOD));
        scene.look(FIBRE, &status(Role::Primary, ["down", "down", "healthy"]));
        assert_eq!(scene.watch.episodes()[0].detected, None);
        scene.look(FIBRE, &status(Role::Secondary, ["down"; 3]));
        let episode = &scene.watch.episodes()[0];
        let expected = Some(Duration::from_millis(300));
        assert_eq!((episode.detected, episode.moved), (expected, expected));
        assert!(scene.notes().iter().any(|note| note.starts_with("traffic goes to the secondary PoP, 0.3 s")));
    }

    #[test]
    fn losses_belong_to_the_act_in_which_they_happened() {
        let mut scene = Scene::new(Act::Calm);
        let totals = |lost_cut, tcp_broken| Totals { lost_cut, tcp_broken, ..Totals::default() };
        scene.watch.handle_act(Act::DslCut, totals(5, 0), Moment::from_millis(10));
        scene.watch.handle_end(totals(25, 1), Moment::from_millis(20));
        scene.watch.handle_end(totals(99, 9), Moment::from_millis(30));
        let losses: Vec<Totals> = scene.watch.episodes().iter().map(Episode::losses).collect();
        assert_eq!(losses, [totals(5, 0), totals(20, 1)]);
    }

    #[test]
    fn voice_on_two_links_at_once_has_not_moved_yet() {
        let mut scene = Scene::new(Act::FibreBrownout);
        let good = status(Role::Primary, GOOD);
        scene.look(FIBRE, &good);
        scene.wan[DSL][0].voice_bytes += 10;
        scene.look(FIBRE, &good);
        assert_eq!(scene.watch.voice_on(), Some("fibre"));
        assert_eq!(scene.watch.episodes()[0].moved, None);
    }
}
