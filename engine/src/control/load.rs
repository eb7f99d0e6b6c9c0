//! From the policy file on disk to a `Policy` in force: reads the file and all that it refers to.
//!
//! Not here: what the keys mean (`policy`). Runs before the proxy listens and on a reload; it blocks, and never on
//! the data plane. Invariants: every read is bounded; a reference that leads nowhere is an error, never an empty
//! value; no error shows a secret. Which way it fails: closed, there is no policy unless all of it was read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::fault::{Fault, Kind};
use crate::limits::{PEM_BYTES_MAX, POLICY_BYTES_MAX, SECRET_BYTES_MAX};
use crate::policy::config::{FileRef, SecretRef, Upstream};
use crate::policy::reader::Place;
use crate::policy::{Basic, Complaint, Config, ConfigError, Environment, Material, Mode, Policy, Preset};

/// What the command line says over the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// `--mode`.
    pub mode: Option<Mode>,
    /// `--host`: the reach follows the listener. (`--port` changes no decision, so it is no matter of the policy.)
    pub host: Option<IpAddr>,
}

/// A policy in force with what belongs to it.
#[derive(Debug)]
pub struct Loaded {
    /// The policy; its `config().listen.http` is where to listen.
    pub policy: Arc<Policy>,
    /// What people should know and is no error; the policy's own notices are among them.
    pub notices: Vec<String>,
}

/// Why there is no policy. Displays as lines `error: …`, `caused by: …`, `hint: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// Never empty; by place where they are of one file.
    pub faults: Vec<Fault>,
}

impl LoadError {
    fn one(error: impl Into<String>, cause: Option<String>, hint: &str) -> Self {
        let mut fault = Fault::new(Kind::Config, error);
        fault.causes.extend(cause);
        fault.hint = (!hint.is_empty()).then(|| hint.to_owned());
        Self { faults: vec![fault] }
    }

    /// The first fault, with the others beside it.
    pub fn into_fault(self) -> Fault {
        let mut faults = self.faults.into_iter();
        let first = faults.next().unwrap_or_else(|| Fault::new(Kind::Config, "the policy cannot be loaded"));
        Fault { also: faults.collect(), ..first }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}error: {}", fault.error)?;
            for cause in &fault.causes {
                write!(f, "\ncaused by: {cause}")?;
            }
            if let Some(hint) = &fault.hint {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

impl From<ConfigError> for LoadError {
    fn from(error: ConfigError) -> Self {
        let fault = |problem: &crate::policy::Problem| {
            let mut fault = Fault::new(Kind::Config, error.line(problem));
            fault.hint.clone_from(&problem.hint);
            fault
        };
        let mut faults: Vec<Fault> = error.problems.iter().map(fault).collect();
        if error.more > 0 {
            faults.push(Fault::new(Kind::Config, format!("{}: {} more problems", error.name, error.more)));
        }
        Self { faults }
    }
}

impl From<Complaint> for LoadError {
    fn from(complaint: Complaint) -> Self {
        Self::one(complaint.problem, None, &complaint.hint)
    }
}

/// Loads the policy file, or preset `ci` where there is none. `variable` looks up the environment: the proxy
/// variables, `WEIR_PROXY`, and what `env:` references name.
///
/// # Errors
/// All that is wrong with the file, else all that is wrong with what it refers to.
pub fn load(
    path: Option<&Path>,
    overrides: &Overrides,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, LoadError> {
    let mut config = match path {
        Some(path) => Config::parse(&policy_text(path)?, &path.display().to_string())?,
        None => Config::preset(Preset::Ci),
    };
    config.mode = overrides.mode.unwrap_or(config.mode);
    if let Some(host) = overrides.host {
        config.listen.http.set_ip(host);
    }
    let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
    let mut references =
        References { source: &config.source, folder, variable, faults: Vec::new(), notices: Vec::new() };
    let extra_roots = references.extra_roots(&config.extra_roots);
    let materials = references.materials(&config.upstream.named);
    let References { faults, mut notices, .. } = references;
    if !faults.is_empty() {
        return Err(LoadError { faults });
    }
    let environment = Environment { materials, extra_roots, ..Environment::from_variables(variable) };
    let policy = Policy::new(config, &environment)?;
    notices.extend(policy.notices().iter().cloned());
    Ok(Loaded { policy: Arc::new(policy), notices })
}

fn policy_text(path: &Path) -> Result<String, LoadError> {
    let name = path.display();
    let bytes = read_bounded(path, POLICY_BYTES_MAX).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "name a file with --config, or leave it out for preset ci",
            io::ErrorKind::IsADirectory => "name the file in it, like weir.toml",
            io::ErrorKind::PermissionDenied => "make it readable for the user that starts weir",
            _ => "a policy is one file of TOML",
        };
        LoadError::one(format!("{name}: cannot read the policy"), Some(error.to_string()), hint)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        LoadError::one(format!("{name}:{line}: the policy is not UTF-8"), None, "save the file as UTF-8")
    })
}

/// What the file refers to, with all that is wrong with it.
struct References<'a> {
    source: &'a str,
    folder: &'a Path,
    variable: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
    notices: Vec<String>,
}

impl References<'_> {
    fn extra_roots(&mut self, files: &[FileRef]) -> Vec<Vec<u8>> {
        let mut roots = Vec::new();
        for file in files {
            match certificates(&self.resolved(&file.path)) {
                Ok(found) => roots.extend(found),
                Err(cause) => self.fault(
                    file.place,
                    "tls.extra_roots",
                    format!("no certificates from {:?}", file.path),
                    &cause.to_string(),
                    "name a PEM file with at least one certificate, relative to the policy file",
                ),
            }
        }
        roots
    }

    fn materials(&mut self, upstreams: &[Upstream]) -> BTreeMap<String, Material> {
        upstreams.iter().map(|upstream| (upstream.name.clone(), self.material(upstream))).collect()
    }

    fn material(&mut self, upstream: &Upstream) -> Material {
        let name = &upstream.name;
        let roots = upstream.ca_file.as_ref().map(|file| self.ca(name, file, upstream.ca_optional));
        let basic = upstream.auth.as_ref().and_then(|(reference, place)| {
            let found =
                self.secret(reference).and_then(|text| Basic::new(&text).map_err(|error| error.problem));
            found
                .map_err(|cause| {
                    let key = format!("upstream.{name}.auth_ref");
                    let problem = format!("no credentials from {reference}");
                    let hint =
                        "the value there is user:password; a file is readable by its owner only (chmod 600)";
                    self.fault(*place, &key, problem, &cause, hint);
                })
                .ok()
        });
        Material { basic, roots: roots.unwrap_or_default() }
    }

    fn ca(&mut self, name: &str, file: &FileRef, optional: bool) -> Vec<Vec<u8>> {
        match certificates(&self.resolved(&file.path)) {
            Ok(found) => found,
            // Optional is for a file that a machine does not have; one that is there and broken is an error.
            Err(cause) if optional && cause.kind() == io::ErrorKind::NotFound => {
                self.notices.push(format!(
                    "upstream.{name}.ca_file: {:?} is not there, which ca_optional allows",
                    file.path
                ));
                Vec::new()
            }
            Err(cause) => {
                let key = format!("upstream.{name}.ca_file");
                let problem = format!("no certificates from {:?}", file.path);
                let hint = "name a PEM file with at least one certificate, or say ca_optional = true where it may be missing";
                self.fault(file.place, &key, problem, &cause.to_string(), hint);
                Vec::new()
            }
        }
    }

    /// The value of a secret, without line ends behind it.
    fn secret(&self, reference: &SecretRef) -> Result<String, String> {
        let text = match reference {
            SecretRef::Env(name) => {
                (self.variable)(name).ok_or_else(|| format!("the variable {name} is not set"))?
            }
            SecretRef::File(path) => secret_file(&self.resolved(path))?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
    }

    fn resolved(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn fault(&mut self, place: Place, key: &str, problem: String, cause: &str, hint: &str) {
        let Place { line, column } = place;
        let error = format!("{}:{line}:{column}: {key}: {problem}", self.source);
        self.faults.push(Fault::new(Kind::Config, error).because(cause).hint(hint));
    }
}

fn secret_file(path: &Path) -> Result<String, String> {
    let file = open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?.mode();
    if mode & 0o077 != 0 {
        return Err(format!("its mode is {:04o}: others than its owner have access", mode & 0o7777));
    }
    let bytes = read_to_end(file, SECRET_BYTES_MAX).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// The certificates of a PEM file, DER; an error when there is none.
fn certificates(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let pem = read_bounded(path, PEM_BYTES_MAX)?;
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(format!("not valid PEM: {error}")))?;
        // Whether it is a certificate at all is told now, with its file, and not at the first handshake.
        rustls::RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| invalid(format!("certificate {} is not valid: {error}", found.len() + 1)))?;
        found.push(certificate.to_vec());
    }
    if found.is_empty() {
        return Err(invalid("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    read_to_end(open(path)?, bytes_max)
}

/// Opens a regular file. Nonblocking, so that a FIFO in its place cannot hang the start.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

fn read_to_end(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let message = format!("it is larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use crate::policy::{Ask, parents::ProxyUrl};
    use crate::wire::target::Authority;

    /// A folder with files, the policy among them.
    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        folder
    }

    fn loaded(folder: &TempDir, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
        let look =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        load(Some(&folder.path().join("weir.toml")), &Overrides::default(), &look)
    }

    fn certificate() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.cert.der().to_vec())
    }

    fn parent_of(loaded: &Loaded) -> crate::policy::Parent {
        let url = ProxyUrl::parse("http://a.test:443").unwrap();
        let target: Authority = url.authority;
        crate::policy::Parent::clone(loaded.policy.parent_for(&target, Ask::Connect).unwrap())
    }

    #[test]
    fn without_a_file_it_is_preset_ci_with_overrides() {
        let overrides = Overrides { mode: Some(Mode::Audit), host: Some("127.0.0.2".parse().unwrap()) };
        let loaded = load(None, &overrides, &|_| None).unwrap();
        assert_eq!(loaded.policy.source(), "preset:ci");
        assert_eq!(loaded.policy.mode(), Mode::Audit);
        assert_eq!(loaded.policy.config().listen.http.to_string(), "127.0.0.2:0");
        let remote = Overrides { host: Some("0.0.0.0".parse().unwrap()), ..Overrides::default() };
        let error = load(None, &remote, &|_| None).unwrap_err().to_string();
        assert!(error.contains("0.0.0.0 is not a loopback address\nhint: "), "{error}");
    }

    #[test]
    fn files_that_cannot_be_a_policy_are_told_apart() {
        let folder =
            folder(&[("utf8.toml", b"mode = 1\n\xff"), ("large.toml", &vec![b'#'; POLICY_BYTES_MAX + 1])]);
        let cases = [
            (
                "missing.toml",
                "cannot read the policy\ncaused by: No such file",
                "hint: name a file with --config",
            ),
            ("", "cannot read the policy\ncaused by: it is a directory", "hint: name the file in it"),
            ("utf8.toml", "utf8.toml:2: the policy is not UTF-8", "hint: save"),
            ("large.toml", "caused by: it is larger than 1048576 bytes", "hint: "),
        ];
        for (name, words, hint) in cases {
            let path = if name.is_empty() { folder.path().to_owned() } else { folder.path().join(name) };
            let error = load(Some(&path), &Overrides::default(), &|_| None).unwrap_err().to_string();
            assert!(error.starts_with("error: ") && error.contains(words) && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn a_fifo_in_place_of_the_file_does_not_hang() {
        let folder = folder(&[]);
        let path = folder.path().join("weir.toml");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = loaded(&folder, &[]).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn problems_of_the_file_come_each_with_its_place() {
        let folder = folder(&[("weir.toml", b"mod = 1\n[guard]\nreach = \"x\"\n")]);
        let error = loaded(&folder, &[]).unwrap_err();
        assert_eq!(error.faults.len(), 2);
        let text = error.to_string();
        assert!(
            text.contains("weir.toml:1:1: mod: unknown key\nhint: did you mean `mode`?\nerror: "),
            "{text}"
        );
        assert!(text.contains("weir.toml:3:9: guard.reach: unknown value"), "{text}");
    }

    #[test]
    fn references_are_read_relative_to_the_file() {
        let (pem, der) = certificate();
        let text = "[tls]\nextra_roots = [\"ca.pem\"]\n[upstream]\ndefault = \"corp\"\n[upstream.corp]\nurl = \"https://p.test\"\nca_file = \"ca.pem\"\nauth_ref = \"file:auth\"\n";
        let folder = folder(&[("weir.toml", text.as_bytes()), ("ca.pem", &pem), ("auth", b"u:p\n")]);
        let loaded = loaded(&folder, &[]).unwrap();
        let parent = parent_of(&loaded);
        assert_eq!(parent.roots, [der.clone(), der], "ca_file, then extra_roots");
        assert_eq!(parent.basic.unwrap().header_value(), "Basic dTpw");
    }

    #[test]
    fn secrets_of_the_environment() {
        let text =
            "[upstream]\ndefault = \"c\"\n[upstream.c]\nurl = \"http://p.test\"\nauth_ref = \"env:AUTH\"\n";
        let folder = folder(&[("weir.toml", text.as_bytes())]);
        let found = loaded(&folder, &[("AUTH", "u:p"), ("https_proxy", "junk://")]).unwrap();
        assert!(parent_of(&found).basic.is_some());
        let cases = [
            (vec![], "caused by: the variable AUTH is not set"),
            (vec![("AUTH", "")], "caused by: it is empty"),
            (vec![("AUTH", "hunter2")], "caused by: the secret is not of the form user:password"),
        ];
        for (variables, words) in cases {
            let error = loaded(&folder, &variables).unwrap_err().to_string();
            assert!(
                error.contains("weir.toml:5:12: upstream.c.auth_ref: no credentials from env:AUTH"),
                "{error}"
            );
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn broken_references_are_all_told() {
        let text = "[tls]\nextra_roots = [\"missing.pem\", \"empty.pem\", \"torn.pem\", \"junk.pem\"]\n[upstream.c]\nurl = \"https://p.test\"\nca_file = \"missing.pem\"\nauth_ref = \"file:open\"\n";
        let (pem, _) = certificate();
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let folder = folder(&[
            ("weir.toml", text.as_bytes()),
            ("empty.pem", b"nothing"),
            ("torn.pem", &pem[..pem.len() / 2]),
            ("junk.pem", junk),
            ("open", b"u:hunter2"),
        ]);
        fs::set_permissions(folder.path().join("open"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = loaded(&folder, &[]).unwrap_err();
        let text = error.to_string();
        for words in [
            "weir.toml:2:16: tls.extra_roots: no certificates from \"missing.pem\"\ncaused by: No such file",
            "weir.toml:2:31: tls.extra_roots: no certificates from \"empty.pem\"\ncaused by: there is no certificate in it",
            "from \"torn.pem\"\ncaused by: not valid PEM",
            "from \"junk.pem\"\ncaused by: certificate 1 is not valid",
            "weir.toml:5:11: upstream.c.ca_file: no certificates from \"missing.pem\"",
            "weir.toml:6:12: upstream.c.auth_ref: no credentials from file:open\ncaused by: its mode is 0640",
        ] {
            assert!(text.contains(words), "{words}\nin\n{text}");
        }
        assert_eq!(error.faults.len(), 6, "{text}");
        assert!(!text.contains("hunter2"));
    }

    #[test]
    fn an_optional_ca_may_be_missing_but_not_broken() {
        let text = "[upstream.c]\nurl = \"https://p.test\"\nca_file = \"ca.pem\"\nca_optional = true\n";
        let missing = folder(&[("weir.toml", text.as_bytes())]);
        let found = loaded(&missing, &[]).unwrap();
        assert!(found.notices.iter().any(|line| line.contains("ca_optional")), "{:?}", found.notices);
        let broken = folder(&[("weir.toml", text.as_bytes()), ("ca.pem", b"junk")]);
        assert!(loaded(&broken, &[]).is_err());
    }

    #[test]
    fn a_proxy_variable_that_is_no_url_is_named() {
        let folder = folder(&[("weir.toml", b"version = 1\n")]);
        let error = loaded(&folder, &[("HTTPS_PROXY", "socks5://p.test")]).unwrap_err().to_string();
        assert!(
            error.starts_with("error: HTTPS_PROXY: SOCKS proxies are not supported yet\nhint: "),
            "{error}"
        );
        let odd =
            loaded(&folder, &[("NO_PROXY", "a.test,192.168.*"), ("https_proxy", "http://p.test:1")]).unwrap();
        assert!(odd.notices.iter().any(|line| line.contains("NO_PROXY") && line.contains("192.168.*")));
    }
}
