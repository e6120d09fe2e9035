use std::time::Duration;

use serde::Serialize;

use super::lan::Lan;
use super::ledger::Tally;
use super::relay::Direction;
use super::scenery::LINKS;
use super::timeline::Act;
use super::wan::WanCounters;
use super::watch::{Episode, Note, Watch};
use crate::edge::SiteStatus;
use crate::model::Moment;

/// What a run has shown: the one document of `trefoil demo --json`, described in docs/demo.md.
/// Times are milliseconds; what was not measured is `null`, never zero.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub seconds: f64,
    /// The whole script was played.
    pub complete: bool,
    /// Everything that a complete run must show was seen.
    pub passed: bool,
    /// What was missed, in plain words.
    pub failures: Vec<String>,
    /// Time until all six tunnels were usable.
    pub tunnels_up_ms: Option<u64>,
    pub events: Vec<EventSummary>,
    pub voice: EchoSummary,
    pub light: EchoSummary,
    pub web: WebSummary,
    pub bulk: BulkSummary,
    pub sessions: SessionSummary,
    pub links: Vec<LinkSummary>,
    pub log: Vec<LogLine>,
    /// The branch's status at the end.
    pub status: Option<SiteStatus>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EventSummary {
    pub name: &'static str,
    pub title: &'static str,
    /// After the start of the run.
    pub at_ms: u64,
    pub lasted_ms: u64,
    /// Until the branch's status showed it.
    pub detected_ms: Option<u64>,
    /// Until traffic was as good as it gets: see docs/demo.md for what that is in each event.
    pub restored_ms: Option<u64>,
    pub voice_lost: u64,
    pub voice_sent: u64,
    /// The longest that a call heard nothing.
    pub voice_gap_ms: u64,
    pub light_lost: u64,
    pub light_sent: u64,
    /// Datagrams that the links themselves lost, whatever was in them: all, and by reason.
    pub network_lost: u64,
    pub lost_random: u64,
    pub lost_queue: u64,
    pub lost_cut: u64,
    pub tcp_broken: u64,
    pub web_failed: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EchoSummary {
    pub streams: u16,
    pub sent: u64,
    pub lost: u64,
    pub round_trip_ms: Option<f64>,
    pub longest_gap_ms: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WebSummary {
    pub clients: usize,
    pub completed: u64,
    pub failed: u64,
    pub median_ms: Option<u64>,
    /// 95 of 100 pages were faster.
    pub slow_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BulkSummary {
    pub transfers: usize,
    pub broken: u64,
    pub uploaded_mbps: f64,
    pub downloaded_mbps: f64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SessionSummary {
    pub sessions: usize,
    pub broken: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LinkSummary {
    pub link: &'static str,
    /// Its part of the configured upstream bandwidth.
    pub configured_percent: f64,
    /// Its part of the light flows' bytes, which no rule steers, while all links were good.
    pub light_percent: Option<f64>,
    /// Its part of all bytes in the same time: voice, which a rule steers, included.
    pub all_percent: Option<f64>,
    pub delivered_packets: u64,
    pub delivered_bytes: u64,
    pub lost_random: u64,
    pub lost_queue: u64,
    pub lost_cut: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LogLine {
    pub at_ms: u64,
    pub text: String,
}

/// How far a link's part of all bytes may be from the configured one, in points: the first seconds,
/// before flows have moved, are in it.
const SHARE_TOLERANCE: f64 = 10.0;

/// Loss of a tenth of a second, in per cent, that the links have on their usual days too.
const VOICE_NOISE: u32 = 5;
const LIGHT_NOISE: u32 = 4;

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    Played,
    /// By the user.
    Interrupted,
    /// It could not go on.
    Failed(String),
}

/// All that a summary is made from.
pub struct Material<'a> {
    pub seed: u64,
    pub now: Moment,
    pub ended: End,
    pub watch: &'a Watch,
    pub notes: &'a [Note],
    /// `None` when the tunnels never came up.
    pub lan: Option<&'a Lan>,
    pub wan: &'a [[WanCounters; 2]],
    /// The counters at the end of the calm act.
    pub calm_until: Option<&'a [[WanCounters; 2]]>,
    pub status: Option<SiteStatus>,
}

impl Summary {
    pub fn of(material: Material) -> Summary {
        let Material { seed, now, ended, watch, notes, lan, wan, calm_until, status } = material;
        let episodes = watch.episodes();
        let start = episodes.iter().find(|episode| episode.act == Act::Start);
        let events = episodes.iter().filter(|episode| !matches!(episode.act, Act::Start | Act::Calm));
        let (from, until) = span(episodes, now);
        let web = lan.map(|lan| lan.web.tally(from, until)).unwrap_or_default();
        let running = now.since(from).as_secs_f64().max(0.001);
        let mbps = |bytes: u64| bytes as f64 * 8.0 / 1e6 / running;
        let mut summary = Summary {
            seed,
            seconds: now.since(Moment::ZERO).as_secs_f64(),
            complete: ended == End::Played,
            passed: true,
            failures: Vec::new(),
            tunnels_up_ms: start.and_then(|start| start.detected).map(millis),
            events: events.map(|episode| event(episode, lan, now)).collect(),
            voice: echo(lan.map_or(0, |lan| lan.voice.streams()), lan.map(|lan| lan.voice.ledger.tally(from, until))),
            light: echo(lan.map_or(0, |lan| lan.light.streams()), lan.map(|lan| lan.light.ledger.tally(from, until))),
            web: WebSummary {
                clients: lan.map_or(0, |lan| lan.web.clients()),
                completed: web.completed,
                failed: web.failed,
                median_ms: web.median.map(millis),
                slow_ms: web.slow.map(millis),
            },
            bulk: BulkSummary {
                transfers: lan.map_or(0, |lan| lan.transfers.count()),
                broken: lan.map_or(0, |lan| lan.transfers.broken),
                uploaded_mbps: mbps(lan.map_or(0, |lan| lan.transfers.uploaded)),
                downloaded_mbps: mbps(lan.map_or(0, |lan| lan.transfers.downloaded)),
            },
            sessions: SessionSummary {
                sessions: lan.map_or(0, |lan| lan.sessions.count()),
                broken: lan.map_or(0, |lan| lan.sessions.broken),
            },
            links: links(wan, watch.calm_from(), calm_until),
            log: notes
                .iter()
                .map(|note| LogLine { at_ms: millis(note.at.since(Moment::ZERO)), text: note.text.clone() })
                .collect(),
            status,
        };
        summary.failures = summary.missed();
        if let End::Failed(reason) = ended {
            summary.failures.insert(0, reason);
        }
        summary.passed = summary.failures.is_empty();
        summary
    }

    /// What should have been seen and was not. A run that was ended early has only had to show
    /// what it came to.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        // The last event of a run that was ended early may not have had its time.
        let judged = self.events.len() - usize::from(!self.complete && !self.events.is_empty());
        for event in self.events.iter().take(judged) {
            if event.detected_ms.is_none() {
                missed.push(format!("{}: the branch never noticed", event.title));
            }
            if event.restored_ms.is_none() {
                missed.push(format!("{}: traffic was not restored", event.title));
            }
        }
        for link in &self.links {
            // Whole flows move so that all bytes follow the bandwidths, transfers and voice included.
            if let Some(all) = link.all_percent
                && (all - link.configured_percent).abs() > SHARE_TOLERANCE
            {
                let (name, configured) = (link.link, link.configured_percent);
                missed.push(format!("{name} carried {all:.1} % of all bytes instead of some {configured:.1} %"));
            }
        }
        if self.sessions.broken + self.bulk.broken > 0 {
            missed.push(format!("{} TCP connections broke", self.sessions.broken + self.bulk.broken));
        }
        missed
    }
}

/// From the beginning of traffic to the end of the last act.
fn span(episodes: &[Episode], now: Moment) -> (Moment, Moment) {
    let first = episodes.iter().find(|episode| episode.act == Act::Calm);
    let last = episodes.last().and_then(|episode| episode.ends);
    (first.map_or(now, |episode| episode.begins), last.unwrap_or(now))
}

fn event(episode: &Episode, lan: Option<&Lan>, now: Moment) -> EventSummary {
    let (from, until) = (episode.begins, episode.ends.unwrap_or(now));
    let voice = lan.map(|lan| lan.voice.ledger.tally(from, until)).unwrap_or_default();
    let light = lan.map(|lan| lan.light.ledger.tally(from, until)).unwrap_or_default();
    // Where packets stopped arriving, restored is when they arrive again; elsewhere it is when
    // traffic has moved.
    let restored = match episode.act {
        Act::DslCut => lan.and_then(|lan| lan.light.ledger.disturbance(from, until, LIGHT_NOISE)),
        Act::PopLost => {
            let calm_again = lan.and_then(|lan| lan.voice.ledger.disturbance(from, until, VOICE_NOISE));
            calm_again.filter(|_| episode.moved.is_some())
        }
        Act::Start | Act::Calm | Act::FibreBrownout | Act::FibreRecovers | Act::DslBack | Act::PopBack => episode.moved,
    };
    let losses = episode.losses();
    EventSummary {
        name: episode.act.name(),
        title: episode.act.title(),
        at_ms: millis(from.since(Moment::ZERO)),
        lasted_ms: millis(until.since(from)),
        detected_ms: episode.detected.map(millis),
        restored_ms: restored.map(millis),
        voice_lost: voice.lost(),
        voice_sent: voice.sent,
        voice_gap_ms: millis(voice.longest_gap),
        light_lost: light.lost(),
        light_sent: light.sent,
        network_lost: losses.network_lost(),
        lost_random: losses.lost_random,
        lost_queue: losses.lost_queue,
        lost_cut: losses.lost_cut,
        tcp_broken: losses.tcp_broken,
        web_failed: lan.map_or(0, |lan| lan.web.tally(from, until).failed),
    }
}

fn echo(streams: u16, tally: Option<Tally>) -> EchoSummary {
    let tally = tally.unwrap_or_default();
    EchoSummary {
        streams,
        sent: tally.sent,
        lost: tally.lost(),
        round_trip_ms: tally.round_trip.map(|time| time.as_secs_f64() * 1000.0),
        longest_gap_ms: millis(tally.longest_gap),
    }
}

fn links(
    wan: &[[WanCounters; 2]],
    calm_from: Option<&[[WanCounters; 2]]>,
    calm_until: Option<&[[WanCounters; 2]]>,
) -> Vec<LinkSummary> {
    let calm = |bytes: fn(&WanCounters) -> u64| -> Vec<u64> {
        let (Some(from), Some(until)) = (calm_from, calm_until) else { return Vec::new() };
        let up = Direction::Up.index();
        from.iter().zip(until).map(|(from, until)| bytes(&until[up]).saturating_sub(bytes(&from[up]))).collect()
    };
    let (light, all) = (calm(|counters| counters.light_bytes), calm(|counters| counters.offered_bytes));
    let percent = |parts: &[u64], link: usize| {
        let total: u64 = parts.iter().sum();
        parts.get(link).filter(|_| total > 0).map(|part| *part as f64 * 100.0 / total as f64)
    };
    let rows = LINKS.iter().zip(wan).zip(0..);
    rows.map(|((line, counters), number)| {
        let sum = |count: fn(&WanCounters) -> u64| counters.iter().map(count).sum();
        LinkSummary {
            link: line.name,
            configured_percent: line.configured_percent(),
            light_percent: percent(&light, number),
            all_percent: percent(&all, number),
            delivered_packets: sum(|counters| counters.delivered_packets),
            delivered_bytes: sum(|counters| counters.delivered_bytes),
            lost_random: sum(|counters| counters.lost_random),
            lost_queue: sum(|counters| counters.lost_queue),
            lost_cut: sum(|counters| counters.lost_cut),
        }
    })
    .collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::report::report;
    use super::super::samples::status;
    use super::super::scenery::DSL;
    use super::super::watch::Totals;
    use super::*;
    use crate::model::Role;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    /// A run in which the tunnels came up, and DSL was cut and noticed or not.
    fn run(noticed: bool, light: [u64; 3], ended: End) -> Summary {
        let mut watch = Watch::new();
        let mut wan = vec![[WanCounters::default(); 2]; LINKS.len()];
        let good = status(Role::Primary, ["healthy"; 3]);
        let cut = status(Role::Primary, ["healthy", if noticed { "down" } else { "healthy" }, "healthy"]);
        let totals = |lost_cut| Totals { lost_cut, ..Totals::default() };
        watch.handle_act(Act::Start, totals(0), at(0));
        watch.handle_look(&good, &wan, 0, at(800));
        watch.handle_act(Act::Calm, totals(0), at(800));
        watch.handle_look(&good, &wan, 0, at(2000));
        for (line, bytes) in wan.iter_mut().zip(light) {
            line[0].light_bytes = bytes;
            line[0].offered_bytes = 2 * bytes;
        }
        let calm_until = wan.clone();
        watch.handle_act(Act::DslCut, totals(0), at(5000));
        watch.handle_look(&cut, &wan, 0, at(5600));
        wan[DSL][0].lost_cut = 40;
        watch.handle_end(totals(40), at(8000));
        // Traffic without a loss.
        let mut lan = Lan::new(at(800), 1);
        for now in 800..8000 {
            lan.light.ledger.handle_sent(at(now));
            lan.light.ledger.handle_answer(0, at(now), at(now + 20));
            lan.voice.ledger.handle_sent(at(now));
            lan.voice.ledger.handle_answer(0, at(now), at(now + 20));
        }
        Summary::of(Material {
            seed: 1,
            now: at(9000),
            ended,
            watch: &watch,
            notes: &[],
            lan: Some(&lan),
            wan: &wan,
            calm_until: Some(&calm_until),
            status: Some(good),
        })
    }

    #[test]
    fn a_run_that_shows_everything_passes() {
        let summary = run(true, [62, 25, 13], End::Played);
        assert_eq!(summary.failures, [] as [&str; 0]);
        assert!(summary.passed && summary.complete);
        assert_eq!(summary.tunnels_up_ms, Some(800));
        let event = &summary.events[0];
        assert_eq!((event.name, event.at_ms, event.detected_ms), ("dsl-cut", 5000, Some(600)));
        assert_eq!((event.network_lost, event.light_lost, event.restored_ms), (40, 0, Some(0)));
        assert_eq!(summary.links[0].light_percent, Some(62.0));
        assert_eq!(summary.links[0].configured_percent, 62.5);
        let text = report(&summary);
        assert!(text.contains("DSL cut") && text.contains("0.60 s"), "{text}");
    }

    #[test]
    fn what_was_not_noticed_is_a_failure() {
        let summary = run(false, [62, 25, 13], End::Played);
        assert_eq!(summary.failures, ["DSL cut: the branch never noticed"]);
        assert!(report(&summary).contains("never"));
    }

    #[test]
    fn a_share_far_from_the_configured_ratio_is_a_failure() {
        let summary = run(true, [34, 33, 33], End::Played);
        assert!(summary.failures[0].starts_with("fibre carried 34.0 % of all bytes"), "{:?}", summary.failures);
    }

    #[test]
    fn an_interrupted_run_is_not_judged_by_its_last_event() {
        let summary = run(false, [62, 25, 13], End::Interrupted);
        assert!(summary.passed && !summary.complete);
    }

    #[test]
    fn a_run_that_could_not_go_on_fails_with_its_reason() {
        let summary = run(true, [62, 25, 13], End::Failed("no".into()));
        assert_eq!(summary.failures, ["no"]);
        assert!(!summary.passed);
    }
}
