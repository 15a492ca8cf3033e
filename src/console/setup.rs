//! Set-up: what was configured and where it came from, and how far the endpoints have come.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};

use super::Console;
use super::frame::{Page, Screen, page};
use super::history::Look;
use super::view;
use super::visit::Visit;
use crate::config::{Config, Match, SinkKind};
use crate::verify::{Keyring, Scheme};

/// Where an endpoint is reached, and the secrets that it has by now.
pub struct Callback {
    /// Its name.
    pub name: String,
    /// The URL on this machine.
    pub url: String,
    /// The secrets, as they are now.
    pub keyring: Arc<Keyring>,
}

/// What does not change while finhook runs.
pub(super) struct Facts {
    configuration: String,
    callbacks: Vec<Callback>,
    sinks: BTreeMap<String, SinkFacts>,
}

/// What is known of a sink by its configuration.
pub(super) struct SinkFacts {
    pub(super) kind: String,
    pub(super) gets: String,
}

impl Facts {
    pub(super) fn new(config: &Config, callbacks: Vec<Callback>) -> Self {
        let sinks = config.sinks.iter().map(|(name, sink)| {
            let kind = match &sink.kind {
                SinkKind::Log(_) => "log, to stdout".to_owned(),
                SinkKind::File(file) => format!("file {}", file.path.display()),
                SinkKind::Http(http) => format!("POST {}", http.url),
                #[allow(unreachable_patterns, reason = "a kind that is new is shown before somebody has words for it")]
                _ => "sink".to_owned(),
            };
            (name.clone(), SinkFacts { kind, gets: gets(&sink.matching) })
        });
        Self { configuration: config.to_redacted_toml(), callbacks, sinks: sinks.collect() }
    }

    pub(super) fn sink(&self, name: &str) -> Option<&SinkFacts> {
        self.sinks.get(name)
    }

    /// Endpoints that can't take events yet.
    pub(super) fn without_secret(&self) -> impl Iterator<Item = &str> {
        self.callbacks.iter().filter(|callback| callback.keyring.is_empty()).map(|callback| &*callback.name)
    }
}

/// What a sink gets, in words.
fn gets(matching: &Match) -> String {
    let Match { endpoints, events, statuses, conversation_prefixes, except_conversation_prefixes } = matching;
    let all = [
        ("events", events),
        ("of the endpoints", endpoints),
        ("with the statuses", statuses),
        ("of conversations that begin with", conversation_prefixes),
        ("but of none that begin with", except_conversation_prefixes),
    ];
    let given: Vec<String> = all
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(what, values)| format!("{what} {}", values.join(", ")))
        .collect();
    if given.is_empty() { "every event".to_owned() } else { given.join(" ") }
}

/// `GET /setup`
pub(super) async fn show(State(console): State<Arc<Console>>, visit: Visit) -> Page {
    let looks = console.history.looks();
    let seen = looks.last().cloned().unwrap_or_default();
    let main = html! {
        h1 { "Set-up" }
        @for callback in &console.facts.callbacks { (steps(callback, &seen)) }
        h2 { "Try it" }
        p { "On this machine, with the configuration that finhook has:" }
        pre.code #send { "finhook send" }
        div.actions.script { button type="button" data-copy="send" { "Copy" } }
        h2 { "Configuration" }
        p.hint { "What is in force, each value with where it came from. Secrets are redacted." }
        pre.code tabindex="0" role="region" aria-label="Configuration" { (console.facts.configuration) }
    };
    Ok(page(&visit, Screen::Setup, "Set-up", &main))
}

fn steps(callback: &Callback, seen: &Look) -> Markup {
    let has_secret = !callback.keyring.is_empty();
    let count = |outcome: &str| seen.endpoint(&callback.name, outcome);
    let (tests, accepted) = (count("test"), count("accepted") + count("duplicate"));
    let refused = count("unauthenticated");
    let fin = callback.keyring.scheme() == Scheme::Fin;
    html! {
        section.card {
            div.head { h2 { "Endpoint " (callback.name) } span.hint { @if fin { "Fin Agent API" } @else { "classic Intercom webhooks" } } }
            ol.steps {
                li { span.step { (step(true)) } "Make this URL reachable over https, by the path behind your proxy: " code { (callback.url) } }
                li { span.step { (step(has_secret)) } @if has_secret { "It has a secret." } @else { "Save the URL in Intercom, then give finhook the secret that it shows: HEAD is answered by now, events get 503." } }
                @if fin { li { span.step { (step(tests > 0)) } @if tests > 0 { "The settings page's test has come." } @else { "The settings page's test has not come since the start; it is known only with client_secret_file." } } }
                li { span.step { (step(accepted > 0)) } @if accepted > 0 { (view::number(accepted)) " events were taken since the start." } @else { "No event was taken since the start." } }
            }
            @if refused > 0 { p.problem { (view::number(refused)) " requests since the start had no right signature: is the secret the one of this app?" } }
        }
    }
}

fn step(done: bool) -> Markup {
    html! { @if done { span.good aria-hidden="true" { "✓" } span.sr { "Done: " } } @else { span.none aria-hidden="true" { "○" } span.sr { "To do: " } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sink_gets_is_said_in_words() {
        assert_eq!(gets(&Match::default()), "every event");
        let some = Match {
            events: vec!["fin_replied".into(), "csat_requested".into()],
            except_conversation_prefixes: vec!["fin:test:".into()],
            ..Match::default()
        };
        assert_eq!(gets(&some), "events fin_replied, csat_requested but of none that begin with fin:test:");
    }
}
