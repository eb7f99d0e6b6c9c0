//! The program under test: built here, from these sources, and made to prove it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

#[path = "../../cli/build_id.rs"]
#[allow(unreachable_pub, reason = "the file belongs to the build script of `cli`")]
mod build_id;

/// The built program.
#[derive(Debug)]
pub struct Binary {
    /// The executable.
    pub path: PathBuf,
    /// The hash of the sources that both it and the harness name.
    pub build_id: String,
}

/// Builds `weir` once a process, with the features and the profile of this test build, and compares its build id
/// with the sources.
///
/// # Panics
/// When it cannot be built, or is not made of these sources.
pub fn weir() -> &'static Binary {
    // A failure is kept too: the next test shall not build again only to fail again.
    static BINARY: OnceLock<Result<Binary, String>> = OnceLock::new();
    match BINARY.get_or_init(build_and_prove) {
        Ok(binary) => binary,
        Err(why) => panic!("{why}"),
    }
}

fn build_and_prove() -> Result<Binary, String> {
    let path = build()?;
    let said = Command::new(&path).args(["version", "--json"]).output().map_err(|error| error.to_string())?;
    let version: Value = serde_json::from_slice(&said.stdout)
        .map_err(|error| format!("`weir version --json`: {error}: {said:?}"))?;
    let build_id =
        build_id::build_id(root(), &features()).map_err(|error| format!("the sources: {error}"))?;
    if version["build_id"].as_str() != Some(build_id.as_str()) {
        return Err(format!("{} is not made of these sources ({build_id}): {version}", path.display()));
    }
    eprintln!("weir {build_id} at {}", path.display());
    Ok(Binary { path, build_id })
}

/// The root of the sources.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The folder that stands beside the repository on some machines, with corpora and clients; `WEIR_SHARED` names
/// another place.
pub fn shared() -> Option<PathBuf> {
    let place = std::env::var_os("WEIR_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    place.is_dir().then_some(place)
}

fn build() -> Result<PathBuf, String> {
    let (profile, target_folder) = profile_and_target_folder();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo
        .current_dir(root())
        .args(["build", "--package=cli", "--bin=weir", "--message-format=json-render-diagnostics"])
        .args(["--no-default-features", &format!("--features={}", features().join(","))])
        .arg(format!("--profile={profile}"))
        .arg("--target-dir")
        .arg(target_folder)
        .stderr(Stdio::inherit());
    let built = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !built.status.success() {
        return Err(format!("cargo build of weir: {}", built.status));
    }
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == "weir")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo names no executable".to_owned())
}

/// From the place of this test binary, `TARGET/PROFILE/deps/it-…`.
fn profile_and_target_folder() -> (String, PathBuf) {
    let this = std::env::current_exe().unwrap();
    let profile_folder = this.ancestors().nth(2).unwrap();
    let name = profile_folder.file_name().unwrap().to_str().unwrap();
    let profile = if name == "debug" { "dev" } else { name };
    (profile.to_owned(), profile_folder.parent().unwrap().to_owned())
}

fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    if cfg!(feature = "epoll") {
        features.push("epoll");
    }
    if cfg!(feature = "uring") {
        features.push("uring");
    }
    features
}
