use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::clock::Clock;
use super::screen::Screen;
use super::summary::{End, Material, Summary};
use super::table::{Table, TrafficRow};
use super::timeline::{Act, START_LIMIT, Timeline};
use super::traffic::LanTraffic;
use super::wan::WanCounters;
use super::watch::{Note, Totals, Watch};
use super::world::{World, WorldError};
use crate::edge::SiteStatus;
use crate::model::Moment;

/// What a run is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DemoSettings {
    /// From the start to the end of the script.
    pub time: Duration,
    /// Of the links' randomness and of the hosts'.
    pub seed: u64,
    pub headless: bool,
    pub json: bool,
}

/// Time between two looks at everything, and so the resolution of what is measured by looking.
const LOOK: Duration = Duration::from_millis(50);
const REFRESH: Duration = Duration::from_secs(1);

/// How long traffic goes on after the last act, so that what is under way still counts.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Plays the script from start to end, or until `stop` is set, and shows it.
pub fn run(settings: &DemoSettings, stop: &AtomicBool) -> Result<Summary, WorldError> {
    let clock = Clock::start();
    let mut demo = Demo {
        settings: *settings,
        world: World::start(clock, settings.seed)?,
        clock,
        screen: Screen::open(settings.headless, settings.json),
        watch: Watch::new(),
        notes: Vec::new(),
        lan: None,
        script: None,
        act: Act::Start,
        calm_until: None,
        drawn: Drawn::default(),
    };
    demo.watch.handle_act(Act::Start, Totals::default(), clock.now());
    let hint = format!("ask the branch meanwhile: trefoil status --socket {}", demo.world.control_socket.display());
    demo.watch.note(clock.now(), hint);
    let ended = loop {
        if stop.load(Ordering::Relaxed) {
            break End::Interrupted;
        }
        if let Some(end) = demo.turn()? {
            break end;
        }
        thread::sleep(LOOK);
    };
    demo.finish(ended)
}

struct Demo {
    settings: DemoSettings,
    world: World,
    clock: Clock,
    screen: Screen,
    watch: Watch,
    notes: Vec<Note>,
    lan: Option<LanTraffic>,
    /// The script and when it began, once the tunnels are up.
    script: Option<(Timeline, Moment)>,
    act: Act,
    calm_until: Option<Vec<[WanCounters; 2]>>,
    drawn: Drawn,
}

/// The table's last state, for rates.
#[derive(Default)]
struct Drawn {
    at: Moment,
    bytes: Vec<(u64, u64)>,
    bulk: (u64, u64),
}

impl Demo {
    /// One look at everything, and what follows from it. Tells how the run ended when it has.
    fn turn(&mut self) -> Result<Option<End>, WorldError> {
        let now = self.clock.now();
        let status = self.world.status()?;
        let wan = self.world.wan.counters();
        let voice_lost = self.voice_lost(now);
        self.watch.handle_look(&status, &wan, voice_lost, now);
        let tunnels = || status.connectors.iter().flat_map(|connector| &connector.tunnels);
        let measured = tunnels().all(|tunnel| tunnel.verdict != "unknown");
        let end = self.advance(&wan, measured, now)?;
        while let Some(note) = self.watch.poll_note() {
            self.screen.note(&note);
            self.notes.push(note);
        }
        if now.since(self.drawn.at) >= REFRESH {
            self.draw(&status, now);
        }
        self.check_screen()?;
        Ok(end)
    }

    /// A run that cannot be shown is not worth its time.
    fn check_screen(&mut self) -> Result<(), WorldError> {
        self.screen.poll_failure().map_or(Ok(()), |error| Err(WorldError::Output(error)))
    }

    /// Traffic waits until every path is measured: it would pass over the ones that are not.
    fn advance(&mut self, wan: &[[WanCounters; 2]], measured: bool, now: Moment) -> Result<Option<End>, WorldError> {
        let Some((timeline, began)) = &self.script else {
            let up = self.watch.episodes().first().and_then(|start| start.detected);
            if let Some(time) = up.filter(|_| measured) {
                self.begin(time, now)?;
            } else if now.since(Moment::ZERO) > START_LIMIT {
                return Ok(Some(End::Failed("the six tunnels never came up".into())));
            }
            return Ok(None);
        };
        let time = now.since(*began);
        let over = time >= timeline.end;
        if over {
            // The acts' own time ends here; packets on their way are waited for.
            if time >= timeline.end + LAST_ANSWERS {
                return Ok(Some(End::Played));
            }
            self.watch.handle_end(self.totals(wan), now);
            return Ok(None);
        }
        let act = timeline.act_at(time);
        if act != self.act {
            if self.act == Act::Calm {
                self.calm_until = Some(wan.to_vec());
            }
            self.watch.handle_act(act, self.totals(wan), now);
            self.world.play(act);
            self.act = act;
        }
        Ok(None)
    }

    /// The tunnels are up: traffic and the script begin.
    fn begin(&mut self, time: Duration, now: Moment) -> Result<(), WorldError> {
        self.watch.note(now, format!("all six tunnels are up after {:.2} s", time.as_secs_f64()));
        self.lan = Some(self.world.start_traffic(self.settings.seed)?);
        let wan = self.world.wan.counters();
        let left = self.settings.time.saturating_sub(now.since(Moment::ZERO)).saturating_sub(LAST_ANSWERS);
        self.script = Some((Timeline::over(left), now));
        self.act = Act::Calm;
        self.watch.handle_act(Act::Calm, self.totals(&wan), now);
        Ok(())
    }

    fn totals(&self, wan: &[[WanCounters; 2]]) -> Totals {
        let lan = self.lan.as_ref().map(LanTraffic::lan);
        let sum = |count: fn(&WanCounters) -> u64| wan.iter().flatten().map(count).sum();
        Totals {
            lost_random: sum(|line| line.lost_random),
            lost_queue: sum(|line| line.lost_queue),
            lost_cut: sum(|line| line.lost_cut),
            tcp_broken: lan.map_or(0, |lan| lan.sessions.broken + lan.transfers.broken),
        }
    }

    /// Since the act began, without what may still be under way.
    fn voice_lost(&self, now: Moment) -> u64 {
        const UNDER_WAY: Duration = Duration::from_millis(300);
        let from = self.watch.episodes().last().map_or(now, |episode| episode.begins);
        self.lan.as_ref().map_or(0, |lan| lan.lan().voice.ledger.tally(from, now - UNDER_WAY).lost())
    }

    fn draw(&mut self, status: &SiteStatus, now: Moment) {
        let seconds = now.since(self.drawn.at).as_secs_f64();
        let mbps = |bytes: u64, before: u64| bytes.saturating_sub(before) as f64 * 8.0 / 1e6 / seconds;
        let tunnels = status.connectors.first().map(|connector| connector.tunnels.as_slice()).unwrap_or_default();
        let bytes: Vec<(u64, u64)> = tunnels.iter().map(|tunnel| (tunnel.bytes_out, tunnel.bytes_in)).collect();
        let before = self.drawn.bytes.iter().copied().chain(std::iter::repeat((0, 0)));
        let rates: Vec<(f64, f64)> =
            bytes.iter().zip(before).map(|(now, before)| (mbps(now.0, before.0), mbps(now.1, before.1))).collect();
        let bulk = self.lan.as_ref().map(LanTraffic::lan).map(|lan| (lan.transfers.uploaded, lan.transfers.downloaded));
        let bulk = bulk.unwrap_or_default();
        let bulk_rate = (mbps(bulk.0, self.drawn.bulk.0), mbps(bulk.1, self.drawn.bulk.1));
        let table = Table {
            elapsed: now.since(Moment::ZERO),
            total: self.settings.time,
            act: self.act.title(),
            status,
            rates: &rates,
            traffic: self.traffic_row(bulk_rate, now),
        };
        self.screen.refresh(&table);
        self.drawn = Drawn { at: now, bytes, bulk };
    }

    fn traffic_row(&self, bulk: (f64, f64), now: Moment) -> Option<TrafficRow> {
        // The last second whose answers are in.
        let (from, until) = (now - Duration::from_millis(1500), now - Duration::from_millis(500));
        let web_over = Duration::from_secs(2);
        let mut lan = self.lan.as_ref()?.lan();
        Some(TrafficRow {
            calls: lan.voice.streams(),
            voice_on: self.watch.voice_on(),
            voice: lan.voice.ledger.tally(from, until),
            flows: lan.light.streams(),
            light: lan.light.ledger.tally(from, until),
            clients: lan.web.clients(),
            web: lan.web.tally(now - web_over, now),
            web_over,
            bulk,
            sessions: (lan.sessions.connected(), lan.sessions.broken),
        })
    }

    fn finish(mut self, ended: End) -> Result<Summary, WorldError> {
        let now = self.clock.now();
        let wan = self.world.wan.counters();
        let totals = self.totals(&wan);
        self.watch.handle_end(totals, now);
        let status = self.world.status().ok();
        let lan = self.lan.as_ref().map(LanTraffic::lan);
        let summary = Summary::of(Material {
            seed: self.settings.seed,
            now,
            ended,
            watch: &self.watch,
            notes: &self.notes,
            lan: lan.as_deref(),
            wan: &wan,
            calm_until: self.calm_until.as_deref(),
            status,
        });
        drop(lan);
        self.screen.finish(&summary);
        self.check_screen()?;
        Ok(summary)
    }
}
