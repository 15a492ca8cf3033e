//! The configuration, through the real command: precedence, and every kind of fault.

use crate::support::command::{Done, Sandbox};

/// Stands where secrets stand; must never be seen.
const MARKER: &str = "hunter2-hunter2-hunter2";

/// Both the check and the receiver itself refuse the configuration with one line that names key, origin and fix, and
/// leave the directory as it was. Gives the line.
fn refused(sandbox: &Sandbox, key: &str, origin: &str) -> String {
    let before = sandbox.listing();
    let Done { code, stdout, stderr } = sandbox.run(&["check"]);
    assert_eq!(code, 78, "{key}: {stdout}{stderr}");
    assert_eq!(stdout, "", "{key}");
    assert_eq!(stderr.matches('\n').count(), 1, "not one line: {stderr}");
    let start = format!("finhook: configuration: {key} ({origin}): ");
    assert!(stderr.starts_with(&start), "{stderr} does not start with {start}");
    let (problem, fix) = stderr[start.len()..].trim_end().split_once("; ").unwrap_or_default();
    assert!(!problem.is_empty() && !fix.is_empty(), "no problem or no fix in {stderr}");
    assert!(!stderr.contains(MARKER), "a secret in {stderr}");

    let serve = sandbox.run(&["serve"]);
    assert_eq!((serve.code, serve.stdout, &serve.stderr), (78, String::new(), &stderr));
    assert_eq!(sandbox.listing(), before, "{key}: something was created");
    stderr
}

/// A faulty `finhook.toml` is refused for the key on that line.
fn refused_file(toml: &str, key: &str, line: usize) -> String {
    refused(&Sandbox::with_config(toml), key, &format!("finhook.toml, line {line}"))
}

fn refused_variable(name: &str, value: &str, key: &str) -> String {
    refused(&Sandbox::new().var(name, value), key, &format!("variable {name}"))
}

fn checked(sandbox: &Sandbox) -> Done {
    let before = sandbox.listing();
    let done = sandbox.run(&["check"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(sandbox.listing(), before, "something was created");
    done
}

fn http_sink(more: &str) -> String {
    format!("[sinks.b]\ntype = \"http\"\nurl = \"http://127.0.0.1:9/\"\n{more}\n")
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    refused_file("colour = 1\n", "colour", 1);
    refused_file("[sever]\nbind = \"127.0.0.1:0\"\n", "sever", 1);
    refused_file("[server]\nbnd = \"127.0.0.1:0\"\n", "server.bnd", 2);
    refused_file("[endpoints.eu]\nsecrets = []\n", "endpoints.eu.secrets", 2);
    refused_file("[gateway]\nkey = \"x\"\n", "gateway.key", 2);
    refused_file("[sinks.stdout]\npath = \"x\"\n", "sinks.stdout.path", 2);
    refused_file("[sinks.a]\ntype = \"file\"\npath = \"x\"\nurl = \"y\"\n", "sinks.a.url", 4);
    refused_file(&http_sink("rotate_bytes = 5"), "sinks.b.rotate_bytes", 4);
    refused_file(&http_sink("retry = { max = \"1s\" }"), "sinks.b.retry.max", 4);
    refused_file(&http_sink("match = { event = [] }"), "sinks.b.match.event", 4);
    let line = refused_variable("FINHOOK__SERVER__MAX_BODY", "5", "server.max_body");
    assert!(line.contains("max_body_bytes"), "the known keys are not named: {line}");
    refused_variable("FINHOOK__SERVER__BIND__PORT", "5", "server.bind");
    refused_variable("FINHOOK__A[7]", "5", "a[7]");
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    refused_file("[server]\nmax_body_bytes = \"many\"\n", "server.max_body_bytes", 2);
    refused_file("[server]\nmax_body_bytes = 1.5\n", "server.max_body_bytes", 2);
    refused_file("[server]\nmax_body_bytes = 99999999999999999999\n", "server.max_body_bytes", 2);
    refused_file("[server]\nheader_timeout = 5\n", "server.header_timeout", 2);
    refused_file("[server]\nheader_timeout = \"5 lightyears\"\n", "server.header_timeout", 2);
    refused_file("[server]\nbind = \"localhost\"\n", "server.bind", 2);
    refused_file("server = 5\n", "server", 1);
    refused_file("[sinks.stdout]\ninclude_body = \"yes\"\n", "sinks.stdout.include_body", 2);
    refused_file(
        "[endpoints.fin]\nsigning_secrets = [\n\"0123456789abcdef\",\n5]\n",
        "endpoints.fin.signing_secrets[1]",
        4,
    );
    refused_file("[endpoints.fin]\nsigning_secrets = \"0123456789abcdef\"\n", "endpoints.fin.signing_secrets", 2);
    refused_file("[log]\nlevel = \"loud\"\n", "log.level", 2);
    refused_file("[log]\nformat = \"xml\"\n", "log.format", 2);
    refused_file("[sinks.a]\ntype = \"exec\"\n", "sinks.a.type", 2);
    refused_file("[sinks.stdout]\nfrom = \"yesterday\"\n", "sinks.stdout.from", 2);
    refused_variable("FINHOOK__SERVER__MAX_CONNECTIONS", "many", "server.max_connections");
    refused_variable("FINHOOK__GATEWAY__SSE", "maybe", "gateway.sse");
}

#[test]
fn a_number_or_a_length_of_time_that_makes_no_sense_is_refused() {
    for key in ["max_connections", "max_body_bytes"] {
        refused_file(&format!("[server]\n{key} = 0\n"), &format!("server.{key}"), 2);
        refused_file(&format!("[server]\n{key} = -1\n"), &format!("server.{key}"), 2);
    }
    for key in ["header_timeout", "body_timeout", "idle_timeout"] {
        refused_file(&format!("[server]\n{key} = \"0s\"\n"), &format!("server.{key}"), 2);
    }
    refused_file("[server]\nheader_timeout = \"300y\"\n", "server.header_timeout", 2);
    refused_file(&http_sink("concurrency = 0"), "sinks.b.concurrency", 4);
    refused_file(&http_sink("timeout = \"0s\""), "sinks.b.timeout", 4);
    refused_file(&http_sink("retry = { base = \"0s\" }"), "sinks.b.retry.base", 4);
    refused_file(&http_sink("retry = { base = \"5s\", cap = \"1s\" }"), "sinks.b.retry.cap", 4);
    refused_file("[sinks.a]\ntype = \"file\"\npath = \"x\"\nkeep = 0\n", "sinks.a.keep", 4);
    refused_file("[sinks.a]\ntype = \"file\"\npath = \"x\"\nrotate_bytes = 0\n", "sinks.a.rotate_bytes", 4);
    refused_file("[journal]\ndedupe_window = \"0s\"\n", "journal.dedupe_window", 2);
}

#[test]
fn a_dedupe_window_shorter_than_the_retention_is_refused() {
    refused_file("[journal]\nretention = \"8d\"\ndedupe_window = \"7d\"\n", "journal.dedupe_window", 3);
    // The fault is that of the two together, whichever of them was set.
    let sandbox = Sandbox::new().var("FINHOOK__JOURNAL__RETENTION", "91d");
    refused(&sandbox, "journal.dedupe_window", "built-in default");
}

#[test]
fn a_key_and_its_twin_in_a_file_are_refused_together() {
    let both = |section: &str, key: &str, value: &str| {
        let toml = format!("{section}\n{key} = {value}\n{key}_file = \"there\"\n");
        let line =
            refused_file(&toml, &format!("{}.{key}", section.lines().next().unwrap().trim_matches(['[', ']'])), {
                section.lines().count() + 1
            });
        assert!(line.contains(&format!("{key}_file")), "{line}");
    };
    let secret = format!("\"{MARKER}\"");
    both("[endpoints.fin]", "signing_secrets", &format!("[{secret}]"));
    both("[endpoints.fin]", "client_secret", &secret);
    both("[admin]", "token", &secret);
    both("[admin]\ntoken = \"the-operators-own\"", "reader_token", &secret);
    both("[gateway]", "token", &secret);
    both("[gateway]\nbind = \"127.0.0.1:0\"", "api_key", &secret);
    both(http_sink("").trim_end(), "signing_secret", "\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"");
    // Also when they are in different layers.
    let sandbox = Sandbox::with_config("[admin]\ntoken_file = \"there\"\n").var("FINHOOK__ADMIN__TOKEN", MARKER);
    refused(&sandbox, "admin.token", "variable FINHOOK__ADMIN__TOKEN");
}

#[test]
fn an_unreadable_secret_file_is_refused() {
    for key in ["client_secret_file", "signing_secrets_file"] {
        let sandbox = Sandbox::with_config(&format!("[endpoints.fin]\n{key} = \"folder\"\n")).file("folder/x", "");
        refused(&sandbox, &format!("endpoints.fin.{key}"), "finhook.toml, line 2");
    }
    refused_file("[admin]\ntoken_file = \"missing\"\n", "admin.token_file", 2);
    refused_file(&http_sink("signing_secret_file = \"missing\""), "sinks.b.signing_secret_file", 4);
    refused_file("[gateway]\nbind = \"127.0.0.1:0\"\napi_key_file = \"missing\"\n", "gateway.api_key_file", 3);
    let admin = "[admin]\ntoken_file = \"token\"\n";
    for contents in [&b"\n"[..], b"\xff\xfe\n", b"two\nlines\n", b"spaces in it\n"] {
        let sandbox = Sandbox::with_config(admin).file("token", contents);
        refused(&sandbox, "admin.token_file", "finhook.toml, line 2");
    }
}

#[test]
fn a_readers_token_that_keeps_nobody_from_anything_is_refused() {
    let alone = refused_file("[admin]\nreader_token = \"a reader's token, which is long\"\n", "admin.reader_token", 2);
    assert!(alone.contains("without admin.token"), "{alone}");
    let same = "a-token-that-is-long-enough";
    let both = format!("[admin]\ntoken = \"{same}\"\nreader_token = \"{same}\"\n");
    assert!(refused_file(&both, "admin.reader_token", 3).contains("is the same as admin.token"));
}

#[test]
fn an_endpoint_whose_secret_file_is_missing_or_empty_waits_for_its_secret() {
    let toml = "[endpoints.fin]\nsigning_secrets_file = \"secrets\"\n";
    for sandbox in [Sandbox::with_config(toml), Sandbox::with_config(toml).file("secrets", "")] {
        let done = checked(&sandbox);
        assert!(done.stderr.contains("no signing secret yet") && done.stderr.contains("secrets\n"), "{}", done.stderr);
        assert!(done.stdout.contains("signing_secrets_file = \"secrets\""), "{}", done.stdout);
    }
    let done = checked(&Sandbox::with_config(toml).file("secrets", "0123456789abcdef\n"));
    assert_eq!(done.stderr, "");
}

#[test]
fn an_empty_entry_among_the_secrets_is_refused_and_a_short_one_warned_of() {
    refused_file("[endpoints.fin]\nsigning_secrets = [\"\"]\n", "endpoints.fin.signing_secrets[0]", 2);
    let name = "FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS";
    refused_variable(name, &format!("{MARKER},,{MARKER}"), "endpoints.fin.signing_secrets[1]");
    refused_variable(name, &format!("{MARKER},"), "endpoints.fin.signing_secrets[1]");
    let sandbox = Sandbox::with_config("[endpoints.fin]\nsigning_secrets_file = \"secrets\"\n");
    refused(&sandbox.file("secrets", "one\n\ntwo\n"), "endpoints.fin.signing_secrets_file", "finhook.toml, line 2");

    let done = checked(&Sandbox::new().var(name, &format!("{MARKER},fifteen-bytes-x")));
    assert!(done.stderr.contains("warning: endpoints.fin.signing_secrets[1]"), "{}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(!done.stderr.contains("fifteen-bytes-x"));
}

#[test]
fn two_endpoints_on_one_path_are_refused() {
    let line =
        refused_file("[endpoints.eu]\npath = \"/hook\"\n[endpoints.us]\npath = \"/hook\"\n", "endpoints.us.path", 4);
    assert!(line.contains("endpoints.eu.path (finhook.toml, line 2)"), "{line}");
    // One of them by its name alone.
    refused_file("[endpoints.eu]\npath = \"/webhooks/us\"\n[endpoints.us]\n", "endpoints.us.path", 3);
    let line = refused_file("[endpoints.eu]\npath = \"/readyz\"\n", "endpoints.eu.path", 2);
    assert!(line.contains("server.ready_path (built-in default)"), "{line}");
    refused_file("[server]\nready_path = \"up\"\n", "server.ready_path", 2);
}

#[test]
fn a_path_that_is_relative_or_a_pattern_is_refused() {
    for path in ["webhooks/fin", "", "/a/{id}", "/a/*rest", "/:id", "/a?b", "/a b", "/a/../b"] {
        refused_file(&format!("[endpoints.fin]\npath = \"{path}\"\n"), "endpoints.fin.path", 2);
    }
}

#[test]
fn two_writers_of_one_file_are_refused() {
    let two = |first: &str, second: &str| {
        format!(
            "[sinks.a]\ntype = \"file\"\npath = \"{first}\"\n[sinks.b]\ntype = \"file\"\npath = \"{second}\"\nkeep = 3\n"
        )
    };
    let line = refused_file(&two("out/e", "./out/x/../e"), "sinks.b.path", 6);
    assert!(line.contains("sinks.a.path (finhook.toml, line 3)"), "{line}");
    // One's rotated files, in both directions.
    refused_file(&two("e.3", "e"), "sinks.b.path", 6);
    refused_file(&two("e", "e.10"), "sinks.b.path", 6);
    checked(&Sandbox::with_config(&two("e.4", "e")));
    // The journal's own file, and those beside it.
    for file in ["data/finhook.db", "data/../data/finhook.db-wal"] {
        let line = refused_file(&format!("[sinks.a]\ntype = \"file\"\npath = \"{file}\"\n"), "sinks.a.path", 3);
        assert!(line.contains("journal.path (built-in default)"), "{line}");
    }
    refused_file("[journal]\npath = \"e.1\"\n[sinks.a]\ntype = \"file\"\npath = \"e\"\n", "sinks.a.path", 5);
    // A sink that is off writes nothing.
    checked(&Sandbox::with_config(&format!("{}enabled = false\n", two("e", "e"))));
}

#[test]
fn a_listener_beyond_loopback_without_a_token_is_refused() {
    for section in ["admin", "gateway"] {
        let sandbox = Sandbox::with_config(&format!("[{section}]\nbind = \"0.0.0.0:0\"\n"));
        let line = refused(&sandbox, &format!("{section}.token"), "finhook.toml, line 1");
        assert!(line.contains("not loopback"), "{line}");
        checked(&Sandbox::with_config(&format!("[{section}]\nbind = \"0.0.0.0:0\"\ntoken = \"{MARKER}\"\n")));
        checked(&Sandbox::with_config(&format!("[{section}]\nbind = \"[::1]:0\"\n")));
    }
}

#[test]
fn two_listeners_on_one_address_are_refused() {
    refused_file("[admin]\nbind = \"127.0.0.1:8080\"\n", "admin.bind", 2);
    refused_file("[gateway]\nbind = \"127.0.0.1:9090\"\n", "gateway.bind", 2);
    checked(&Sandbox::with_config("[server]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n"));
}

#[test]
fn the_port_that_a_platform_sets_is_taken_while_nothing_else_says_where_to_listen() {
    let bind = |sandbox: Sandbox| {
        let shown = checked(&sandbox).stdout;
        let server = shown.split("[server]").nth(1).unwrap();
        server.lines().find(|line| line.starts_with("bind")).unwrap().to_owned()
    };
    let on = |sandbox: Sandbox| sandbox.var("PORT", "3456");
    assert_eq!(bind(on(Sandbox::new())), "bind = \"0.0.0.0:3456\"  # variable PORT");
    assert!(bind(on(Sandbox::with_config("server.bind = \"127.0.0.1:1\"\n"))).contains("127.0.0.1:1"));
    assert!(bind(on(Sandbox::new().var("FINHOOK__SERVER__BIND", "127.0.0.1:2"))).contains("127.0.0.1:2"));
    assert!(bind(Sandbox::new().var("PORT", "")).contains(":8080"));
    for wrong in ["http", "99999", "tcp://10.0.0.1:80", "-1"] {
        let line = refused(&Sandbox::new().var("PORT", wrong), "server.bind", "variable PORT");
        assert!(line.contains(wrong), "{line}");
    }
}

#[test]
fn a_private_address_in_a_url_is_refused_where_they_are_denied() {
    let with = |url: &str| format!("[egress]\ndeny_private = true\n[sinks.b]\ntype = \"http\"\nurl = \"{url}\"\n");
    for url in [
        "http://127.0.0.1/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0x7f.1/",
    ] {
        let line = refused_file(&with(url), "sinks.b.url", 5);
        assert!(line.contains("egress.deny_private"), "{line}");
    }
    checked(&Sandbox::with_config(&with("http://192.0.2.1/")));
    checked(&Sandbox::with_config(&with("http://127.0.0.1/").replace("deny_private = true", "deny_private = false")));
}

#[test]
fn an_endpoint_has_the_secrets_of_its_kind() {
    let inbox = |rest: &str| format!("[endpoints.inbox]\nkind = \"intercom\"\n{rest}");
    let line =
        refused_file(&inbox("signing_secrets = [\"hunter2-hunter2-hunter2\"]\n"), "endpoints.inbox.signing_secrets", 3);
    assert!(line.contains("client_secret_file"), "{line}");
    refused_file("[endpoints.inbox]\nkind = \"classic\"\n", "endpoints.inbox.kind", 2);
    refused_file(&inbox("client_secret = 5\n"), "endpoints.inbox.client_secret", 3);
    let both = inbox("client_secret = [\"hunter2-hunter2-hunter2\"]\nclient_secret_file = \"there\"\n");
    refused_file(&both, "endpoints.inbox.client_secret", 3);

    let two = checked(&Sandbox::with_config(&inbox(
        "client_secret = [\"hunter2-hunter2-hunter2\", \"the former secret\"]\n",
    )));
    assert!(two.stdout.contains("kind = \"intercom\"") && !two.stdout.contains(MARKER), "{}", two.stdout);
    assert!(two.stdout.contains("client_secret = [\"<redacted>\", \"<redacted>\"]"), "{}", two.stdout);
    let one = checked(
        &Sandbox::new()
            .var("FINHOOK__ENDPOINTS__INBOX__KIND", "intercom")
            .var("FINHOOK__ENDPOINTS__INBOX__CLIENT_SECRET", MARKER),
    );
    assert!(one.stdout.contains("client_secret = [\"<redacted>\"]"), "{}", one.stdout);
    let none = checked(&Sandbox::with_config(&inbox("")));
    assert!(none.stderr.contains("set endpoints.inbox.client_secret_file"), "{}", none.stderr);
}

#[test]
fn a_header_that_is_invalid_reserved_or_given_twice_is_refused() {
    let header = |name: &str, value: &str| {
        let toml = http_sink(&format!("headers = {{ {name} = \"{value}\" }}"));
        refused_file(&toml, &format!("sinks.b.headers.{}", name.trim_matches('"')), 4);
    };
    for name in ["content-type", "Content-Length", "host", "ce-id", "CE-Type", "webhook-id", "finhook-attempt", "te"] {
        header(name, MARKER);
    }
    header("\"a b\"", MARKER);
    header("\"a:b\"", MARKER);
    for value in [r"a\r\nx-evil: b", r"a\nb", r"a\u0000b", "", " ", r" a"] {
        header("x-a", value);
    }
    refused_file(&http_sink("headers = { x-a = \"1\", X-A = \"2\" }"), "sinks.b.headers.x-a", 4);
}

#[test]
fn a_url_that_is_not_http_is_refused_without_showing_it() {
    for url in ["ftp://h/", "h:80", "/path", "", "http://", "https://u:p@:99999/"] {
        let url = if url.is_empty() { String::new() } else { format!("{url}?{MARKER}") };
        refused_file(&format!("[sinks.b]\ntype = \"http\"\nurl = \"{url}\"\n"), "sinks.b.url", 3);
    }
    refused_file("[gateway]\nbase_url = \"https://u:p@h/\"\n", "gateway.base_url", 2);
    refused_file("[sinks.b]\ntype = \"http\"\n", "sinks.b.url", 1);
}

#[test]
fn a_signing_secret_for_relays_that_is_not_one_is_refused() {
    for secret in [MARKER, "whsec_", "whsec_!!!!"] {
        refused_file(&http_sink(&format!("signing_secret = \"{secret}\"")), "sinks.b.signing_secret", 4);
    }
}

#[test]
fn a_name_that_no_endpoint_has_is_refused() {
    let line = refused_file(&http_sink("match = { endpoints = [\"eu\"] }"), "sinks.b.match.endpoints[0]", 4);
    assert!(line.contains("use one of: fin"), "{line}");
    let toml = "[gateway]\nbind = \"127.0.0.1:0\"\nendpoint = \"eu\"\n";
    refused_file(toml, "gateway.endpoint", 3);
    // The built-in endpoint is gone as soon as there is another.
    let toml = "[endpoints.eu]\n[sinks.stdout]\nmatch = { endpoints = [\"fin\"] }\n";
    refused_file(toml, "sinks.stdout.match.endpoints[0]", 3);
}

#[test]
fn a_name_of_an_endpoint_or_a_sink_that_is_not_plain_is_refused() {
    refused_file("[endpoints.EU]\n", "endpoints.EU", 1);
    refused_file("[endpoints.\"a b\"]\n", "endpoints.a b", 1);
    refused_file("[sinks.my-sink]\ntype = \"log\"\n", "sinks.my-sink", 1);
}

#[test]
fn a_file_that_is_missing_or_is_not_toml_is_refused_without_quoting_it() {
    let line = refused_file(&format!("[admin]\ntoken = \"{MARKER}\n"), "configuration", 2);
    assert!(line.contains("not TOML"), "{line}");
    let line = refused_file("[admin]\ntoken = 1\ntoken = 2\n", "admin.token", 3);
    assert!(line.contains("is given twice: first on line 2"), "{line}");
    let line = refused_file("[server]\n\n[log]\n[server]\n", "server", 4);
    assert!(line.contains("is given twice: first on line 1"), "{line}");
    refused(&Sandbox::new().var("FINHOOK_CONFIG", "missing.toml"), "FINHOOK_CONFIG", "missing.toml");
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["check", "--config", "missing.toml"]);
    assert_eq!(done.code, 78);
    assert!(done.stderr.contains("--config (missing.toml)"), "{}", done.stderr);
    let sandbox = Sandbox::new().file("conf/other.toml", "").var("FINHOOK_CONFIG", "conf");
    refused(&sandbox, "FINHOOK_CONFIG", "conf/default.toml");
    let sandbox = Sandbox::new().file("conf/default.toml", "").var("FINHOOK_CONFIG", "conf").var("FINHOOK_ENV", "../x");
    refused(&sandbox, "FINHOOK_ENV", "variable FINHOOK_ENV");
}

#[test]
fn an_error_is_one_line_whatever_stands_in_the_configuration() {
    refused_file("\"a\\nb\\u001b[31m\" = 1\n", "a\\nb\\u{1b}[31m", 1);
    refused_file("[server]\nbind = \"a\\nb\"\n", "server.bind", 2);
}

#[test]
fn files_win_over_the_built_in_values_and_variables_over_files() {
    let bind = |sandbox: &Sandbox| {
        let done = checked(sandbox);
        let server: toml::Table = done.stdout.parse().unwrap();
        server["server"]["bind"].as_str().unwrap().to_owned()
    };
    let file = |port: u16| format!("[server]\nbind = \"127.0.0.1:{port}\"\n");
    assert_eq!(bind(&Sandbox::new()), "0.0.0.0:8080");
    assert_eq!(bind(&Sandbox::with_config(&file(1))), "127.0.0.1:1");
    let directory = || Sandbox::new().file("conf/default.toml", file(2)).file("conf/production.toml", file(3));
    let directory = || directory().var("FINHOOK_CONFIG", "conf");
    assert_eq!(bind(&directory()), "127.0.0.1:2");
    assert_eq!(bind(&directory().var("FINHOOK_ENV", "production")), "127.0.0.1:3");
    let all = directory().var("FINHOOK_ENV", "production").var("FINHOOK__SERVER__BIND", "127.0.0.1:4");
    assert_eq!(bind(&all), "127.0.0.1:4");
    let done = directory().file("other.toml", file(5)).run(&["check", "--config", "other.toml"]);
    assert!(done.stdout.contains("127.0.0.1:5"), "--config does not win: {}", done.stdout);
}

#[test]
fn lists_and_tables_are_set_by_variables_key_by_key() {
    let sandbox = Sandbox::with_config(&http_sink("match = { events = [\"x\"], statuses = [\"complete\"] }"))
        .var("FINHOOK__SINKS__B__MATCH__EVENTS", "fin_replied, csat_requested")
        .var("FINHOOK__SINKS__STDOUT__ENABLED", "false");
    let effective: toml::Table = checked(&sandbox).stdout.parse().unwrap();
    let matching = &effective["sinks"]["b"]["match"];
    assert_eq!(matching["events"].to_string(), r#"["fin_replied", "csat_requested"]"#);
    assert_eq!(matching["statuses"].to_string(), r#"["complete"]"#);
    assert_eq!(effective["sinks"]["stdout"]["enabled"].as_bool(), Some(false));
}

#[test]
fn the_built_in_sink_can_be_made_one_of_another_type() {
    let sandbox = Sandbox::with_config("[sinks.stdout]\ntype = \"file\"\npath = \"events\"\n");
    assert!(checked(&sandbox).stdout.contains("path = \"events\""));
}

#[test]
fn no_secret_is_seen_in_the_effective_configuration() {
    let toml = format!(
        r#"
[admin]
token = "{MARKER}"
reader_token = "r{MARKER}"
[endpoints.fin]
signing_secrets = ["{MARKER}", "x{MARKER}"]
client_secret = "{MARKER}"
[sinks.b]
type = "http"
url = "https://{MARKER}:{MARKER}@h/path?token={MARKER}#{MARKER}"
headers = {{ authorization = "Bearer {MARKER}" }}
signing_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
[gateway]
bind = "127.0.0.1:0"
token = "{MARKER}"
api_key = "{MARKER}"
"#
    );
    let Done { stdout, stderr, .. } = checked(&Sandbox::with_config(&toml));
    assert!(!stdout.contains("hunter2") && !stdout.contains("MfKQ"), "{stdout}");
    assert_eq!(stderr, "");
    assert!(stdout.contains(r#"url = "https://<redacted>@h/path?token=<redacted>#<redacted>""#), "{stdout}");
    assert_eq!(stdout.matches("<redacted>").count(), 4 + 2 + 1 + 1 + 1 + 1 + 2, "{stdout}");
    assert!(stdout.parse::<toml::Table>().is_ok(), "{stdout}");
}

#[test]
fn sizes_take_units_in_files_and_variables() {
    for (key, size, bytes) in [
        ("server.max_body_bytes", "512KB", 512_000),
        ("journal.max_bytes", "20GB", 20_000_000_000_i64),
        ("sinks.a.rotate_bytes", "1GiB", 1 << 30),
    ] {
        let (table, last) = key.rsplit_once('.').unwrap();
        let variable = format!("FINHOOK__{}", key.to_uppercase().replace('.', "__"));
        let sink = "[sinks.a]\ntype = \"file\"\npath = \"x\"\n";
        let header = if table == "sinks.a" { String::new() } else { format!("[{table}]\n") };
        for sandbox in [
            Sandbox::with_config(&format!("{sink}{header}{last} = \"{size}\"\n")),
            Sandbox::with_config(&format!("{sink}{header}{last} = {bytes}\n")),
            Sandbox::with_config(sink).var(&variable, size),
            Sandbox::with_config(sink).var(&variable, &bytes.to_string()),
        ] {
            let effective: toml::Table = checked(&sandbox).stdout.parse().unwrap();
            let value = table.split('.').fold(&toml::Value::Table(effective), |value, name| &value[name])[last].clone();
            assert_eq!(value.as_integer(), Some(bytes), "{key}");
        }
    }
    let line = refused_file("[server]\nmax_body_bytes = \"2GiB\"\n", "server.max_body_bytes", 2);
    assert!(line.contains("use 1 to 1GiB"), "{line}");
    let line = refused_file("[journal]\nmax_bytes = \"20 pounds\"\n", "journal.max_bytes", 2);
    assert!(line.contains("20GiB"), "{line}");
}

#[test]
fn a_length_of_time_is_told_as_it_was_written() {
    let sandbox = Sandbox::with_config("[journal]\nretention = \"120d\"\n");
    let line = refused(&sandbox, "journal.dedupe_window", "built-in default");
    assert!(line.contains("journal.retention (120d); set it to 120d or more"), "{line}");
}

#[test]
fn a_mistyped_variable_and_names_that_nothing_has_are_warned_of() {
    let toml = http_sink("match = { events = [\"fin_replyed\", \"fin_replied\"], statuses = [\"completed\"] }");
    let sandbox = Sandbox::with_config(&format!("{toml}[log]\nlevel = \"info,finhok::sink=debug\"\n"))
        .var("FINHOOK_SERVER__BIND", "127.0.0.1:1")
        .var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", MARKER);
    let warnings = checked(&sandbox).stderr;
    let expected = [
        "log.level (finhook.toml, line 6): nothing logs as \"finhok::sink\"",
        "sinks.b.match.events[0] (finhook.toml, line 4): is no known event: \"fin_replyed\"",
        "sinks.b.match.statuses[0] (finhook.toml, line 4): is no known status: \"completed\"",
        "variable FINHOOK_SERVER__BIND is none of finhook's and changes nothing; did you mean FINHOOK__SERVER__BIND?",
    ];
    assert_eq!(warnings.lines().count(), expected.len(), "{warnings}");
    for (line, expected) in warnings.lines().zip(expected) {
        assert!(line.contains(expected), "{line}: {expected}");
    }
}

#[test]
fn a_sink_to_forward_to_that_is_wrong_or_configured_already_is_wrong_usage() {
    let forward = |sandbox: &Sandbox, url: &str| {
        let before = sandbox.listing();
        let done = sandbox.run(&["serve", "--forward-to", url]);
        assert_eq!((done.code, done.stderr.lines().count()), (2, 1), "{}", done.stderr);
        assert_eq!(sandbox.listing(), before);
        done.stderr
    };
    let configured = http_sink("").replace("sinks.b", "sinks.forward");
    let line = forward(&Sandbox::with_config(&configured), "127.0.0.1:9/fin");
    assert!(line.contains("sinks.forward (--forward-to): is configured already (finhook.toml, line 1)"), "{line}");
    for url in [format!("ftp://h/{MARKER}"), format!("http://:99999/{MARKER}"), String::new()] {
        let line = forward(&Sandbox::new(), &url);
        assert!(line.contains("sinks.forward.url (--forward-to)") && !line.contains(MARKER), "{line}");
    }
}

#[test]
fn check_tells_where_each_value_came_from_and_ends_with_a_verdict() {
    let sandbox = Sandbox::with_config(&http_sink("headers = { X-A = \"b\" }\nmatch = { events = [\"fin_replied\"] }"))
        .file("token", MARKER)
        .var("FINHOOK__ADMIN__TOKEN_FILE", "token")
        .var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", MARKER);
    let Done { stdout, stderr, .. } = checked(&sandbox);
    assert_eq!(stderr, "");
    for line in [
        "bind = \"0.0.0.0:8080\"  # built-in default",
        "token = \"<redacted>\"  # variable FINHOOK__ADMIN__TOKEN_FILE",
        "signing_secrets = [\"<redacted>\"]  # variable FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS",
        "url = \"http://127.0.0.1:9/\"  # finhook.toml, line 3",
        "x-a = \"<redacted>\"  # finhook.toml, line 4",
        "events = [\"fin_replied\"]  # finhook.toml, line 5",
        "base = \"1s\"  # built-in default",
    ] {
        assert!(stdout.lines().any(|shown| shown == line), "{line}: {stdout}");
    }
    assert_eq!(stdout.lines().last(), Some("# Good: finhook can start with this."));
    let Done { stdout, .. } = checked(&Sandbox::new());
    assert_eq!(stdout.lines().last(), Some("# Good: finhook can start with this. 1 warning, on stderr."));
    // Without the comments nothing is lost, whatever stands in a value.
    let sandbox = Sandbox::with_config("[journal]\npath = \"a # b\\nc\"\n");
    let effective: toml::Table = checked(&sandbox).stdout.parse().unwrap();
    assert_eq!(effective["journal"]["path"].as_str(), Some("a # b\nc"));
}

#[test]
fn check_notices_paths_that_cannot_be_written() {
    let sink = "[sinks.a]\ntype = \"file\"\npath = \"there/e\"\n";
    let sandbox = Sandbox::with_config(&format!("{sink}[journal]\npath = \"file/x/finhook.db\"\n"))
        .file("file", "")
        .file("there/e/x", "")
        .var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", MARKER);
    let warnings = checked(&sandbox).stderr;
    let lines: Vec<_> = warnings.lines().collect();
    assert!(lines[0].contains("journal.path: ") && lines[0].contains("/file is not a folder"), "{warnings}");
    assert!(lines[1].contains("sinks.a.path: ") && lines[1].contains("/there/e is a folder"), "{warnings}");
    assert_eq!(lines.len(), 2, "{warnings}");
}

#[test]
fn check_notices_secrets_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::with_config(&format!("[admin]\ntoken = \"{MARKER}\"\n"))
        .file("secrets", MARKER)
        .var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS_FILE", "secrets");
    let mode =
        |name: &str, mode| std::fs::set_permissions(sandbox.path(name), PermissionsExt::from_mode(mode)).unwrap();
    mode("secrets", 0o644);
    mode("finhook.toml", 0o644);
    // Nobody else comes into the folder.
    mode("", 0o700);
    assert_eq!(checked(&sandbox).stderr, "");
    mode("", 0o755);
    let warnings = checked(&sandbox).stderr;
    assert_eq!(warnings.lines().count(), 2, "{warnings}");
    assert!(warnings.contains("admin.token (finhook.toml, line 2): every user of this machine can read"), "{warnings}");
    assert!(warnings.contains("chmod o-r secrets\n"), "{warnings}");
    mode("secrets", 0o640);
    mode("finhook.toml", 0o600);
    assert_eq!(checked(&sandbox).stderr, "");
}
