use std::path::Path;

use super::site::Memory;
use crate::config::{self, Scenario};

/// The shipped files themselves.
const FILES: [(&str, &str); 10] = [
    ("brownout", include_str!("../../../scenarios/brownout.toml")),
    ("cut", include_str!("../../../scenarios/cut.toml")),
    ("one-way-cut", include_str!("../../../scenarios/one-way-cut.toml")),
    ("flaps", include_str!("../../../scenarios/flaps.toml")),
    ("bufferbloat", include_str!("../../../scenarios/bufferbloat.toml")),
    ("lte-fading", include_str!("../../../scenarios/lte-fading.toml")),
    ("asymmetric-loss", include_str!("../../../scenarios/asymmetric-loss.toml")),
    ("pop-loss", include_str!("../../../scenarios/pop-loss.toml")),
    ("elephant", include_str!("../../../scenarios/elephant.toml")),
    ("mice", include_str!("../../../scenarios/mice.toml")),
];

/// The scenarios that are played when none is named. That each is right is tested.
pub fn shipped() -> Vec<Scenario> {
    let read =
        |(name, text): &(&str, &str)| config::load_scenario_from(Path::new(name), &Memory::new([(*name, *text)])).ok();
    FILES.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_played() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let mut played: Vec<String> = shipped().iter().map(|scenario| format!("{}.toml", scenario.name)).collect();
        files.sort();
        played.sort();
        assert_eq!(played, files);
    }
}
