//! A TOML document read with its places: every complaint names line, column and key, and all are collected.
//!
//! Not here: what the keys mean (`config`). The crate's own deserialization stops at the first error and speaks
//! of types; a policy is written by people, so the tree is walked by hand. Invariant: a table is handed on only
//! as a `Section`, and a section has had every key checked against `keys::KEYS`.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;

/// Complaints that one file gets; past it the rest is counted.
const PROBLEMS_MAX: usize = 32;

/// A place in the file, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The path of the key, like `route[2].hosts[0]`; empty for a syntax error.
    pub key: String,
    /// What is wrong, in one line; never a secret.
    pub problem: String,
    /// The way out.
    pub hint: Option<String>,
}

/// Why a text is no policy: every problem found, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The name of the file.
    pub name: String,
    /// Never empty.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl ConfigError {
    /// A problem in one line without the hint: `weir.toml:3:1: guard.reach: …`.
    pub fn line(&self, problem: &Problem) -> String {
        let Problem { place: Place { line, column }, key, problem, .. } = problem;
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{}:{line}:{column}: {key}{colon}{problem}", self.name)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", self.line(problem))?;
            if let Some(hint) = &problem.hint {
                write!(f, " ({hint})")?;
            }
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n{}: {more} more problems", self.name),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A value with its key path and place.
#[derive(Debug, Clone)]
pub(super) struct Item<'d> {
    pub(super) key: String,
    at: Range<usize>,
    value: &'d DeValue<'d>,
}

/// A table whose keys are all known.
#[derive(Debug)]
pub(super) struct Section<'d> {
    key: String,
    at: Range<usize>,
    table: &'d DeTable<'d>,
}

impl<'d> Section<'d> {
    /// The value of a key.
    pub(super) fn item(&self, name: &str) -> Option<Item<'d>> {
        let (_, value) = self.table.get_key_value(name)?;
        Some(Item { key: path(&self.key, name), at: value.span(), value: value.get_ref() })
    }

    /// Every key with its value, by place.
    pub(super) fn items(&self) -> Vec<(&'d str, Item<'d>)> {
        let mut items: Vec<(&'d str, Item<'d>)> = self
            .table
            .iter()
            .map(|(name, value)| {
                let name: &'d str = name.get_ref();
                (name, Item { key: path(&self.key, name), at: value.span(), value: value.get_ref() })
            })
            .collect();
        items.sort_by_key(|(_, item)| item.at.start);
        items
    }

    /// The section as an item, to complain about what it lacks.
    pub(super) fn whole(&self, name: &str) -> Spot {
        Spot { key: path(&self.key, name), offset: self.at.start }
    }
}

/// Where a complaint belongs.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) key: String,
    offset: usize,
}

impl From<&Item<'_>> for Spot {
    fn from(item: &Item<'_>) -> Self {
        Self { key: item.key.clone(), offset: item.at.start }
    }
}

/// Collects complaints while a document is read.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let behind_newlines =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, line_starts: std::iter::once(0).chain(behind_newlines).collect(), problems: Vec::new() }
    }

    /// The tree of the text; a text with syntax errors gets its complaints and no tree.
    pub(super) fn document(&mut self) -> Option<Spanned<DeTable<'t>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            let hint = "the file is TOML; strings stand in quotes, tables in [brackets]";
            self.complain(&Spot { key: String::new(), offset }, error.message().replace('\n', " "), hint);
        }
        errors.is_empty().then_some(table)
    }

    /// The top of a document.
    pub(super) fn top<'d>(&mut self, document: &'d Spanned<DeTable<'d>>) -> Section<'d> {
        self.check_keys("", "", document.get_ref());
        Section { key: String::new(), at: 0..0, table: document.get_ref() }
    }

    /// What was complained of, by place.
    pub(super) fn finish(mut self, name: &str) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by_key(|problem| problem.place);
        let more = self.problems.len().saturating_sub(PROBLEMS_MAX);
        self.problems.truncate(PROBLEMS_MAX);
        Err(ConfigError { name: name.to_owned(), problems: self.problems, more })
    }

    /// Adds a complaint; an empty hint is none.
    pub(super) fn complain(&mut self, spot: &Spot, problem: impl Into<String>, hint: impl Into<String>) {
        let hint: String = hint.into();
        let place = self.place(spot.offset);
        let hint = (!hint.is_empty()).then_some(hint);
        self.problems.push(Problem { place, key: spot.key.clone(), problem: problem.into(), hint });
    }

    /// The place of an item.
    pub(super) fn place_of(&self, item: &Item<'_>) -> Place {
        self.place(item.at.start)
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place { line, column }
    }

    fn check_keys(&mut self, shape: &str, key: &str, table: &DeTable<'_>) {
        for (name, _) in table {
            let spot = Spot { key: path(key, name.get_ref()), offset: name.span().start };
            match keys::find(shape, name.get_ref()) {
                Some(known) if known.now => {}
                Some(_) => {
                    self.complain(
                        &spot,
                        "not supported yet",
                        "take it out; what it asks for would not be done",
                    );
                }
                None => {
                    let hint = keys::suggestion(shape, name.get_ref()).unwrap_or_default();
                    self.complain(&spot, "unknown key", hint);
                }
            }
        }
    }

    /// Reads `name` of a section into a slot; the slot stays as it is when the key is absent or wrong.
    pub(super) fn set<'d, T>(
        &mut self,
        slot: &mut T,
        section: &Section<'d>,
        name: &str,
        read: impl FnOnce(&mut Self, &Item<'d>) -> Option<T>,
    ) {
        if let Some(value) = section.item(name).and_then(|item| read(self, &item)) {
            *slot = value;
        }
    }

    fn wants(&mut self, item: &Item<'_>, what: &str) {
        let found = match item.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.complain(&item.into(), format!("must be {what}, is {found}"), "");
    }

    /// A table; `shape` is its place in `keys::KEYS`.
    pub(super) fn section<'d>(&mut self, item: &Item<'d>, shape: &str) -> Option<Section<'d>> {
        let DeValue::Table(table) = item.value else {
            self.wants(item, "a table");
            return None;
        };
        self.check_keys(shape, &item.key, table);
        Some(Section { key: item.key.clone(), at: item.at.clone(), table })
    }

    /// A string.
    pub(super) fn text<'d>(&mut self, item: &Item<'d>) -> Option<&'d str> {
        match item.value {
            DeValue::String(text) => Some(text),
            _ => {
                self.wants(item, "a string");
                None
            }
        }
    }

    /// A boolean.
    pub(super) fn flag(&mut self, item: &Item<'_>) -> Option<bool> {
        match item.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wants(item, "true or false");
                None
            }
        }
    }

    /// An integer.
    pub(super) fn integer(&mut self, item: &Item<'_>) -> Option<i64> {
        match item.value {
            DeValue::Integer(number) => number.to_string().parse().ok(),
            _ => {
                self.wants(item, "an integer");
                None
            }
        }
    }

    /// A string, or an integer as its digits.
    pub(super) fn text_or_digits(&mut self, item: &Item<'_>) -> Option<String> {
        match item.value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            _ => {
                self.wants(item, "a number or a string");
                None
            }
        }
    }

    /// An array.
    pub(super) fn list<'d>(&mut self, item: &Item<'d>) -> Option<Vec<Item<'d>>> {
        let DeValue::Array(array) = item.value else {
            self.wants(item, "an array");
            return None;
        };
        let one = |(i, value): (usize, &'d Spanned<DeValue<'d>>)| Item {
            key: format!("{}[{i}]", item.key),
            at: value.span(),
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(one).collect())
    }

    /// The elements of an array that `read` accepts; the others have been complained of.
    pub(super) fn each<'d, T>(
        &mut self,
        item: &Item<'d>,
        mut read: impl FnMut(&mut Self, &Item<'d>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let elements = self.list(item)?;
        Some(elements.iter().filter_map(|element| read(self, element)).collect())
    }

    /// One of a few words; those in `later` are planned.
    pub(super) fn word<T: Copy>(
        &mut self,
        item: &Item<'_>,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        let text = self.text(item)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = format!("one of {}", quoted(&names));
        if later.contains(&text) {
            self.complain(&item.into(), format!("{text:?} is not supported yet"), hint);
        } else {
            self.complain(&item.into(), format!("unknown value {text:?}"), hint);
        }
        None
    }

    /// Turns a one-line error into a complaint.
    pub(super) fn accept<T>(&mut self, item: &Item<'_>, result: Result<T, String>, hint: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => {
                self.complain(&item.into(), problem, hint);
                None
            }
        }
    }

    /// Whether the value is a table; for hints only.
    pub(super) fn is_table(item: &Item<'_>) -> bool {
        matches!(item.value, DeValue::Table(_))
    }

    /// Whether the value is an array without elements.
    pub(super) fn is_empty_list(item: &Item<'_>) -> bool {
        matches!(item.value, DeValue::Array(array) if array.is_empty())
    }

    /// Whether the value is an array.
    pub(super) fn is_list(item: &Item<'_>) -> bool {
        matches!(item.value, DeValue::Array(_))
    }
}

fn path(section: &str, name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let name = if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") };
    if section.is_empty() { name } else { format!("{section}.{name}") }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let reader = Reader::new("a = 1\né = 2\n\nlast");
        let at = |offset| {
            let Place { line, column } = reader.place(offset);
            (line, column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(4), (1, 5));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(8), (2, 2)); // é is two bytes and one character
        assert_eq!(at(14), (4, 1));
        assert_eq!(at(1000).0, 4);
    }

    #[test]
    fn syntax_errors_are_all_reported_by_place() {
        let mut reader = Reader::new("a = \nb = \"x\nc = 1\n");
        assert!(reader.document().is_none());
        let error = reader.finish("f.toml").unwrap_err();
        assert!(error.problems.len() >= 2, "{error}");
        assert_eq!(error.problems.first().unwrap().place.line, 1);
        assert!(error.to_string().starts_with("f.toml:1:"), "{error}");
    }

    #[test]
    fn complaints_are_bounded() {
        let text: String = (0..100).map(|i| format!("k{i} = 1\n")).collect();
        let mut reader = Reader::new(&text);
        let document = reader.document().unwrap();
        reader.top(&document);
        let error = reader.finish("f.toml").unwrap_err();
        assert_eq!((error.problems.len(), error.more), (PROBLEMS_MAX, 100 - PROBLEMS_MAX));
        assert!(error.to_string().ends_with("68 more problems"), "{error}");
    }
}
