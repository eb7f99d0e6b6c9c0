//! Every key that a policy file may carry: the ones with code now, and the ones that are planned.
//!
//! The one list: the reader refuses what is not in it, suggests from it, and `docs/policy.md` is tested against
//! it. A planned key is refused as "not supported yet", never ignored: a policy that is not applied in full must
//! not look as if it were. Of a table that is planned as a whole only its name stands here.

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its place: `guard.reach`, `route[].id`; `NAME` stands for a name that the file chooses.
    pub shape: &'static str,
    /// Whether it has code.
    pub now: bool,
}

const fn now(shape: &'static str) -> Key {
    Key { shape, now: true }
}

const fn later(shape: &'static str) -> Key {
    Key { shape, now: false }
}

/// The list.
pub const KEYS: &[Key] = &[
    now("version"),
    now("preset"),
    now("mode"),
    now("default"),
    now("listen"),
    now("listen.http"),
    now("listen.allow_remote"),
    later("listen.unix"),
    later("listen.token_ref"),
    later("listen.reverse"),
    now("guard"),
    now("guard.reach"),
    now("guard.deny"),
    now("guard.allow_cidrs"),
    now("guard.ports"),
    now("guard.deny_ports"),
    now("guard.raw_ip"),
    now("resolve"),
    now("resolve.NAME"),
    now("tls"),
    now("tls.extra_roots"),
    later("tls.crl_files"),
    now("gate"),
    now("gate.fail_on"),
    now("upstream"),
    now("upstream.default"),
    now("upstream.NAME"),
    now("upstream.NAME.url"),
    now("upstream.NAME.auth_ref"),
    now("upstream.NAME.ca_file"),
    now("upstream.NAME.ca_optional"),
    now("upstream.NAME.no_proxy"),
    now("upstream.NAME.fail"),
    now("route"),
    now("route[].id"),
    now("route[].hosts"),
    now("route[].action"),
    now("route[].reason"),
    now("route[].require_sni"),
    later("route[].methods"),
    later("route[].paths"),
    later("route[].auth"),
    later("route[].github"),
    later("route[].dlp"),
    later("route[].packages"),
    later("route[].upstream"),
    later("route[].rate"),
    later("route[].timeouts"),
    later("ca"),
    later("registries"),
    later("packages"),
    later("git"),
    later("dlp"),
    later("exec"),
    later("audit"),
];

/// Decision codes that are planned; in `gate.fail_on` they are "not supported yet".
pub const LATER_CODES: &[&str] = &[
    "path_denied",
    "method_denied",
    "ambiguous_path",
    "git_push",
    "publish_denied",
    "dlp",
    "body_too_large",
    "body_encoding",
    "rate",
    "secret_unavailable",
    "pkg_malware",
    "pkg_suspicious",
    "pkg_denied",
    "pkg_cooldown",
    "pkg_unverified",
    "pkg_unidentified",
    "verdict_unavailable",
    "integrity_mismatch",
];

/// The key with the shape `section.name`; the empty section is the top of the file.
pub fn find(section: &str, name: &str) -> Option<Key> {
    in_section(section).find(|(own, _)| *own == name || *own == "NAME").map(|(_, key)| key)
}

/// What an unknown key may have been meant to be: a near one of its section, else the section that has it.
pub fn suggestion(section: &str, name: &str) -> Option<String> {
    let names: Vec<&str> = in_section(section).map(|(own, _)| own).filter(|own| *own != "NAME").collect();
    if let Some(near) = nearest(name, &names) {
        return Some(format!("did you mean `{near}`?"));
    }
    let elsewhere =
        KEYS.iter().find(|key| key.shape.rsplit_once('.').is_some_and(|(_, last)| last == name))?;
    let (home, _) = elsewhere.shape.rsplit_once('.')?;
    let header = match home.strip_suffix("[]") {
        Some(array) => format!("[[{array}]]"),
        None => format!("[{home}]"),
    };
    (home != section).then(|| format!("`{name}` belongs under {header}"))
}

/// The nearest of `words`, when it is near enough to be a slip of the keyboard.
pub fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    let limit = 1 + word.chars().count() / 4;
    let near = words.iter().map(|&own| (distance(word, own), own)).min()?;
    (near.0 <= limit.min(3)).then_some(near.1)
}

fn in_section(section: &str) -> impl Iterator<Item = (&'static str, Key)> {
    KEYS.iter().filter_map(move |&key| {
        let (home, name) = key.shape.rsplit_once('.').unwrap_or(("", key.shape));
        (home == section).then_some((name, key))
    })
}

/// Edits between two words: insertions, deletions, substitutions (Levenshtein). Long words are never near.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            left = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            (*cell, diagonal) = (left, above);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(suggestion("guard", "denyy").as_deref(), Some("did you mean `deny`?"));
        assert_eq!(suggestion("", "mod").as_deref(), Some("did you mean `mode`?"));
        assert_eq!(suggestion("", "fail_on").as_deref(), Some("`fail_on` belongs under [gate]"));
        assert_eq!(
            suggestion("guard", "require_sni").as_deref(),
            Some("`require_sni` belongs under [[route]]")
        );
        assert_eq!(suggestion("guard", "banana"), None);
    }

    #[test]
    fn a_planned_code_has_no_code_yet() {
        for word in LATER_CODES {
            assert_eq!(Code::parse(word), None, "{word} exists by now: take it off the list");
        }
    }

    #[test]
    fn every_key_is_found_in_its_section() {
        for key in KEYS {
            let (section, name) = key.shape.rsplit_once('.').unwrap_or(("", key.shape));
            assert_eq!(find(section, name).unwrap().shape, key.shape);
        }
        assert_eq!(find("upstream", "corp").unwrap().shape, "upstream.NAME");
        assert!(find("guard", "corp").is_none());
    }
}
