//! The floors of `src/lib.rs`, kept true: a file imports from its own folder and from lower
//! floors; floors 0 to 4 know no socket, file, clock, thread or runtime; `unsafe` lives in `net`.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. Folders of one floor are siblings that never meet.
const FLOORS: [&[&str]; 9] = [
    &["model"],
    &["packet", "crypto"],
    &["ike", "esp", "health", "probe", "steer", "qos", "ha"],
    &["forward"],
    &["edge", "dataplane"],
    &["config", "net", "control", "recording"],
    &["daemon"],
    &["lab"],
    &["cli"],
];

/// The highest floor that is plain computation.
const LAST_PURE_FLOOR: usize = 4;

/// What reaches the world outside: modules of `std`, and names of crates and types. Tests of a
/// pure floor may use them, for they are not built into the program.
const IMPURE_MODULES: [&str; 5] = ["fs", "thread", "process", "env", "os"];
const IMPURE_NAMES: [&str; 14] = [
    "tokio",
    "hickory_resolver",
    "rtnetlink",
    "socket2",
    "nix",
    "libc",
    "getrandom",
    "quanta",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant",
    "SystemTime",
    "stdin",
];

#[test]
fn a_file_imports_only_from_its_own_folder_and_from_lower_floors() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(own_floor) = source.floor else { continue };
        for (line, folder) in source.imports() {
            let allowed = folder == source.folder || floor_of(&folder).is_some_and(|floor| floor < own_floor);
            if !allowed {
                broken.push(format!("{}:{line} imports crate::{folder} (floor {own_floor})", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_folder_of_the_source_stands_on_a_floor() {
    let homeless: Vec<PathBuf> =
        sources().filter(|source| source.floor.is_none() && !source.is_root()).map(|source| source.path).collect();
    assert!(homeless.is_empty(), "no floor is known for {homeless:?}");
}

#[test]
fn the_floors_up_to_the_two_planes_do_no_input_or_output() {
    let mut broken = Vec::new();
    for source in sources().filter(|source| source.floor.is_some_and(|floor| floor <= LAST_PURE_FLOOR)) {
        for (index, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.in_tests) {
            let word = token.text.as_str();
            let mentioned = match word {
                "std" => source.heads(index + 2).into_iter().find(|head| IMPURE_MODULES.contains(&head.as_str())),
                _ => IMPURE_NAMES.contains(&word).then(|| word.to_owned()),
            };
            broken.extend(mentioned.map(|name| format!("{}:{} uses {name}", source.path.display(), token.line)));
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_net_folder_alone() {
    let broken: Vec<String> = sources()
        .filter(|source| source.folder != "net")
        .flat_map(|source| {
            let lines: Vec<usize> =
                source.tokens.iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect();
            lines.into_iter().map(move |line| format!("{}:{line}", source.path.display()))
        })
        .collect();
    assert!(broken.is_empty(), "unsafe in {broken:?}");
}

#[test]
fn the_law_sees_every_way_to_write_an_import() {
    let text = "use crate::{net::Tun, model::{Moment, Spi}};\nfn f() { crate::daemon::run() }\n// use crate::cli;\n\
                mod inner { use super::super::esp::Sa; use super::helper; }\nlet s = \"crate::lab\"; use crate::\n  lab;\n\
                use super::super::{ike};";
    let source = Source::new(PathBuf::from("src/steer/pick.rs"), text);
    let found: Vec<(usize, String)> = source.imports();
    let expected = [(1, "net"), (1, "model"), (2, "daemon"), (5, "lab"), (7, "ike")]
        .map(|(line, folder)| (line, folder.to_owned()));
    assert_eq!(found, expected);
    let root = Source::new(PathBuf::from("src/steer/mod.rs"), "use super::net;\nuse self::pick::Pick;");
    assert_eq!(root.imports(), [(1, "net".to_owned())]);
}

struct Source {
    path: PathBuf,
    /// The folder below `src/`; empty for `lib.rs` and `main.rs`.
    folder: String,
    floor: Option<usize>,
    tokens: Vec<Token>,
    /// How many modules deep the file itself is: 1 for `ike/mod.rs`, 2 for `ike/peer.rs`.
    depth: usize,
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
    /// Inline modules around it.
    nesting: usize,
    in_tests: bool,
}

impl Source {
    fn new(path: PathBuf, text: &str) -> Source {
        let parts: Vec<String> = path.iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
        let folder = if parts.len() > 1 { parts[0].clone() } else { String::new() };
        let file = parts.last().map_or("", String::as_str);
        let depth = if file == "mod.rs" { parts.len() - 1 } else { parts.len() };
        let tokens = tokens(
            &without_comments_and_strings(text),
            parts.iter().any(|part| part.trim_end_matches(".rs") == "tests"),
        );
        Source { floor: floor_of(&folder), path, folder, tokens, depth }
    }

    fn is_root(&self) -> bool {
        self.folder.is_empty()
    }

    /// The folders that this file's paths lead to through the crate's root.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let after = match token.text.as_str() {
                "crate" if self.text_at(index + 1) == "::" => index + 2,
                "super" if index < 2 || self.text_at(index - 1) != "::" => {
                    let mut climbed = 1;
                    let mut next = index + 1;
                    while self.text_at(next) == "::" && self.text_at(next + 1) == "super" {
                        climbed += 1;
                        next += 2;
                    }
                    // Only a chain that arrives exactly at the root leads into another folder.
                    if climbed != self.depth + token.nesting || self.text_at(next) != "::" {
                        continue;
                    }
                    next + 1
                }
                _ => continue,
            };
            found.extend(self.heads(after).into_iter().map(|folder| (self.tokens[index].line, folder)));
        }
        found
    }

    /// The first names of a path, or of each branch when it continues with braces.
    fn heads(&self, start: usize) -> Vec<String> {
        if self.text_at(start) != "{" {
            return vec![self.text_at(start).to_owned()];
        }
        let (mut heads, mut depth, mut expect) = (Vec::new(), 0, false);
        for token in &self.tokens[start..] {
            match token.text.as_str() {
                "{" => {
                    depth += 1;
                    expect = depth == 1;
                }
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                "," if depth == 1 => expect = true,
                name if expect => {
                    heads.push(name.to_owned());
                    expect = false;
                }
                _ => {}
            }
        }
        heads
    }

    fn text_at(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &token.text)
    }
}

fn floor_of(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&folder))
}

fn sources() -> impl Iterator<Item = Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    files.sort();
    assert!(files.len() > 40, "only {} source files found", files.len());
    files.into_iter().map(move |file| {
        let text = fs::read_to_string(&file).expect("a readable source file");
        Source::new(file.strip_prefix(root).expect("below the root").to_owned(), &text)
    })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Names, `::` and single characters, each with its line and the inline modules around it.
fn tokens(text: &str, all_tests: bool) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    // For each open brace: did it open an inline module, and one of tests?
    let mut open: Vec<(bool, bool)> = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let name_length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if name_length > 0 {
            name_length
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (word, tail) = rest.split_at(length);
        rest = tail;
        if word == "\n" {
            line += 1;
        }
        if word.trim().is_empty() {
            continue;
        }
        if word == "{" {
            let count = tokens.len();
            let module = count >= 2 && tokens[count - 2].text == "mod";
            open.push((module, module && tokens[count - 1].text == "tests"));
        } else if word == "}" {
            open.pop();
        }
        let nesting = open.iter().filter(|(module, _)| *module).count();
        let in_tests = all_tests || open.iter().any(|(_, tests)| *tests);
        tokens.push(Token { text: word.to_owned(), line, nesting, in_tests });
    }
    tokens
}

/// Blanks what is not code and keeps the lines where they are.
fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = hashes + 2;
            rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
        } else if first == '"' {
            string_length(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'{'") || rest.starts_with("'}'") {
            3
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (blanked, tail) = rest.split_at(length);
        out.push(' ');
        out.extend(blanked.chars().filter(|c| *c == '\n'));
        rest = tail;
    }
    out
}

/// The number of hashes when a raw string starts here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
