//! The container files must fit the program that they start.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use finhook::config::{Inputs, Loaded};

fn project_file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// `FINHOOK__…` settings as `NAME=value` or `NAME: value`, comments left out.
fn settings(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let setting = &line[line.find("FINHOOK__")?..];
            let (name, value) = setting.split_once(['=', ':'])?;
            Some((name.to_owned(), value.trim_end_matches('\\').trim().to_owned()))
        })
        .collect()
}

fn load(settings: Vec<(String, String)>) -> Loaded {
    let vars = settings.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Inputs { vars, ..Inputs::default() }.load().unwrap()
}

#[test]
fn the_image_keeps_the_journal_in_its_data_volume() {
    let dockerfile = project_file("Dockerfile");

    let loaded = load(settings(&dockerfile));

    assert!(dockerfile.lines().any(|line| line == "VOLUME /data"));
    assert!(loaded.config.journal.path.starts_with("/data"), "{}", loaded.config.journal.path.display());
    assert!(loaded.config.admin.bind.ip().is_loopback());
    assert!(dockerfile.lines().any(|line| line == format!("EXPOSE {}", loaded.config.server.bind.port())));
}

#[test]
fn the_compose_file_gives_the_built_in_endpoint_its_secret_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fin_signing_secrets");
    fs::write(&file, "a secret of a test, long enough\n").unwrap();
    let mut settings = settings(&project_file("compose.yaml"));
    for (_, value) in &mut settings {
        *value = value.replace("/run/secrets/fin_signing_secrets", file.to_str().unwrap());
    }

    let loaded = load(settings);

    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.config.endpoints["fin"].secrets_file.as_deref(), Some(file.as_path()));
    assert_eq!(loaded.config.endpoints["fin"].secrets.len(), 1);
}

#[test]
fn the_compose_file_waits_longer_for_the_end_than_the_program_drains() {
    let compose = project_file("compose.yaml");
    let grace = compose.lines().find_map(|line| line.trim().strip_prefix("stop_grace_period: ")).unwrap();
    let grace: Duration = humantime::parse_duration(grace).unwrap();

    assert!(grace > load(Vec::new()).config.server.drain_timeout);
}
