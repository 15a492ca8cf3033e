//! The manifests for Kubernetes: rendered by kustomize, checked against the published schemas, and beside the program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use finhook::config::{Inputs, Loaded};
use serde_json::Value;

use super::{deploy, python, run};
use crate::support::process::{Client, Place};

/// What `kubectl apply -k` would send, for the single replica alone or with the component for the Prometheus operator.
fn rendered(monitoring: bool) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    // Kustomize wants relative paths.
    let depth = folder.path().canonicalize().unwrap().components().count() - 1;
    let relative =
        |name: &str| format!("{}{}", "../".repeat(depth), deploy(name).display().to_string().trim_start_matches('/'));
    let components = if monitoring { vec![relative("kubernetes/monitoring")] } else { Vec::new() };
    let kustomization = format!("resources: {:?}\ncomponents: {components:?}\n", [relative("kubernetes/single")]);
    fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
    let yaml = run(Command::new("kubectl").arg("kustomize").arg(folder.path()));
    let file = folder.path().join("rendered.yaml");
    fs::write(&file, yaml).unwrap();
    let json = python("import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))", &file);
    serde_json::from_str(&json).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn pod(objects: &[Value]) -> &Value {
    &of_kind(objects, "StatefulSet")["spec"]["template"]["spec"]
}

#[test]
fn the_manifests_fit_the_published_schemas_of_an_old_and_a_new_kubernetes() {
    for objects in [rendered(false), rendered(true)] {
        let folder = tempfile::tempdir().unwrap();
        let of_kubernetes = objects.iter().filter(|object| object["kind"] != "ServiceMonitor");
        let files: Vec<PathBuf> = of_kubernetes
            .enumerate()
            .map(|(number, object)| {
                let file = folder.path().join(format!("{number}.json"));
                fs::write(&file, object.to_string()).unwrap();
                file
            })
            .collect();
        for release in ["1.30.0", "1.37.0"] {
            let mut validate = Command::new("kubernetes-validate");
            let said = run(validate.args(["--strict", "--kubernetes-version", release]).args(&files));
            // What it has no schema for it only warns of.
            assert_eq!(said.matches(" passed for resource ").count(), files.len(), "{said}");
        }
    }
}

#[test]
fn the_service_monitor_is_one_that_the_prometheus_operator_knows_every_field_of() {
    let folder = tempfile::tempdir().unwrap();
    let objects = rendered(true);
    let monitor = of_kind(&objects, "ServiceMonitor");
    let file = folder.path().join("monitor.json");
    fs::write(&file, monitor.to_string()).unwrap();

    let known = python(
        "import json, sys\n\
         from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor\n\
         taken = ServiceMonitor.model_validate(json.load(open(sys.argv[1])))\n\
         print(json.dumps(taken.model_dump(by_alias=True, exclude_unset=True, mode='json')))",
        &file,
    );

    // What the operator doesn't know is not in what it has taken.
    assert_eq!(&serde_json::from_str::<Value>(&known).unwrap(), monitor);
    // Without it the label `endpoint` of finhook's metrics would be the port's name.
    assert_eq!(monitor["spec"]["endpoints"][0]["honorLabels"], true);
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let services = objects.iter().filter(|object| object["kind"] == "Service");
    let of_services: Vec<_> = services
        .filter(|service| selected.iter().all(|(label, value)| service["metadata"]["labels"][label] == *value))
        .map(|service| (service["metadata"]["name"].as_str().unwrap(), &service["spec"]["ports"][0]["name"]))
        .collect();
    assert_eq!(of_services, [("finhook-admin", &monitor["spec"]["endpoints"][0]["port"])]);
}

/// The configuration that the pod has, with its secrets in `folder`.
fn load(objects: &[Value], folder: &Path) -> Loaded {
    let config = of_kind(objects, "ConfigMap")["data"]["finhook.toml"].as_str().unwrap();
    let here = |text: &str| text.replace("/run/secrets", folder.to_str().unwrap());
    for (file, content) in [
        ("finhook/fin_signing_secrets", "a secret of a test, long enough\n"),
        ("finhook-admin/token", "a-token-of-a-test-long-enough\n"),
    ] {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let file = folder.join("finhook.toml");
    fs::write(&file, here(config)).unwrap();
    // As the image sets it.
    let mut vars: BTreeMap<OsString, OsString> = [("FINHOOK__JOURNAL__PATH".into(), "/data/finhook.db".into())].into();
    for variable in pod(objects)["containers"][0]["env"].as_array().unwrap() {
        vars.insert(variable["name"].as_str().unwrap().into(), here(variable["value"].as_str().unwrap()).into());
    }
    assert_eq!(vars.remove(OsStr::new("FINHOOK_CONFIG")).unwrap(), "/etc/finhook/finhook.toml");
    Inputs { path: Some(file), vars: vars.into_iter().collect(), ..Inputs::default() }.load().unwrap()
}

#[test]
fn the_pod_gives_finhook_its_configuration_its_secret_its_disk_and_time_to_end() {
    for monitoring in [false, true] {
        let (objects, folder) = (rendered(monitoring), tempfile::tempdir().unwrap());
        let (pod, container) = (pod(&objects), &pod(&objects)["containers"][0]);

        let loaded = load(&objects, folder.path());

        assert_eq!(loaded.warnings, Vec::<String>::new());
        let config = loaded.config;
        assert_eq!(config.endpoints["fin"].secrets.len(), 1);
        assert_eq!(config.admin.bind.ip().is_loopback(), !monitoring);
        let ports: Vec<_> =
            container["ports"].as_array().unwrap().iter().map(|port| port["containerPort"].clone()).collect();
        assert!(ports.contains(&config.server.bind.port().into()));
        assert_eq!(ports.contains(&config.admin.bind.port().into()), monitoring);
        let data = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "data").unwrap();
        assert!(config.journal.path.starts_with(data["mountPath"].as_str().unwrap()));
        let claim = &of_kind(&objects, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"];
        let gibibytes = claim["resources"]["requests"]["storage"].as_str().unwrap().strip_suffix("Gi").unwrap();
        assert!(config.journal.max_bytes > 0 && config.journal.max_bytes < gibibytes.parse::<u64>().unwrap() << 30);
        let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
        assert!(grace > config.server.drain_timeout);
        assert_eq!(pod["enableServiceLinks"], false);
        let user = pod["securityContext"]["runAsUser"].to_string();
        let dockerfile = fs::read_to_string(deploy("../Dockerfile")).unwrap();
        assert!(dockerfile.lines().any(|line| line == format!("USER {user}:{user}")), "{user}");
    }
}

#[test]
fn the_alert_on_a_nearly_full_journal_has_the_limit_that_the_manifests_set() {
    let folder = tempfile::tempdir().unwrap();
    let max = load(&rendered(false), folder.path()).config.journal.max_bytes;
    let rules = fs::read_to_string(deploy("prometheus/finhook.rules.yaml")).unwrap();
    let expr = rules.lines().find_map(|line| line.trim().strip_prefix("expr: vector(")).unwrap();
    let limit: u64 = expr.trim_end_matches(')').split(" * ").map(|factor| factor.parse::<u64>().unwrap()).product();

    assert_eq!(limit, max);
}

#[test]
fn the_kubelet_gets_its_probes_answered() {
    let finhook = Place::temporary("").start();
    let (mut of_public, mut of_admin) = (0, 0);
    for objects in [rendered(false), rendered(true)] {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let probe = &pod(&objects)["containers"][0][probe];
            let Some(path) = probe["httpGet"]["path"].as_str() else {
                assert_eq!(probe["tcpSocket"]["port"], "http");
                continue;
            };
            let (address, count) = match probe["httpGet"]["port"].as_str().unwrap() {
                "http" => (finhook.public, &mut of_public),
                "admin" => (finhook.admin, &mut of_admin),
                other => panic!("{other}"),
            };
            let asked = format!("GET {path} HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n");
            assert_eq!(Client::new(address).request(&asked, &[]).unwrap().status, 200, "{path}");
            *count += 1;
        }
    }
    assert_eq!((of_public, of_admin), (4, 1));
}
