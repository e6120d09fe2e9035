use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

use crate::measure::Measure;
use crate::product::{Kind, Product};

/// Compares Trefoil with plain veth, strongSwan and user-space WireGuards, in network namespaces.
#[derive(Parser, Debug)]
#[command(name = "throughput", bin_name = "cargo bench --bench throughput --", max_term_width = 100)]
pub struct Settings {
    /// Whom to measure, in this order: veth, strongswan, wireguard-go, boringtun, gotatun, trefoil
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    peers: Option<Vec<Kind>>,
    /// How often everybody takes a turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// How long each load lasts
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub seconds: u32,
    /// Which loads; all of them if left out
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    only: Vec<Measure>,
    /// A second build of Trefoil, for the column "trefoil (other)"
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// One round of two seconds a load: veth, wireguard-go and trefoil
    #[arg(long)]
    quick: bool,
    /// First install boringtun and gotatun from crates.io into target/bench-peers; takes minutes
    #[arg(long)]
    build_peers: bool,
    /// Write docs/performance.md and docs/performance.svg
    #[arg(long)]
    pub write_docs: bool,
    /// What cargo bench says
    #[arg(long, hide = true)]
    bench: bool,
}

impl Settings {
    pub fn of_command_line() -> Result<Settings, String> {
        let mut settings = Settings::parse();
        // `cargo test --benches` runs this too, and nobody who tests wants to wait for it.
        if !settings.bench {
            return Err("this is a measurement: cargo bench --bench throughput".to_owned());
        }
        if settings.quick {
            (settings.rounds, settings.seconds) = (1, 2);
            settings.peers.get_or_insert_with(|| vec![Kind::Veth, Kind::WireguardGo, Kind::Trefoil]);
        }
        if settings.only.is_empty() {
            settings.only = Measure::ALL.to_vec();
        }
        Ok(settings)
    }

    pub fn wants(&self, measure: Measure) -> bool {
        self.only.contains(&measure)
    }

    /// Those asked for that are here; the others are told.
    pub fn products(&self) -> Result<Vec<Product>, String> {
        if self.build_peers {
            build("boringtun-cli", "^0.7")?;
            build("gotatun-cli", "^0.10")?;
        }
        let kinds = self.peers.clone().unwrap_or_else(|| Kind::ALL.to_vec());
        let mut products: Vec<Product> = Vec::new();
        for kind in kinds {
            match Product::find(kind) {
                Ok(product) => products.push(product),
                Err(missing) => println!("skipped: {missing}"),
            }
        }
        if let Some(binary) = &self.binary {
            products.push(Product::other_trefoil(binary)?);
        }
        if products.is_empty() {
            return Err("nothing to measure".to_owned());
        }
        Ok(products)
    }
}

/// Where `--build-peers` installs to.
pub fn peers_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("bench-peers")
}

fn build(package: &str, version: &str) -> Result<(), String> {
    println!("installing {package} {version} from crates.io");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["install", "--locked", "--version", version, package, "--root"])
        .arg(peers_directory())
        .status()
        .map_err(|error| format!("cargo install: {error}"))?;
    status.success().then_some(()).ok_or_else(|| format!("cargo install {package} failed"))
}
