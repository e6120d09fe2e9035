use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! forgettings {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Every reason for which the flow table does not hold a flow any more, each counted by itself.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Forgetting { $($(#[doc = $doc])* $variant,)* }

        impl Forgetting {
            pub const ALL: &[Forgetting] = &[$(Forgetting::$variant,)*];

            /// The name in `status --json`.
            pub const fn name(self) -> &'static str {
                match self { $(Forgetting::$variant => $name,)* }
            }
        }
    };
}

forgettings! {
    /// It had no packet for so long that it is taken to have ended.
    Idle = "idle",
    /// The table was full, and it was idle longest.
    Full = "full",
    /// The table was full, and other workers took the places that were made: the choice for one
    /// packet was not written down.
    NoRoom = "no_room",
}

/// Counts flows by the reason for which they were forgotten; workers add, control reads.
#[derive(Debug, Default)]
pub struct Forgotten([AtomicU64; Forgetting::ALL.len()]);

impl Forgotten {
    pub fn count(&self, reason: Forgetting, flows: u64) {
        self.0[reason as usize].fetch_add(flows, Ordering::Relaxed);
    }

    pub fn get(&self, reason: Forgetting) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained_where_operators_look_for_it() {
        let page = include_str!("../../docs/status.md");
        let explained = |line: &str| Some(line.strip_prefix("| `")?.split_once("` | flow |")?.0.to_owned());
        let explained: Vec<String> = page.lines().filter_map(explained).collect();
        let known: Vec<&str> = Forgetting::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(explained, known);
    }
}
