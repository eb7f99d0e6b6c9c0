//! Where a state stands by default and which job this is: pure functions of environment values handed in.
//!
//! Not here: reading the environment (the command line does), looking at the file system (`state` does).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bytes of a job's name that are kept.
const JOB_BYTES_MAX: usize = 200;

/// The state directory: `flag`, `WEIR_STATE`, `$RUNNER_TEMP/weir`, `$XDG_RUNTIME_DIR/weir`, else a directory
/// of the user `uid` under the temporary one. May be relative, as it was given; an empty variable counts as unset.
pub fn state_place(flag: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(flag) = flag {
        return flag.to_path_buf();
    }
    if let Some(place) = set("WEIR_STATE") {
        return place;
    }
    for parent in ["RUNNER_TEMP", "XDG_RUNTIME_DIR"] {
        if let Some(place) = set(parent) {
            return place.join("weir");
        }
    }
    set("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")).join(format!("weir-{uid}"))
}

/// The variables that name a job, the first complete set wins.
const JOBS: &[(&str, &[&str])] = &[
    ("job", &["WEIR_JOB"]),
    ("github", &["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB"]),
    ("gitlab", &["CI_JOB_ID"]),
    ("buildkite", &["BUILDKITE_JOB_ID"]),
    ("circleci", &["CIRCLE_WORKFLOW_JOB_ID"]),
    ("azure", &["BUILD_BUILDID", "SYSTEM_JOBID"]),
    ("jenkins", &["BUILD_TAG"]),
    ("travis", &["TRAVIS_JOB_ID"]),
    ("drone", &["DRONE_REPO", "DRONE_BUILD_NUMBER"]),
];

/// What the machine's CI calls this job, such as `github:RUN/ATTEMPT/JOB`; `None` outside every known CI.
pub fn job(variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    JOBS.iter().find_map(|(system, names)| {
        let values: Option<Vec<String>> = names
            .iter()
            .map(|name| {
                variable(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
            })
            .collect();
        let name = format!("{system}:{}", values?.join("/"));
        Some(capped(&name))
    })
}

fn capped(text: &str) -> String {
    let mut kept: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let mut end = kept.len().min(JOB_BYTES_MAX);
    while !kept.is_char_boundary(end) {
        end -= 1;
    }
    kept.truncate(end);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn each_place_gives_way_to_the_one_before() {
        let all: &[(&str, &str)] = &[
            ("WEIR_STATE", "/s"),
            ("RUNNER_TEMP", "/runner"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("TMPDIR", "/t"),
        ];
        assert_eq!(state_place(Some(Path::new("here")), from(all), 7), Path::new("here"));
        for (skip, place) in ["/s", "/runner/weir", "/run/user/7/weir", "/t/weir-7"].iter().enumerate() {
            assert_eq!(state_place(None, from(&all[skip..]), 7), Path::new(place));
        }
        assert_eq!(state_place(None, from(&[]), 7), Path::new("/tmp/weir-7"));
    }

    #[test]
    fn an_empty_variable_is_unset() {
        assert_eq!(
            state_place(None, from(&[("WEIR_STATE", ""), ("TMPDIR", "")]), 0),
            Path::new("/tmp/weir-0")
        );
    }

    #[test]
    fn a_job_has_the_name_of_its_system() {
        let github = [("GITHUB_RUN_ID", "12"), ("GITHUB_RUN_ATTEMPT", "2"), ("GITHUB_JOB", "build")];
        assert_eq!(job(from(&github)).as_deref(), Some("github:12/2/build"));
        assert_eq!(job(from(&github[..2])), None, "half a name is none");
        assert_eq!(job(from(&[("CI_JOB_ID", "9"), ("WEIR_JOB", "mine")])).as_deref(), Some("job:mine"));
        assert_eq!(job(from(&[])), None);
    }

    #[test]
    fn a_job_name_is_one_bounded_line() {
        let long = "é".repeat(300);
        let name = job(from(&[("WEIR_JOB", &long)])).unwrap();
        assert!(name.len() <= JOB_BYTES_MAX && name.starts_with("job:é"));
        assert_eq!(job(from(&[("WEIR_JOB", "a\nb\u{1b}")])).as_deref(), Some("job:a?b?"));
    }
}
