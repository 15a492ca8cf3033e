//! `finhook fake-fin`: a stand-in for the Fin Agent API to develop and test against.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::usage;
use crate::fake_fin::{FakeFin, Scenario, Settings};

/// Run a stand-in for the Fin Agent API, to develop and test against.
///
/// A development tool, not Intercom's Fin: it listens on loopback only, and keeps everything in memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook fake-fin --callback http://127.0.0.1:8080/webhooks/fin
  finhook fake-fin --scenario escalate --speed 10")]
pub struct Args {
    /// Where webhooks are sent; without it only the event stream has events
    #[arg(long, value_name = "URL", value_parser = usage::web_url)]
    callback: Option<url::Url>,
    /// What webhooks are signed with: the receiver's signing secret
    #[arg(long, value_name = "SECRET", default_value = "fake-fin-signing-secret")]
    secret: String,
    /// Where to listen; loopback addresses only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8091")]
    bind: SocketAddr,
    /// What happens in each turn
    #[arg(long, value_enum, default_value = "streaming")]
    scenario: Scenario,
    /// Decides everything that looks random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// 2: twice as fast as Fin
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = usage::speed)]
    speed: f64,
    /// The Bearer key that callers must present
    #[arg(long, value_name = "KEY", default_value = "fake-fin-key")]
    api_key: String,
    /// The app that `channels` in event stream URLs names
    #[arg(long, value_name = "APP", default_value = "fakeapp")]
    app_id: String,
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address is not a loopback one, or can't be bound.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let settings = Settings {
        bind: args.bind,
        api_key: args.api_key,
        callback: args.callback,
        secret: args.secret,
        scenario: args.scenario,
        seed: args.seed,
        speed: args.speed,
        app_id: args.app_id,
        token_life: Duration::from_secs(180).div_f64(args.speed.clamp(0.001, 60.0)),
        ..Settings::default()
    };
    let sends = settings.callback.is_some();
    let fake = FakeFin::bind(settings)?;
    let mut err = io::stderr().lock();
    writeln!(err, "fake-fin: a development tool, not Intercom's Fin. Listening on http://{}", fake.addr())?;
    if !sends {
        writeln!(err, "fake-fin: no --callback URL, so no webhooks are sent")?;
    }
    drop(err);
    fake.run(shutdown).await;
    Ok(())
}
