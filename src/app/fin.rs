//! Fin's side: the gateway, and the subscriber that stores what Fin's event streams bring.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::clock::now_ms;
use crate::config::{self, Config};
use crate::dispatch::Phase;
use crate::event::Event;
use crate::fin::REPLY_CHUNK;
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::live::{Chunk, Hub, Live};
use crate::metrics::{EndpointMetrics, Metrics};
use crate::receive::{Answer, store};
use crate::subscribe::{self, Feed, Subscriber};
use crate::verify::Verified;

/// The gateway and the subscriber, bound but not yet serving.
#[derive(Debug)]
pub(super) struct FinSide {
    gateway: Gateway,
    subscriber: Subscriber<Subscribed>,
}

impl FinSide {
    /// Binds the gateway's listener.
    pub(super) fn bind(
        settings: &config::Gateway,
        config: &Config,
        journal: &Journal,
        live: &Live,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let subscribed = Subscribed {
            endpoint: settings.endpoint.as_str().into(),
            counters: metrics.endpoint(&settings.endpoint),
            metrics: Arc::clone(metrics),
            journal: journal.clone(),
            hub: live.hub(),
            dedupe_window_ms: i64::try_from(config.journal.dedupe_window.as_millis()).unwrap_or(i64::MAX),
        };
        let app = settings.app_id.as_deref();
        let (subscriptions, subscriber) =
            subscribe::subscriber(&settings.sse_hosts, app, Arc::new(subscribed), Arc::clone(metrics))?;
        let gateway = Gateway::bind(settings, subscriptions, live.clone(), config.server.drain_timeout)?;
        Ok(Self { gateway, subscriber })
    }

    /// The gateway's bound address.
    pub(super) fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }

    /// Serves until draining begins.
    pub(super) async fn run(self, phases: watch::Receiver<Phase>) {
        let draining = |mut phases: watch::Receiver<Phase>| async move {
            // An error means that the sender is gone: the process is ending.
            let _ = phases.wait_for(|phase| *phase >= Phase::Draining).await;
        };
        tokio::join!(self.gateway.run(draining(phases.clone())), self.subscriber.run(draining(phases)));
    }
}

/// Takes what event streams bring: chunks to the live stream only, all else the way that webhooks go.
#[derive(Debug)]
struct Subscribed {
    endpoint: Arc<str>,
    counters: EndpointMetrics,
    metrics: Arc<Metrics>,
    journal: Journal,
    hub: Arc<Hub>,
    dedupe_window_ms: i64,
}

impl Feed for Subscribed {
    async fn take(&self, body: Bytes) -> bool {
        let verified = Verified::from_subscription(body);
        let json = Some("application/json".into());
        let event = Event::receive(verified, Arc::clone(&self.endpoint), now_ms(), self.dedupe_window_ms, json, None);
        if event.fields.event_name.as_deref() == Some(REPLY_CHUNK) {
            if self.hub.chunk(event) == Chunk::Gap {
                self.metrics.sse_chunk_gaps.inc();
            }
            return true;
        }
        self.hub.replied(&event);
        !matches!(store(&self.journal, &self.endpoint, &self.counters, event).await, Answer::Refused(_))
    }
}
