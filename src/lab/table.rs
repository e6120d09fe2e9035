use std::time::Duration;

use super::ledger::Tally;
use super::scenery::POPS;
use super::web::WebTally;
use crate::edge::{SiteStatus, TunnelStatus};
use crate::model::Role;

/// What an operator sees at a glance, as of one moment.
pub struct Table<'a> {
    pub elapsed: Duration,
    pub total: Duration,
    pub act: &'static str,
    pub status: &'a SiteStatus,
    /// Of each tunnel of the first connector: Mbps out and in over the last second.
    pub rates: &'a [(f64, f64)],
    pub traffic: Option<TrafficRow>,
}

/// The hosts' own view of the last second or two.
#[derive(Clone, Copy, Debug)]
pub struct TrafficRow {
    pub calls: u16,
    pub voice_on: Option<&'static str>,
    pub voice: Tally,
    pub flows: u16,
    pub light: Tally,
    pub clients: usize,
    pub web: WebTally,
    pub web_over: Duration,
    /// Mbps up and down.
    pub bulk: (f64, f64),
    pub sessions: (usize, u64),
}

/// Whether to mark words with colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ink {
    Plain,
    Colour,
}

impl Table<'_> {
    /// The whole table, one string a line.
    pub fn lines(&self, ink: Ink) -> Vec<String> {
        let Some(connector) = self.status.connectors.first() else { return Vec::new() };
        let role = Role::ALL.into_iter().find(|role| role.name() == connector.active_role);
        let place = role.and_then(|role| POPS.get(role.index())).map_or("?", |pop| pop.place);
        let mut lines = vec![
            format!(
                "{:5.1} s of {:.0} s   traffic goes to the {} PoP ({place})   {}",
                self.elapsed.as_secs_f64(),
                self.total.as_secs_f64(),
                connector.active_role,
                self.act,
            ),
            format!(
                "{:<10} {:<6} {:<11} {:<9} {:>7} {:>8} {:>8} {:>7} {:>9} {:>9}",
                "role", "link", "state", "verdict", "loss", "rtt", "jitter", "share", "out Mbps", "in Mbps"
            ),
        ];
        for (tunnel, number) in connector.tunnels.iter().zip(0..) {
            let rates = self.rates.get(number).copied().unwrap_or_default();
            lines.push(row(tunnel, rates, ink));
        }
        if let Some(traffic) = &self.traffic {
            lines.extend(traffic.lines());
        }
        lines
    }

    /// The same in one line, for what is not a terminal.
    pub fn line(&self) -> String {
        let Some(connector) = self.status.connectors.first() else { return String::new() };
        let tunnels = connector.tunnels.iter().filter(|tunnel| tunnel.role == connector.active_role);
        let tunnels: Vec<String> = tunnels
            .map(|tunnel| format!("{} {} {}", tunnel.link, tunnel.verdict, number(tunnel.loss_percent, 1, " %")))
            .collect();
        let mut line =
            format!("{:6.1} s  {}: {}", self.elapsed.as_secs_f64(), connector.active_role, tunnels.join(", "));
        if let Some(traffic) = &self.traffic {
            line += &format!(
                "; voice on {} loss {:.1} %, {:.0} pages/s",
                traffic.voice_on.unwrap_or("?"),
                loss_percent(&traffic.voice),
                traffic.pages_per_second(),
            );
        }
        line
    }
}

impl TrafficRow {
    fn lines(&self) -> [String; 5] {
        let on = self.voice_on.unwrap_or("?");
        let (up, down) = self.bulk;
        let (connected, broken) = self.sessions;
        let failed = self.web.failed;
        [
            format!("voice      {:>3} calls on {on:<6} {}", self.calls, quality(&self.voice)),
            format!("light      {:>3} flows           {}", self.flows, quality(&self.light)),
            format!(
                "web        {:>3} clients         {:>4.0} pages/s, median {}, {failed} failed",
                self.clients,
                self.pages_per_second(),
                millis(self.web.median),
            ),
            format!("bulk                           up {up:.1} Mbps, down {down:.1} Mbps"),
            format!("sessions   {connected:>3} connected       {broken} broken since the start"),
        ]
    }

    fn pages_per_second(&self) -> f64 {
        self.web.completed as f64 / self.web_over.as_secs_f64().max(0.001)
    }
}

fn row(tunnel: &TunnelStatus, (out, inn): (f64, f64), ink: Ink) -> String {
    let verdict = format!("{:<9}", tunnel.verdict);
    let verdict = match (ink, tunnel.verdict.as_str()) {
        (Ink::Plain, _) => verdict,
        (Ink::Colour, "healthy") => format!("\x1b[32m{verdict}\x1b[0m"),
        (Ink::Colour, "down") => format!("\x1b[31m{verdict}\x1b[0m"),
        (Ink::Colour, _) => format!("\x1b[33m{verdict}\x1b[0m"),
    };
    format!(
        "{:<10} {:<6} {:<11} {verdict} {:>7} {:>8} {:>8} {:>7} {out:>9.2} {inn:>9.2}",
        tunnel.role,
        tunnel.link,
        tunnel.state,
        number(tunnel.loss_percent, 1, " %"),
        number(tunnel.rtt_ms, 0, " ms"),
        number(tunnel.jitter_ms, 0, " ms"),
        format!("{:.1} %", tunnel.share_percent),
    )
}

fn quality(tally: &Tally) -> String {
    format!("loss {:>5.1} %, round trip {}", loss_percent(tally), millis(tally.round_trip))
}

fn loss_percent(tally: &Tally) -> f64 {
    if tally.sent == 0 { 0.0 } else { tally.lost() as f64 * 100.0 / tally.sent as f64 }
}

fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

fn millis(value: Option<Duration>) -> String {
    number(value.map(|time| time.as_secs_f64() * 1000.0), 0, " ms")
}
