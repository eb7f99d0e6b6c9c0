//! How a variable is set or taken away in each format, quoted so that its value arrives as it is.

/// The formats of `weir env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `NAME=value`, as it is.
    Plain,
    /// POSIX sh, bash, zsh, dash.
    Sh,
    /// fish.
    Fish,
    /// PowerShell.
    Pwsh,
    /// One JSON object.
    Json,
    /// A `.env` file.
    Dotenv,
    /// A file for `docker run --env-file`, which knows no quotes.
    Docker,
    /// Lines for the file that `GITHUB_ENV` names.
    Github,
    /// Azure Pipelines' logging commands.
    Azure,
}

impl Format {
    /// The formats of `--format`, with their words.
    pub(crate) const FORMATS: &[(&str, Format)] = &[
        ("plain", Format::Plain),
        ("sh", Format::Sh),
        ("fish", Format::Fish),
        ("pwsh", Format::Pwsh),
        ("json", Format::Json),
        ("dotenv", Format::Dotenv),
        ("docker", Format::Docker),
        ("github", Format::Github),
        ("azure", Format::Azure),
    ];
    /// The shells of `--shell`, with their words.
    pub(crate) const SHELLS: &[(&str, Format)] = &[
        ("sh", Format::Sh),
        ("bash", Format::Sh),
        ("zsh", Format::Sh),
        ("dash", Format::Sh),
        ("fish", Format::Fish),
        ("pwsh", Format::Pwsh),
    ];

    /// The lines that give these variables these values. No value has a line break in it.
    pub(crate) fn set(self, variables: &[(&str, String)]) -> String {
        match self {
            Format::Json => {
                let values: serde_json::Map<String, serde_json::Value> =
                    variables.iter().map(|(name, value)| ((*name).into(), value.as_str().into())).collect();
                json(&serde_json::json!({ "schema": 1, "env": values }))
            }
            _ => variables.iter().map(|(name, value)| self.set_one(name, value) + "\n").collect(),
        }
    }

    /// The lines that take these variables away, or empty them where a format knows no other way.
    pub(crate) fn unset(self, names: &[&str]) -> String {
        match self {
            Format::Json => json(&serde_json::json!({ "schema": 1, "unset": names })),
            Format::Sh => format!("unset {}\n", names.join(" ")),
            Format::Fish => names.iter().map(|name| format!("set -e {name}\n")).collect(),
            Format::Pwsh => names
                .iter()
                .map(|name| format!("Remove-Item -ErrorAction SilentlyContinue Env:{name}\n"))
                .collect(),
            Format::Plain | Format::Dotenv | Format::Docker | Format::Github | Format::Azure => {
                names.iter().map(|name| self.set_one(name, "") + "\n").collect()
            }
        }
    }

    fn set_one(self, name: &str, value: &str) -> String {
        match self {
            Format::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Format::Fish => {
                format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
            }
            Format::Pwsh => format!("$env:{name} = '{}'", pwsh_quoted(value)),
            Format::Dotenv => format!("{name}={}", dotenv_quoted(value)),
            Format::Azure => {
                format!("##vso[task.setvariable variable={name}]{}", value.replace('%', "%AZP25"))
            }
            // In the file of GITHUB_ENV everything behind the first `=` is the value, too.
            Format::Plain | Format::Docker | Format::Github | Format::Json => format!("{name}={value}"),
        }
    }
}

/// PowerShell takes typographic quotes for straight ones; each is doubled.
fn pwsh_quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted
}

/// Bare where every reader of such files agrees on it, else in single quotes, which all take literally; double
/// quotes only for what has a single one inside.
fn dotenv_quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,=-".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    if !value.contains('\'') {
        return format!("'{value}'");
    }
    let mut quoted = String::from("\"");
    for c in value.chars() {
        if matches!(c, '\\' | '"' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NASTY: &[&str] = &[
        "",
        "http://127.0.0.1:3128",
        "a b",
        "it's",
        "$HOME `id` \"x\" \\ !! # ; & | * ?",
        "'",
        "\\'",
        "\\",
        "ende\\",
        "%41%",
        "tab\there",
        "\u{2019}é\u{1F980}",
    ];

    #[test]
    fn each_format_spells_a_quote_its_own_way() {
        for (format, line) in [
            (Format::Plain, "N=it's $x"),
            (Format::Sh, r"export N='it'\''s $x'"),
            (Format::Fish, r"set -gx N 'it\'s $x'"),
            (Format::Pwsh, "$env:N = 'it''s $x'"),
            (Format::Dotenv, "N=\"it's \\$x\""),
            (Format::Docker, "N=it's $x"),
            (Format::Github, "N=it's $x"),
            (Format::Azure, "##vso[task.setvariable variable=N]it's $x"),
        ] {
            assert_eq!(format.set(&[("N", "it's $x".into())]), format!("{line}\n"), "{format:?}");
        }
        assert_eq!(
            Format::Azure.set(&[("N", "a%20b".into())]),
            "##vso[task.setvariable variable=N]a%AZP2520b\n"
        );
        assert_eq!(Format::Pwsh.set(&[("N", "\u{2019}".into())]), "$env:N = '\u{2019}\u{2019}'\n");
        assert_eq!(Format::Dotenv.set(&[("N", "a b".into())]), "N='a b'\n");
        assert_eq!(Format::Fish.set(&[("N", r"a\'b".into())]), "set -gx N 'a\\\\\\'b'\n");
    }

    #[test]
    fn json_is_json_with_a_schema() {
        let text = Format::Json.set(&[("N", "it's \"x\"".into())]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, serde_json::json!({ "schema": 1, "env": { "N": "it's \"x\"" } }));
        let value: serde_json::Value = serde_json::from_str(&Format::Json.unset(&["N", "M"])).unwrap();
        assert_eq!(value, serde_json::json!({ "schema": 1, "unset": ["N", "M"] }));
    }

    #[test]
    fn a_real_sh_reads_every_value_back_and_unsets_it() {
        for value in NASTY {
            let script = format!(
                "{}printf '<%s>' \"$N\"; {}printf '[%s]' \"${{N-gone}}\"",
                Format::Sh.set(&[("N", (*value).into())]),
                Format::Sh.unset(&["N", "M"]),
            );
            let output = Command::new("sh").arg("-c").arg(&script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("<{value}>[gone]"), "{script}");
        }
    }

    #[test]
    fn a_dotenv_line_that_sh_reads_means_the_same() {
        for value in NASTY {
            let script = format!("{}printf '<%s>' \"$N\"", Format::Dotenv.set(&[("N", (*value).into())]));
            let output = Command::new("sh").arg("-c").arg(&script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("<{value}>"), "{script}");
        }
    }

    #[test]
    fn what_cannot_be_taken_away_is_emptied() {
        for (format, lines) in [
            (Format::Plain, "A=\nB=\n"),
            (Format::Github, "A=\nB=\n"),
            (Format::Sh, "unset A B\n"),
            (Format::Fish, "set -e A\nset -e B\n"),
        ] {
            assert_eq!(format.unset(&["A", "B"]), lines);
        }
    }
}
