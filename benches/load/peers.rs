//! Others that take webhooks, driven by the same generator in the same run. `benches/peers/install` fetches them; those
//! that are not there are left out. What each guarantees is in `docs/PERFORMANCE.md`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::throughput::{CONNECTIONS, drive, drive_signed};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::{FIN_SIGNATURE, SECRET};
use crate::support::finhook::{Setup, free_port};
use crate::support::process::{Cores, Scratch, Server};
use crate::support::report::{Report, Row};
use crate::support::stats::median;

struct Peer {
    name: &'static str,
    does: &'static str,
    /// What stands before the signature's digits.
    signature: &'static str,
    program: PathBuf,
    /// What has to be there, and what says its version.
    needs: PathBuf,
}

fn known() -> Vec<Peer> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    let qhook = installed.join("bin/qhook");
    vec![
        Peer {
            name: "Fastify",
            does: "checks the HMAC, stores nothing",
            signature: FIN_SIGNATURE,
            program: here.join("fastify.mjs"),
            needs: here.join("node_modules/fastify/package.json"),
        },
        Peer {
            name: "qhook",
            does: "checks the HMAC, stores durably (SQLite)",
            // Its generic scheme: the bare digits, in a header of its own.
            signature: "X-Webhook-Signature: ",
            needs: qhook.clone(),
            program: qhook,
        },
    ]
}

/// Each peer's rate, beside the bare handler's and finhook's in the same minute.
pub(crate) fn peers(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for cores in [Cores::Pinned, Cores::Shared] {
        let scratch = Scratch::new()?;
        let finhook = Setup::new(scratch.path()).start(cores)?;
        let bare = Server::helper("bare", cores)?;
        for peer in known() {
            if !peer.needs.exists() {
                eprintln!("  {} is not installed (benches/peers/install): left out", peer.name);
                continue;
            }
            let server = start(&peer, scratch.path(), cores)?;
            let mut runs = Vec::new();
            for _ in 0..options.pairs(5) {
                let theirs = drive_signed(&server, peer.signature, cores, CONNECTIONS, options)?.rate();
                let ours = drive(&finhook.server, cores, CONNECTIONS, options)?.rate();
                let bare = drive(&bare, cores, CONNECTIONS, options)?.rate();
                eprintln!("  {}: {theirs:.0}/s, finhook {ours:.0}/s, bare {bare:.0}/s", peer.name);
                runs.push((theirs, ours, bare));
            }
            let column = |at: fn(&(f64, f64, f64)) -> f64| median(&runs.iter().map(at).collect::<Vec<_>>());
            rows.push(Row {
                what: format!(
                    "{} {} ({}), {}",
                    peer.name,
                    version(&peer)?,
                    peer.does,
                    if cores == Cores::Pinned { "one core" } else { "both cores shared with the generator" }
                ),
                goal: String::new(),
                figure: format!(
                    "{:.0}/s: {:.3} of the bare handler; finhook is {:.1} times as fast",
                    column(|run| run.0),
                    column(|run| run.0 / run.2),
                    column(|run| run.1 / run.0)
                ),
                met: None,
                detail: json!({"peer_finhook_bare": runs}),
            });
        }
        finhook.stop()?;
    }
    Ok(rows)
}

fn start(peer: &Peer, directory: &Path, cores: Cores) -> Result<Server> {
    let address = free_port()?;
    let mut command = if peer.name == "qhook" {
        let config = directory.join("qhook.yaml");
        // The documented way. Without a handler or a queue it answers 200 and stores nothing, so there is a queue, and a
        // key to deduplicate by; the limit of 100 requests at once is raised to what is sent here.
        std::fs::write(
            &config,
            format!(
                "database:\n  driver: sqlite\n  url: \"sqlite:{}?mode=rwc\"\nserver:\n  port: {}\n  max_inbound: 1000\n\
                 sources:\n  fin:\n    type: webhook\n    verify: hmac\n    secret: {SECRET}\n\
                 queues:\n  backend:\n    source: fin\n    idempotency_key: \"$.message.id\"\n",
                directory.join("qhook.db").display(),
                address.port()
            ),
        )?;
        let mut command = Command::new(&peer.program);
        command.args(["start", "--config"]).arg(config).current_dir(directory);
        command
    } else {
        let mut command = Command::new("node");
        command.arg(&peer.program).env("PORT", address.port().to_string()).env("SECRET", SECRET);
        command
    };
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(directory.join("peer.log"))?);
    let mut server = Server::new(cores.spawn(&mut command)?, address);
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if server.ended()? || begun.elapsed() > Duration::from_secs(20) {
            let log = std::fs::read_to_string(directory.join("peer.log"))?;
            return Err(format!("{} did not start: {log}", peer.name).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

fn version(peer: &Peer) -> Result<String> {
    if peer.name == "qhook" {
        let output = Command::new(&peer.program).arg("--version").output()?;
        return Ok(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("qhook ").to_owned());
    }
    let package: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&peer.needs)?)?;
    let node = Command::new("node").arg("--version").output()?;
    let node = String::from_utf8_lossy(&node.stdout).trim().to_owned();
    Ok(format!("{} on Node {node}", package["version"].as_str().unwrap_or("?")))
}
