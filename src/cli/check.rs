use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output;
use crate::config::{self, Diagnostic, Loaded, Severity};
use crate::daemon;
use crate::edge::{CapPlan, LinkPlan, Mode, OnStop, Plan, SiteKind, TunnelPlan};
use crate::model::{LinkId, Mbps, Permille, Role};

/// Checks a site file and all files that it names; reports every error at once.
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    /// The site file
    #[arg(value_name = "SITE.toml")]
    site: PathBuf,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    let (text, code) = check(&args.site);
    output::finish(&text, code)
}

fn check(site: &Path) -> (String, ExitCode) {
    let outcome = config::load(site);
    let of_host = outcome.as_ref().map_or_else(|_| Vec::new(), |loaded| daemon::host_warnings(&loaded.plan));
    let mut text = String::new();
    // A text takes all that is written.
    let _ = report(&outcome, &of_host, &site.display().to_string(), &mut text);
    (text, if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(outcome: &Result<Loaded, Vec<Diagnostic>>, of_host: &[String], site: &str, out: &mut String) -> fmt::Result {
    let diagnostics = match outcome {
        Ok(loaded) => &loaded.warnings,
        Err(diagnostics) => diagnostics,
    };
    for diagnostic in diagnostics {
        writeln!(out, "{diagnostic}")?;
    }
    for warning in of_host {
        writeln!(out, "{site} warning: {warning}")?;
    }
    if let Ok(loaded) = outcome {
        if !(diagnostics.is_empty() && of_host.is_empty()) {
            writeln!(out)?;
        }
        summarise(&loaded.plan, out)?;
        writeln!(out)?;
    }
    let of = |severity| diagnostics.iter().filter(|one| one.severity == severity).map(|one| one.count).sum::<usize>();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning) + of_host.len());
    match (errors, warnings) {
        (0, 0) => writeln!(out, "{site}: good"),
        (0, _) => writeln!(out, "{site}: good, with {}", counted(warnings, "warning")),
        (_, 0) => writeln!(out, "{site}: {}", counted(errors, "error")),
        _ => writeln!(out, "{site}: {}, {}", counted(errors, "error"), counted(warnings, "warning")),
    }
}

/// What the daemon would do with these files, in a few lines.
fn summarise(plan: &Plan, out: &mut String) -> fmt::Result {
    let kind = match plan.site.kind {
        SiteKind::Branch => "branch",
        SiteKind::CloudVpc => "cloud-vpc",
    };
    let native = listed(plan.site.native.iter().map(ToString::to_string), "any");
    writeln!(out, "site {} ({kind}), native ranges {native}", plan.site.name)?;
    if let Some(license) = plan.site.license {
        let held = directions(plan.site.cap).map_or_else(
            || "holds nothing back: no cap in [site]".to_owned(),
            |directions| format!("holds all links together {directions}"),
        );
        let sum =
            |mbps: fn(&LinkPlan) -> Mbps| plan.links.iter().map(|link| u64::from(mbps(link).value())).sum::<u64>();
        let (down, up) = (sum(|link| link.downstream), sum(|link| link.upstream));
        writeln!(out, "  license {license}, {held}; the links have {down} Mbps down, {up} Mbps up together")?;
    }
    for link in &plan.links {
        let underlay = plan.underlays.get(usize::from(link.underlay.0));
        let interface = underlay.and_then(|underlay| underlay.interface.clone());
        let address = underlay.and_then(|underlay| underlay.address).map(|address| address.to_string());
        let over = [interface, address].into_iter().flatten().collect::<Vec<_>>().join(" ");
        writeln!(
            out,
            "  link {:<12} {over}, {} down, {} up, preference {}{}{}",
            link.name,
            link.downstream,
            link.upstream,
            link.preference,
            if link.metered { ", metered" } else { "" },
            directions(link.cap).map_or_else(String::new, |directions| format!(", capped {directions}"))
        )?;
    }
    for connector in &plan.connectors {
        let ranges = listed(connector.ranges.iter().map(|range| range.range.to_string()), "everything");
        let mode = match connector.mode {
            Mode::Initiator => "initiator",
            Mode::Responder => "responder",
            Mode::Bidirectional => "bidirectional",
        };
        writeln!(out, "connector {} ({mode}) carries {ranges}", connector.name)?;
        for role in Role::ALL {
            let Some(group) = connector.roles.get(role.index()).and_then(Option::as_ref) else { continue };
            let location = group.pop_location.as_ref().map_or_else(String::new, |place| format!(", PoP {place}"));
            writeln!(out, "  {role}: {}{location}", counted(group.tunnels.len(), "tunnel"))?;
            for id in &group.tunnels {
                let Some(tunnel) = plan.tunnels.get(usize::from(id.0)) else { continue };
                summarise_tunnel(plan, tunnel, out)?;
            }
        }
    }
    let on_stop = match plan.routes.on_stop {
        OnStop::Block => "block",
        OnStop::Release => "release",
    };
    let others = match plan.rules.elsewhere().len() {
        0 => String::new(),
        more => format!(" ({} more for other sites)", counted(more, "rule")),
    };
    writeln!(
        out,
        "{}{others}; measured every {:?}, steered every {:?}; device {}, routing table {}, on stop {on_stop}",
        counted(plan.rules.rules().len(), "rule"),
        plan.health.interval,
        plan.steering.interval,
        plan.routes.device,
        plan.routes.table,
    )
}

/// In which a bandwidth holds back.
fn directions(cap: CapPlan) -> Option<&'static str> {
    match (cap.downstream, cap.upstream) {
        (true, true) => Some("down and up"),
        (true, false) => Some("down"),
        (false, true) => Some("up"),
        (false, false) => None,
    }
}

fn summarise_tunnel(plan: &Plan, tunnel: &TunnelPlan, out: &mut String) -> fmt::Result {
    let link = plan.links.get(usize::from(tunnel.link.0)).map_or("?", |link| &link.name);
    let destination = tunnel.destination.as_ref().map_or_else(|| "any peer".to_string(), ToString::to_string);
    let local_id = tunnel.local_id.as_ref().map(ToString::to_string);
    let local_id = local_id.or_else(|| tunnel.public_ip.map(|address| address.to_string()));
    let local_id = local_id.unwrap_or_else(|| "its address".to_string());
    writeln!(
        out,
        "    {:<16} over {link} to {destination} as {local_id}, {} down, {} up, {}",
        tunnel.name,
        tunnel.downstream,
        tunnel.upstream,
        share(plan, tunnel)
    )
}

/// What part of the flows without a rule it carries while all tunnels of its role are healthy.
fn share(plan: &Plan, tunnel: &TunnelPlan) -> String {
    let preference = |link: LinkId| plan.links.get(usize::from(link.0)).map_or(u8::MAX, |link| link.preference);
    let role = || plan.tunnels.iter().filter(|one| (one.connector, one.role) == (tunnel.connector, tunnel.role));
    let first = role().map(|one| preference(one.link)).min();
    if Some(preference(tunnel.link)) != first {
        return format!("reserve (preference {})", preference(tunnel.link));
    }
    let alike = role().filter(|one| Some(preference(one.link)) == first);
    let whole = alike.map(|one| u64::from(one.upstream.value())).sum();
    format!("share {}", Permille::of(u64::from(tunnel.upstream.value()), whole))
}

fn listed(items: impl Iterator<Item = String>, none: &str) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { none.to_string() } else { items.join(", ") }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(site: &str) -> (ExitCode, String) {
        let (text, code) = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join(site));
        (code, text)
    }

    #[test]
    fn a_good_site_is_summed_up_and_ends_with_success() {
        let (code, text) = checked("examples/branch.toml");
        assert_eq!(code, ExitCode::SUCCESS);
        for piece in [
            "site lyon (branch), native ranges 10.20.0.0/16",
            "  license 500 Mbps, holds nothing back: no cap in [site]; the links have 650 Mbps down, 560 Mbps up together",
            "  link lte          wwan0, 50 Mbps down, 20 Mbps up, preference 2, metered",
            "  secondary: 3 tunnels, PoP Frankfurt",
            "paris-dsl        over dsl to a1b2c3d4.ipsec.dev.catonetworks.org as lyon-dsl.example.com, \
             100 Mbps down, 40 Mbps up, share 7.4 %",
            "reserve (preference 2)",
        ] {
            assert!(text.contains(piece), "no {piece:?} in\n{text}");
        }
        assert!(text.lines().last().unwrap().contains("examples/branch.toml: good"), "{text}");
    }

    #[test]
    fn a_broken_site_is_told_all_its_errors_and_ends_with_failure() {
        let (code, text) = checked("src/config/tests/broken/site.toml");
        assert_eq!(code, ExitCode::FAILURE);
        assert!(text.lines().last().unwrap().contains("site.toml: 35 errors, "), "{text}");
        assert!(!text.contains("link fibre"), "no summary of what will not run:\n{text}");
    }
}
