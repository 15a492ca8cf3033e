//! The API's description, held to the standard and to the API by programs of others.

use std::process::Command;

use crate::support::app::TestApp;
use crate::support::process::Place;
use crate::support::server::tools;

/// A program of the Python packages that `tests/run` installs.
fn python_program(name: &str) -> Command {
    Command::new(tools().join("python/bin").join(name))
}

fn assert_succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs it"));
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{errors}", output.status);
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_valid_openapi() {
    let app = TestApp::start("").await;
    let (_, description) = app.admin_get("/api/v1/openapi.json").await;
    let file = app.path("openapi.json");
    std::fs::write(&file, description.to_string()).unwrap();

    let said = assert_succeeds(python_program("openapi-spec-validator").args(["--schema", "3.1"]).arg(&file));

    assert!(said.contains("OK"), "{said}");
    app.stop().await;
}

/// Thousands of requests made from the description, right and wrong ones: each must be answered as it says.
#[test]
#[ignore = "long: half a minute"]
fn the_api_does_what_it_says() {
    let token = "a-token-for-the-operators";
    let place =
        Place::temporary("[sinks.archive]\ntype = \"file\"\npath = \"archive.ndjson\"\n").var("ADMIN__TOKEN", token);
    let finhook = place.start();
    for number in 0..20 {
        assert_eq!(finhook.post(&crate::support::process::body("c", number, 0)).unwrap().status, 200);
    }
    let base = format!("http://{}", finhook.admin);
    let mut schemathesis = python_program("schemathesis");
    schemathesis
        .args(["run", &format!("{base}/api/v1/openapi.json"), "--url", &base, "--header"])
        .arg(format!("Authorization: Bearer {token}"))
        // A stream has no end.
        .args(["--exclude-path", "/api/v1/stream", "--max-examples", "200", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(place.path("."));

    let said = assert_succeeds(&mut schemathesis);

    assert!(said.contains("Tested: 14"), "{said}");
    assert!(!finhook.log().iter().any(|line| line.contains("\"ERROR\"")), "{:?}", finhook.log());
}
