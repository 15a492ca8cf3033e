//! The console: the operator's pages on the admin listener, made on the server.
//!
//! Everything that is shown comes from [`admin::Api`](crate::admin::Api), and so does every change: this is one more way to show it,
//! and reads nothing of its own. Pages are complete without JavaScript; the one script brings keys and live updates.
//!
//! - [`visit`]: who comes: sessions, CSRF, forms. [`frame`]: what all pages have around them. [`view`]: their small parts.
//! - [`overview`], [`sinks`], [`events`], [`bulk`], [`event`], [`conversations`], [`dead`], [`setup`], [`live`]: the screens.
//! - [`words`]: somebody else's HTML, for people. [`json`]: a body, indented. [`history`]: the last hour, for the charts.
//!
//! Invariants:
//! - Nobody sees a page without a session, unless no token is configured; see [`guard`](crate::serve::guard).
//! - A change is a POST with the session's CSRF token, by an operator.
//! - No markup of a stranger's reaches a page: what is shown is text that is escaped where it is put in, and [`words`] makes its
//!   own elements. The policy that goes with every page lets nothing run or load but this console's own files.
//! - Nobody who does not look costs anything: there is no task and no state before the first page.

mod assets;
mod bulk;
mod conversations;
mod dead;
mod event;
mod events;
mod frame;
mod history;
mod json;
mod live;
mod overview;
mod setup;
mod sinks;
mod view;
mod visit;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::admin::Api;
use crate::config::Config;
use crate::serve::guard::Guard;
use crate::serve::session::Sessions;
use history::History;
use setup::Facts;

pub use setup::Callback;

/// What the pages share.
struct Console {
    api: Arc<Api>,
    guard: Arc<Guard>,
    facts: Facts,
    history: History,
}

impl Console {
    fn sessions(&self) -> &Sessions {
        self.guard.browsers()
    }
}

/// The pages, for the admin listener that has this API and this guard. `callbacks`: where the endpoints are reached.
pub fn router(api: Arc<Api>, guard: Arc<Guard>, config: &Config, callbacks: Vec<Callback>) -> Router {
    let facts = Facts::new(config, callbacks);
    let console = Arc::new(Console { history: History::new(api.metrics()), api, guard, facts });
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/sinks", get(sinks::list))
        .route("/sinks/{name}/{change}", post(sinks::change))
        .route("/events", get(events::list))
        .route("/events/export", get(events::export))
        .route("/events/plan", post(bulk::plan))
        .route("/events/carry-out", post(bulk::carry_out))
        .route("/events/{id}", get(event::show))
        .route("/events/{id}/body", get(event::body))
        .route("/conversations", get(conversations::list))
        .route("/conversations/{id}", get(conversations::show))
        .route("/dead-letters", get(dead::list))
        .route("/live", get(live::show))
        .route("/setup", get(setup::show))
        .route("/log-out", post(visit::log_out))
        .layer(from_fn_with_state(Arc::clone(&console), visit::admit));
    let open = Router::new()
        .route("/log-in", get(visit::ask).post(visit::log_in))
        .layer(from_fn_with_state(Arc::clone(&console), visit::own));
    let router = pages.merge(open).with_state(console).layer(axum::middleware::map_response(frame::policy));
    router.merge(assets::router())
}
