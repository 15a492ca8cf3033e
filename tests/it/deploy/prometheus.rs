//! The rules and the dashboard, beside a scrape of a running finhook with every kind of sink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{deploy, run};
use crate::support::process::{Answer, Client, Finhook, Place, body};
use crate::support::server::{Server, free_address};
use crate::support::wait::until;

/// Every kind of sink; nobody listens where the last one delivers to.
const SINKS: &str = "[sinks.lines]\ntype = \"log\"\n[sinks.archive]\ntype = \"file\"\npath = \"data/events.ndjson\"\n\
                     [sinks.backend]\ntype = \"http\"\nurl = \"http://127.0.0.1:9/fin\"\n";

/// Started, and with an event that every sink has tried to deliver.
fn busy(place: &Place) -> Finhook {
    let finhook = place.start();
    finhook.post(&body("a conversation", 1, 0)).unwrap().id();
    until("an attempt of every sink", || {
        let text = scrape(&finhook, "").body;
        let tried = |sink: &str| {
            let count = format!("finhook_delivery_seconds_count{{sink=\"{sink}\"}} ");
            text.lines().any(|line| line.strip_prefix(&count).is_some_and(|count| count != "0"))
        };
        ["lines", "archive", "backend"].into_iter().all(tried)
    });
    finhook
}

fn scrape(finhook: &Finhook, accept: &str) -> Answer {
    let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n");
    Client::new(finhook.admin).request(&head, &[]).unwrap()
}

#[test]
fn promtool_has_nothing_to_complain_of_in_a_scrape_in_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let finhook = busy(&Place::new(folder.path(), SINKS));

    let answer = scrape(&finhook, "Accept: text/plain, */*;q=0.1\r\n");

    assert!(answer.head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{}", answer.head);
    let file = folder.path().join("metrics");
    fs::write(&file, answer.body).unwrap();
    let said = run(Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(file).unwrap()));
    assert_eq!(said, "");
}

#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let finhook = Place::new(folder.path(), "").start();

    // As Prometheus asks.
    let accept =
        "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1\r\n";
    let answer = scrape(&finhook, accept);

    assert!(answer.head.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn the_rules_pass_their_check_and_their_tests() {
    let folder = deploy("prometheus");
    let promtool = |arguments: &[&str]| run(Command::new("promtool").args(arguments).current_dir(&folder));

    let checked = promtool(&["check", "rules", "finhook.rules.yaml"]);
    assert!(checked.contains("SUCCESS"), "{checked}");
    promtool(&["test", "rules", "finhook.tests.yaml", "finhook.week.tests.yaml"]);
}

#[test]
fn every_alert_has_a_test_that_names_it() {
    let rules = fs::read_to_string(deploy("prometheus/finhook.rules.yaml")).unwrap();
    let tests = ["prometheus/finhook.tests.yaml", "prometheus/finhook.week.tests.yaml"];
    let tests = tests.map(|file| fs::read_to_string(deploy(file)).unwrap()).concat();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(alert), "{alert}");
    }
}

/// A metric's labels and the values that they have in a scrape.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Every series of a text in Prometheus' format, by name.
fn series(text: &str) -> BTreeMap<String, Labels> {
    let mut all: BTreeMap<String, Labels> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let entry = all.entry(name.to_owned()).or_default();
        for matcher in matchers(labels.strip_suffix('}').unwrap()) {
            entry.entry(matcher.label).or_default().insert(matcher.value);
        }
    }
    all
}

/// `label="value"` in a scrape, `label=~"value"` and the like in PromQL.
#[derive(Debug)]
struct Matcher {
    label: String,
    value: String,
}

/// Those between braces. Values hold neither commas nor escapes; one that did would be found as a label that doesn't exist.
fn matchers(text: &str) -> Vec<Matcher> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let matcher = |part: &str| {
        let (label, value) = part.split_once('"').unwrap();
        Matcher { label: label.trim_end_matches(['=', '~', '!']).into(), value: value.trim_end_matches('"').into() }
    };
    parts.map(matcher).collect()
}

/// The selectors in PromQL whose metric is finhook's: its name, and what stands in the braces.
fn selectors(promql: &str) -> Vec<(String, Vec<Matcher>)> {
    let mut found = Vec::new();
    for (at, _) in promql.match_indices("finhook_") {
        let name: String = promql[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let rest = &promql[at + name.len()..];
        let inside = rest.strip_prefix('{').map_or("", |rest| rest.split_once('}').unwrap().0);
        found.push((name, matchers(inside)));
    }
    found
}

/// Labels that come from the scrape's configuration, not from finhook.
const OF_THE_TARGET: [&str; 3] = ["job", "namespace", "instance"];

/// Panics unless everything that PromQL selects is in the scrape; how many selectors that was.
fn assert_selects(promql: &str, scraped: &BTreeMap<String, Labels>) -> usize {
    let selectors = selectors(promql);
    for (name, matchers) in &selectors {
        let labels = scraped.get(name).unwrap_or_else(|| panic!("no {name} in the scrape: {promql}"));
        let foreign = |label: &str| !OF_THE_TARGET.contains(&label) && !labels.contains_key(label);
        for Matcher { label, value } in matchers {
            assert!(!foreign(label), "{name} has no label {label}: {promql}");
            let Some(values) = labels.get(label) else { continue };
            // An empty value is that of no endpoint at all; `.*` and what has a $ are the reader's choice.
            for value in value.split('|').filter(|value| !["", ".*"].contains(value) && !value.contains('$')) {
                assert!(values.contains(value), "{name}: {label} is never {value:?}, but {values:?}: {promql}");
            }
        }
        for by in promql.split(" by (").skip(1) {
            for label in by.split_once(')').unwrap().0.split(',').map(str::trim) {
                assert!(!foreign(label), "{name} has no label {label}: {promql}");
            }
        }
    }
    selectors.len()
}

/// The expressions of the rules; the file's own form is relied on: `expr:` on one line or as a block under it.
fn rule_expressions() -> Vec<String> {
    let rules = fs::read_to_string(deploy("prometheus/finhook.rules.yaml")).unwrap();
    let mut lines = rules.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(first) = line.trim().strip_prefix("expr:") else { continue };
        let depth = line.len() - line.trim_start().len();
        let mut whole = first.trim().trim_matches('|').to_owned();
        while let Some(more) = lines.next_if(|more| more.len() - more.trim_start().len() > depth) {
            whole = whole + " " + more.trim();
        }
        found.push(whole);
    }
    found
}

#[test]
fn every_metric_and_label_that_rules_and_dashboard_name_is_in_a_scrape() {
    let folder = tempfile::tempdir().unwrap();
    let scraped = series(&scrape(&busy(&Place::new(folder.path(), SINKS)), "").body);

    let mut expressions = rule_expressions();
    assert!(expressions.len() > 10, "{expressions:?}");
    // What the dashboard lists for its reader to choose from.
    let variables = dashboard()["templating"]["list"].as_array().unwrap().clone();
    expressions.extend(variables.iter().filter_map(|variable| variable["query"]["query"].as_str().map(str::to_owned)));
    assert!(expressions.last().unwrap().contains("label_values"));

    expressions.extend(dashboard_expressions());
    let checked: usize = expressions.iter().map(|expression| assert_selects(expression, &scraped)).sum();
    assert!(checked >= expressions.len(), "only {checked} selectors found");
}

fn dashboard() -> Value {
    serde_json::from_slice(&fs::read(deploy("grafana/finhook.json")).unwrap()).unwrap()
}

/// The dashboard's expressions with the reader's choices made: everything of this finhook's.
fn dashboard_expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let choices = [("$__rate_interval", "10s"), ("$job", ".*"), ("$instance", ".*"), ("$sink", ".*")];
    let chosen = |expression: &str| {
        choices.iter().fold(expression.to_owned(), |chosen, (variable, choice)| chosen.replace(variable, choice))
    };
    targets.map(|target| chosen(target["expr"].as_str().unwrap())).collect()
}

#[test]
fn prometheus_scrapes_finhook_and_has_a_value_for_every_curve_of_the_dashboard_and_every_rule() {
    let folder = tempfile::tempdir().unwrap();
    let finhook = busy(&Place::new(folder.path(), SINKS));
    let address = free_address();
    let config = format!(
        "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [{:?}]\n\
         scrape_configs: [{{ job_name: finhook, static_configs: [{{ targets: [\"{}\"] }}] }}, \
         {{ job_name: itself, static_configs: [{{ targets: [\"{address}\"] }}] }}]\n",
        deploy("prometheus/finhook.rules.yaml"),
        finhook.admin
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let mut prometheus = Command::new("prometheus");
    prometheus.current_dir(folder.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"]);
    prometheus.arg(format!("--web.listen-address={address}"));
    let _prometheus = Server::start(&mut prometheus, &folder.path().join("prometheus.log"));
    let query = |promql: &str| {
        let mut promtool = Command::new("promtool");
        promtool.args(["query", "instant", &format!("http://{address}"), promql]);
        String::from_utf8(promtool.output().unwrap().stdout).unwrap().trim().to_owned()
    };

    // Two scrapes, and a look at the rules after them.
    until("a rate", || !query("rate(finhook_commit_seconds_count[10s])").is_empty());
    until("the rules' own series", || !query("finhook:journal_limit_bytes").is_empty());
    let expressions = dashboard_expressions();
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in expressions {
        assert!(!query(&expression).is_empty(), "nothing for {expression}");
    }
    // A rule that can't be evaluated, as one whose two sides don't match one to one, counts as failed.
    until("that rules were evaluated", || !query("prometheus_rule_evaluations_total > 0").is_empty());
    let failed = query("prometheus_rule_evaluation_failures_total > 0");
    assert_eq!(failed, "");
}

#[test]
fn every_panel_of_the_dashboard_has_an_id_and_a_place_of_its_own() {
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard()["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{panel} lies over another");
        }
    }
}
