//! The commands as a job types them: what they print, where, and with which exit code.

use std::fs;
use std::sync::Arc;

use tests::harness::origin::closed_port;
use tests::{Daemon, Driver, HttpOrigin, Origin, Place, Setup, both_drivers, weir};

/// Asks the proxy of the environment for a tunnel to `$1`, without any client installed.
const ASK: &str = "p=${HTTPS_PROXY#http://}; exec 3<>/dev/tcp/${p%:*}/${p##*:}; \
                   printf 'CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' \"$1\" \"$1\" >&3; read -r line <&3; echo \"$line\"";

both_drivers! {
    fn status_tells_what_runs(driver: Driver) {
        let daemon = Daemon::start(driver);
        let status = daemon.status();
        assert_eq!(status["schema"], 1);
        assert_eq!(status["running"], true);
        assert_eq!(status["mode"], "enforce");
        assert_eq!(status["driver"]["name"], driver.name());
        assert!(status["driver"]["threads"].as_u64().unwrap() >= 1, "{status}");
        assert_eq!(status["run_id"].as_str().unwrap().len(), 32, "128 bits: {status}");
        assert!(status["policy"]["digest"].as_str().unwrap().len() >= 16, "{status}");
        assert!(daemon.address.ip().is_loopback());

        let echo = Origin::echo();
        let mut wire = daemon.tunnel(&echo.named("count.weir.test"));
        wire.echo(b"12345");
        assert_eq!(daemon.dial().connect("denied.weir.test:443").status(), 403);
        tests::holds("the counters", || {
            let status = daemon.status();
            status["connections"]["tunnels"].as_u64() == Some(1) && status["violations"].as_u64() == Some(1)
        });
        let said = daemon.step(&["status"]).exits(0);
        assert!(said.stdout.contains(&daemon.address.to_string()), "{}", said.stdout);
    }

    fn stop_reports_and_repeats(driver: Driver) {
        let mut daemon = Daemon::start(driver);
        assert_eq!(daemon.dial().connect("denied.weir.test:443").status(), 403);
        let first = daemon.step(&["stop", "--json", "--fail-on-violation"]).exits(10).json();
        daemon.wait();
        assert_eq!((&first["final"], &first["verifiable"]), (&true.into(), &true.into()));
        let violation = &first["violations"][0];
        assert_eq!(violation["code"], "denied_host", "{first}");
        assert_eq!(first["delivery"], serde_json::json!([]));
        let second = daemon.step(&["stop", "--json", "--fail-on-violation"]).exits(10).json();
        assert_eq!(first["violations"], second["violations"]);
        daemon.step(&["stop"]).exits(0); // plain: violations are reported and no failure
        daemon.step(&["status"]).exits(3);
    }

    fn run_passes_on_environment_and_exit_code(driver: Driver) {
        let place = Place::new();
        let origin = HttpOrigin::paths();
        let policy = place.write("weir.toml", tests::harness::daemon::POLICY);
        let run = |script: &str, argument: &str| {
            let mut command = place.weir(&["run", "--driver", driver.flag(), "--config"]);
            command.arg(&policy).args(["--", "bash", "-c", script, "bash", argument]);
            tests::harness::place::finish(command)
        };
        let said = run("echo $HTTPS_PROXY; echo $NO_PROXY; exit 7", "").exits(7);
        assert!(said.stdout.starts_with("http://127.0.0.1:"), "{}", said.stdout);
        let said = run(ASK, &origin.named("fine.weir.test")).exits(0);
        assert!(said.stdout.starts_with("HTTP/1.1 200"), "{}", said.stdout);
        run(ASK, "denied.weir.test:443").exits(10).says(&["denied.weir.test"]);
        // The command's own failure is what counts, but the violation is still told.
        run(&format!("{ASK}; exit 3"), "denied.weir.test:443").exits(3).says(&["denied.weir.test"]);
        run("kill -TERM $$", "").exits(128 + 15);
    }

    fn explain_says_rule_without_traffic(driver: Driver) {
        let place = Place::new();
        let policy = place.write("weir.toml", tests::harness::daemon::POLICY);
        let policy = policy.to_str().unwrap();
        let said = place.run(&["explain", "https://denied.weir.test/x", "--config", policy, "--json"]).exits(0).json();
        assert!(said.to_string().contains("no-go") && said.to_string().contains("denied_host"), "{said}");
        let said = place.run(&["explain", "https://fine.weir.test/x", "--config", policy]).exits(0);
        assert!(said.stdout.contains("default"), "{}", said.stdout);
        // A daemon that runs writes nothing of it.
        let daemon = Daemon::start(driver);
        let decided = daemon.journal.of_kind("decided").len();
        daemon.step(&["explain", "http://denied.weir.test/", "--config", policy]).exits(0);
        assert_eq!(daemon.journal.of_kind("decided").len(), decided);
    }
}

#[test]
fn env_routes_every_client() {
    let daemon = any_daemon();
    let proxy = format!("http://{}", daemon.address);
    let plain = daemon.step(&["env"]).exits(0).stdout;
    let value = |name: &str| {
        let line = plain.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is missing: {plain}")).to_owned()
    };
    for name in
        ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"]
    {
        assert_eq!(value(name), proxy, "{name}");
    }
    assert!(
        value("NO_PROXY").starts_with("localhost,127.0.0.1,::1") && value("no_proxy") == value("NO_PROXY")
    );
    assert_eq!(value("NODE_USE_ENV_PROXY"), "1");
    assert_eq!(value("WEIR_RUN_ID"), daemon.run_id);
    assert_eq!(value("WEIR_STATE"), daemon.place.state().to_str().unwrap());
    for never in [
        "ALL_PROXY",
        "all_proxy",
        "YARN_CAFILE",
        "SSL_CERT_DIR",
        "NODE_OPTIONS",
        "NODE_TLS_REJECT_UNAUTHORIZED",
    ] {
        assert!(!plain.contains(&format!("{never}=")), "{never} must not be there: {plain}");
    }

    let json = daemon.step(&["env", "--format", "json"]).exits(0).json();
    assert!(json.to_string().contains(&proxy), "{json}");
    for format in ["dotenv", "github", "docker", "azure"] {
        let said = daemon.step(&["env", "--format", format]).exits(0).stdout;
        assert!(said.contains(&proxy), "{format}: {said}");
    }
    for shell in ["sh", "fish", "pwsh"] {
        let said = daemon.step(&["env", "--shell", shell]).exits(0).stdout;
        assert!(said.contains(&proxy), "{shell}: {said}");
    }
}

#[test]
fn env_is_evaluated_and_unset_by_a_shell() {
    let daemon = any_daemon();
    let script = "eval \"$(weir env --export)\"; echo \"$https_proxy|$WEIR_RUN_ID\"; \
                  eval \"$(weir env --export --unset)\"; echo \"${https_proxy-none}|${NO_PROXY-none}\"";
    let said = daemon.place.shell(script).exits(0).stdout;
    assert_eq!(said, format!("http://{}|{}\nnone|none\n", daemon.address, daemon.run_id));
}

/// A folder's name may hold anything but NUL; what is printed survives a shell.
#[test]
fn env_quotes_what_a_shell_would_read() {
    let place = Arc::new(Place::new());
    let state = place.path().join("it's $HOME \"x\" `y`");
    let mut start = place.weir(&["start", "-D", "--port", "0", "--driver", any_driver().flag()]);
    start.env("WEIR_STATE", &state);
    tests::harness::place::finish(start).exits(0);
    let mut shell = place.command("sh");
    shell
        .args(["-c", "eval \"$(weir env --export)\"; unset NO; printf %s \"$WEIR_STATE\""])
        .env("WEIR_STATE", &state);
    let said = tests::harness::place::finish(shell);
    let mut stop = place.weir(&["stop"]);
    stop.env("WEIR_STATE", &state);
    tests::harness::place::finish(stop).exits(0);
    assert_eq!(said.exits(0).stdout, state.to_str().unwrap());
}

#[test]
fn env_check_tells_whether_the_daemon_lives() {
    let mut daemon = any_daemon();
    daemon.place.shell("eval \"$(weir env --export)\"; weir env --check").exits(0);
    daemon.kill();
    daemon.step(&["env", "--check"]).exits(3);
    daemon.step(&["env"]).exits(3).says(&["error:"]);
}

#[test]
fn without_a_daemon_commands_exit_3() {
    let place = Place::new();
    for arguments in [
        &["status"][..],
        &["stop"],
        &["env"],
        &["stop", "--fail-on-violation"],
        &["status", "--wait", "100ms"],
    ] {
        let said = place.run(arguments).exits(3).says(&["not running", "hint:"]);
        assert_eq!(said.stdout, "", "{arguments:?}");
    }
    assert!(
        !place.state().exists() || fs::read_dir(place.state()).unwrap().next().is_none(),
        "asking left a trace"
    );
}

#[test]
fn usage_errors_exit_2_and_help_0() {
    let place = Place::new();
    for arguments in [
        &["frobnicate"][..],
        &["start", "--no-such-flag"],
        &["start", "--port", "70000"],
        &["start", "--driver", "kqueue"],
        &["status", "--wait", "soon"],
        &["run"],
        &["run", "--"],
        &["policy"],
        &["policy", "show", "nosuch"],
        &["explain"],
        // Known, and not there yet.
        &["check", "pkg:npm/left-pad@1.3.0"],
        &["ca", "show"],
        &["stop", "--fail-on-unverified"],
        &["run", "--isolate", "--", "true"],
    ] {
        let said = place.run(arguments).exits(2).says(&["error:"]);
        assert_eq!(said.stdout, "", "{arguments:?}: stdout is data");
    }
    for arguments in [&["--help"][..], &["start", "--help"], &["--version"]] {
        assert!(!place.run(arguments).exits(0).stdout.is_empty(), "{arguments:?}");
    }
    assert!(place.run(&["--version"]).stdout.contains(&weir().build_id));
}

#[test]
fn policy_check_and_show() {
    let place = Place::new();
    for preset in ["ci", "agent", "strict"] {
        let text = place.run(&["policy", "show", preset]).exits(0).stdout;
        let file = place.write("shown.toml", &text);
        place.run(&["policy", "check", file.to_str().unwrap()]).exits(0);
    }
    let default = place.run(&["policy", "show"]).exits(0).stdout;
    assert_eq!(default, place.run(&["policy", "show", "ci"]).stdout);
    let file = place.write("bad.toml", "version = 1\n\nmodee = \"audit\"\n");
    place.run(&["policy", "check", file.to_str().unwrap()]).exits(4).says(&["bad.toml:3:1", "modee", "mode"]);
}

/// The port and the address of the flags, and the refusal of an address that others could reach.
#[test]
fn start_listens_where_it_is_told() {
    let driver = any_driver();
    let port = closed_port();
    let daemon = Setup::on(driver).flags(&["--port", &port.to_string()]).start();
    assert_eq!(daemon.address.port(), port);
    let said = Place::new().run(&["start", "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("allow_remote"), "the way out is named: {}", said.stderr);
}

fn any_driver() -> Driver {
    Driver::all_possible().into_iter().next().expect("a driver")
}

fn any_daemon() -> Daemon {
    Daemon::start(any_driver())
}
