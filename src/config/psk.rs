use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostic::Report;
use super::files::Files;
use super::table::Value;
use super::wording;
use crate::model::Secret;

/// Seed: "You may set the IPSec shared secret (PSK) up to 64 characters."
pub const PSK_CHARACTERS_MAX: usize = 64;

/// The pre-shared key files of a site; each is read once. No message shows what is in them.
pub struct PskFiles<'a> {
    files: &'a dyn Files,
    folder: &'a Path,
    report: &'a Report,
    read: BTreeMap<PathBuf, Option<Secret>>,
}

impl<'a> PskFiles<'a> {
    pub fn new(files: &'a dyn Files, folder: &'a Path, report: &'a Report) -> PskFiles<'a> {
        PskFiles { files, folder, report, read: BTreeMap::new() }
    }

    /// The key in the file that this value names, relative to the site file.
    pub fn read(&mut self, value: &Value<'_>) -> Option<Secret> {
        let name = value.text()?;
        let path = self.folder.join(name);
        if let Some(known) = self.read.get(&path) {
            return known.clone();
        }
        let secret = self.read_file(value, name, &path);
        self.read.insert(path, secret.clone());
        secret
    }

    fn read_file(&self, value: &Value<'_>, name: &str, path: &Path) -> Option<Secret> {
        let refuse = |what: &str, instead: &str| {
            value.error(format!("pre-shared key file {} {what}", wording::path(name)), instead);
            None
        };
        let contents = match self.files.read_secret(path) {
            Ok(contents) => contents,
            Err(error) if is_like_a_path(name) => {
                return refuse(&format!("cannot be read: {error}"), "a path relative to the site file");
            }
            Err(error) => {
                value.error(
                    format!("the pre-shared key file cannot be read: {error}"),
                    "the name of a file that has the key, relative to the site file, and not the key itself",
                );
                return None;
            }
        };
        if self.files.is_world_readable(path) {
            self.report.warn(
                &value.spot,
                format!("pre-shared key file {} can be read by every user", wording::path(name)),
                "chmod 640, or 600",
            );
        }
        let bytes = contents.expose();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        // Characters as an operator counts them; a key that is not text has its bytes counted.
        let characters = std::str::from_utf8(bytes).map_or(bytes.len(), |text| text.chars().count());
        if bytes.contains(&b'\n') {
            return refuse("has more than one line", "the key alone, on one line");
        }
        // An editor's additions, which nobody sees and the peer does not have.
        if bytes.starts_with(b"\xef\xbb\xbf") || bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return refuse("begins with a byte order mark", "the key alone, in UTF-8 without such a mark");
        }
        if bytes.contains(&0) {
            return refuse("has a NUL character", "the key alone, as text");
        }
        if characters == 0 {
            return refuse("is empty", "a key of 1 to 64 characters");
        }
        if characters > PSK_CHARACTERS_MAX {
            return refuse(&format!("has {characters} characters"), "1 to 64 characters");
        }
        if bytes.first().is_some_and(u8::is_ascii_whitespace) || bytes.last().is_some_and(u8::is_ascii_whitespace) {
            self.report.warn(
                &value.spot,
                format!("the key in {} begins or ends with a blank, which counts", wording::path(name)),
                "the key alone",
            );
        }
        if let [first @ (b'"' | b'\''), .., last] = bytes
            && first == last
        {
            self.report.warn(
                &value.spot,
                format!("the key in {} stands in quotes, which count", wording::path(name)),
                "the key alone",
            );
        }
        Some(Secret::new(bytes.to_vec()))
    }
}

/// Somebody may have written the key itself where its file should be named, and keys have slashes
/// and dots too. A name is shown that begins as a path or has an ending, such as `.psk`.
fn is_like_a_path(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    let has_ending = ending
        .is_some_and(|ending| (1..=6).contains(&ending.len()) && ending.bytes().all(|byte| byte.is_ascii_lowercase()));
    has_ending || name.starts_with('/') || name.starts_with("./") || name.starts_with("../")
}
