//! Checks of the source itself, where lints of one crate do not reach: what is pure stays pure, who may call
//! whom, what every file, limit and parser owes, and what must stand nowhere.
//!
//! Words are looked for in the code without its comments and without tests (the end of a file, or `tests.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests: a panic is the failure"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that may hold `unsafe`; each block says why it is sound.
const UNSAFE_ALLOWED: &[&str] = &["cli/src/detach.rs", "engine/src/driver/rt/source.rs"];

/// Lines of the longest function. Clippy holds the same number; this one also sees what an `expect` hides.
const FUNCTION_LINES_MAX: usize = 70;
/// How many functions are longer than 40 lines today. A ratchet: the number may only fall.
const FUNCTIONS_OVER_40_LINES: usize = 14;
const FILE_LINES_MAX: usize = 600;

/// What a folder or file under `engine/src` may name after `crate::`. What is not listed here may name anything.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("limits.rs", &[]),
    ("error.rs", &["limits"]),
    ("mail.rs", &["error", "limits"]),
    ("wire", &["wire", "error", "limits"]),
    ("policy", &["policy", "wire", "error", "limits"]),
    ("audit", &["audit", "wire", "error", "limits"]),
    // The handles of the two mailboxes that the planes meet in, and nothing else of `control`.
    (
        "driver",
        &[
            "driver",
            "policy",
            "audit",
            "wire",
            "error",
            "limits",
            "mail",
            "control::journal",
            "control::resolve",
        ],
    ),
];

const PURE: &[&str] = &["engine/src/wire/", "engine/src/policy/", "engine/src/audit/"];
const IMPURE_WORDS: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::thread",
    "thread::spawn",
    "Instant::now",
    "SystemTime::now",
    "std::env",
    "env::var",
    "std::fs",
    "File::open",
    "std::process",
    "std::os::fd",
    "rustix::",
    "monoio::",
];

#[test]
fn pure_folders_stay_pure() {
    let mut faults = Vec::new();
    for file in rust_files().iter().filter(|file| PURE.iter().any(|folder| file.name.starts_with(folder))) {
        for (number, line) in file.code_lines() {
            faults.extend(
                IMPURE_WORDS
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{number}: `{word}` in a pure folder", file.name)),
            );
        }
    }
    none(&faults);
}

#[test]
fn nothing_points_back() {
    let mut faults = Vec::new();
    for file in rust_files() {
        let Some(place) = file.name.strip_prefix("engine/src/") else { continue };
        let Some((_, allowed)) =
            DIRECTIONS.iter().find(|(from, _)| place == *from || place.starts_with(&format!("{from}/")))
        else {
            continue;
        };
        for (number, line) in file.code_lines() {
            for path in crate_paths(&line) {
                let fits = |to: &&str| path == **to || path.starts_with(&format!("{to}::"));
                if !allowed.iter().any(fits) {
                    faults.push(format!("{}:{number}: names crate::{path}", file.name));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn only_one_room_names_the_runtime() {
    let room = "engine/src/driver/rt";
    let outside = rust_files().into_iter().filter(|file| file.name.starts_with("engine/src/"));
    let mut faults = Vec::new();
    for file in outside.filter(|file| !file.name.starts_with(room)) {
        for (number, line) in file.code_lines() {
            if line.contains("monoio::") || line.contains("use monoio") {
                faults.push(format!("{}:{number}: names the runtime; only {room} may", file.name));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_file_says_what_it_is() {
    let silent =
        |file: &Source| (!file.text.starts_with("//!")).then(|| format!("{}: opens without //!", file.name));
    none(&rust_files().iter().filter_map(silent).collect::<Vec<_>>());
}

#[test]
fn unsafe_is_listed_and_says_why() {
    let mut faults = Vec::new();
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.code_lines() {
            if !words(&without_strings(&line)).any(|word| word == "unsafe") {
                continue;
            }
            if !UNSAFE_ALLOWED.contains(&file.name.as_str()) {
                faults.push(format!("{}:{number}: unsafe in a file that is not listed", file.name));
            }
            let before = lines[..number - 1].iter().rev();
            let comment =
                before.take_while(|line| line.trim_start().starts_with("//") || line.trim().ends_with('='));
            if !comment.into_iter().any(|line| line.contains("SAFETY:")) {
                faults.push(format!("{}:{number}: unsafe without `// SAFETY:` before it", file.name));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_parser_is_fuzzed() {
    let files = rust_files();
    let targets: Vec<&Source> =
        files.iter().filter(|file| file.name.starts_with("fuzz/fuzz_targets/")).collect();
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("fuzz/Cargo.toml");
    let mut faults = Vec::new();
    let mut parsers = 0;
    for file in files.iter().filter(|file| file.name.starts_with("engine/src/")) {
        for function in file.text.lines().filter_map(fuzz_function) {
            parsers += 1;
            let call = format!("{}::{function}", file.module());
            let mut names = vec![call.clone()];
            names.extend(files.iter().flat_map(|other| re_exports(other, &call)));
            if !targets.iter().any(|target| names.iter().any(|name| target.text.contains(name))) {
                faults.push(format!("{}: no target in fuzz/fuzz_targets calls {call}", file.name));
            }
        }
    }
    for target in &targets {
        let name = Path::new(&target.name).file_stem().unwrap().to_str().unwrap();
        let corpus = root().join("fuzz/corpus").join(name);
        if !fs::read_dir(&corpus).is_ok_and(|mut files| files.next().is_some()) {
            faults.push(format!("{}: no inputs in fuzz/corpus/{name}", target.name));
        }
        if !manifest.contains(&format!("name = \"{name}\"")) {
            faults.push(format!("{}: no [[bin]] in fuzz/Cargo.toml", target.name));
        }
    }
    none(&faults);
    assert!(parsers >= 5, "only {parsers} fuzz functions were found; has their spelling changed?");
}

#[test]
fn every_limit_is_used() {
    let files = rust_files();
    let limits = files.iter().find(|file| file.name == "engine/src/limits.rs").unwrap();
    let names: Vec<&str> = limits
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .filter(|name| *name != "_")
        .collect();
    assert!(names.len() > 20, "the limits were not found");
    let used = |name: &str| {
        let mut others = files.iter().filter(|file| file.name.contains("/src/") && file.name != limits.name);
        others.any(|file| file.code_lines().any(|(_, line)| words(&line).any(|word| word == name)))
    };
    let unused = names.into_iter().filter(|name| !used(name));
    none(&unused.map(|name| format!("limits::{name} is used nowhere")).collect::<Vec<_>>());
}

#[test]
fn functions_and_files_stay_short() {
    let mut faults = Vec::new();
    let mut over_40 = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines", file.name));
        }
        if !file.name.contains("/src/") {
            continue;
        }
        for (number, name, lines) in functions(&file) {
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{number}: fn {name} has {lines} lines", file.name));
            } else if lines > 40 {
                over_40.push(format!("{}:{number}: fn {name} has {lines} lines", file.name));
            }
        }
    }
    none(&faults);
    let listing = over_40.join("\n");
    assert!(
        over_40.len() <= FUNCTIONS_OVER_40_LINES,
        "{} functions over 40 lines:\n{listing}",
        over_40.len()
    );
}

#[test]
fn no_registry_is_named() {
    // In parts, so that this file names none either.
    let hosts: Vec<String> = [
        "registry npmjs org",
        "registry yarnpkg com",
        "pypi org",
        "pypi python org",
        "files pythonhosted org",
        "crates io",
        "proxy golang org",
        "sum golang org",
        "rubygems org",
        "repo1 maven org",
        "maven apache org",
        "api nuget org",
        "deb debian org",
        "security debian org",
        "archive ubuntu com",
        "docker io",
        "ghcr io",
        "anaconda org",
        "alpinelinux org",
        "jsr io",
        "packagist org",
        "hex pm",
        "pub dev",
    ]
    .iter()
    .map(|parts| parts.replace(' ', "."))
    .collect();
    let mut faults = Vec::new();
    for (name, text) in tracked_texts().into_iter().filter(|(name, _)| !name.ends_with("Cargo.lock")) {
        for (index, line) in text.lines().enumerate() {
            let line = line.to_ascii_lowercase();
            for host in hosts.iter().filter(|host| stands_alone(&line, host)) {
                faults.push(format!("{name}:{}: names a public registry ({}…)", index + 1, &host[..4]));
            }
        }
    }
    none(&faults);
}

#[test]
fn no_path_of_a_machine_is_named() {
    let places =
        [["/wo", "rk/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/tmp", "/w/"]].map(|parts| parts.concat());
    let mut faults = Vec::new();
    for (name, text) in tracked_texts() {
        for (index, line) in text.lines().enumerate() {
            for place in &places {
                let mut hits = line.match_indices(place.as_str());
                // A longer path that only contains the words (`docs/work/`) is none of a machine.
                if hits
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-".contains(c)))
                {
                    faults.push(format!("{name}:{}: names {place}", index + 1));
                }
            }
        }
    }
    none(&faults);
}

/// A Rust file of the project.
struct Source {
    /// From the root, with `/`.
    name: String,
    text: String,
}

impl Source {
    /// Lines with their numbers from 1, without comments, up to the tests at the end.
    fn code_lines(&self) -> impl Iterator<Item = (usize, String)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = |at: &usize| {
            lines[*at].trim() == "#[cfg(test)]"
                && lines.get(at + 1).is_some_and(|next| next.starts_with("mod "))
        };
        let mut end = (0..lines.len()).find(tests).unwrap_or(lines.len());
        if self.name.ends_with("/tests.rs") || self.name.contains("/tests/") {
            end = 0; // all of it is tests
        }
        lines
            .into_iter()
            .take(end)
            .enumerate()
            .map(|(index, line)| (index + 1, without_comment(line).to_owned()))
    }

    /// The name of the module that the file is.
    fn module(&self) -> &str {
        let path = Path::new(&self.name);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if stem == "mod" { path.parent().unwrap().file_name().unwrap().to_str().unwrap() } else { stem }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file that is, or is about to be, under version control.
fn tracked_files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<String> =
        names.lines().filter(|name| root().join(name).is_file()).map(str::to_owned).collect();
    assert!(files.len() > 10, "the files were not found");
    files
}

/// The tracked files that are text, with their contents.
fn tracked_texts() -> Vec<(String, String)> {
    let read = |name: String| fs::read_to_string(root().join(&name)).ok().map(|text| (name, text));
    tracked_files().into_iter().filter_map(read).collect()
}

fn rust_files() -> Vec<Source> {
    let is_rust = |(name, _): &(String, String)| name.ends_with(".rs");
    tracked_texts().into_iter().filter(is_rust).map(|(name, text)| Source { name, text }).collect()
}

/// The paths behind each `crate::` of a line; of `crate::{a, b::c}` both.
fn crate_paths(line: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, found) in line.match_indices("crate::") {
        let rest = &line[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                paths.extend(
                    group.split(',').map(|path| path.trim().to_owned()).filter(|path| !path.is_empty()),
                );
            }
            None => {
                let end =
                    rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
                paths.push(rest[..end].trim_end_matches(':').to_owned());
            }
        }
    }
    paths
}

/// The name in `pub fn fuzz…(`.
fn fuzz_function(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("pub fn ")?;
    rest.starts_with("fuzz").then(|| rest.split(['(', '<']).next())?
}

/// The names that a file gives to `path` by `pub use path as name;`, with its own module before them.
fn re_exports(file: &Source, path: &str) -> Vec<String> {
    let alias = |line: &str| {
        let rest = line.trim().strip_prefix("pub use ")?.strip_prefix(path)?;
        Some(format!("{}::{}", file.module(), rest.strip_prefix(" as ")?.strip_suffix(';')?))
    };
    file.text.lines().filter_map(alias).collect()
}

/// Functions of the code of a file: line, name, lines from `fn` to its closing brace. Leans on rustfmt's layout.
fn functions(file: &Source) -> Vec<(usize, String, usize)> {
    let lines: Vec<(usize, String)> = file.code_lines().collect();
    let mut found = Vec::new();
    for (at, (number, line)) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let mut parts = code.split_whitespace();
        let is_head = parts.by_ref().take_while(|word| *word != "fn").all(is_qualifier);
        let name = code.split_once("fn ").map(|(_, rest)| rest.split(['(', '<']).next().unwrap_or_default());
        let (true, Some(name)) = (is_head && words(code).any(|word| word == "fn"), name) else { continue };
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[at..].iter().position(|(_, line)| *line == closing) {
            found.push((*number, name.to_owned(), length + 1));
        }
    }
    found
}

fn is_qualifier(word: &str) -> bool {
    word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(&word)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The line up to `//`, unless that stands in a string or behind a scheme.
fn without_comment(line: &str) -> &str {
    let mut starts = line.match_indices("//").map(|(at, _)| at);
    let comment =
        starts.find(|at| !line[..*at].ends_with(':') && line[..*at].matches('"').count().is_multiple_of(2));
    comment.map_or(line, |at| line[..at].trim_end())
}

/// The line with nothing between its quotes.
fn without_strings(line: &str) -> String {
    line.replace("\\\"", "").split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Whether `host` stands in the line as a host or its end: not as a part of a longer word.
fn stands_alone(line: &str, host: &str) -> bool {
    line.match_indices(host).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + host.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
        !inside(before) && !inside(after)
    })
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_see_what_they_look_for() {
        let text = "//! x\nfn a() {\n    b(); // unsafe\n}\n\npub(crate) async fn c(\n    d: u8,\n) {\n}\n\n#[cfg(test)]\nmod tests {\n    fn e() {\n    }\n}\n";
        let file = Source { name: "engine/src/x/mod.rs".into(), text: text.into() };
        let found = functions(&file);
        assert_eq!(found, [(2, "a".to_owned(), 3), (6, "c".to_owned(), 4)]);
        assert_eq!(file.module(), "x");
        assert!(file.code_lines().all(|(_, line)| !line.contains("unsafe")));
        assert_eq!(
            crate_paths("use crate::{wire, mail::Letter}; crate::a::b::<C>()"),
            ["wire", "mail::Letter", "a::b"]
        );
        assert_eq!(without_comment("let a = \"http://x\"; // why"), "let a = \"http://x\";");
        assert_eq!(fuzz_function("    pub fn fuzz_head(data: &[u8]) {"), Some("fuzz_head"));
        assert_eq!(without_strings("a(\"b \\\" c\", d)"), "a(\"\", d)");
        assert!(stands_alone("https://a.example/x", "a.example") && !stands_alone("ba.example", "a.example"));
    }
}
