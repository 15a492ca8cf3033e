//! Fin's event streams: a subscriber for the `sse_subscription_url` of each answer.
//!
//! A URL serves one turn of a conversation. The subscriber connects, hands each event on to a [`Feed`] in the order in
//! which they come, reconnects while the token lives, and ends when Fin ends the stream or refuses the token. Webhooks
//! remain the guarantee; a stream that was lost is counted (`finhook_sse_streams_total{state="lost"}`).
//!
//! Invariants:
//! - No connection is made to a host that is not allowed: the URL is checked by [`allow`], looked-up addresses by
//!   [`resolve`], which hands the connection just the addresses that it has checked; redirects are not followed.
//! - A URL is a credential: it is in no log, no error and no metric.
//! - Streams, their number, their length in time and the size of an event are bounded; each is a task of the
//!   subscriber's, and none outlives it.

pub mod allow;
mod follow;
mod resolve;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use allow::{Refused, Subscription};
pub use follow::End;

use prometheus_client::metrics::counter::Counter;

use crate::metrics::Metrics;
use crate::outbound;
use crate::serve::Seldom;

/// Event streams open at once.
pub const MAX_STREAMS: usize = 1024;

/// Where events go.
pub trait Feed: Send + Sync + 'static {
    /// Takes the bytes of one event; returns once it is stored, or shown if it is live only. `false`: it can't be stored
    /// now, try again.
    fn take(&self, body: Bytes) -> impl Future<Output = bool> + Send;
}

/// Events in a stream that belong to another conversation than the one that its channel names.
#[derive(Debug)]
struct Foreign {
    count: Counter,
    said: Mutex<Seldom>,
}

impl Foreign {
    fn new(metrics: &Metrics) -> Self {
        Self { count: metrics.sse_foreign.clone(), said: Mutex::default() }
    }

    fn came(&self, of_channel: &str, conversation: &str) {
        /// Longest id in the log, in characters.
        const SHOWN: usize = 100;
        self.count.inc();
        let times = self.said.lock().unwrap_or_else(PoisonError::into_inner).happened();
        if let Some(times) = times {
            let conversation: String = conversation.chars().take(SHOWN).collect();
            tracing::warn!(
                channel = of_channel,
                conversation,
                times,
                "an event stream had an event of another conversation than its channel names; it is stored. Said once a minute at most"
            );
        }
    }
}

/// Where URLs are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Subscription>,
}

#[derive(Debug)]
struct Shared {
    hosts: Vec<String>,
    /// The app, once it is known.
    app: OnceLock<Box<str>>,
    /// URLs that are listened to or wait for it: a second hand-in of one changes nothing.
    active: Mutex<HashSet<url::Url>>,
}

/// Listens to what is handed in.
#[derive(Debug)]
pub struct Subscriber<F> {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Subscription>,
    feed: Arc<F>,
    metrics: Arc<Metrics>,
    foreign: Arc<Foreign>,
    client: reqwest::Client,
}

/// A subscriber and the place to hand URLs in. `hosts` are patterns as in [`Subscription::parse`]; `app` is the
/// configured app.
///
/// # Errors
/// When the HTTP client can't be set up.
pub fn subscriber<F: Feed>(
    hosts: &[String],
    app: Option<&str>,
    feed: Arc<F>,
    metrics: Arc<Metrics>,
) -> std::io::Result<(Subscriptions, Subscriber<F>)> {
    let builder = outbound::client().map_err(std::io::Error::other)?;
    let client = builder
        .dns_resolver(Arc::new(resolve::Checked::new(resolve::System)))
        .connect_timeout(follow::CONNECT)
        .tcp_keepalive(follow::KEEPALIVE)
        // Each stream has a connection of its own, so the name is looked up for each.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(std::io::Error::other)?;
    let known = OnceLock::new();
    if let Some(app) = app {
        let _ = known.set(app.into());
    }
    let shared = Arc::new(Shared { hosts: hosts.to_vec(), app: known, active: Mutex::default() });
    // Every active URL has room in the queue.
    let (sender, queue) = mpsc::channel(MAX_STREAMS);
    let subscriptions = Subscriptions { shared: Arc::clone(&shared), queue: sender };
    Ok((subscriptions, Subscriber { shared, queue, feed, foreign: Arc::new(Foreign::new(&metrics)), metrics, client }))
}

impl Subscriptions {
    /// A URL that came in Fin's own answer. The first one tells which app it is.
    ///
    /// # Errors
    /// Why it is not listened to.
    pub fn answered(&self, url: &str) -> Result<(), Refused> {
        let subscription = Subscription::parse(url, &self.shared.hosts, now_s())?;
        self.shared.app.get_or_init(|| subscription.app.clone());
        self.hand_in(subscription)
    }

    /// A URL from someone who called Fin himself.
    ///
    /// # Errors
    /// Why it is not listened to.
    pub fn submit(&self, url: &str) -> Result<(), Refused> {
        self.hand_in(Subscription::parse(url, &self.shared.hosts, now_s())?)
    }

    fn hand_in(&self, subscription: Subscription) -> Result<(), Refused> {
        if self.shared.app.get() != Some(&subscription.app) {
            return Err(Refused::App);
        }
        let mut active = self.shared.active();
        if active.contains(&subscription.url) {
            return Ok(());
        }
        if active.len() >= MAX_STREAMS {
            return Err(Refused::Busy);
        }
        let url = subscription.url.clone();
        self.queue.try_send(subscription).map_err(|_| Refused::Busy)?;
        active.insert(url);
        Ok(())
    }
}

impl Shared {
    fn active(&self) -> MutexGuard<'_, HashSet<url::Url>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Feed> Subscriber<F> {
    /// Listens until `shutdown` resolves; then every stream ends, and no task is left behind.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(subscription) = self.queue.recv() => {
                    let listen = listen(
                        Arc::clone(&self.shared),
                        self.client.clone(),
                        subscription,
                        Arc::clone(&self.feed),
                        Arc::clone(&self.metrics),
                        Arc::clone(&self.foreign),
                    );
                    streams.spawn(listen);
                }
                Some(ended) = streams.join_next(), if !streams.is_empty() => {
                    if ended.is_err() {
                        tracing::error!("an event stream's task panicked: this is a bug in finhook, please report it");
                    }
                }
            }
        }
        streams.shutdown().await;
    }
}

async fn listen<F: Feed>(
    shared: Arc<Shared>,
    client: reqwest::Client,
    subscription: Subscription,
    feed: Arc<F>,
    metrics: Arc<Metrics>,
    foreign: Arc<Foreign>,
) {
    let conversation = subscription.conversation.clone();
    // Gives the URL back however this ends, a shutdown included.
    let _listening = Listening { shared, url: subscription.url.clone(), metrics: Arc::clone(&metrics) };
    metrics.sse_open.inc();
    let end = follow::follow(&client, &subscription, &*feed, &foreign).await;
    metrics.sse_stream(end.name());
    if end == End::Closed {
        tracing::debug!(%conversation, "event stream closed by Fin");
    } else {
        tracing::warn!(%conversation, end = end.name(), "event stream ended before its turn did; webhooks will bring the rest");
    }
}

struct Listening {
    shared: Arc<Shared>,
    url: url::Url,
    metrics: Arc<Metrics>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shared.active().remove(&self.url);
        self.metrics.sse_open.dec();
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Nowhere;

    impl Feed for Nowhere {
        async fn take(&self, _: Bytes) -> bool {
            true
        }
    }

    fn open(app: Option<&str>) -> (Subscriptions, Subscriber<Nowhere>) {
        subscriber(&["127.0.0.1".to_owned()], app, Arc::new(Nowhere), Arc::new(Metrics::new())).unwrap()
    }

    fn url(app: &str, conversation: u32) -> String {
        format!("http://127.0.0.1:9/s?channels=fin_agent_api:{app}:{conversation}&accessToken=t")
    }

    #[test]
    fn the_app_is_the_configured_one_or_the_one_that_fins_answers_name() {
        let (configured, _subscriber) = open(Some("a"));
        assert_eq!(configured.submit(&url("a", 1)), Ok(()));
        assert_eq!(configured.submit(&url("b", 1)), Err(Refused::App));
        assert_eq!(configured.answered(&url("b", 1)), Err(Refused::App));
        let (learnt, _subscriber) = open(None);
        assert_eq!(learnt.submit(&url("a", 1)), Err(Refused::App), "not known yet");
        assert_eq!(learnt.answered(&url("a", 1)), Ok(()));
        assert_eq!(learnt.submit(&url("a", 2)), Ok(()));
        assert_eq!(learnt.submit(&url("b", 2)), Err(Refused::App));
    }

    #[test]
    fn there_is_a_cap_and_the_same_url_counts_once() {
        let (subscriptions, _subscriber) = open(Some("a"));
        for number in 0..u32::try_from(MAX_STREAMS).unwrap() {
            assert_eq!(subscriptions.submit(&url("a", number)), Ok(()));
            assert_eq!(subscriptions.submit(&url("a", number)), Ok(()));
        }
        assert_eq!(subscriptions.submit(&url("a", u32::MAX)), Err(Refused::Busy));
        assert_eq!(subscriptions.submit(&url("a", 0)), Ok(()), "is listened to already");
    }
}
