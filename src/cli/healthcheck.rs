//! `finhook healthcheck`

use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, Global, client, print};

/// Shorter than the three seconds that orchestrators commonly allow.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Ask the running receiver whether it is ready: exit code 0 when /readyz of the admin listener answers 200, else 1.
///
/// For images without a shell and other tools.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook healthcheck
  docker exec finhook finhook healthcheck
  FINHOOK__ADMIN__BIND=127.0.0.1:9191 finhook healthcheck")]
pub(super) struct Args {}

pub(super) fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let config = global.load()?.config;
    let tls = config.admin.tls.as_ref();
    let Some(origin) = client::origin(config.admin.bind, tls) else {
        return Err(Failure::new("admin.bind has port 0, so its port is not known: set one"));
    };
    let url = format!("{origin}/readyz");
    client::block_on(async {
        let answer = client::client(TIMEOUT, tls)?.get(&url).send().await;
        let answer = answer.map_err(|e| client::explain(&e, &url, "is finhook running, with this admin.bind?"))?;
        let status = answer.status();
        if status != 200 {
            return Err(Failure::new(format!("not ready: {url} answers {}", status.as_u16())));
        }
        print("ready\n")?;
        Ok(ExitCode::SUCCESS)
    })
}
