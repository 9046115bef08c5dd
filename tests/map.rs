//! The map of `src/`: who may use whom, how long a file may be, what no file may name.
#![allow(missing_docs, clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file may use only what stands below it.
const ORDER: [&str; 28] = [
    "main",
    "lib",
    "gateway",
    "notify",
    "admin",
    "listen",
    "front",
    "session",
    "admission",
    "rooms",
    "upstream",
    "hook",
    "bans",
    "store",
    "cluster",
    "health",
    "logging",
    "shard",
    "dial",
    "outbox",
    "tls",
    "ws",
    "limits",
    "close",
    "metrics",
    "identity",
    "config",
    "",
];

/// What every file may use.
const FOR_ALL: [&str; 4] = ["config", "close", "identity", "metrics"];

/// Two that never name each other, in whatever order they stand.
const APART: [&str; 2] = ["rooms", "upstream"];

const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files_below(&path, into);
        } else {
            into.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_below(&root().join("src"), &mut files);
    files.retain(|f| f.extension().is_some_and(|e| e == "rs"));
    files.sort();
    assert!(files.len() > 5, "the sources were not found");
    files
}

/// `src/rooms/broker/memory.rs` belongs to `rooms`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|m| *m == module)
}

/// The modules that a source names by `crate::…` (or `wsgate::…` in main.rs), also within braces. What
/// follows `#[cfg(test)]` at the end of a file is left out: tests may build what they need.
fn named_by(source: &str) -> BTreeSet<String> {
    let code: String = source.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut names = BTreeSet::new();
    for marker in ["use wsgate::", "crate::"] {
        for (at, _) in code.match_indices(marker) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            let rest = &code[at + marker.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(first_names(group)),
                None => names.extend(identifier(rest)),
            }
        }
    }
    names
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of the paths of `{a::b, c::{d, e}, f}`, after the opening brace.
fn first_names(group: &str) -> Vec<String> {
    let mut names: Vec<String> = identifier(group).into_iter().collect();
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(identifier(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

#[test]
fn a_file_uses_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        let shown = file.strip_prefix(root()).unwrap().display();
        let Some(own) = place(&module) else {
            wrong.push(format!("{shown}: {module} has no place on the map (ORDER in tests/map.rs)"));
            continue;
        };
        for used in named_by(&std::fs::read_to_string(&file).unwrap()) {
            let Some(other) = place(&used) else { continue };
            let apart = module != used && APART.contains(&module.as_str()) && APART.contains(&used.as_str());
            let above = other < own && !FOR_ALL.contains(&used.as_str());
            if apart || above {
                wrong.push(format!("{shown} names crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the map:\n{}", wrong.join("\n"));
}

#[test]
fn names_are_found_in_every_form() {
    let source = "use crate::rooms::Room;\nuse crate::{close::{self, Code}, config, ws::Frame};\n// crate::admin\n\
                  fn f() -> crate::shard::Shard { crate::limits::f() }\nlet filter = \"info,wsgate::upstream=debug\";\n\
                  #[cfg(test)]\nmod tests { use crate::front; }\n";
    let names: Vec<String> = named_by(source).into_iter().collect();
    assert_eq!(names, ["close", "config", "limits", "rooms", "shard", "ws"]);
}

#[test]
fn no_source_file_is_too_long() {
    let mut long = Vec::new();
    for file in sources() {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        if lines > LINES_MAX {
            long.push(format!("{} has {lines} lines", file.strip_prefix(root()).unwrap().display()));
        }
    }
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

/// Paths of the machine on which it was written.
#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut git = std::process::Command::new("git");
    let listed = git.args(["ls-files", "-co", "--exclude-standard", "-z"]).current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|o| o.status.success()) else {
        eprintln!("skipped: no git, so no list of the repository's files");
        return;
    };
    let words = ["work", "root"].map(|name| format!("/{name}/"));
    let mut wrong = Vec::new();
    for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|n| !n.is_empty()) {
        let Ok(content) = std::fs::read(root().join(name)) else { continue };
        let content = String::from_utf8_lossy(&content);
        for (number, line) in content.lines().enumerate() {
            if words.iter().any(|word| names_path(line, word)) {
                wrong.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "paths of one machine:\n{}", wrong.join("\n"));
}

/// Whether an absolute path begins with this word, which may also stand deeper in another path.
fn names_path(line: &str, word: &str) -> bool {
    let starts = line.match_indices(word).map(|(at, _)| line[..at].chars().next_back());
    starts.into_iter().any(|before| !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '*')))
}
