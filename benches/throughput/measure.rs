//! The loads, and what is read while they run.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::Value;

use crate::bed::{Bed, LINKS};
use crate::cpu::{CpuReading, CpuUse, peak_memory};
use crate::flood::{Flood, Load, Pace};
use crate::metric::Metric;
use crate::ping_pong::RoundTrips;
use crate::product::{Kind, Pair, Product};
use crate::settings::Settings;
use crate::stopped;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Measure {
    #[value(name = "tcp1")]
    Tcp1,
    /// The server sends.
    #[value(name = "tcp1r")]
    Tcp1Reverse,
    #[value(name = "tcp8")]
    Tcp8,
    #[value(name = "bidir")]
    TcpBidir,
    /// Eight flows over three tunnels; Trefoil only.
    #[value(name = "tunnels")]
    ThreeTunnels,
    #[value(name = "udp64")]
    Udp64,
    /// Eight flows whose packets alternate.
    #[value(name = "udp64x8")]
    Udp64Mixed,
    #[value(name = "udp300")]
    Udp300,
    #[value(name = "udp1300")]
    Udp1300,
    /// Processor time at 40,000 packets of 64 bytes a second.
    #[value(name = "cpu")]
    Steady,
    /// The same of eight flows whose packets alternate.
    #[value(name = "cpux8")]
    SteadyMixed,
    #[value(name = "latency")]
    Latency,
}

impl Measure {
    pub const ALL: [Measure; 12] = [
        Measure::Tcp1,
        Measure::Tcp1Reverse,
        Measure::Tcp8,
        Measure::TcpBidir,
        Measure::Udp64,
        Measure::Udp64Mixed,
        Measure::Udp300,
        Measure::Udp1300,
        Measure::Steady,
        Measure::SteadyMixed,
        Measure::Latency,
        Measure::ThreeTunnels,
    ];
}

/// A queue fills, a TCP window opens, a processor wakes up.
const WARM_UP: Duration = Duration::from_millis(500);

/// 40,000 a second, in bursts as applications make them.
const STEADY: Pace = Pace::Every(Duration::from_micros(200), 8);

/// One turn of a product: all that was asked for, each figure given to `add`.
pub fn run(product: &Product, settings: &Settings, mut add: impl FnMut(Metric, f64)) -> Result<(), String> {
    let single = Measure::ALL.into_iter().filter(|measure| *measure != Measure::ThreeTunnels);
    let wanted: Vec<Measure> = single.filter(|measure| settings.wants(*measure)).collect();
    if !wanted.is_empty() {
        let bed = Bed::new(product.inner_mtu());
        let mut pair = product.start(&bed, 1);
        add(Metric::InnerMtu, product.inner_mtu().into());
        for measure in wanted {
            if stopped() {
                return Ok(());
            }
            pair.refresh();
            if let Err(error) = measure.run(&bed, &pair, settings.seconds, &mut add) {
                println!("  {measure:?} failed: {error}");
            }
        }
        if let Some(bytes) = pair.processes().first().and_then(|edge| peak_memory(*edge)) {
            add(Metric::Memory, bytes as f64 / f64::from(1 << 20));
        }
    }
    if settings.wants(Measure::ThreeTunnels) && product.kind == Kind::Trefoil && !stopped() {
        let bed = Bed::new(product.inner_mtu());
        let _pair = product.start(&bed, LINKS);
        add(Metric::Tcp8ThreeTunnels, mbps(&tcp(&bed, &["--parallel", "8"], settings.seconds)?)?);
    }
    Ok(())
}

impl Measure {
    fn run(self, bed: &Bed, pair: &Pair, seconds: u32, add: &mut impl FnMut(Metric, f64)) -> Result<(), String> {
        let time = Duration::from_secs(seconds.into());
        let mut flood = |metric, bytes, flows| {
            let rate = received(bed, Load { bytes, flows, pace: Pace::AsFastAsPossible }, time);
            add(metric, rate);
        };
        match self {
            Measure::Tcp1 => {
                let processes = pair.processes();
                let before = CpuReading::of(&processes);
                let report = tcp(bed, &[], seconds)?;
                let used = before.until(CpuReading::of(&processes));
                add(Metric::Tcp1, mbps(&report)?);
                let bytes = report["end"]["sum_received"]["bytes"].as_f64().unwrap_or(0.0);
                if !processes.is_empty() && bytes > 0.0 {
                    add(Metric::TcpCpuPerGigabyte, used.processes.as_secs_f64() / (bytes / 1e9));
                }
            }
            Measure::Tcp1Reverse => add(Metric::Tcp1Reverse, mbps(&tcp(bed, &["--reverse"], seconds)?)?),
            Measure::Tcp8 => add(Metric::Tcp8, mbps(&tcp(bed, &["--parallel", "8"], seconds)?)?),
            Measure::TcpBidir => {
                let report = tcp(bed, &["--bidir"], seconds)?;
                let back = &report["end"]["sum_received_bidir_reverse"]["bits_per_second"];
                let back = back.as_f64().ok_or("iperf3 gives no rate of the way back")?;
                add(Metric::TcpBidir, mbps(&report)? + back / 1e6);
            }
            Measure::Udp64 => flood(Metric::Udp64, 64, 1),
            Measure::Udp64Mixed => flood(Metric::Udp64Mixed, 64, 8),
            Measure::Udp300 => flood(Metric::Udp300, 300, 1),
            Measure::Udp1300 => flood(Metric::Udp1300, 1_300, 1),
            Measure::Steady => {
                let steady = Steady::measure(bed, &pair.processes(), time, 1)?;
                add(Metric::SteadyCarried, steady.carried);
                if let Some(ends) = steady.ends {
                    add(Metric::SteadyCpu, ends);
                }
                add(Metric::SteadySoftInterrupts, steady.soft_interrupts);
                add(Metric::SteadyMachine, steady.machine);
            }
            Measure::SteadyMixed => {
                let steady = Steady::measure(bed, &pair.processes(), time, 8)?;
                add(Metric::SteadyMixedCarried, steady.carried);
                if let Some(ends) = steady.ends {
                    add(Metric::SteadyMixedCpu, ends);
                }
            }
            Measure::Latency => {
                let trips = RoundTrips::measure(bed, time);
                for (metric, percent) in [(Metric::RoundTripMedian, 50), (Metric::RoundTripP99, 99)] {
                    let trip = trips.percentile(percent).ok_or("no question was answered")?;
                    add(metric, trip.as_secs_f64() * 1e6);
                }
            }
            Measure::ThreeTunnels => {}
        }
        Ok(())
    }
}

/// What iperf3 says of TCP from the client to the server.
fn tcp(bed: &Bed, arguments: &[&str], seconds: u32) -> Result<Value, String> {
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.to_string()).collect();
    bed.iperf.run(&bed.client, &arguments, seconds)
}

fn mbps(report: &Value) -> Result<f64, String> {
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let mbps = bits.map(|bits| bits / 1e6).filter(|mbps| *mbps > 0.0);
    mbps.ok_or_else(|| "iperf3 brought nothing through".to_owned())
}

/// Packets a second that arrive.
fn received(bed: &Bed, load: Load, time: Duration) -> f64 {
    let flood = Flood::start(bed, load);
    sleep(WARM_UP);
    let (start, before) = (Instant::now(), flood.received());
    sleep(time);
    (flood.received() - before) as f64 / start.elapsed().as_secs_f64()
}

/// At a fixed rate.
struct Steady {
    /// Packets a second.
    carried: f64,
    /// Processor time for each packet that arrived, in µs: of the two ends, if the product has any.
    ends: Option<f64>,
    soft_interrupts: f64,
    machine: f64,
}

impl Steady {
    fn measure(bed: &Bed, processes: &[u32], time: Duration, flows: u8) -> Result<Steady, String> {
        let flood = Flood::start(bed, Load { bytes: 64, flows, pace: STEADY });
        sleep(WARM_UP);
        let (start, sent, received) = (Instant::now(), flood.sent(), flood.received());
        let before = CpuReading::of(processes);
        sleep(time);
        let CpuUse { processes: ends, soft_interrupts, machine } = before.until(CpuReading::of(processes));
        let (sent, received) = (flood.sent() - sent, flood.received() - received);
        let seconds = start.elapsed().as_secs_f64();
        drop(flood);
        if received == 0 {
            return Err(format!("none of {sent} packets arrived"));
        }
        let per_packet = |time: Duration| time.as_secs_f64() * 1e6 / received as f64;
        Ok(Steady {
            carried: received as f64 / seconds,
            ends: (!processes.is_empty()).then(|| per_packet(ends)),
            soft_interrupts: per_packet(soft_interrupts),
            machine: per_packet(machine),
        })
    }
}
