use std::fmt::Write;
use std::thread;

use serde::Serialize;

use super::contender::Contender;
use super::figures::Figures;
use super::models::{Cato, Cisco, Ecmp, Fortinet, Mwan3, Oracle};
use super::race::Race;
use super::site;
use super::trefoil::Trefoil;
use crate::config::{Diagnostic, Scenario, TrafficKind};

/// What came of some scenarios for all contenders. Its shape as JSON: `docs/scoreboard.md`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Board {
    pub scenarios: Vec<Outcome>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    pub scenario: String,
    pub description: Option<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    pub contender: String,
    #[serde(flatten)]
    pub figures: Figures,
    /// Of what the oracle has.
    pub goodput_percent: f64,
    pub voice_percent: f64,
}

/// Why a scenario cannot be scored.
#[derive(Clone, PartialEq, Debug)]
pub struct Unplayable(pub String);

/// In the order of the tables. The first is ours, the last the measure.
pub const CONTENDERS: [&str; 7] = [OURS, "fortinet", "cato", "cisco", "mwan3", "ecmp", ORACLE];
pub const OURS: &str = "trefoil";
pub const ORACLE: &str = "oracle";

/// Tunnels of a role, and so links.
const LINKS_MAX: usize = 3;

/// Parts of the oracle's voice minutes and goodput that are asked for, in per cent.
const GOAL: f64 = 95.0;

impl Board {
    /// Plays every scenario with every contender.
    pub fn of(scenarios: &[Scenario]) -> Result<Board, Unplayable> {
        for scenario in scenarios {
            check(scenario)?;
        }
        let workers = thread::available_parallelism().map_or(1, |count| count.get());
        let jobs: Vec<(usize, &str)> =
            (0..scenarios.len()).flat_map(|index| CONTENDERS.map(|contender| (index, contender))).collect();
        let play = |jobs: Vec<(usize, &'static str)>| -> Vec<(usize, &'static str, Figures)> {
            let played = jobs.into_iter().filter_map(|(index, name)| {
                let scenario = scenarios.get(index)?;
                Some((index, name, run(scenario, name)?))
            });
            played.collect()
        };
        let mut played: Vec<(usize, &str, Figures)> = thread::scope(|scope| {
            let shares = (0..workers).map(|worker| jobs.iter().copied().skip(worker).step_by(workers).collect());
            let running: Vec<_> = shares.map(|share| scope.spawn(move || play(share))).collect();
            running
                .into_iter()
                .flat_map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        played.sort_by_key(|(index, name, _)| (*index, CONTENDERS.iter().position(|one| one == name)));
        let outcome = |(index, scenario): (usize, &Scenario)| {
            let of_it: Vec<(&str, Figures)> =
                played.iter().filter(|(one, ..)| *one == index).map(|(_, name, figures)| (*name, *figures)).collect();
            let oracle = of_it.iter().find(|(name, _)| *name == ORACLE).map(|(_, figures)| *figures);
            // Who knows the future knows what all others would get, and does no worse.
            let known = of_it.iter().map(|(_, figures)| figures);
            let oracle = known.fold(oracle.unwrap_or_default(), Figures::at_least_as_good_as);
            let of_it = of_it.iter().map(|(name, figures)| (*name, if *name == ORACLE { oracle } else { *figures }));
            let of_it: Vec<(&str, Figures)> = of_it.collect();
            let row = |(name, figures): &(&str, Figures)| Row {
                contender: (*name).to_string(),
                figures: *figures,
                goodput_percent: figures.goodput_percent(&oracle),
                voice_percent: figures.voice_percent(&oracle),
            };
            Outcome {
                scenario: scenario.name.clone(),
                description: scenario.description.clone(),
                rows: of_it.iter().map(row).collect(),
            }
        };
        Ok(Board { scenarios: scenarios.iter().enumerate().map(outcome).collect() })
    }

    /// Plays every scenario with as many seeds as this, from its own upwards: the means.
    pub fn over_seeds(scenarios: &[Scenario], seeds: u32) -> Result<Board, Unplayable> {
        let seeded = |number: u32| {
            scenarios.iter().map(move |one| Scenario { seed: one.seed.wrapping_add(u64::from(number)), ..one.clone() })
        };
        let all: Vec<Scenario> = (0..seeds).flat_map(seeded).collect();
        let played = Board::of(&all)?;
        let mean = |index: usize| Outcome::mean(played.scenarios.iter().skip(index).step_by(scenarios.len().max(1)));
        Ok(Board { scenarios: (0..scenarios.len()).filter_map(mean).collect() })
    }

    /// Where ours does not do what is asked of it, in plain words: first or tied everywhere, and near
    /// the oracle.
    pub fn shortfalls(&self) -> Vec<String> {
        let mut found = Vec::new();
        for outcome in &self.scenarios {
            let Some(ours) = outcome.row(OURS) else { continue };
            for other in outcome.rivals().filter(|other| other.figures.beats(&ours.figures)) {
                found.push(format!("{}: {} is better", outcome.scenario, other.contender));
            }
            for (what, percent) in [("goodput", ours.goodput_percent), ("good voice", ours.voice_percent)] {
                if percent < GOAL {
                    found.push(format!("{}: {percent:.1} % of the oracle's {what}", outcome.scenario));
                }
            }
        }
        found
    }

    /// A table for each scenario.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        for outcome in &self.scenarios {
            let described = outcome.description.as_ref().map_or_else(String::new, |words| format!(": {words}"));
            // Writing into a text cannot fail.
            let _ = writeln!(text, "{}{described}", outcome.scenario);
            let _ = writeln!(
                text,
                "  {:<10} {:>16} {:>10} {:>16} {:>10} {:>8}",
                "", "voice < 4.0 min", "outage s", "goodput % oracle", "reordered", "moves"
            );
            for row in &outcome.rows {
                let Figures { voice_minutes_bad, outage_seconds, reordered, moves, .. } = row.figures;
                let _ = writeln!(
                    text,
                    "  {:<10} {voice_minutes_bad:>16.2} {outage_seconds:>10.2} {:>16.1} {reordered:>10} {moves:>8}",
                    row.contender, row.goodput_percent
                );
            }
            text.push('\n');
        }
        text
    }

    /// One table over all scenarios, in Markdown.
    pub fn summary(&self) -> String {
        let mut text = String::from(
            "| | voice below MOS 4.0, minutes | outage, seconds | goodput, % of the oracle's | reordered | moves | \
             first or tied |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        );
        let count = self.scenarios.len().max(1);
        for name in CONTENDERS {
            let rows: Vec<(&Outcome, &Row)> =
                self.scenarios.iter().filter_map(|outcome| Some((outcome, outcome.row(name)?))).collect();
            let sum = |of: fn(&Row) -> f64| rows.iter().map(|(_, row)| of(row)).sum::<f64>();
            let first = rows
                .iter()
                .filter(|(outcome, row)| !outcome.rivals_of(name).any(|other| other.figures.beats(&row.figures)));
            let first = if name == ORACLE { "-".to_string() } else { format!("{} of {count}", first.count()) };
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {first} |",
                sum(|row| row.figures.voice_minutes_bad),
                sum(|row| row.figures.outage_seconds),
                sum(|row| row.goodput_percent) / count as f64,
                sum(|row| row.figures.reordered as f64),
                sum(|row| row.figures.moves as f64),
            );
        }
        text
    }
}

impl Outcome {
    /// Of several plays of one scenario.
    fn mean<'a>(plays: impl Iterator<Item = &'a Outcome> + Clone) -> Option<Outcome> {
        let first = plays.clone().next()?;
        let row = |row: &Row| {
            let same: Vec<&Row> = plays.clone().filter_map(|play| play.row(&row.contender)).collect();
            let mean = |of: fn(&Row) -> f64| same.iter().map(|row| of(row)).sum::<f64>() / same.len().max(1) as f64;
            Row {
                contender: row.contender.clone(),
                figures: Figures::mean(same.iter().map(|row| &row.figures)),
                goodput_percent: mean(|row| row.goodput_percent),
                voice_percent: mean(|row| row.voice_percent),
            }
        };
        Some(Outcome { rows: first.rows.iter().map(row).collect(), ..first.clone() })
    }

    pub fn row(&self, contender: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }

    fn rivals(&self) -> impl Iterator<Item = &Row> {
        self.rivals_of(OURS)
    }

    /// All others but the oracle.
    fn rivals_of(&self, name: &str) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.contender != name && row.contender != ORACLE)
    }
}

fn check(scenario: &Scenario) -> Result<(), Unplayable> {
    let refuse = |why: &str| Err(Unplayable(format!("scenario {}: {why}", scenario.name)));
    if scenario.links.len() > LINKS_MAX {
        return refuse("more than three links, which is what a role has tunnels");
    }
    if !scenario.traffic.iter().any(|traffic| matches!(traffic.kind, TrafficKind::Voice { .. })) {
        return refuse("no call, by which contenders are told apart (kind = \"voice\")");
    }
    site::plan(scenario).map(|_| ()).or_else(|found| refuse(&told(&found)))
}

fn told(found: &[Diagnostic]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn run(scenario: &Scenario, name: &str) -> Option<Figures> {
    let mut contender: Box<dyn Contender> = match name {
        "ecmp" => Box::new(Ecmp::new(scenario)),
        "mwan3" => Box::new(Mwan3::new(scenario)),
        "cato" => Box::new(Cato::new(scenario)),
        "fortinet" => Box::new(Fortinet::new(scenario)),
        "cisco" => Box::new(Cisco::new(scenario)),
        ORACLE => Box::new(Oracle::new(scenario)),
        _ => Box::new(Trefoil::new(site::plan(scenario).ok()?, scenario.seed)),
    };
    Some(Race::new(scenario, contender.as_mut()).run())
}
