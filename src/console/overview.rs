//! Overview: what comes in, how fast it is answered, and how each sink stands; the last hour as small charts.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use maud::{Markup, html};

use super::Console;
use super::frame::{Page, Screen, page};
use super::history::Look;
use super::view::{self, badge, length, number, word};
use super::visit::Visit;
use crate::admin::{Mode, SinkItem};

/// Outcomes of requests that were taken; all others were refused.
const TAKEN: [&str; 5] = ["accepted", "duplicate", "stale", "quarantined", "test"];

/// `GET /`
pub(super) async fn show(State(console): State<Arc<Console>>, visit: Visit, RawQuery(query): RawQuery) -> Page {
    let sinks = console.api.sinks().await?.sinks;
    let looks = console.history.looks();
    let main = html! {
        h1 { "Overview" }
        (view::done(query.as_deref()))
        div data-refresh="5" #overview {
            (banners(&console, &sinks))
            (tiles(&looks))
            h2 { "Sinks" }
            (table(&sinks, &looks))
        }
    };
    Ok(page(&visit, Screen::Overview, "Overview", &main))
}

/// What needs a person.
fn banners(console: &Console, sinks: &[SinkItem]) -> Markup {
    let full = !console.api.is_writable();
    let waiting = console.facts.without_secret();
    html! {
        @if full {
            p.banner.bad { strong { "Nothing can be stored." } " The disk is full or failing: requests get 503. See finhook's log." }
        }
        @for endpoint in waiting {
            p.banner.warn { strong { "No signing secret yet" } " for the endpoint " (endpoint) ": its events get 503. " a href="/setup" { "Set-up" } }
        }
        @for sink in sinks {
            @if sink.state == Mode::Failing {
                p.banner.bad {
                    strong { (sink.name) " is failing." } " It is tried again by itself; events wait on disk."
                    @if let Some(error) = &sink.last_error { " Last: " bdi { (error) } }
                }
            } @else if sink.state == Mode::Paused {
                p.banner.warn { strong { (sink.name) " is paused" } " by an operator. " a href="/sinks" { "Sinks" } }
            }
            @if sink.dead > 0 {
                p.banner.warn {
                    strong { (number(sink.dead)) @if sink.dead == 1 { " dead letter" } @else { " dead letters" } } " at " (sink.name) ". "
                    a href=(view::link("/dead-letters", [("sink", Some(&*sink.name))])) { "Look and retry" }
                }
            }
        }
    }
}

fn tiles(looks: &[Look]) -> Markup {
    let (Some(begun), Some(last)) = (looks.first(), looks.last()) else { return html! {} };
    // Whoever has just come is told of all that was since finhook started.
    let start = Look::default();
    let young = last.at_ms - begun.at_ms < 60_000;
    let first = if young { &start } else { begun };
    let taken = |look: &Look| TAKEN.iter().map(|outcome| look.outcome(outcome)).sum::<f64>();
    let outcomes = last.outcomes().into_iter().filter(|outcome| !TAKEN.contains(outcome));
    let refused: Vec<(&str, f64)> = outcomes
        .map(|outcome| (outcome, last.outcome(outcome) - first.outcome(outcome)))
        .filter(|(_, count)| *count >= 1.0)
        .collect();
    let minutes = |a: &Look, b: &Look| ((b.at_ms - a.at_ms) as f64 / 60_000.0).max(1.0 / 600.0);
    let rates: Vec<f64> =
        looks.windows(2).map(|pair| (taken(&pair[1]) - taken(&pair[0])) / minutes(&pair[0], &pair[1])).collect();
    let tails = |share| -> Vec<f64> {
        looks.windows(2).map(|pair| pair[1].ack_since(&pair[0], share).unwrap_or(0.0) * 1000.0).collect()
    };
    let since = |share| last.ack_since(first, share).map_or_else(|| "–".to_owned(), |s| format!("≤ {} ms", ms(s)));
    let none = |look: &Look| look.all() - taken(look);
    let refusals: Vec<f64> = looks.windows(2).map(|pair| none(&pair[1]) - none(&pair[0])).collect();
    // The last one may be of a moment only.
    let minute = looks.iter().rev().nth(2).unwrap_or(begun);
    let now = (taken(last) - taken(minute)) / minutes(minute, last);
    html! {
        div.tiles {
            section.tile { h2 { "Events a minute" } p.figure { (format!("{now:.0}")) } (chart(&rates, "events a minute")) }
            section.tile {
                h2 { "Answered within" }
                p.figure { (since(0.5)) small { " half of them" } }
                p.figure.small { (since(0.99)) small { " 99 of 100" } }
                (chart(&tails(0.99), "milliseconds in which 99 of 100 were answered"))
            }
            section.tile {
                h2 { "Refused" }
                @if refused.is_empty() { p.figure { "0" } } @else {
                    ul.plain { @for (outcome, count) in refused { li { b { (format!("{count:.0}")) } " " (outcome.replace('_', " ")) } } }
                }
                (chart(&refusals, "refused requests"))
            }
        }
        p.hint {
            @if young { "Since finhook started. Charts begin now, as somebody looks, and come to reach back an hour." }
            @else { "Of the last " (length((last.at_ms - first.at_ms) as f64 / 1000.0)) "." }
        }
    }
}

fn table(sinks: &[SinkItem], looks: &[Look]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Sinks" {
            table {
                thead { tr {
                    th { "Sink" } th { "State" } th.n { "Behind" } th.n { "Oldest" } th.n { "Dead" }
                    th.w { "Delivered" } th.w { "Failures" } th.w { "Latency" }
                } }
                tbody {
                    @for sink in sinks {
                        @let of = |look: &Look| look.sinks.iter().find(|known| known.name == sink.name).cloned().unwrap_or_default();
                        @let steps = |value: fn(&super::history::SinkLook) -> f64| -> Vec<f64> {
                            looks.windows(2).map(|pair| value(&of(&pair[1])) - value(&of(&pair[0]))).collect()
                        };
                        @let latency: Vec<f64> = steps(|s| s.seconds).iter().zip(steps(|s| s.attempts)).map(|(seconds, attempts)| if attempts > 0.0 { seconds / attempts * 1000.0 } else { 0.0 }).collect();
                        tr data-row {
                            td { a href=(view::link("/events", [("sink", Some(&*sink.name)), ("since", Some("1h"))])) { (sink.name) } }
                            td { (badge(&word(sink.state))) }
                            td.n { (number(sink.lag)) }
                            td.n { @if sink.oldest_undelivered_seconds > 0.0 { (length(sink.oldest_undelivered_seconds)) } @else { span.none { "–" } } }
                            td.n { @if sink.dead > 0 { a href=(view::link("/dead-letters", [("sink", Some(&*sink.name))])) { (number(sink.dead)) } } @else { span.none { "–" } } }
                            td.w { (chart(&steps(|s| s.delivered), "delivered")) }
                            td.w { (chart(&steps(|s| s.failed), "failed attempts")) }
                            td.w { (chart(&latency, "milliseconds an attempt")) }
                        }
                    }
                    @if sinks.is_empty() { tr { td colspan="8" { "No sink: events are stored and go nowhere." } } }
                }
            }
        }
    }
}

fn ms(seconds: f64) -> String {
    let ms = seconds * 1000.0;
    if ms < 1.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

/// A line of values, from 0 to the largest; said in words for those who don't see it.
fn chart(values: &[f64], what: &str) -> Markup {
    const WIDTH: f64 = 120.0;
    const HEIGHT: f64 = 28.0;
    let most = values.iter().copied().fold(0.0_f64, f64::max);
    let step = WIDTH / (values.len().max(2) - 1) as f64;
    let points: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let height = if most > 0.0 { value.max(0.0) / most } else { 0.0 };
            format!("{:.1},{:.1}", at as f64 * step, HEIGHT - 2.0 - height * (HEIGHT - 4.0))
        })
        .collect();
    let label = format!("{what}: up to {most:.0}");
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) preserveAspectRatio="none" {
            polyline points=(points.join(" ")) vector-effect="non-scaling-stroke" {}
        }
    }
}
