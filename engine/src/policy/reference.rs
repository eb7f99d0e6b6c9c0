//! `docs/policy.md` against the parser: what stands there is true, and what is true stands there.

use std::collections::BTreeMap;

use super::guard::{Class, Reach};
use super::keys::{KEYS, LATER_CODES};
use super::*;

const PAGE: &str = include_str!("../../../docs/policy.md");

/// The rows of the table under a heading: cells without their backticks.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect()
}

/// A policy with one key of the reference set to its example.
fn file_with(key: &str, example: &str) -> String {
    if let Some(name) = key.strip_prefix("route[].") {
        let mut route =
            BTreeMap::from([("id", "\"r\""), ("hosts", "[\"a.test\"]"), ("action", "\"splice\"")]);
        route.insert(name, example);
        let lines: String = route.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        return format!("[[route]]\n{lines}");
    }
    if let Some(name) = key.strip_prefix("upstream.NAME.") {
        let url = if name == "url" { "" } else { "url = \"https://p.test\"\n" };
        return format!("[upstream.corp]\n{url}{name} = {example}\n");
    }
    match key.split_once('.') {
        Some((section, name)) => format!("[{section}]\n{} = {example}\n", name.replace("NAME", "\"a.test\"")),
        None => format!("{key} = {example}\n"),
    }
}

#[test]
fn every_supported_key_stands_in_the_reference_and_is_accepted() {
    let listed = rows("Keys");
    for row in &listed {
        let (key, example) = (&row[0], &row[1]);
        let known = KEYS.iter().find(|known| known.shape == key).unwrap_or_else(|| panic!("{key} is no key"));
        assert!(known.now, "{key} has no code yet");
        let text = file_with(key, example);
        let config = Config::parse(&text, "w").unwrap_or_else(|error| panic!("{key}: {error}\n{text}"));
        let default = &row[2];
        if default.is_empty() || default.starts_with("by ") || key == "preset" {
            continue;
        }
        let written_out = Config::parse(&file_with(key, default), "w").unwrap().canonical();
        let without = match key.strip_prefix("route[].").or_else(|| key.strip_prefix("upstream.NAME.")) {
            Some(_) => continue,
            None => Config::default().canonical(),
        };
        assert_eq!(written_out, without, "{key}: {default} is not the default");
        let changes = !["version", "guard.deny_ports"].contains(&key.as_str());
        assert_eq!(config.canonical() != without, changes, "{key} = {example} has no effect");
    }
    for known in KEYS.iter().filter(|known| known.now) {
        let prefixes = [format!("{}.", known.shape), format!("{}[].", known.shape)];
        let is_table = KEYS.iter().any(|other| prefixes.iter().any(|prefix| other.shape.starts_with(prefix)));
        assert!(is_table || listed.iter().any(|row| row[0] == known.shape), "{} is not listed", known.shape);
    }
}

#[test]
fn every_planned_key_stands_in_the_reference_and_is_refused() {
    let listed = rows("Not supported yet");
    for row in &listed {
        let (key, example) = (&row[0], &row[1]);
        let known = KEYS.iter().find(|known| known.shape == key).unwrap_or_else(|| panic!("{key} is no key"));
        assert!(!known.now, "{key} has code by now");
        let error = Config::parse(&file_with(key, example), "w").unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert_eq!(error.problems[0].problem, "not supported yet", "{key}");
        assert_eq!(error.problems[0].key, key.replace("[]", "[0]"));
    }
    for known in KEYS.iter().filter(|known| !known.now) {
        assert!(listed.iter().any(|row| row[0] == known.shape), "{} is not listed", known.shape);
    }
    for code in LATER_CODES {
        let text = format!("[gate]\nfail_on = [\"{code}\"]");
        let error = Config::parse(&text, "w").unwrap_err().to_string();
        assert!(error.contains("not supported yet") && PAGE.contains(&format!("`{code}`")), "{error}");
    }
}

#[test]
fn every_code_stands_in_the_reference_with_its_status() {
    let listed: Vec<(String, String)> =
        rows("Decision codes").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let true_ones: Vec<(String, String)> =
        Code::ALL.iter().map(|code| (code.to_string(), code.status().to_string())).collect();
    assert_eq!(listed, true_ones);
}

#[test]
fn every_class_stands_in_the_reference_with_its_reach() {
    let listed = rows("Address classes");
    assert_eq!(listed.len(), Class::ALL.len());
    for row in listed {
        let class = Class::parse(&row[0]).unwrap_or_else(|| panic!("{} is no class", row[0]));
        for (reach, cell) in [(Reach::Local, &row[2]), (Reach::Boundary, &row[3])] {
            assert_eq!(cell == "refused", reach.refuses(class), "{class} {}", reach.as_str());
        }
    }
}

#[test]
fn modes_and_presets_stand_in_the_reference() {
    let words = |heading: &str| rows(heading).into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(words("Modes"), Mode::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>());
    assert_eq!(words("Presets"), Preset::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>());
}

#[test]
fn the_example_of_the_reference_is_a_policy() {
    let (_, behind) = PAGE.split_once("```toml\n").unwrap();
    let (example, _) = behind.split_once("```").unwrap();
    let config = Config::parse(example, "docs/policy.md").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.default, config.routes.len()), (Action::Deny, 3));
}
