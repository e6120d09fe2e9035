use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use toml_edit::{Array, Decor, DocumentMut, Item, RawString, Table, Value};

use super::counted;
use crate::cli::output;
use crate::config::FILE_BYTES_MAX;

/// A list that would be longer stands on lines of its own.
const LINE_MAX: usize = 100;

/// The order of keys: name, what is matched, what is done.
const ORDER: [&str; 32] = [
    "sites",
    "name",
    "flow",
    "site",
    "source",
    "destination",
    "fqdn",
    "application",
    "protocol",
    "source_port",
    "destination_port",
    "dscp",
    "connector",
    "segment",
    "interface",
    "time",
    "prefixes",
    "links",
    "mode",
    "strategy",
    "sla",
    "on_failback",
    "set_dscp",
    "loss_percent",
    "rtt_ms",
    "jitter_ms",
    "state",
    "expect",
    "breakout",
    "rule",
    "verdict",
    "service",
];

#[derive(clap::Args, Debug)]
pub struct FmtArgs {
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Changes nothing; fails when a file is not formatted
    #[arg(long)]
    check: bool,
}

pub fn run(args: &FmtArgs) -> ExitCode {
    let mut changed = Vec::new();
    for file in &args.files {
        match format_file(file, args.check) {
            Ok(true) => changed.push(file.display().to_string()),
            Ok(false) => {}
            Err(reason) => return output::fail(&reason),
        }
    }
    let verb = if args.check { "not formatted" } else { "formatted" };
    let mut text: String = changed.iter().map(|file| format!("{file}: {verb}\n")).collect();
    if changed.is_empty() {
        text = format!("{} already formatted\n", counted(args.files.len(), "file"));
    }
    let failed = args.check && !changed.is_empty();
    output::finish(&text, if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether it was not formatted.
fn format_file(file: &Path, check: bool) -> Result<bool, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{} cannot be {what}: {error}", file.display());
    let size = std::fs::metadata(file).map_err(|error| failed("read", &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed("read", &"larger than 4 MiB"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed("read", &error))?;
    let formatted = format(&text).map_err(|error| failed("formatted", &error.trim_end()))?;
    if formatted == text {
        return Ok(false);
    }
    if !check {
        replace(file, &formatted).map_err(|error| failed("written", &error))?;
    }
    Ok(true)
}

/// Whoever reads the file meanwhile sees the old text or the new one, never half of it. A link stays one: what it
/// leads to is replaced.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let file = std::fs::canonicalize(file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = folder.join(format!(".{name}.formatted"));
    let write = || {
        let mut new = std::fs::File::create(&beside)?;
        new.set_permissions(std::fs::metadata(&file)?.permissions())?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        std::fs::rename(&beside, &file)
    };
    write().inspect_err(|_| {
        // What was half written is of no use.
        let _ = std::fs::remove_file(&beside);
    })
}

fn format(text: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    format_table(document.as_table_mut());
    let trailing = tidy(document.trailing().as_str().unwrap_or(""), false);
    document.set_trailing(if trailing.is_empty() { String::new() } else { format!("\n{trailing}") });
    // Every table has an empty line before it: which one comes first only the whole text says.
    let formatted = document.to_string().trim_start_matches('\n').to_owned();
    // To format is never to change.
    let parse = |text: &str| text.parse::<toml::Table>().ok();
    if parse(&formatted).is_none() || parse(&formatted) != parse(text) {
        return Err("its meaning would change".to_string());
    }
    Ok(formatted)
}

fn format_table(table: &mut Table) {
    let place = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    table.sort_values_by(|left, _, right, _| place(left.get()).cmp(&place(right.get())));
    for (mut key, item) in table.iter_mut() {
        match item {
            Item::Value(value) => {
                let prefix = tidy(raw(key.leaf_decor().prefix()), false);
                *key.leaf_decor_mut() = Decor::new(prefix, " ");
                let width = key.get().chars().count() + " = ".len();
                format_value(value, width);
            }
            Item::Table(inner) => format_headed(inner),
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(format_headed),
            Item::None => {}
        }
    }
}

/// A table with a header: an empty line before it, and its comments.
fn format_headed(table: &mut Table) {
    let comments = tidy(raw(table.decor().prefix()), true);
    let suffix = comment_behind(raw(table.decor().suffix()));
    *table.decor_mut() = Decor::new(format!("\n{comments}"), suffix);
    format_table(table);
}

fn format_value(value: &mut Value, width: usize) {
    let suffix = comment_behind(raw(value.decor().suffix()));
    if let Value::Array(array) = value {
        format_array(array, width);
    }
    if let Value::InlineTable(table) = value {
        for (mut key, inner) in table.iter_mut() {
            *key.leaf_decor_mut() = Decor::new(" ", " ");
            format_value(inner, 0);
        }
        if let Some((_, last)) = table.iter_mut().last() {
            last.decor_mut().set_suffix(" ");
        }
    }
    *value.decor_mut() = Decor::new(" ", suffix);
}

fn format_array(array: &mut Array, width: usize) {
    let has_comment =
        |value: &Value| raw(value.decor().prefix()).contains('#') || raw(value.decor().suffix()).contains('#');
    if array.iter().any(has_comment) || array.trailing().as_str().is_some_and(|text| text.contains('#')) {
        return;
    }
    for value in array.iter_mut() {
        format_value(value, 0);
        *value.decor_mut() = Decor::new("", "");
    }
    let texts: Vec<String> = array.iter().map(|value| value.to_string().trim().to_string()).collect();
    let on_one_line = width + texts.iter().map(|text| text.chars().count() + 2).sum::<usize>() <= LINE_MAX;
    for (index, value) in array.iter_mut().enumerate() {
        let prefix = match (on_one_line, index) {
            (true, 0) => "",
            (true, _) => " ",
            (false, _) => "\n    ",
        };
        value.decor_mut().set_prefix(prefix);
    }
    array.set_trailing_comma(!on_one_line && !texts.is_empty());
    array.set_trailing(if on_one_line { "" } else { "\n" });
}

fn raw(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or("")
}

/// The comments of what comes before something, one a line; between groups of them one empty line,
/// where that is wanted.
fn tidy(text: &str, groups: bool) -> String {
    let mut tidy = String::new();
    let mut gap = false;
    for line in text.lines().map(str::trim) {
        match line {
            "" => gap = true,
            comment => {
                if gap && groups && !tidy.is_empty() {
                    tidy.push('\n');
                }
                gap = false;
                tidy.push_str(comment);
                tidy.push('\n');
            }
        }
    }
    // A comment that stands apart from what follows stays apart.
    if gap && groups && !tidy.is_empty() {
        tidy.push('\n');
    }
    tidy
}

/// A comment at the end of a line.
fn comment_behind(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        comment => format!(" {comment}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_order_change_and_comments_stay_with_what_they_are_about() {
        let text = "# Rules of Lyon.\n\n\n# Calls.\n[[rule]]   # first\n  links=[ 'fibre','dsl' ]  # in order\n   # The mark.\n dscp   =\"ef\"\nname = \"voice\"\n\n\n\n[[rule]]\nname=\"rest\"\nmode=\"balance\"\n# The end.\n";
        let expected = "# Rules of Lyon.\n\n# Calls.\n[[rule]] # first\nname = \"voice\"\n# The mark.\ndscp = \"ef\"\nlinks = ['fibre', 'dsl'] # in order\n\n[[rule]]\nname = \"rest\"\nmode = \"balance\"\n\n# The end.\n";
        assert_eq!(format(text).unwrap(), expected);
        assert_eq!(format(expected).unwrap(), expected, "once is enough");
    }

    #[test]
    fn what_is_matched_comes_before_what_is_done() {
        let text = "sites=['lyon']\n[[rule]]\nlinks = \"lte\"\nfqdn = \"*.example\"\nsite = \"lyon\"\nname = \"a\"\nsegment = \"guests\"\n";
        let expected = "sites = ['lyon']\n\n[[rule]]\nname = \"a\"\nsite = \"lyon\"\nfqdn = \"*.example\"\nsegment = \"guests\"\nlinks = \"lte\"\n";
        assert_eq!(format(text).unwrap(), expected);
        assert_eq!(format(expected).unwrap(), expected, "once is enough");
    }

    #[test]
    fn long_lists_stand_on_lines_of_their_own_and_lists_with_comments_stay() {
        let networks: Vec<String> = (0..12).map(|number| format!("\"10.{number}.0.0/16\"")).collect();
        let text = format!("[[group]]\nname = \"all\"\nprefixes = [{}]\n", networks.join(","));
        let lines = format(&text).unwrap();
        assert_eq!(lines.lines().count(), 3 + 12 + 1, "{lines}");
        assert_eq!(format(&lines).unwrap(), lines);
        let with_comment = "[[group]]\nname = \"a\"\nprefixes = [\n  \"10.0.0.0/8\", # ours\n]\n";
        assert_eq!(format(with_comment).unwrap(), with_comment);
        assert!(format("[[rule]\n").is_err());
    }

    #[test]
    fn an_empty_line_stands_before_every_table_but_the_first_in_whatever_order_they_are() {
        let text =
            "[[group]]\nname=\"g\"\n[[test]]\nflow=\"x\"\n[test.state]\nfibre=\"down\"\n[[rule]]\nlinks=\"dsl\"\n";
        let expected = "[[group]]\nname = \"g\"\n\n[[test]]\nflow = \"x\"\n\n[test.state]\nfibre = \"down\"\n\n[[rule]]\nlinks = \"dsl\"\n";
        assert_eq!(format(text).unwrap(), expected);
    }

    #[test]
    fn whatever_a_file_holds_is_formatted_once_and_for_all() {
        let texts = [
            (
                "[[test]]\nname=\"a\"\nstate.fibre=\"down\"\nstate.dsl = \"healthy\"\n",
                "[[test]]\nname = \"a\"\nstate.fibre = \"down\"\nstate.dsl = \"healthy\"\n",
            ),
            (
                "[[rule]]\r\nname=\"a\"\r\n# why\r\nlinks=[\"dsl\"]\r\n",
                "[[rule]]\nname = \"a\"\n# why\nlinks = [\"dsl\"]\n",
            ),
            (
                "[[test]]\nstate={fibre={verdict=\"down\",rtt_ms=3},dsl=\"down\"} # both\n",
                "[[test]]\nstate = { fibre = { verdict = \"down\", rtt_ms = 3 }, dsl = \"down\" } # both\n",
            ),
            (
                "[[application]]\nservice=[{protocol=[ \"tcp\",\"udp\"] }]",
                "[[application]]\nservice = [{ protocol = [\"tcp\", \"udp\"] }]\n",
            ),
            ("# alone\n", "# alone\n"),
            ("", ""),
        ];
        for (text, expected) in texts {
            assert_eq!(format(text).unwrap(), expected);
            assert_eq!(format(expected).unwrap(), expected, "once is enough");
        }
    }

    #[test]
    fn a_link_to_a_file_stays_one_and_the_file_behind_it_is_formatted() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, link) = (folder.path().join("shared.toml"), folder.path().join("site.toml"));
        std::fs::write(&shared, "[[rule]]\nlinks=[\"dsl\"]\nname=\"a\"\n").unwrap();
        std::os::unix::fs::symlink("shared.toml", &link).unwrap();
        assert_eq!(format_file(&link, false), Ok(true));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = std::fs::read_to_string(&shared).unwrap();
        assert_eq!(text, "[[rule]]\nname = \"a\"\nlinks = [\"dsl\"]\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn the_shipped_policies_are_formatted() {
        for name in ["branch.toml", "cloud-vpc.toml"] {
            let text =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policy").join(name)).unwrap();
            assert_eq!(format(&text).unwrap(), text);
        }
    }
}
