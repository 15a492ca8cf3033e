//! Everything in one process, on loopback ports that the system chooses: a stand-in for Fin, a receiver for its
//! webhooks, a gateway, and a journal that is gone afterwards.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use crate::app::App;
use crate::cli::{Failure, chain};
use crate::config::Inputs;
use crate::fake_fin::{FakeFin, Scenario, Settings};

/// How long a turn waits for the gateway to listen.
const LEAD: Duration = Duration::from_secs(5);
/// For ending.
const PATIENCE: Duration = Duration::from_secs(3);
/// The path of the receiver's endpoint, `endpoints.fin.path` in the built-in configuration.
const PATH: &str = "/webhooks/fin";

/// All that runs.
pub(super) struct Everything {
    gateway: Url,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    _dir: TempDir,
}

impl Everything {
    pub(super) async fn start(scenario: Scenario, seed: u64, speed: f64) -> Result<Self, Failure> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let dir = tempfile::Builder::new().prefix("finhook-chat-").tempdir()?;
        let settings = Settings { bind: any, scenario, seed, speed, lead: LEAD, ..Settings::default() };
        let mut fake = FakeFin::bind(settings.clone())?;
        let fin = format!("http://{}", fake.addr());
        let journal = dir.path().join("finhook.db").into_os_string();
        let vars = [
            ("SERVER__BIND", "127.0.0.1:0".into()),
            ("ADMIN__BIND", "127.0.0.1:0".into()),
            ("GATEWAY__BIND", "127.0.0.1:0".into()),
            ("GATEWAY__BASE_URL", fin.into()),
            ("GATEWAY__API_KEY", settings.api_key.into()),
            ("GATEWAY__SSE_HOSTS", "127.0.0.1".into()),
            ("ENDPOINTS__FIN__SIGNING_SECRETS", settings.secret.into()),
            ("JOURNAL__PATH", journal),
            ("SINKS__STDOUT__ENABLED", "false".into()),
        ];
        let vars = vars.map(|(name, value)| (format!("FINHOOK__{name}").into(), value)).into();
        let config = Inputs { vars, ..Inputs::default() }.load()?.config;
        let app = App::build(config).await.map_err(|error| Failure::new(chain(&error)))?;
        let address = app.gateway_addr().ok_or_else(|| Failure::new("the gateway is off"))?;
        let parse = |text: String| Url::parse(&text).map_err(|e| Failure::new(format!("{text}: {e}")));
        fake.send_webhooks_to(parse(format!("http://{}{PATH}", app.public_addr()))?);

        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that there is nobody left to wait for.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let mut tasks = JoinSet::new();
        let (app_stopped, fake_stopped) = (wait(stopped.clone()), wait(stopped));
        tasks.spawn(async move { drop(app.run(app_stopped).await) });
        tasks.spawn(fake.run(fake_stopped));
        Ok(Self { gateway: parse(format!("http://{address}/"))?, tasks, stop, _dir: dir })
    }

    pub(super) fn gateway(&self) -> Url {
        self.gateway.clone()
    }

    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = timeout(PATIENCE, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}
