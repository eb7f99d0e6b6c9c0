//! The policy as a whole: tables of (policy, target) -> decision, and of (file, complaint).

use std::collections::HashSet;

use super::host_rule::plain_host;
use super::*;

fn authority(text: &str) -> Authority {
    let (host, port) = text.rsplit_once(':').unwrap();
    Authority { host: plain_host(host).unwrap(), port: port.parse().unwrap() }
}

fn policy(text: &str) -> Policy {
    let config = Config::parse(text, "weir.toml").unwrap_or_else(|error| panic!("{error}"));
    Policy::new(config, &Environment::default()).unwrap()
}

fn preset(preset: Preset) -> Policy {
    Policy::new(Config::preset(preset), &Environment::default()).unwrap()
}

/// `pass RULE`, `would CODE RULE` or `CODE RULE`; the same for both ways to ask.
fn verdict(policy: &Policy, target: &str) -> String {
    let target = authority(target);
    let tell = |passage: &Passage| match &passage.would_refuse {
        None => format!("pass {}", passage.rule),
        Some(refusal) => format!("would {} {}", refusal.code, refusal.rule),
    };
    let connect = match policy.decide(&Facts { ask: Ask::Connect, target: &target }) {
        Decision::Tunnel(passage) => tell(&passage),
        Decision::Refuse(refusal) => format!("{} {}", refusal.code, refusal.rule),
        Decision::Forward(_) => panic!("a CONNECT is not forwarded"),
    };
    let http = match policy.decide(&Facts { ask: Ask::Http, target: &target }) {
        Decision::Forward(passage) => tell(&passage),
        Decision::Refuse(refusal) => format!("{} {}", refusal.code, refusal.rule),
        Decision::Tunnel(_) => panic!("a plain request is not tunnelled"),
    };
    assert_eq!(connect, http);
    connect
}

fn passage(policy: &Policy, target: &str) -> Passage {
    match policy.decide(&Facts { ask: Ask::Connect, target: &authority(target) }) {
        Decision::Tunnel(passage) => passage,
        other => panic!("{target}: {other:?}"),
    }
}

/// `open`, or `noted CODE RULE` / `refused CODE RULE`.
fn check(policy: &Policy, passage: &Passage, to: &str) -> String {
    let own = ["127.0.0.1:3128".parse().unwrap()];
    match policy.check_address(passage, to.parse().unwrap(), &own) {
        AddressCheck::Open => "open".into(),
        AddressCheck::Noted(refusal) => format!("noted {} {}", refusal.code, refusal.rule),
        AddressCheck::Refused(refusal) => format!("refused {} {}", refusal.code, refusal.rule),
    }
}

#[test]
fn presets_decide_as_their_comments_say() {
    let cases = [
        // target, ci, agent and strict
        ("a.test:443", "pass default", "not_allowed default"),
        ("a.test:8443", "pass default", "not_allowed default"),
        ("a.test:25", "denied_port guard", "not_allowed default"),
        ("127.0.0.1:8080", "pass default", "not_allowed default"),
        ("10.0.0.1:443", "pass default", "not_allowed default"),
        ("169.254.169.254:80", "ip_class guard", "ip_class guard"),
        ("[fd00:ec2::254]:80", "ip_class guard", "ip_class guard"),
        ("[::ffff:169.254.169.254]:80", "ip_class guard", "ip_class guard"),
        ("metadata.google.internal:80", "ip_class guard", "ip_class guard"),
    ];
    let (ci, agent, strict) = (preset(Preset::Ci), preset(Preset::Agent), preset(Preset::Strict));
    for (target, at_ci, at_agent) in cases {
        assert_eq!(verdict(&ci, target), at_ci, "ci {target}");
        assert_eq!(verdict(&agent, target), at_agent, "agent {target}");
        assert_eq!(verdict(&strict, target), at_agent, "strict {target}");
    }
}

#[test]
fn presets_parse_and_ci_is_the_default() {
    assert_eq!(Config::preset(Preset::Ci).canonical(), Config::default().canonical());
    let digests: HashSet<String> =
        Preset::WORDS.iter().map(|(_, one)| preset(*one).digest().to_owned()).collect();
    assert_eq!(digests.len(), Preset::WORDS.len());
    for (word, one) in Preset::WORDS {
        assert_eq!(one.source(), format!("preset:{word}"));
        assert_eq!(preset(*one).source(), one.source());
        let based = Config::parse(&format!("preset = \"{word}\""), "weir.toml").unwrap();
        assert_eq!(based.canonical(), Config::preset(*one).canonical());
    }
    assert_eq!(preset(Preset::Ci).digest().len(), 64);
}

const ROUTES: &str = r#"
    default = "deny"
    [guard]
    reach = "boundary"
    raw_ip = "deny"
    [[route]]
    id = "no-upload"
    hosts = ["upload.a.test"]
    action = "deny"
    reason = "uploads go elsewhere"
    [[route]]
    id = "a"
    hosts = [".a.test"]
    action = "splice"
    [[route]]
    id = "git"
    hosts = ["git.b.test:22", "git.b.test"]
    action = "splice"
    [[route]]
    id = "never-in-there"
    hosts = ["ip:10.9.0.0/16"]
    action = "deny"
    [[route]]
    id = "inside"
    hosts = ["broker.b.test", "ip:10.0.0.0/8", "192.168.1.1:8443"]
    action = "splice"
"#;

#[test]
fn routes_decide_first_match_first() {
    let enforced = policy(ROUTES);
    let cases = [
        ("upload.a.test:443", "denied_host no-upload"),
        ("www.a.test:443", "pass a"),
        ("www.a.test:8443", "denied_port guard"),
        ("git.b.test:22", "pass git"),
        ("git.b.test:443", "pass git"),
        ("git.b.test:23", "denied_port guard"),
        ("other.b.test:443", "not_allowed default"),
        ("other.b.test:25", "not_allowed default"),
        ("10.1.2.3:443", "pass inside"),
        ("[::ffff:10.1.2.3]:443", "pass inside"),
        ("10.9.2.3:443", "denied_host never-in-there"),
        ("[::ffff:10.9.2.3]:443", "denied_host never-in-there"),
        ("192.168.1.1:8443", "pass inside"),
        ("192.168.1.1:443", "not_allowed default"),
        ("11.0.0.1:443", "not_allowed default"),
    ];
    let audited = policy(&format!("mode = \"audit\"\n{ROUTES}"));
    let observed = policy(&format!("mode = \"observe\"\n{ROUTES}"));
    for (target, expected) in cases {
        assert_eq!(verdict(&enforced, target), expected, "{target}");
        let in_audit =
            if expected.starts_with("pass") { expected.to_owned() } else { format!("would {expected}") };
        assert_eq!(verdict(&audited, target), in_audit, "{target}");
        assert_eq!(verdict(&observed, target), "pass observe", "{target}");
    }
    let Decision::Refuse(refusal) =
        enforced.decide(&Facts { ask: Ask::Connect, target: &authority("upload.a.test:443") })
    else {
        panic!("must be refused")
    };
    assert_eq!(&*refusal.reason, "uploads go elsewhere");
}

#[test]
fn literals_are_refused_where_raw_ip_says_so() {
    let text =
        "[guard]\nraw_ip = \"deny\"\n[[route]]\nid = \"r\"\nhosts = [\"10.0.0.7\"]\naction = \"splice\"";
    let policy = policy(text);
    assert_eq!(verdict(&policy, "10.0.0.7:443"), "pass r");
    assert_eq!(verdict(&policy, "10.0.0.8:443"), "raw_ip guard");
    assert_eq!(verdict(&policy, "a.test:443"), "pass default");
}

#[test]
fn resolved_addresses_are_checked_before_they_are_dialled() {
    let policy = policy(ROUTES);
    let (a, inside) = (passage(&policy, "www.a.test:443"), passage(&policy, "broker.b.test:443"));
    let cases = [
        (&a, "8.8.8.8:443", "open"),
        (&a, "10.0.0.1:443", "refused ip_class guard"),
        (&a, "[::1]:443", "refused ip_class guard"),
        (&a, "169.254.169.254:443", "refused ip_class guard"),
        (&a, "192.0.2.1:443", "open"),
        (&inside, "10.0.0.1:443", "open"),
        (&inside, "[64:ff9b::a00:1]:443", "open"),
        (&inside, "10.9.0.1:443", "refused denied_host never-in-there"),
        (&inside, "192.168.1.1:443", "refused ip_class guard"),
        (&inside, "127.0.0.1:3128", "refused loop guard"),
        (&inside, "0.0.0.0:3128", "refused loop guard"),
    ];
    for (passage, to, expected) in cases {
        assert_eq!(check(&policy, passage, to), expected, "{to} under {}", passage.rule);
    }
}

#[test]
fn an_address_block_that_is_denied_cannot_be_reached_by_a_name() {
    let policy = policy("[[route]]\nid = \"no\"\nhosts = [\"ip:198.18.0.0/15\"]\naction = \"deny\"");
    let any = passage(&policy, "a.test:443");
    assert_eq!(check(&policy, &any, "198.18.0.1:443"), "refused denied_host no");
    assert_eq!(check(&policy, &any, "[::ffff:198.18.0.1]:443"), "refused denied_host no");
    assert_eq!(check(&policy, &any, "8.8.8.8:443"), "open");
}

#[test]
fn no_route_opens_metadata_and_no_mode_a_loop() {
    let routes = "[[route]]\nid = \"all\"\nhosts = [\"ip:0.0.0.0/0\", \"a.test\", \"metadata.goog\"]\naction = \"splice\"";
    let enforced = policy(routes);
    assert_eq!(verdict(&enforced, "169.254.169.254:80"), "ip_class guard");
    assert_eq!(verdict(&enforced, "metadata.goog:80"), "ip_class guard");
    let a = passage(&enforced, "a.test:80");
    assert_eq!(check(&enforced, &a, "169.254.169.254:80"), "refused ip_class guard");
    for mode in ["audit", "observe"] {
        let lax = policy(&format!("mode = \"{mode}\"\n{routes}"));
        let a = passage(&lax, "a.test:80");
        assert_eq!(check(&lax, &a, "[::1]:3128"), "refused loop guard");
        let expected = if mode == "audit" { "noted ip_class guard" } else { "open" };
        assert_eq!(check(&lax, &a, "169.254.169.254:80"), expected);
    }
}

#[test]
fn audit_tells_a_request_once() {
    let policy = policy("mode = \"audit\"\ndefault = \"deny\"\n[guard]\nreach = \"boundary\"");
    let told = passage(&policy, "a.test:443");
    assert!(told.would_refuse.is_some());
    assert_eq!(check(&policy, &told, "10.0.0.1:443"), "open");
}

#[test]
fn reach_and_ports_follow_the_listener_unless_written() {
    let remote = "[listen]\nhttp = \"0.0.0.0:3128\"\nallow_remote = true\n";
    let boundary = policy(remote);
    assert_eq!(verdict(&boundary, "10.0.0.1:443"), "ip_class guard");
    assert_eq!(verdict(&boundary, "a.test:8443"), "denied_port guard");
    let local = policy(&format!("{remote}[guard]\nreach = \"local\""));
    assert_eq!(verdict(&local, "10.0.0.1:8443"), "pass default");
    assert!(local.blind_spots().iter().any(|line| line.contains("remote listener")));
    let mut config = Config::default();
    config.listen.http = "0.0.0.0:0".parse().unwrap();
    let refused = Policy::new(config, &Environment::default()).unwrap_err();
    assert!(refused.problem.contains("loopback"), "{refused}");
}

#[test]
fn the_gate_counts_what_the_file_says() {
    let ci = preset(Preset::Ci);
    let counted: Vec<Code> = Code::ALL.iter().copied().filter(|code| ci.counts(*code)).collect();
    assert_eq!(counted, [Code::NotAllowed, Code::DeniedHost]);
    let other = policy("[gate]\nfail_on = [\"raw_ip\"]");
    assert!(other.counts(Code::RawIp) && !other.counts(Code::DeniedHost));
}

#[test]
fn named_parents_take_what_is_not_excepted() {
    let text = r#"
        [upstream]
        default = "corp"
        [upstream.corp]
        url = "https://proxy.corp.test:3129"
        auth_ref = "env:PROXY_AUTH"
        no_proxy = [".in.test", "10.0.0.0/8"]
        fail = "closed"
    "#;
    let config = Config::parse(text, "weir.toml").unwrap();
    let without = Policy::new(config.clone(), &Environment::default()).unwrap_err();
    assert!(without.problem.contains("auth_ref"), "{without}");
    let material = Material { basic: Some(Basic::new("u:p").unwrap()), roots: vec![vec![1]] };
    let environment =
        Environment { materials: [("corp".to_owned(), material)].into(), ..Environment::default() };
    let policy = Policy::new(config, &environment).unwrap();
    let parent = |target: &str, ask| policy.parent_for(&authority(target), ask);
    let corp = parent("a.test:443", Ask::Connect).unwrap();
    assert!(corp.tls && corp.basic.is_some() && corp.roots.len() == 1 && &*corp.name == "corp");
    assert_eq!(corp.authority.to_string(), "proxy.corp.test:3129");
    assert!(parent("a.test:80", Ask::Http).is_some());
    for direct in ["x.in.test:443", "10.1.1.1:443", "localhost:1", "[::1]:1"] {
        assert!(parent(direct, Ask::Connect).is_none(), "{direct}");
    }
    assert_eq!(policy.parents().count(), 1);
    assert!(policy.blind_spots().iter().any(|line| line.contains("corp")));
}

#[test]
fn explanations_name_rule_code_and_way() {
    let policy = policy(&format!("{ROUTES}\n[resolve]\n\"*.a.test\" = [\"10.0.0.1\", \"8.8.8.8\"]"));
    let told = policy.explain("https://user@WWW.a.test/x?y").unwrap();
    assert_eq!((told.decision, told.rule.as_str(), told.ask), ("tunnel", "a", "connect"));
    assert_eq!((told.target.as_str(), told.resolve.len()), ("www.a.test:443", 2));
    assert_eq!(told.refused_addresses, ["ip_class: 10.0.0.1 is of class private"]);
    let told = policy.explain("http://upload.a.test").unwrap();
    assert_eq!((told.decision, told.code, told.status), ("refuse", Some("denied_host"), Some(403)));
    assert_eq!((told.ask, told.counts, told.target.as_str()), ("http", true, "upload.a.test:80"));
    assert_eq!(policy.explain("10.9.0.1:443").unwrap().class, Some("private"));
    assert_eq!(policy.explain("[fd00::1]:8443").unwrap().target, "[fd00::1]:8443");
    assert_eq!(policy.explain("a.test").unwrap().target, "a.test:443");
    let json = serde_json::to_value(policy.explain("a.test").unwrap()).unwrap();
    assert_eq!((&json["schema"], &json["decision"]), (&1.into(), &"tunnel".into()));
    for text in ["", "ftp://a.test", "a.test:0", "http://a b/", "https://"] {
        assert!(policy.explain(text).is_err(), "{text:?}");
    }
}

/// A bad file, the start of its complaint, and a word of the hint.
const BAD_FILES: &[(&str, &str, &str)] = &[
    ("mod = \"audit\"", "w:1:1: mod: unknown key", "`mode`"),
    ("\n  mode = \"enfroce\"", "w:2:10: mode: unknown value \"enfroce\"", "\"enforce\""),
    ("mode = 1", "w:1:8: mode: must be a string, is an integer", ""),
    ("version = 2", "w:1:11: version: unknown version", "version = 1"),
    ("default = \"inspect\"", "w:1:11: default: \"inspect\" is not supported yet", "splice"),
    ("fail_on = []", "w:1:1: fail_on: unknown key", "[gate]"),
    ("guard = 1", "w:1:9: guard: must be a table, is an integer", ""),
    ("[packages]\nmalware = \"deny\"", "w:1:2: packages: not supported yet", "take it out"),
    ("[[packages.source]]\nkind = \"index\"", "w:1:3: packages: not supported yet", ""),
    ("[listen]\nunix = \"/x\"", "w:2:1: listen.unix: not supported yet", ""),
    ("[[listen.reverse]]\nid = \"x\"", "w:1:10: listen.reverse: not supported yet", ""),
    ("[listen]\nhttp = \"0.0.0.0:1\"", "w:2:8: listen.http: 0.0.0.0 is not a loopback", "allow_remote"),
    ("[listen]\nhttp = \"localhost:1\"", "w:2:8: listen.http: must be an address", "127.0.0.1:0"),
    ("[guard]\nreach = \"far\"", "w:2:9: guard.reach: unknown value", "\"boundary\""),
    ("[guard]\ndeny = [\"privat\"]", "w:2:9: guard.deny[0]: unknown value", "\"private\""),
    ("[guard]\nallow_cidrs = [\"10.0.0.1/8\"]", "w:2:16: guard.allow_cidrs[0]: ", ""),
    ("[guard]\nports = [0]", "w:2:10: guard.ports[0]: \"0\" is no port", "443"),
    ("[guard]\nports = []", "w:2:9: guard.ports: opens no port", ""),
    ("[guard]\nports = 443", "w:2:9: guard.ports: must be an array", ""),
    ("[resolve]\na.test = \"10.0.0.1\"", "w:2:1: resolve.a: must be an address", "quote"),
    ("[resolve]\n\"a.test\" = \"b.test\"", "w:2:12: resolve.\"a.test\": \"b.test\" is no IP address", ""),
    ("[resolve]\n\"a.test\" = []", "w:2:12: resolve.\"a.test\": must name 1 to 16", "deny"),
    ("[resolve]\n\"a.test:1\" = \"10.0.0.1\"", "w:2:14: resolve.\"a.test:1\": the key must be a name", ""),
    (
        "[resolve]\n\"A.test\" = \"10.0.0.1\"\n\"a.test\" = \"10.0.0.1\"",
        "w:3:12: resolve.\"a.test\": the name stands here twice",
        "",
    ),
    (
        "[gate]\nfail_on = [\"pkg_malware\"]",
        "w:2:12: gate.fail_on[0]: \"pkg_malware\" is not supported yet",
        "",
    ),
    ("[gate]\nfail_on = [\"bogus\"]", "w:2:12: gate.fail_on[0]: unknown value \"bogus\"", ""),
    ("[upstream]\ndefault = \"corp\"", "w:2:11: upstream.default: no [upstream.corp]", "direct"),
    ("[upstream.corp]\nurll = \"x\"", "w:1:1: upstream.corp.url: is missing", ""),
    ("[upstream.corp]\nurl = \"socks5h://p.test:1\"", "w:2:7: upstream.corp.url: SOCKS", ""),
    (
        "[upstream.corp]\nurl = \"http://u:hunter2@p.test:1\"",
        "w:2:7: upstream.corp.url: carries a user",
        "auth_ref",
    ),
    ("[upstream.env]\nurl = \"http://p.test\"", "w:1:1: upstream.env: \"env\" cannot be the name", ""),
    (
        "[upstream.c]\nurl = \"http://p.test\"\nauth_ref = \"u:hunter2\"",
        "w:3:12: upstream.c.auth_ref: must be a reference",
        "env:NAME",
    ),
    (
        "[upstream.c]\nurl = \"http://p.test\"\nauth_ref = \"cmd:[hunter2]\"",
        "w:3:12: upstream.c.auth_ref: cmd: references are not supported yet",
        "",
    ),
    (
        "[upstream.c]\nurl = \"http://p.test\"\nca_file = \"x\"",
        "w:1:1: upstream.c.ca_file: has no effect",
        "https",
    ),
    (
        "[upstream.c]\nurl = \"http://p.test\"\nfail = \"open\"",
        "w:3:8: upstream.c.fail: unknown value",
        "closed",
    ),
    (
        "[upstream.c]\nurl = \"http://p.test\"\nno_proxy = [\"192.168.*\"]",
        "w:3:13: upstream.c.no_proxy[0]: ",
        "",
    ),
    ("[route]\nid = \"x\"", "w:1:1: route: must be an array of tables", "[[route]]"),
    ("[[route]]\nhosts = [\"a.test\"]\naction = \"deny\"", "w:1:1: route[0].id: is missing", ""),
    ("[[route]]\nid = \"x\"\naction = \"deny\"", "w:1:1: route[0].hosts: is missing", ""),
    ("[[route]]\nid = \"x\"\nhosts = []\naction = \"deny\"", "w:3:9: route[0].hosts: names no host", ""),
    (
        "[[route]]\nid = \"x\"\nhosts = [\"*\"]\naction = \"deny\"",
        "w:3:10: route[0].hosts[0]: a bare",
        "default",
    ),
    (
        "[[route]]\nid = \"x\"\nhosts = [\"*.com\"]\naction = \"deny\"",
        "w:3:10: route[0].hosts[0]: \"com\" is a public",
        "",
    ),
    ("[[route]]\nid = \"x\"\nhosts = [\"a.test\"]", "w:1:1: route[0].action: is missing", ""),
    (
        "[[route]]\nid = \"x\"\nhosts = [\"a.test\"]\naction = \"inspect\"",
        "w:4:10: route[0].action: \"inspect\" is not supported yet",
        "",
    ),
    (
        "[[route]]\nid = \"x\"\nhosts = [\"a.test\"]\naction = \"splice\"\npaths = [\"/x\"]",
        "w:5:1: route[0].paths: not supported yet",
        "",
    ),
    (
        "[[route]]\nid = \"default\"\nhosts = [\"a.test\"]\naction = \"deny\"",
        "w:2:6: route[0].id: \"default\" is the name of a built-in",
        "",
    ),
    (
        "[[route]]\nid = \"a b\"\nhosts = [\"a.test\"]\naction = \"deny\"",
        "w:2:6: route[0].id: must be 1 to 64",
        "",
    ),
    (
        "[[route]]\nid = \"x\"\nhosts = [\"a.test\"]\naction = \"deny\"\nreason = \"a\\nb\"",
        "w:5:10: route[0].reason: must be one line",
        "",
    ),
    (
        "[[route]]\nid = \"x\"\nhosts = [\"a.test\"]\naction = \"deny\"\nrequire_sni = true",
        "w:1:1: route[0].require_sni: has no effect",
        "",
    ),
    ("mode = \"audit\"\nmode = \"audit\"", "w:2:1: duplicate key", ""),
    ("mode = ", "w:1:", "TOML"),
    ("preset = \"lax\"", "w:1:10: preset: unknown value \"lax\"", "\"agent\""),
];

#[test]
fn complaints_name_place_key_problem_and_way_out() {
    for &(text, start, hint) in BAD_FILES {
        let error = Config::parse(text, "w").err().unwrap_or_else(|| panic!("accepted: {text}"));
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        let line = lines.iter().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("{text}\nwants {start}\ngives {error}"));
        assert!(line.contains(hint), "{text}\nwants the hint {hint}\ngives {line}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn all_problems_of_a_file_are_told_in_order() {
    let text = "mode = \"x\"\n[guard]\nreach = 1\nbogus = 2\n[[route]]\nid = \"r\"\nhosts = [\"*\", \"a..test\"]\naction = \"y\"\n";
    let error = Config::parse(text, "w").unwrap_err();
    let lines: Vec<usize> = error.problems.iter().map(|problem| problem.place.line).collect();
    assert_eq!(lines, [1, 3, 4, 7, 7, 8], "{error}");
}

#[test]
fn the_canonical_text_means_the_same() {
    let full = r#"
        version = 1
        preset = "agent"
        mode = "audit"
        [listen]
        http = "[::1]:3128"
        [guard]
        ports = [80, "8000-8999"]
        deny_ports = []
        allow_cidrs = ["10.0.0.0/8"]
        [resolve]
        "*.x.test" = "10.0.0.7"
        "x.test" = ["10.0.0.8", "fd00::8"]
        [tls]
        extra_roots = ["ca \"one\".pem"]
        [upstream]
        default = "corp.one"
        [upstream."corp.one"]
        url = "https://[fd00::1]"
        auth_ref = "file:secret"
        ca_file = "ca.pem"
        ca_optional = true
        no_proxy = ["*"]
        [[route]]
        id = "r"
        hosts = ["label:npm", "*.A.test:8443", "ip:fd00::/8:1", "[fd00::1]"]
        action = "splice"
        require_sni = true
        [[route]]
        id = "s"
        hosts = ["b.test"]
        action = "deny"
        reason = "because \u00e9 \"so\""
    "#;
    let canonical = Config::parse(full, "w").unwrap().canonical();
    assert_eq!(Config::parse(&canonical, "again").unwrap().canonical(), canonical);
    for word in ["\"*.a.test:8443\"", "corp.one", "8000-8999", "\"10.0.0.8\", \"fd00::8\"", "audit", "443"] {
        assert!(canonical.contains(word), "{word} in\n{canonical}");
    }
    config::fuzz(full.as_bytes());
}

#[test]
fn the_digest_names_the_behaviour_not_the_spelling() {
    let one = policy("mode = \"audit\" # a comment\n[guard]\ndeny_ports = [25]");
    let same = policy("[guard]\ndeny_ports = [\"25\"]\n[listen]\nhttp = \"127.0.0.1:0\"").digest;
    assert_ne!(one.digest(), same);
    assert_eq!(policy("version = 1").digest(), same);
}

#[test]
fn arbitrary_text_never_panics() {
    use proptest::prelude::*;
    let words = "version = 1\n|[[route]]\n|id = \"r\"\n|hosts = [\".a.test\", \"ip:::/0\"]\n|action = \"deny\"\n|[guard]\n|ports = [1]\n|[resolve]\n|\"a.test\" = \"::1\"\n|[upstream.x]\nurl=\"http://p.test\"\n|preset = \"strict\"\n|é|\"|[|]|=|\u{0}|.";
    let words: Vec<&str> = words.split('|').collect();
    proptest!(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }, |(picks in prop::collection::vec(0..words.len(), 0..12), junk in ".{0,20}")| {
        let text: String = picks.iter().map(|pick| words[*pick]).collect::<String>() + &junk;
        config::fuzz(text.as_bytes());
    });
}
