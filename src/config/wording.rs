//! How messages are worded: quoting, alternatives, and the nearest word that would have been right.

/// Why a text is not the value it should be, and what would be.
#[derive(Debug)]
pub struct Complaint {
    pub what: String,
    pub instead: String,
}

pub fn complain<T>(what: impl Into<String>, instead: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { what: what.into(), instead: instead.into() })
}

/// What a message quotes of a file is never longer than this many characters: the longest name.
const QUOTED_MAX: usize = 64;
/// Of the name of a file a message shows this many characters, the last ones.
const PATH_MAX: usize = 160;
/// Alternatives that a message names.
const KNOWN_MAX: usize = 24;
/// The text in quotes, cut and with control characters escaped: a file cannot paint the terminal.
pub fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_MAX).collect();
    let dots = if text.chars().nth(QUOTED_MAX).is_some() { "..." } else { "" };
    format!("\"{}{dots}\"", cut.escape_debug())
}

/// The name of a file, quoted like any text, but of a very long one the end is kept: that is where
/// the names of files differ.
pub fn path(name: &str) -> String {
    let cut = name.chars().count().saturating_sub(PATH_MAX);
    let dots = if cut > 0 { "..." } else { "" };
    format!("\"{dots}{}\"", name.chars().skip(cut).collect::<String>().escape_debug())
}

/// A key as it would be written: quotes only where TOML needs them.
pub fn plain(key: &str) -> String {
    let bare = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    if bare && !key.is_empty() && key.len() <= QUOTED_MAX { key.to_string() } else { quoted(key) }
}

/// `known: fibre, dsl, lte`
pub fn known<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| plain(name.as_ref())).collect();
    match names.len() {
        0 => "none is known".to_string(),
        count if count > KNOWN_MAX => {
            format!("known: {} and {} more", names[..KNOWN_MAX].join(", "), count - KNOWN_MAX)
        }
        _ => format!("known: {}", names.join(", ")),
    }
}

/// `did you mean interface?`, or all that would be possible.
pub fn suggestion(text: &str, names: &[&str]) -> String {
    let mut longer = names.iter().filter(|name| !text.is_empty() && name.starts_with(text));
    if let (Some(name), None) = (longer.next(), longer.next()) {
        return format!("did you mean {name}?");
    }
    let near = names.iter().map(|name| (distance(text, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!("did you mean {name}?"),
        _ => known(names),
    }
}

/// Edits between two short texts: letters changed, added, left out, or two swapped.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(QUOTED_MAX).collect();
    let right: Vec<char> = right.chars().take(QUOTED_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, l) in left.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, r) in right.iter().enumerate() {
            let mut best = (last[column] + usize::from(l != r)).min(last[column + 1] + 1).min(line[column] + 1);
            let swapped = row > 0 && column > 0 && *l == right[column - 1] && left[row - 1] == *r;
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            line.push(best);
        }
        before = std::mem::replace(&mut last, line);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognised() {
        let names = ["interface", "source_address", "metered"];
        assert_eq!(suggestion("interfcae", &names), "did you mean interface?");
        assert_eq!(suggestion("meterd", &names), "did you mean metered?");
        // One key only begins so.
        assert_eq!(suggestion("source", &names), "did you mean source_address?");
        assert_eq!(suggestion("colour", &names), "known: interface, source_address, metered");
    }

    #[test]
    fn a_file_is_told_from_its_neighbour_however_long_the_way_to_it() {
        let folder = "a-very-long-folder/".repeat(20);
        let shown = |name: &str| path(&format!("{folder}{name}"));
        assert!(shown("one.toml").ends_with("/one.toml\""), "{}", shown("one.toml"));
        assert_ne!(shown("one.toml"), shown("two.toml"));
        assert_eq!(path("profiles/one.toml"), "\"profiles/one.toml\"");
    }

    #[test]
    fn what_is_quoted_is_short_and_cannot_paint_the_terminal() {
        assert_eq!(quoted("a\u{1b}[31m"), r#""a\u{1b}[31m""#);
        assert!(quoted(&"x".repeat(1000)).len() < 70);
        assert!(path(&"x".repeat(1000)).len() < 170);
        assert_eq!(known(Vec::<String>::new()), "none is known");
    }
}
