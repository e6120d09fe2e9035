//! The loader as a whole, with files in memory. `good.rs` reads what is right, `refusals.rs`,
//! `keys.rs`, `policies.rs`, `profiles.rs` and `scenarios.rs` show each refusal with its place and text, `hostile.rs` throws anything at it.

mod broken;
mod corners;
mod good;
mod hostile;
mod keys;
mod policies;
mod profiles;
mod refusals;
mod scenarios;
mod segments;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::{Files, Loaded, load_from};

/// Files in memory.
#[derive(Clone, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
    world_readable: BTreeSet<PathBuf>,
}

impl Memory {
    fn with(mut self, path: &str, contents: impl AsRef<[u8]>) -> Memory {
        self.files.insert(path.into(), contents.as_ref().to_vec());
        self
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.files[Path::new(path)]).into_owned()
    }

    /// Replaces one piece of the site file.
    fn with_change(self, from: &str, to: &str) -> Memory {
        let text = self.text("site.toml");
        assert!(text.contains(from), "{from:?} is not in the site");
        self.with("site.toml", text.replacen(from, to, 1))
    }

    fn world_readable(mut self, path: &str) -> Memory {
        self.world_readable.insert(path.into());
        self
    }

    fn load(&self) -> Result<Loaded, Vec<super::Diagnostic>> {
        load_from(Path::new("site.toml"), self)
    }

    /// What the operator reads, one line a finding.
    fn findings(&self) -> Vec<String> {
        let diagnostics = match self.load() {
            Ok(loaded) => loaded.warnings,
            Err(diagnostics) => diagnostics,
        };
        diagnostics.iter().map(ToString::to_string).collect()
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn list(&self, folder: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
        let inside = self.files.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter(|path| path.to_string_lossy().ends_with(suffix)).cloned().collect())
    }

    fn is_world_readable(&self, path: &Path) -> bool {
        self.world_readable.contains(path)
    }
}

/// The smallest site that is right, as its lines are in every test below.
const SITE: &str = r#"
[site]
name = "lyon"
native_ranges = ["10.20.0.0/16"]

[wan.fibre]
interface = "eth1"
downstream_mbps = 90
upstream_mbps = 40

[wan.dsl]
source_address = "192.0.2.7"
downstream_mbps = 9
upstream_mbps = 2

[connector.pop]
network_ranges = ["hq:10.0.0.0/8"]

[connector.pop.primary]
destination = "pop-a.example.net"
psk_file = "pop.psk"

[[connector.pop.primary.tunnel]]
wan = "fibre"

[[connector.pop.primary.tunnel]]
wan = "dsl"
"#;

fn site(text: &str) -> Memory {
    Memory::default().with("site.toml", text).with("pop.psk", "correct horse battery staple\n")
}

/// The small site with one piece of its text replaced.
fn changed(from: &str, to: &str) -> Memory {
    site(SITE).with_change(from, to)
}

/// The findings of the small site with one piece of its text replaced.
fn said(from: &str, to: &str) -> Vec<String> {
    changed(from, to).findings()
}

/// The last line of `SITE`, line 27, and what follows a tunnel in it.
const LAST: &str = "wan = \"dsl\"";
