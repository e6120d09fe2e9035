use std::collections::BTreeMap;

use super::namespace::Namespace;

/// Packets that the kernel has dropped in some namespaces: by full sockets, by full queues of devices, and
/// between a pair of devices.
pub struct KernelDrops(BTreeMap<String, u64>);

impl KernelDrops {
    pub fn read(places: &[&Namespace]) -> KernelDrops {
        let script = "cd /sys/class/net && grep -H . */statistics/rx_dropped */statistics/tx_dropped; \
                      awk '/^Udp:/ && $6 ~ /^[0-9]+$/ { print \"RcvbufErrors:\" $6; print \"SndbufErrors:\" $7 }' /proc/net/snmp";
        let mut counters = BTreeMap::new();
        for place in places {
            let text = place.run("sh", &["-c", script]).stdout;
            let text = String::from_utf8_lossy(&text);
            assert!(text.lines().count() >= 4, "{text}");
            for line in text.lines() {
                let (name, count) = line.rsplit_once(':').expect("a name and a number");
                let short = place.name().rsplit('-').next().unwrap_or_default();
                let name = format!("{short} {}", name.replace("/statistics/", " "));
                counters.insert(name, count.parse().expect("a number"));
            }
        }
        KernelDrops(counters)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn since(&self, before: &KernelDrops) -> KernelDrops {
        let grown = self.0.iter().map(|(name, now)| (name, now - before.0.get(name).unwrap_or(&0)));
        KernelDrops(grown.filter(|(_, count)| *count > 0).map(|(name, count)| (name.clone(), count)).collect())
    }

    /// Of `since`: who has dropped how many.
    pub fn told(&self) -> String {
        let each = self.0.iter().map(|(name, count)| format!("{count} by {name}"));
        if self.0.is_empty() { "none".to_owned() } else { each.collect::<Vec<_>>().join(", ") }
    }
}
