//! What is wrong is named, with its place and the way out, in one line; and nothing is left half-written.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;

use tests::{Driver, Finished, Place};

/// What is wrong, the policy file, and words that the error must hold.
const POLICIES: &[(&str, &str, &[&str])] = &[
    ("unknown key", "version = 1\nmodee = \"audit\"\n", &["weir.toml:2:1", "modee", "mode"]),
    (
        "unknown key in a table",
        "version = 1\n[guard]\nreech = \"local\"\n",
        &["weir.toml:3:1", "reech", "reach"],
    ),
    ("wrong type", "version = 1\nmode = 3\n", &["weir.toml:2:8", "mode"]),
    ("unknown value", "version = 1\nmode = \"enforced\"\n", &["weir.toml:2:8", "enforce"]),
    ("no TOML", "version = 1\n[[[\n", &["weir.toml:2"]),
    ("unknown version", "version = 7\n", &["weir.toml:1:11", "version"]),
    (
        "not supported yet",
        "version = 1\n[dlp.secrets]\naction = \"deny\"\n",
        &["weir.toml:2", "not supported yet"],
    ),
    (
        "not supported value",
        "version = 1\n[[route]]\nid = \"x\"\nhosts = [\"a.weir.test\"]\naction = \"inspect\"\n",
        &["weir.toml:5", "not supported yet"],
    ),
    (
        "bare star",
        "version = 1\n[[route]]\nid = \"x\"\nhosts = [\"*\"]\naction = \"deny\"\n",
        &["weir.toml:4", "*"],
    ),
    (
        "public suffix",
        "version = 1\n[[route]]\nid = \"x\"\nhosts = [\".com\"]\naction = \"deny\"\n",
        &["weir.toml:4", ".com"],
    ),
    (
        "unreadable CA",
        "version = 1\n[tls]\nextra_roots = [\"/no/such/ca.pem\"]\n",
        &["weir.toml:3", "/no/such/ca.pem"],
    ),
    (
        "missing ca_file",
        "version = 1\n[upstream.corp]\nurl = \"https://127.0.0.1:1\"\nca_file = \"/no/such/ca.pem\"\n",
        &["weir.toml:4", "/no/such/ca.pem", "ca_optional"],
    ),
    (
        "literal secret",
        "version = 1\n[upstream.corp]\nurl = \"http://127.0.0.1:1\"\nauth_ref = \"me:hunter2\"\n",
        &["weir.toml:4", "env:"],
    ),
    (
        "unset secret",
        "version = 1\n[upstream]\ndefault = \"corp\"\n[upstream.corp]\nurl = \"http://127.0.0.1:1\"\nauth_ref = \"env:NO_SUCH\"\n",
        &["weir.toml:6", "NO_SUCH"],
    ),
    ("unknown parent", "version = 1\n[upstream]\ndefault = \"nowhere\"\n", &["weir.toml:3", "nowhere"]),
    (
        "newline in a value",
        "version = 1\n[[route]]\nid = \"x\"\nhosts = [\"a.weir.test\\nb\"]\naction = \"deny\"\n",
        &["weir.toml:4"],
    ),
    ("unknown code", "version = 1\n[gate]\nfail_on = [\"denied_hosts\"]\n", &["weir.toml:3", "denied_hosts"]),
    ("port of 0", "version = 1\n[guard]\nports = [\"0-65536\"]\n", &["weir.toml:3"]),
    (
        "remote without consent",
        "version = 1\n[listen]\nhttp = \"0.0.0.0:0\"\n",
        &["weir.toml:3", "allow_remote"],
    ),
];

#[test]
fn policy_faults_name_place_and_way_out() {
    for (what, text, words) in POLICIES {
        let place = Place::new();
        let file = place.write("weir.toml", text);
        let file = file.to_str().unwrap();
        for arguments in [
            &["start", "--port", "0", "--config", file][..],
            &["start", "-D", "--port", "0", "--config", file],
            &["run", "--config", file, "--", "true"],
        ] {
            let said = place.run(arguments);
            assert_eq!(said.code, 4, "{what}: {arguments:?}: {said:?}");
            assert_one_error(what, &said);
            for word in *words {
                assert!(said.stderr.contains(word), "{what}: {word:?} is missing: {}", said.stderr);
            }
            assert!(!said.stderr.contains("hunter2"), "a secret was printed: {}", said.stderr);
            assert_nothing_written(what, &place);
        }
        if !words.iter().any(|word| word.starts_with("/no/") || *word == "NO_SUCH") {
            place.run(&["policy", "check", file]).exits(4);
        }
    }
}

#[test]
fn policy_files_that_are_none() {
    let place = Place::new();
    let folder = place.path().to_str().unwrap().to_owned();
    let latin = place.path().join("latin.toml");
    fs::write(&latin, b"version = 1 # caf\xe9\n").unwrap();
    let large = place.write("large.toml", &format!("version = 1\n#{}\n", "x".repeat(2 * 1024 * 1024)));
    for (what, path) in [
        ("missing", "no-such.toml"),
        ("folder", folder.as_str()),
        ("not UTF-8", latin.to_str().unwrap()),
        ("too large", large.to_str().unwrap()),
    ] {
        let said = place.run(&["start", "--port", "0", "--config", path]).exits(4).says(&[path]);
        assert_one_error(what, &said);
        assert_nothing_written(what, &place);
    }
}

#[test]
fn port_that_is_taken() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for arguments in [&["start", "--port", &port][..], &["start", "-D", "--port", &port]] {
        let said = place.run(arguments).exits(1).says(&[&port, "hint:"]);
        assert_one_error("port taken", &said);
        assert_nothing_written("port taken", &place);
    }
}

/// Root may write anywhere, so the disk itself is read-only here.
#[test]
fn state_directory_that_is_read_only() {
    match Place::on_small_disk("size=64k,ro") {
        Ok(place) => {
            let said = place.run(&["start", "--port", "0"]).exits(1).says(&[place.state().to_str().unwrap()]);
            assert_one_error("read-only", &said);
        }
        Err(why) => eprintln!("SKIPPED: {why}"),
    }
}

#[test]
fn state_on_a_full_disk() {
    match Place::on_small_disk("size=64k") {
        Ok(place) => {
            place.disk().fill();
            let said = place.run(&["start", "--port", "0"]).exits(1);
            assert_one_error("full disk", &said);
            assert!(!place.disk().shell("test -e \"$0/state/state.json\""), "a state without a daemon");
            place.disk().free();
            let place = Arc::new(place);
            place.run(&["start", "-D", "--port", "0"]).exits(0);
            place.run(&["stop"]).exits(0);
        }
        Err(why) => eprintln!("SKIPPED: {why}"),
    }
}

/// A directory that others could write, or that a link leads to, is nobody's state.
#[test]
fn state_directory_that_is_not_ours_alone() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = Place::new();
    let open = place.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let link = place.path().join("link");
    symlink(place.path().join("home"), &link).unwrap();
    let file = place.write("file", "");
    for path in [&open, &link, &file] {
        let said = place.run(&["start", "--port", "0", "--state", path.to_str().unwrap()]).exits(1);
        assert_one_error("state directory", &said);
        assert!(said.stderr.contains(path.to_str().unwrap()), "{}", said.stderr);
    }
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.path().join("home")).unwrap().count(), 0);
}

/// What cannot be a line of an environment file is refused, not printed in two lines.
#[test]
fn newline_in_a_value_of_the_environment() {
    let driver = Driver::all_possible()[0];
    let place = Arc::new(Place::new());
    let state = place.path().join("two\nlines");
    let weir = |arguments: &[&str]| {
        let mut command = place.weir(arguments);
        command.env("WEIR_STATE", &state);
        tests::harness::place::finish(command)
    };
    let started = weir(&["start", "-D", "--port", "0", "--driver", driver.flag()]);
    if started.code == 0 {
        let said = weir(&["env"]);
        let stopped = weir(&["stop"]);
        assert!([2, 4].contains(&said.code), "{said:?}");
        assert_eq!(said.stdout, "", "{said:?}");
        stopped.exits(0);
    } else {
        assert!([2, 4].contains(&started.code), "{started:?}");
        assert_one_error("newline", &started);
    }
}

/// `error:` once, at most one `caused by:` and `hint:` each, nothing on stdout.
fn assert_one_error(what: &str, said: &Finished) {
    let count = |word: &str| said.stderr.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!(count("error:"), 1, "{what}: {}", said.stderr);
    assert!(said.stderr.lines().count() <= 4, "{what}: {}", said.stderr);
    assert!(!said.stderr.contains("panicked"), "{what}: {}", said.stderr);
    assert_eq!(said.stdout, "", "{what}");
}

/// No state that names a daemon, and no journal.
fn assert_nothing_written(what: &str, place: &Place) {
    assert!(!place.state_file().exists(), "{what}: a state without a daemon");
    let runs = place.state().join("runs");
    let left = fs::read_dir(&runs).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{what}: runs of no daemon in {}", runs.display());
}
