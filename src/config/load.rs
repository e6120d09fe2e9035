use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::de::DeTable;

use super::build;
use super::check;
use super::diagnostic::{Diagnostic, Report};
use super::files::{Disk, Files};
use super::policy::Policy;
use super::profile::Profiles;
use super::psk::PskFiles;
use super::site::SiteDraft;
use super::source::{At, Source, Spot};
use super::table::{Table, Value};
use super::words;
use crate::edge::Plan;

/// Patterns in `profiles` or `policy`.
const PATTERNS_MAX: usize = 64;
/// Read when the site file does not say `profiles`, if there is such a folder.
const PROFILES_DEFAULT: &str = "profiles/*.toml";

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

struct Loader<'a> {
    /// The site file's: every relative path starts here.
    folder: &'a Path,
    files: &'a dyn Files,
    report: &'a Report,
}

impl Loader<'_> {
    fn plan(&self, site_file: &Path) -> Option<Plan> {
        let nowhere = Rc::new(Source::new(site_file.to_path_buf(), String::new()));
        let source = self.open(site_file, &Spot::whole(&nowhere))?;
        let document = self.parse(&source);
        let report = self.report;
        let table = || Table::of_document(&document, &source, report);

        let mut profiles = Profiles::built_in();
        for path in self.profile_paths(table().value("profiles")) {
            let Some(source) = self.open(&path.value, &path.spot) else { continue };
            let name = path.value.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match words::name(name) {
                Ok(name) => {
                    profiles.read(&name, Table::of_document(&self.parse(&source), &source, report), report);
                }
                Err(complaint) => report.error(&Spot::whole(&source), complaint.what, complaint.instead),
            }
        }
        let mut keys = PskFiles::new(self.files, self.folder, report);
        let site = SiteDraft::read(table(), self.folder, &mut keys, report);
        let mut policy = Policy::default();
        for path in table().value("policy").map_or_else(Vec::new, |value| self.paths(&value)) {
            let Some(source) = self.open(&path.value, &path.spot) else { continue };
            policy.read(Table::of_document(&self.parse(&source), &source, report), &site.wan, report);
        }
        check::check(&site, &profiles, report);
        build::build(site, &profiles, policy.into_rules())
    }

    fn profile_paths(&self, patterns: Option<Value<'_>>) -> Vec<At<PathBuf>> {
        match patterns {
            Some(value) => self.paths(&value),
            None => {
                let nowhere = Spot::whole(&Rc::new(Source::new(self.folder.join("profiles"), String::new())));
                let found = self.expand(PROFILES_DEFAULT).unwrap_or_default();
                found.into_iter().map(|path| At { value: path, spot: nowhere.clone() }).collect()
            }
        }
    }

    /// The files that a list of paths and patterns names, in order.
    fn paths(&self, value: &Value<'_>) -> Vec<At<PathBuf>> {
        let mut paths: Vec<At<PathBuf>> = Vec::new();
        for item in value.items(PATTERNS_MAX) {
            let Some(pattern) = item.text() else { continue };
            match self.expand(pattern) {
                Ok(found) if found.is_empty() => {
                    item.error(
                        format!("no file is called {}", words::quoted(pattern)),
                        "a path relative to the site file",
                    );
                }
                Ok(found) => {
                    for path in found {
                        // A file named by itself and by a pattern is read once, at its first place.
                        if !paths.iter().any(|earlier| earlier.value == path) {
                            paths.push(item.at(path));
                        }
                    }
                }
                Err(error) => item.error(
                    format!("{} cannot be read: {error}", words::quoted(pattern)),
                    "a path relative to the site file",
                ),
            }
        }
        paths
    }

    /// A path itself, or `folder/*suffix`: its files in order of their names.
    fn expand(&self, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
        let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        match name.strip_prefix('*') {
            Some(suffix) if pattern.matches('*').count() == 1 => {
                let folder = if pattern.starts_with('/') && folder.is_empty() { "/" } else { folder };
                // An empty path is no folder to the operating system.
                let folder = self.folder.join(folder);
                let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
                self.files.list(&folder, suffix)
            }
            _ => Ok(vec![self.folder.join(pattern)]),
        }
    }

    /// The text of a file; what prevents it is told where the file was named.
    fn open(&self, path: &Path, named_at: &Spot) -> Option<Rc<Source>> {
        let shown = words::quoted(&path.display().to_string());
        let bytes = match self.files.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.report.error(named_at, format!("{shown} cannot be read: {error}"), "");
                return None;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => Some(Rc::new(Source::new(path.to_path_buf(), text))),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let source = Rc::new(Source::new(path.to_path_buf(), text));
                self.report.error(&Spot::at(&source, valid), "a byte that is not UTF-8", "TOML in UTF-8");
                None
            }
        }
    }

    /// The document, as far as it is one; each syntax error is reported.
    fn parse<'s>(&self, source: &'s Rc<Source>) -> DeTable<'s> {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            source.break_line(offset);
            let (what, instead) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
            let instead = if instead.is_empty() { String::new() } else { format!("expected {instead}") };
            self.report.syntax(&Spot::at(source, offset), format!("syntax: {what}"), instead);
        }
        document.into_inner()
    }
}
