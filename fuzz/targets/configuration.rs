//! The configuration: a file, and after a line `---` variables `KEY=VALUE`, one a line.
#![no_main]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use finhook::config::Inputs;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;

fuzz_target!(|data: &[u8]| {
    let (file, vars) = match data.windows(4).position(|window| window == b"---\n") {
        Some(at) => (&data[..at], &data[at + 4..]),
        None => (data, &[][..]),
    };
    // Files that the text names are looked at: none but a few that are surely not devices.
    if file.windows(2).chain(vars.windows(2)).any(|window| matches!(window, b"\"/" | b"'/" | b"=/" | b"/." | b"..")) {
        return;
    }
    let path = PathBuf::from(format!("/dev/shm/finhook-fuzz-{}.toml", std::process::id()));
    fs::write(&path, file).expect("a file in memory");
    let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let vars = vars
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.iter().position(|byte| *byte == b'=').map(|at| (&line[..at], &line[at + 1..])))
        .map(|(name, value)| (os(&[b"FINHOOK__", name].concat()), os(value)))
        .collect();
    let inputs = Inputs { path: Some(path.clone()), path_from: "--config", vars, ..Inputs::default() };
    let loaded = inputs.load();
    let _ = fs::remove_file(path);
    match loaded {
        Ok(loaded) => {
            let shown = format!("{loaded:?} {}", loaded.to_redacted_toml());
            for secret in loaded.config.endpoints.values().flat_map(|endpoint| &endpoint.secrets) {
                let secret = secret.expose_secret();
                // One that stands elsewhere in the input, too, may be shown from there.
                let only_here = String::from_utf8_lossy(data).matches(secret).count() == 1;
                assert!(secret.len() < 8 || !only_here || !shown.contains(secret), "a secret is shown");
            }
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "not one line: {line:?}");
        }
    }
});
