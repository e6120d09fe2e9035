//! The figures of the table, in its order.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Metric {
    Tcp1,
    Tcp1Reverse,
    Tcp8,
    TcpBidir,
    Tcp8ThreeTunnels,
    TcpCpuPerGigabyte,
    Udp64,
    Udp64Mixed,
    Udp300,
    Udp1300,
    SteadyCarried,
    SteadyCpu,
    SteadySoftInterrupts,
    SteadyMachine,
    SteadyMixedCarried,
    SteadyMixedCpu,
    RoundTripMedian,
    RoundTripP99,
    AddedMedian,
    AddedP99,
    Memory,
    InnerMtu,
}

impl Metric {
    pub const ALL: [Metric; 22] = [
        Metric::Tcp1,
        Metric::Tcp1Reverse,
        Metric::Tcp8,
        Metric::TcpBidir,
        Metric::Tcp8ThreeTunnels,
        Metric::TcpCpuPerGigabyte,
        Metric::Udp64,
        Metric::Udp64Mixed,
        Metric::Udp300,
        Metric::Udp1300,
        Metric::SteadyCarried,
        Metric::SteadyCpu,
        Metric::SteadySoftInterrupts,
        Metric::SteadyMachine,
        Metric::SteadyMixedCarried,
        Metric::SteadyMixedCpu,
        Metric::RoundTripMedian,
        Metric::RoundTripP99,
        Metric::AddedMedian,
        Metric::AddedP99,
        Metric::Memory,
        Metric::InnerMtu,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Metric::Tcp1 => "TCP, one flow (Mbit/s)",
            Metric::Tcp1Reverse => "TCP, one flow, server sends (Mbit/s)",
            Metric::Tcp8 => "TCP, eight flows (Mbit/s)",
            Metric::TcpBidir => "TCP, both directions at once, sum (Mbit/s)",
            Metric::Tcp8ThreeTunnels => "TCP, eight flows over three tunnels (Mbit/s)",
            Metric::TcpCpuPerGigabyte => "CPU-seconds per GB of TCP, both ends",
            Metric::Udp64 => "UDP flood, 64 bytes (packets/s received)",
            Metric::Udp64Mixed => "UDP flood, 64 bytes, eight flows mixed (packets/s)",
            Metric::Udp300 => "UDP flood, 300 bytes (packets/s received)",
            Metric::Udp1300 => "UDP flood, 1,300 bytes (packets/s received)",
            Metric::SteadyCarried => "received of 40,000 packets/s, 64 bytes",
            Metric::SteadyCpu => "CPU-µs per packet at that rate, both ends",
            Metric::SteadySoftInterrupts => "ksoftirqd, µs per packet at that rate",
            Metric::SteadyMachine => "the whole machine, CPU-µs per packet at that rate",
            Metric::SteadyMixedCarried => "received of 40,000 packets/s, 64 bytes, eight flows mixed",
            Metric::SteadyMixedCpu => "CPU-µs per packet at that rate, mixed, both ends",
            Metric::RoundTripMedian => "round trip of 64 bytes, median (µs)",
            Metric::RoundTripP99 => "round trip of 64 bytes, 99th percentile (µs)",
            Metric::AddedMedian => "added one way to plain veth, median (µs)",
            Metric::AddedP99 => "added one way to plain veth, 99th percentile (µs)",
            Metric::Memory => "peak memory of the edge (MiB)",
            Metric::InnerMtu => "inner MTU (bytes)",
        }
    }

    pub fn show(self, value: f64) -> String {
        match self {
            Metric::Tcp1
            | Metric::Tcp1Reverse
            | Metric::Tcp8
            | Metric::TcpBidir
            | Metric::Tcp8ThreeTunnels
            | Metric::Udp64
            | Metric::Udp64Mixed
            | Metric::Udp300
            | Metric::Udp1300
            | Metric::SteadyCarried
            | Metric::SteadyMixedCarried
            | Metric::InnerMtu => grouped(value),
            Metric::TcpCpuPerGigabyte
            | Metric::SteadyCpu
            | Metric::SteadyMixedCpu
            | Metric::SteadySoftInterrupts
            | Metric::SteadyMachine => format!("{value:.2}"),
            Metric::RoundTripMedian
            | Metric::RoundTripP99
            | Metric::AddedMedian
            | Metric::AddedP99
            | Metric::Memory => format!("{value:.1}"),
        }
    }
}

/// 1234567.8 as 1,234,568.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
