//! The documents tell what the program does: what they show is run, what they name exists, and nothing that a user can
//! set, call or measure is left out.
//!
//! That the command lines in them are understood is shown beside the parser, in `src/cli/examples_tests.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use finhook::metrics::Metrics;
use serde_json::Value;

use crate::support::command::Sandbox;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every Markdown file at the root and in `docs`.
fn documents() -> Vec<PathBuf> {
    let folders = [root().to_owned(), root().join("docs")];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let found: Vec<_> =
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(found.len() >= 3, "README, ARCHITECTURE and CHANGELOG at least: {found:?}");
    found
}

/// A fenced block: its language and its lines, without the indentation of the list it may stand in.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let (mut blocks, mut indentation): (Vec<Block>, Option<usize>) = (Vec::new(), None);
    for line in markdown.lines() {
        let begin = line.len() - line.trim_start().len();
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if indentation.take().is_none() {
                indentation = Some(begin);
                blocks.push(Block { language: language.trim().to_owned(), text: String::new() });
            }
        } else if let (Some(indentation), Some(block)) = (indentation, blocks.last_mut()) {
            block.text.push_str(line.get(indentation.min(begin)..).unwrap_or_default());
            block.text.push('\n');
        }
    }
    blocks
}

fn of_language(markdown: &str, language: &str) -> Vec<String> {
    blocks(markdown).into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

/// The lines that are not in fenced blocks.
fn prose(markdown: &str) -> String {
    let mut inside = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    markdown.lines().filter(outside).collect::<Vec<_>>().join("\n")
}

/// What stands between single backticks in the prose.
fn spans(markdown: &str) -> Vec<String> {
    let prose = prose(markdown);
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// All code of a document: spans and blocks.
fn code(markdown: &str) -> String {
    let blocks = blocks(markdown).into_iter().map(|block| block.text);
    spans(markdown).into_iter().chain(blocks).collect::<Vec<_>>().join("\n")
}

/// The words of a text, as names of keys and metrics go.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect()
}

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The variables and arguments of `NAME=value cargo run --locked --release -- ARGUMENT…`.
fn cargo_run(block: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (before, arguments) = block.trim().split_once(" -- ").unwrap();
    let variables: Vec<_> = before.split_once("cargo run").unwrap().0.split_whitespace().collect();
    let variables = variables.iter().map(|variable| variable.split_once('=').unwrap());
    (
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        arguments.split_whitespace().map(str::to_owned).collect(),
    )
}

#[test]
fn the_first_two_commands_of_the_readme_do_what_it_shows() {
    let readme = read("README.md");
    let typed = of_language(&readme, "sh");
    let (vars, serve) = cargo_run(&typed[0]);
    let (more_vars, mut send) = cargo_run(&typed[1]);
    assert!(more_vars.is_empty());
    // What the README leaves at its built-in value, tests that run side by side can't.
    let mut sandbox =
        Sandbox::new().var("FINHOOK__SERVER__BIND", "127.0.0.1:0").var("FINHOOK__ADMIN__BIND", "127.0.0.1:0");
    for (name, value) in &vars {
        sandbox = sandbox.var(name, value);
    }

    let mut child = sandbox.command(&serve).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let lines = BufReader::new(child.stdout.take().unwrap());
    let _running = Running(child);
    let public = log
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .find(|line| line["message"] == "listening")
        .and_then(|line| Some(line["public"].as_str()?.to_owned()))
        .expect("it ends without listening");
    send.extend(["--url".to_owned(), format!("http://{public}/webhooks/fin")]);
    let sent = Sandbox::new().run(&send.iter().map(String::as_str).collect::<Vec<_>>());
    let answer: Vec<_> = sent.stdout.split_whitespace().collect();
    assert_eq!((answer.first(), answer.last()), (Some(&"200"), Some(&"accepted")), "{sent:?}");
    let line: Value = serde_json::from_str(&lines.lines().next().unwrap().unwrap()).unwrap();

    assert_eq!(line["id"], answer[1]);
    let shown: Value = serde_json::from_str(&of_language(&readme, "json")[0]).unwrap();
    let members = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&line), members(&shown), "the README shows a line of another shape");
    let constant = ["endpoint", "event", "conversation_id", "user_id", "status", "reason", "body_bytes"];
    for member in constant {
        assert_eq!(line[member], shown[member], "{member}");
    }
    assert!(sandbox.path("data/finhook.db").exists());
}

/// A configuration whose files of secrets are all `secrets`, which must be there for it to be accepted; and whose certificate
/// is the one beside it.
fn with_secrets(block: &str, secrets: &Path) -> String {
    let file = |key: &str| match key {
        "tls_cert" | "client_cert" | "ca" => secrets.with_file_name("cert.pem"),
        "tls_key" | "client_key" => secrets.with_file_name("key.pem"),
        "reader_token" => secrets.with_file_name("reader"),
        _ => secrets.to_owned(),
    };
    let line = |line: &str| match line.split_once("_file = ") {
        Some((key, value)) if !key.contains('#') && !value.starts_with("\"\"") => {
            format!("{key}_file = {:?}\n", file(key))
        }
        _ => format!("{line}\n"),
    };
    block.lines().map(line).collect()
}

#[test]
fn every_configuration_in_the_documents_passes_finhook_check_without_a_warning() {
    let sandbox = Sandbox::new();
    let secrets = sandbox.path("secret");
    // Fits every kind of secret there is.
    fs::write(&secrets, "whsec_YSBzZWNyZXQgb2YgYSB0ZXN0LCBsb25nIGVub3VnaA==\n").unwrap();
    fs::write(sandbox.path("reader"), "another-secret-of-a-test\n").unwrap();
    crate::tls::renew(&sandbox.path(""), "hooks.example.com");
    let mut checked = 0;
    for document in documents() {
        for block in of_language(&fs::read_to_string(&document).unwrap(), "toml") {
            fs::write(sandbox.path("finhook.toml"), with_secrets(&block, &secrets)).unwrap();
            let done = sandbox.run(&["check", "--config", "finhook.toml"]);
            assert_eq!(done.code, 0, "{}: {}\n{block}", document.display(), done.stderr);
            let waits = "has no signing secret yet";
            let warnings: Vec<_> = done.stderr.lines().filter(|line| !line.contains(waits)).collect();
            assert!(warnings.is_empty(), "{}: {warnings:?}\n{block}", document.display());
            checked += 1;
        }
    }
    assert!(checked >= 2, "only {checked} found");
}

#[test]
fn every_json_shown_is_json() {
    let mut checked = 0;
    for document in documents() {
        for block in of_language(&fs::read_to_string(&document).unwrap(), "json") {
            for line in block.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{}: {line}", document.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 2);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(markdown: &str) -> Vec<String> {
    let prose = prose(markdown);
    prose.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// The targets of `[text](target)`.
fn links(markdown: &str) -> Vec<String> {
    let prose = prose(markdown);
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut followed = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text).iter().filter(|link| !link.starts_with("https://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            if !heading.is_empty() {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.iter().any(|anchor| anchor == heading), "{}: {link}: {there:?}", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed >= 10, "only {followed} found");
}

#[test]
fn every_file_of_the_project_that_a_document_names_exists() {
    let mut named = 0;
    for document in documents().iter().filter(|document| !document.ends_with("CHANGELOG.md")) {
        for span in spans(&fs::read_to_string(document).unwrap()) {
            let folders = ["src/", "tests/", "benches/", "fuzz/", "docs/", "config/", "deploy/", ".ci/"];
            if folders.iter().any(|folder| span.starts_with(folder)) {
                let path = span.split_whitespace().next().unwrap();
                assert!(root().join(path).exists(), "{}: {span}", document.display());
                named += 1;
            }
        }
    }
    assert!(named >= 5, "only {named} found");
}

#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let list = Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let mut named = 0;
    for span in spans(&read("docs/FAULTS.md")).iter().filter(|span| span.contains("::")) {
        let begun = span.split('…').next().unwrap();
        let whole = begun == span && !span.ends_with(':');
        let is_it = |test: &&str| if whole { *test == begun } else { test.starts_with(begun) };
        assert!(tests.iter().any(is_it), "{span}");
        named += 1;
    }
    assert!(named > 40, "only {named} found");
}

/// The names in the first column of a `--help`'s list of commands.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = Sandbox::new().run(&[of, &["--help"]].concat()).stdout;
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    // Only names stand at this depth; texts that go on are further in.
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned));
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

#[test]
fn the_readme_mentions_every_command_and_the_documents_every_subcommand() {
    let readme = code(&read("README.md"));
    let all: String = documents().iter().map(|document| code(&fs::read_to_string(document).unwrap())).collect();
    let commands = subcommands(&[]);
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        assert!(readme.contains(&format!("finhook {command}")), "finhook {command}");
        for below in subcommands(&[&command]) {
            assert!(all.contains(&format!("finhook {command} {below}")), "finhook {command} {below}");
        }
    }
}

/// The keys of the reference, by section, such as `journal` → `path`; the sinks' under `sinks.NAME`.
fn reference() -> BTreeMap<String, BTreeSet<String>> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in read("docs/CONFIGURATION.md").lines() {
        if let Some((name, _)) = line.strip_prefix("## `[").and_then(|rest| rest.split_once(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|rest| rest.split_once('`')) {
            keys.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    keys
}

#[test]
fn every_key_that_a_document_names_exists() {
    let reference = reference();
    let sections: BTreeSet<&str> = reference.keys().map(String::as_str).filter(|name| !name.contains('.')).collect();
    let of_sinks = reference.iter().filter(|(section, _)| section.starts_with("sinks.")).flat_map(|(_, keys)| keys);
    let of_sinks: BTreeSet<&str> = of_sinks.map(String::as_str).collect();
    let mut named = 0;
    for document in documents() {
        for span in spans(&fs::read_to_string(&document).unwrap()) {
            let Some((section, key)) = span.split_once('.') else { continue };
            let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            // `log.level`, but not `finhook.db`, nor the fields of JSON.
            if !is_name(key) || !(sections.contains(section) || ["retry", "match"].contains(&section)) {
                continue;
            }
            let exists = reference.get(section).map_or_else(|| of_sinks.contains(&*span), |keys| keys.contains(key));
            assert!(exists, "{}: {span}", document.display());
            named += 1;
        }
    }
    assert!(named >= 20, "only {named} found");
}

#[test]
fn every_cargo_command_that_is_shown_takes_the_versions_that_were_tested() {
    let scripts = ["Dockerfile", ".ci/run", "tests/run", ".github/workflows/ci.yml"].map(|name| root().join(name));
    let mut shown = 0;
    for file in documents().into_iter().chain(scripts) {
        // What is quoted from the past stays as it was.
        if file.ends_with("CHANGELOG.md") {
            continue;
        }
        for line in fs::read_to_string(&file).unwrap().lines() {
            for part in line.split("cargo ").skip(1) {
                let command = part.split(['`', '|', ';', '&']).next().unwrap();
                let subcommand = command.split_whitespace().next().unwrap_or_default();
                if ["bench", "build", "clippy", "doc", "fetch", "install", "run", "test"].contains(&subcommand) {
                    assert!(command.contains("--locked"), "{}: cargo {command}", file.display());
                    shown += 1;
                }
            }
        }
    }
    assert!(shown >= 15, "only {shown} found");
}

/// A name as it is documented: without what the text format appends for a histogram's parts.
fn metric(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

#[test]
fn the_page_of_metrics_lists_those_that_there_are_and_no_others() {
    let metrics = Metrics::new();
    metrics.endpoint("fin").request("accepted");
    metrics.sink("stdout").delivered.inc();
    metrics.sse_stream("closed");
    let text = metrics.encode();
    // A family's kind tells the names of its values.
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exist: BTreeSet<String> = families
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect();
    assert!(exist.contains("finhook_requests_total") && exist.contains("finhook_build_info"), "{exist:?}");
    let code = code(&read("docs/METRICS.md"));
    let names = words(&code).into_iter().filter(|word| word.starts_with("finhook_"));
    let documented: BTreeSet<String> = names.map(|name| metric(name).to_owned()).collect();

    assert_eq!(documented, exist);
}

#[test]
fn the_page_of_metrics_lists_every_outcome_of_a_request() {
    let page = read("docs/METRICS.md");
    let row = page.lines().find(|line| line.starts_with("| `finhook_requests_total")).unwrap();
    let code = words(row);
    // Counted apart, as finhook_conflicts_total.
    for outcome in finhook::metrics::OUTCOMES.iter().filter(|outcome| **outcome != "conflict") {
        assert!(code.contains(outcome), "{outcome}");
    }
}

/// All of `src`, with strings that go on over lines joined.
fn sources() -> Vec<String> {
    let (mut folders, mut sources) = (vec![root().join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.is_dir() {
                folders.push(file);
            } else {
                let text = fs::read_to_string(&file).unwrap();
                sources.push(text.split("\\\n").map(str::trim_start).collect());
            }
        }
    }
    sources
}

#[test]
fn the_sections_that_messages_of_the_program_send_people_to_exist() {
    let mut sent = 0;
    for source in sources() {
        // `\"Heading\" in docs/PAGE.md`, in a string of the program.
        for (at, _) in source.match_indices("\\\" in docs/") {
            let heading = source[..at].rsplit_once("\\\"").unwrap().1;
            let page = source[at..].split_once(" in ").unwrap().1;
            let page = page.split_once(".md").unwrap().0;
            let there = anchors(&read(&format!("{page}.md")));
            assert!(there.contains(&anchor(heading)), "{page}.md: {heading}");
            sent += 1;
        }
        assert!(!source.contains("\\\" in the README"), "name the page, as the README is short");
    }
    assert!(sent >= 2, "only {sent} found");
}
