//! Real package managers through the daemon with the default policy, in a sandbox where it is the only way out.
//!
//! Needs the network and `clients/run_client.sh` of the folder beside the repository (`WEIR_SHARED`):
//! `cargo test -p tests --test it clients -- --ignored --nocapture`.

use std::path::Path;
use std::process::Command;

use tests::harness::binary::shared;
use tests::{Daemon, Driver, Setup, both_drivers};

const CLIENTS: &[&str] = &["npm", "pip", "cargo", "git", "curl", "curl_http", "wget", "apt"];
/// What the script answers when the client or its fixture is not on this machine, and when it has no sandbox.
const NOT_HERE: i32 = 77;
const NO_SANDBOX: i32 = 125;

both_drivers! {
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
