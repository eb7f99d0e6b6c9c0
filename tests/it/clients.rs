//! Programs that were not written for these tests: what is installed here against an origin on loopback, and real
//! package managers through the default policy, in a sandbox where the daemon is the only way out.
//!
//! The latter need the network and `clients/run_client.sh` of the folder beside the repository (`WEIR_SHARED`):
//! `cargo test -p tests --test it clients -- --ignored --nocapture`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::harness::binary::shared;
use tests::{After, Daemon, Driver, HttpOrigin, Place, Setup, both_drivers};

const CLIENTS: &[&str] = &["npm", "pip", "cargo", "git", "curl", "curl_http", "wget", "apt"];
/// What the script answers when the client or its fixture is not on this machine, and when it has no sandbox.
const NOT_HERE: i32 = 77;
const NO_SANDBOX: i32 = 125;

both_drivers! {
    /// Nothing is told to them but what `weir run` puts into the environment.
    fn installed_programs_follow_the_environment(driver: Driver) {
        let place = Place::new();
        let policy = place.write("weir.toml", tests::harness::daemon::POLICY);
        place.shell(MAKE_REPOSITORY).exits(0);
        let origin = files_of(place.path().join("served"));
        for (program, script) in [
            ("curl", "curl -sSf $1/file | grep -q contents"),
            ("wget", "wget -q -O - $1/file | grep -q contents"),
            ("git", "git clone -q $1/repo.git cloned && grep -q contents cloned/file && rm -rf cloned"),
            ("python3", "python3 -c 'import sys,urllib.request as u; assert b\"contents\" in u.urlopen(sys.argv[1]).read()' $1/file"),
        ] {
            if place.shell(&format!("command -v {program}")).code != 0 {
                eprintln!("SKIPPED {program}: not on this machine");
                continue;
            }
            let before = origin.seen().len();
            let mut command = place.weir(&["run", "--driver", driver.flag(), "--config"]);
            command.arg(&policy).args(["--", "sh", "-c", script, "sh", &origin.url("files.weir.test", "")]);
            tests::harness::place::finish(command).exits(0);
            assert!(origin.seen().len() > before, "{program} did not reach the origin");
            let denied = origin.url("denied.weir.test", "");
            let mut command = place.weir(&["run", "--driver", driver.flag(), "--config"]);
            command.arg(&policy).args(["--", "sh", "-c", &format!("{script} || true"), "sh", &denied]);
            tests::harness::place::finish(command).exits(10);
        }
    }

    #[ignore = "needs registries"]
    fn fetch_through_the_default_policy(driver: Driver) {
        let Some(script) = shared().map(|place| place.join("clients/run_client.sh")).filter(|path| path.exists()) else {
            return eprintln!("SKIPPED: no clients/run_client.sh beside the repository");
        };
        let Some(bundle) = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
            .into_iter()
            .find(|path| Path::new(path).exists())
        else {
            return eprintln!("SKIPPED: no bundle of the system's roots");
        };
        let mut setup = Setup::on(driver).default_policy();
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Ok(value) = std::env::var(name) {
                setup = setup.env(name, &value); // the machine's own way out
            }
        }
        let daemon = setup.start();
        let failed: Vec<&str> = CLIENTS.iter().copied().filter(|client| !works(client, &script, bundle, &daemon)).collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
        daemon.gate().exits(0);
    }
}

/// A repository that can be fetched as plain files (git's dumb protocol), and a file beside it.
const MAKE_REPOSITORY: &str = "set -e; mkdir served; echo contents > served/file
    command -v git >/dev/null || exit 0
    git init -q made; cd made; cp ../served/file .; git add file
    git -c user.name=t -c user.email=t@weir.test commit -q -m made
    git clone -q --bare . ../served/repo.git; cd ../served/repo.git; git update-server-info";

/// Serves the files under `folder`.
fn files_of(folder: PathBuf) -> HttpOrigin {
    HttpOrigin::new(move |seen, wire| {
        let path = seen.target().split('?').next().unwrap_or_default().trim_start_matches('/');
        let (status, body) = match fs::read(folder.join(path)) {
            Ok(bytes) => ("200 OK", bytes),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        wire.send(format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        wire.send(body);
        After::Keep
    })
}

fn works(client: &str, script: &Path, bundle: &str, daemon: &Daemon) -> bool {
    let decided = daemon.journal.of_kind("decided").len();
    let mut command = Command::new(script);
    command.arg(client).env("PROXY_URL", format!("http://{}", daemon.address)).env("CA_FILE", bundle);
    if let Ok(url) = std::env::var("GIT_TEST_URL") {
        command.env("GIT_TEST_URL", url);
    }
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    match said.status.code() {
        Some(0) => {
            let now = daemon.journal.of_kind("decided").len();
            eprintln!("{client}: works, {} decisions", now - decided);
            now > decided
        }
        Some(NOT_HERE) => {
            eprintln!("SKIPPED {client}: not on this machine");
            true
        }
        Some(NO_SANDBOX) => {
            eprintln!("SKIPPED {client}: no sandbox here");
            true
        }
        code => {
            eprintln!("{client}: {code:?}\n{text}");
            false
        }
    }
}
