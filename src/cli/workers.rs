//! `trefoil status --workers`: the threads that carry packets.

use super::status::{align, bytes, list};
use crate::edge::{SiteStatus, WorkerStatus};

const COLUMNS: usize = 10;
const HEADINGS: [&str; COLUMNS] =
    ["worker", "turns", "waits", "out", "packets", "in", "packets", "handed over", "taken over", "drops"];

/// The workers of a site as text.
pub fn render(status: &SiteStatus) -> String {
    let headings = std::iter::once(HEADINGS.map(str::to_owned));
    let rows: Vec<_> = headings.chain(status.workers.iter().map(row)).collect();
    let mut text =
        format!("site {} ({}), {} workers\n\n{}", status.site, status.kind, status.workers.len(), align(&rows, 0));
    for worker in status.workers.iter().filter(|worker| !worker.drops.is_empty()) {
        text.push_str(&format!("  worker {}: dropped: {}\n", worker.worker, list(&worker.drops)));
    }
    text
}

fn row(worker: &WorkerStatus) -> [String; COLUMNS] {
    [
        worker.worker.to_string(),
        worker.turns.to_string(),
        worker.waits.to_string(),
        bytes(worker.bytes_out),
        worker.packets_out.to_string(),
        bytes(worker.bytes_in),
        worker.packets_in.to_string(),
        worker.handed_over.to_string(),
        worker.taken_over.to_string(),
        worker.drops.iter().map(|drop| drop.packets).sum::<u64>().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::DropStatus;

    #[test]
    fn workers_read_as_a_table_with_what_they_dropped_below() {
        let worker = |worker, drops| WorkerStatus {
            worker,
            turns: 900,
            waits: 100,
            packets_out: 1_000,
            bytes_out: 1_234_567,
            packets_in: 2_000,
            bytes_in: 2_345_678,
            handed_over: 30,
            taken_over: 40,
            drops,
        };
        let drop = DropStatus { reason: "queue_full".to_owned(), packets: 7 };
        let status = SiteStatus {
            site: "lisbon".to_owned(),
            kind: "branch".to_owned(),
            at_ms: 1,
            started_ms: 0,
            generation: 0,
            connectors: Vec::new(),
            drops: Vec::new(),
            flows: 0,
            flow_limit: 65_536,
            forgotten: Vec::new(),
            links: Vec::new(),
            shaped_mbps: None,
            policed_mbps: None,
            breakouts: Vec::new(),
            names: None,
            workers: vec![worker(0, Vec::new()), worker(1, vec![drop])],
            recording: None,
        };
        let expected = "\
site lisbon (branch), 2 workers

worker  turns  waits        out  packets         in  packets  handed over  taken over  drops
     0    900    100  1234.6 kB     1000  2345.7 kB     2000           30          40      0
     1    900    100  1234.6 kB     1000  2345.7 kB     2000           30          40      7
  worker 1: dropped: 7 queue_full
";
        assert_eq!(render(&status), expected);
    }
}
