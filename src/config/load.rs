use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::de::DeTable;

use super::build;
use super::check;
use super::diagnostic::{Diagnostic, Report};
use super::files::{Disk, Files};
use super::policy::{self, Names, PolicyFiles, Ranges, Vocabulary};
use super::profile::Profiles;
use super::psk::{PSK_CHARACTERS_MAX, PskFiles};
use super::scenario::{self, Scenario};
use super::site::SiteDraft;
use super::source::{Source, Spot};
use super::table::{Table, Value};
use super::wording;
use super::words;
use crate::edge::Plan;

/// Patterns in `profiles` or `policy`.
const PATTERNS_MAX: usize = 64;
/// Read when the site file does not say `profiles`, if there is such a folder.
const PROFILES_DEFAULT: &str = "profiles/*.toml";

const RELATIVE: &str = "a path relative to the site file";

/// A site whose files are right.
#[derive(Debug)]
pub struct Loaded {
    pub plan: Plan,
    pub warnings: Vec<Diagnostic>,
}

/// Reads a site file and all that it names: profiles, policies and pre-shared keys. The error is
/// every finding of every file, errors before warnings, each group by file and position.
pub fn load(site_file: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    load_from(site_file, &Disk)
}

/// `load` from anywhere.
pub fn load_from(site_file: &Path, files: &dyn Files) -> Result<Loaded, Vec<Diagnostic>> {
    let report = Report::default();
    let plan = Loader { folder: site_file.parent().unwrap_or(Path::new("")), files, report: &report }.plan(site_file);
    let failed = report.error_count() > 0;
    let diagnostics = report.into_diagnostics();
    match plan {
        Some(plan) if !failed => Ok(Loaded { plan, warnings: diagnostics }),
        _ => Err(diagnostics),
    }
}

/// Reads policy files by themselves: with the links and connectors of a site, or with any that they
/// name.
pub fn load_policy(policy_files: &[PathBuf], site: Option<&Plan>) -> Result<PolicyFiles, Vec<Diagnostic>> {
    load_policy_from(policy_files, site, &Disk)
}

/// Like `load_policy` with what the other one may name; what both name has the same numbers.
pub fn load_policy_beside(policy_files: &[PathBuf], other: &PolicyFiles) -> Result<PolicyFiles, Vec<Diagnostic>> {
    let names = Names {
        links: other.links.clone(),
        connectors: other.connectors.clone(),
        lan: other.lan.clone(),
        patterns: other.patterns.clone(),
        site: other.site.clone(),
        sites: other.sites.clone(),
        is_open: other.is_open,
    };
    read_policy(policy_files, Vocabulary::of(names), &Disk)
}

/// `load_policy` from anywhere.
pub fn load_policy_from(
    policy_files: &[PathBuf],
    site: Option<&Plan>,
    files: &dyn Files,
) -> Result<PolicyFiles, Vec<Diagnostic>> {
    let vocabulary = site.map_or_else(Vocabulary::open, Vocabulary::of_plan);
    read_policy(policy_files, vocabulary, files)
}

fn read_policy(
    policy_files: &[PathBuf],
    vocabulary: Vocabulary,
    files: &dyn Files,
) -> Result<PolicyFiles, Vec<Diagnostic>> {
    let report = Report::default();
    let loader = Loader { folder: Path::new(""), files, report: &report };
    let sources: Vec<_> = policy_files.iter().filter_map(|path| loader.open(path, None)).collect();
    let documents: Vec<_> = sources.iter().map(|source| (loader.parse(source), source)).collect();
    let tables = documents.iter().map(|(document, source)| Table::of_document(document, source, &report));
    let policy = policy::read(tables.collect(), &vocabulary, &report);
    drop(documents);
    let failed = report.error_count() > 0;
    let warnings = report.into_diagnostics();
    if failed {
        return Err(warnings);
    }
    let Names { links, connectors, lan, patterns, site, sites, is_open } = vocabulary.into_names();
    Ok(PolicyFiles {
        rules: policy.rules,
        tests: policy.tests,
        tests_elsewhere: policy.tests_elsewhere,
        links,
        connectors,
        lan,
        patterns,
        site,
        sites,
        is_open,
        warnings,
    })
}

/// Reads a scenario. The error is every finding.
pub fn load_scenario(file: &Path) -> Result<Scenario, Vec<Diagnostic>> {
    load_scenario_from(file, &Disk)
}

/// `load_scenario` from anywhere.
pub fn load_scenario_from(file: &Path, files: &dyn Files) -> Result<Scenario, Vec<Diagnostic>> {
    let report = Report::default();
    let loader = Loader { folder: Path::new(""), files, report: &report };
    let scenario = loader.open(file, None).and_then(|source| {
        let document = loader.parse(&source);
        scenario::read(Table::of_document(&document, &source, &report), &report)
    });
    let failed = report.error_count() > 0;
    let findings = report.into_diagnostics();
    scenario.filter(|_| !failed).ok_or(findings)
}

/// The policy files that a site names, in order; the error is every finding of the site.
pub fn policy_files_of(site_file: &Path) -> Result<(Plan, Vec<PathBuf>), Vec<Diagnostic>> {
    let plan = load(site_file)?.plan;
    let report = Report::default();
    let loader = Loader { folder: site_file.parent().unwrap_or(Path::new("")), files: &Disk, report: &report };
    let named = loader.open(site_file, None).map_or_else(Vec::new, |source| {
        let document = loader.parse(&source);
        let value = Table::of_document(&document, &source, &report).value("policy");
        value.map_or_else(Vec::new, |value| loader.paths(&value)).into_iter().map(|file| file.path).collect()
    });
    Ok((plan, named))
}

/// A file, and where it was named unless it was found by itself.
struct Named {
    path: PathBuf,
    spot: Option<Spot>,
}

struct Loader<'a> {
    /// The site file's: every relative path starts here.
    folder: &'a Path,
    files: &'a dyn Files,
    report: &'a Report,
}

impl Loader<'_> {
    fn plan(&self, site_file: &Path) -> Option<Plan> {
        let source = self.open(site_file, None)?;
        let document = self.parse(&source);
        let report = self.report;
        let table = || Table::of_document(&document, &source, report);

        let mut profiles = Profiles::built_in();
        for file in self.profile_paths(&source, table().value("profiles")) {
            let Some(source) = self.open(&file.path, file.spot.as_ref()) else { continue };
            let name = file.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match words::name(name) {
                Ok(name) => {
                    profiles.read(&name, Table::of_document(&self.parse(&source), &source, report), report);
                }
                Err(complaint) => report.error(&Spot::at(&source, 0), complaint.what, complaint.instead),
            }
        }
        let mut keys = PskFiles::new(self.files, self.folder, report);
        let site = SiteDraft::read(table(), self.folder, &mut keys, report);
        let named = table().value("policy").map_or_else(Vec::new, |value| self.paths(&value));
        let sources: Vec<_> = named.iter().filter_map(|file| self.open(&file.path, file.spot.as_ref())).collect();
        let documents: Vec<_> = sources.iter().map(|source| (self.parse(source), source)).collect();
        let tables = documents.iter().map(|(document, source)| Table::of_document(document, source, report));
        let links = site.wan.names().map(|(_, name)| name.value.clone());
        let connectors = site.connectors.iter().map(|connector| connector.name.value.clone());
        let name = site.name.as_deref().unwrap_or_default();
        let ranges = site.connectors.iter().map(|one| one.ranges.iter().map(|at| at.value.range).collect());
        let vocabulary = Vocabulary::of_names(name, links, connectors, site.lan.clone());
        let vocabulary = vocabulary.with_ranges(Ranges::new(ranges));
        let policy = policy::read(tables.collect(), &vocabulary, report);
        check::check(&site, &profiles, report);
        build::build(site, &profiles, policy.rules, vocabulary.into_names().lan)
    }

    fn profile_paths(&self, site: &Rc<Source>, patterns: Option<Value<'_>>) -> Vec<Named> {
        match patterns {
            Some(value) => self.paths(&value),
            None => match self.expand(PROFILES_DEFAULT) {
                Ok(found) => found.into_iter().map(|path| Named { path, spot: None }).collect(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => {
                    let what = format!("\"{PROFILES_DEFAULT}\" cannot be read: {error}");
                    self.report.error(&Spot::whole(site), what, RELATIVE);
                    Vec::new()
                }
            },
        }
    }

    /// The files that a list of paths and patterns names, in order.
    fn paths(&self, value: &Value<'_>) -> Vec<Named> {
        let mut paths: Vec<Named> = Vec::new();
        for item in value.items(PATTERNS_MAX) {
            let Some(pattern) = item.text() else { continue };
            let shown = wording::path(pattern);
            match self.expand(pattern) {
                _ if !is_understood(pattern) => item.error(
                    format!("{shown} is a pattern of another form"),
                    "a path, or \"folder/*.toml\" for all files that end so",
                ),
                Ok(found) if found.is_empty() => item.error(format!("no file matches {shown}"), RELATIVE),
                Ok(found) => {
                    for path in found {
                        // A file named by itself and by a pattern is read once, at its first place.
                        if !paths.iter().any(|earlier| earlier.path == path) {
                            paths.push(Named { path, spot: Some(item.spot.clone()) });
                        }
                    }
                }
                Err(error) => item.error(format!("{shown} cannot be read: {error}"), RELATIVE),
            }
        }
        paths
    }

    /// A path itself, or `folder/*suffix`: its files in order of their names.
    fn expand(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        match name.strip_prefix('*') {
            Some(suffix) => {
                let folder = if pattern.starts_with('/') && folder.is_empty() { "/" } else { folder };
                self.files.list(&self.folder.join(folder), suffix)
            }
            _ => Ok(vec![self.folder.join(pattern)]),
        }
    }

    /// The text of a file; what prevents it is told where the file was named.
    fn open(&self, path: &Path, named_at: Option<&Spot>) -> Option<Rc<Source>> {
        let bytes = match self.files.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                match named_at {
                    Some(spot) => {
                        let shown = self.shown(path);
                        self.report.error(spot, format!("{shown} cannot be read: {error}"), RELATIVE);
                    }
                    None => {
                        let nothing = Rc::new(Source::new(path.to_path_buf(), String::new()));
                        self.report.error(&Spot::whole(&nothing), format!("cannot be read: {error}"), "");
                    }
                }
                return None;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) if may_be_a_key(path, &text) => {
                let what = "is not TOML and may be a key: nothing of it is shown";
                match named_at {
                    Some(spot) => {
                        self.report.error(spot, format!("{} {what}", self.shown(path)), "a profile or policy file")
                    }
                    None => {
                        let nothing = Rc::new(Source::new(path.to_path_buf(), String::new()));
                        self.report.error(&Spot::whole(&nothing), what, "a site file");
                    }
                }
                None
            }
            Ok(text) => {
                let nul = text.find('\0');
                let source = Rc::new(Source::new(path.to_path_buf(), text));
                if let Some(offset) = nul {
                    self.report.error(&Spot::at(&source, offset), "a NUL character", "TOML in UTF-8");
                    return None;
                }
                Some(source)
            }
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let source = Rc::new(Source::new(path.to_path_buf(), text));
                self.report.error(&Spot::at(&source, valid), "a byte that is not UTF-8", "TOML in UTF-8");
                None
            }
        }
    }

    /// As it is written in the site file, as a rule: from there all paths start.
    fn shown(&self, path: &Path) -> String {
        wording::path(&path.strip_prefix(self.folder).unwrap_or(path).display().to_string())
    }

    /// The document, as far as it is one; each syntax error is reported.
    fn parse<'s>(&self, source: &'s Rc<Source>) -> DeTable<'s> {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            source.break_line(offset);
            let spot = Spot::at(source, offset);
            // The parser calls a value that is not there an unquoted text.
            let rest = source.text.get(offset..).and_then(|rest| rest.lines().next()).unwrap_or("").trim();
            if error.message().starts_with("string values must be quoted") && rest.is_empty() {
                self.report.syntax(&spot, "syntax: no value", "a value behind =");
                continue;
            }
            let (what, instead) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
            let instead = if instead.is_empty() { String::new() } else { format!("expected {instead}") };
            self.report.syntax(&spot, format!("syntax: {what}"), instead);
        }
        document.into_inner()
    }
}

/// Whether this may be a key file that was named in the place of another: its name says so, or it
/// is one short line that TOML would not be.
fn may_be_a_key(path: &Path, text: &str) -> bool {
    let named_so =
        path.extension().is_some_and(|ending| ["psk", "key", "secret", "pem"].iter().any(|one| ending == *one));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (first, more) = (lines.next().unwrap_or_default(), lines.next().is_some());
    let is_toml = first.starts_with('[') || first.starts_with('#') || first.contains(" = ");
    named_so || (!more && !first.is_empty() && first.chars().count() <= PSK_CHARACTERS_MAX && !is_toml)
}

/// A star stands for the beginning of a file's name, and nowhere else.
fn is_understood(pattern: &str) -> bool {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    !folder.contains('*') && !name.strip_prefix('*').unwrap_or(name).contains('*')
}
