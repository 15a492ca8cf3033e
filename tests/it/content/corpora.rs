//! What others have collected to break parsers: the JSONTestSuite and the Big List of Naughty Strings, from npm.
//!
//! `tests/run` fetches them; without them the tests fail.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// One input of the JSONTestSuite. The name's first letter says what a parser must do: `y` accept it, `n` reject it.
#[derive(Debug, Deserialize)]
pub(super) struct Input {
    pub(super) name: String,
    /// Where the suite's file is not UTF-8, U+FFFD stands in the place of those bytes.
    pub(super) input: String,
}

/// The suite's two parts: what is to be parsed, and what parsers make different things of.
pub(super) fn json_test_suite() -> Vec<Input> {
    let mut inputs = Vec::new();
    for part in ["parsing", "transform"] {
        let text = read(&format!("json-test-suite/data/{part}.js"));
        let (_, list) = text.split_once("export default ").expect("a module that is one list");
        inputs.extend(serde_json::from_str::<Vec<Input>>(list).expect("a list written as JSON"));
    }
    assert!(inputs.len() >= 340, "only {} inputs", inputs.len());
    inputs
}

/// The naughty strings.
pub(super) fn naughty_strings() -> Vec<String> {
    let strings: Vec<String> = serde_json::from_str(&read("blns/resources/blns.json")).unwrap();
    assert!(strings.len() >= 485, "only {} strings", strings.len());
    strings
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/node_modules").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: `tests/run` fetches it, or `npm ci` in tests/corpora", path.display())
    })
}
