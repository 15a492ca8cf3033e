//! What is done to many events: first it is counted, then somebody types the count, then it is done.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::Console;
use super::frame::{Page, Screen, page};
use super::view::{self, csrf, number};
use super::visit::{Change, Form, Visit};
use crate::admin::Selection;
use crate::clock;
use crate::serve::Problem;

/// What a form means; all of it is carried along to the page that asks once more.
const CARRIED: [&str; 9] = ["conversation", "user", "event", "status", "sink", "state", "since", "until", "id"];

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Replay,
    Purge,
}

struct Plan {
    act: Act,
    /// Where to send.
    to: Option<String>,
    selection: Selection,
}

impl Plan {
    /// Reads a form. `all`: what matches, whatever is selected.
    fn of(form: &Form) -> Result<Self, Problem> {
        let act = match form.get("do") {
            Some("replay") => Act::Replay,
            Some("purge") => Act::Purge,
            _ => return Err(Problem::bad("say what to do")),
        };
        let text = |name: &str| form.get(name).map(str::to_owned);
        let selection = if form.get("which") == Some("all") {
            let state = form.get("state").map(|state| serde_json::from_value(state.into()));
            let state = state.transpose().map_err(|_| Problem::bad("there is no such state"))?;
            Selection {
                conversation: text("conversation"),
                user: text("user"),
                event: text("event"),
                status: text("status"),
                sink: text("sink"),
                state,
                since: text("since"),
                until: text("until"),
                ..Selection::default()
            }
        } else {
            let ids: Vec<String> = form.all("id").map(str::to_owned).collect();
            if ids.is_empty() {
                return Err(Problem::bad("nothing is selected: go back and select some, or choose all that match"));
            }
            Selection { ids, ..Selection::default() }
        };
        let to = text("to").filter(|_| act == Act::Replay);
        if act == Act::Replay {
            let Some(to) = &to else { return Err(Problem::bad("say to which sink")) };
            // A replay's `sink` is where it goes; what was filtered by is the same sink, or can't be said.
            if selection.sink.as_ref().is_some_and(|sink| sink != to) {
                let detail = "events that were filtered by one sink can't be sent to another: filter without a sink";
                return Err(Problem::bad(detail));
            }
        }
        Ok(Self { act, to, selection })
    }

    /// Moments in place of "how long ago", and an end: so that what is done is what was counted.
    fn fixed(mut self) -> Result<Self, Problem> {
        let now = clock::now_ms();
        if self.selection.ids.is_empty() {
            let fix = |text: &str| {
                let ms = clock::parse_or_ago(text, now).and_then(clock::rfc3339);
                ms.ok_or_else(|| Problem::bad("since and until are times, or how long ago, such as 2h"))
            };
            self.selection.since = self.selection.since.as_deref().map(fix).transpose()?;
            let until = self.selection.until.as_deref().map(fix).transpose()?;
            self.selection.until = until.or_else(|| clock::rfc3339(now));
        }
        Ok(self)
    }

    fn word(&self) -> &'static str {
        match self.act {
            Act::Replay => "replay",
            Act::Purge => "purge",
        }
    }

    async fn run(&self, console: &Console, visit: &Visit, dry_run: bool) -> Result<(u64, Option<u64>), Problem> {
        let mut selection = Selection { dry_run, ..self.selection.clone() };
        match self.act {
            Act::Replay => {
                selection.sink = self.to.clone();
                Ok((console.api.replay(&visit.caller, selection).await?.events, None))
            }
            Act::Purge => {
                let purged = console.api.purge(&visit.caller, selection).await?;
                Ok((purged.events, Some(purged.bytes)))
            }
        }
    }
}

/// `POST /events/plan`: counts, and asks.
pub(super) async fn plan(State(console): State<Arc<Console>>, Change { visit, form }: Change) -> Page {
    let plan = Plan::of(&form)?.fixed()?;
    let (events, bytes) = plan.run(&console, &visit, true).await?;
    Ok(ask(&visit, &form, &plan, events, bytes, None))
}

fn ask(visit: &Visit, form: &Form, plan: &Plan, events: u64, bytes: Option<u64>, wrong: Option<&str>) -> Response {
    let title = match plan.act {
        Act::Replay => "Replay",
        Act::Purge => "Purge",
    };
    let main = html! {
        h1 { (title) }
        (what(plan, events, bytes))
        @if let Some(wrong) = wrong { p.problem role="alert" { (wrong) } }
        @if events > 0 {
            form.confirm method="post" action="/events/carry-out" {
                (csrf(visit))
                (carried(form, plan, events))
                label for="typed" { "Type " b { (events) } " to " (plan.word()) @if events == 1 { " this event" } @else { " these events" } }
                input #typed type="text" name="typed" inputmode="numeric" autocomplete="off" required autofocus;
                div.actions {
                    button.danger[plan.act == Act::Purge] type="submit" { (title) }
                    a href="/events" { "Cancel" }
                }
            }
        } @else { p { a href="/events" { "Back to the events" } } }
    };
    page(visit, Screen::Events, title, &main)
}

fn what(plan: &Plan, events: u64, bytes: Option<u64>) -> Markup {
    let selection = &plan.selection;
    let filters = [
        ("conversation", &selection.conversation),
        ("user", &selection.user),
        ("event", &selection.event),
        ("status", &selection.status),
        ("sink", &selection.sink),
        ("since", &selection.since),
        ("until", &selection.until),
    ];
    html! {
        p.figure { (number(events)) small { @if events == 1 { " event" } @else { " events" } @if let Some(bytes) = bytes { ", " (view::size(bytes)) } } }
        @if selection.ids.is_empty() {
            dl.facts {
                @for (name, value) in filters { @if let Some(value) = value { dt { (name) } dd { (view::id(value)) } } }
                @if let Some(state) = selection.state { dt { "state" } dd { (view::word(state)) } }
            }
        }
        @if let Some(to) = &plan.to { p { "They are sent to " b { (to) } " again, in the order of each conversation, with the same ids." } }
        @else { p { "Their bytes are removed from the journal for good, and what was still to be delivered of them is cancelled. Files of file sinks, and what was delivered elsewhere, are not covered." } }
    }
}

/// The same form once more, with its moments fixed and the count.
fn carried(form: &Form, plan: &Plan, events: u64) -> Markup {
    let fixed = |name: &str| match name {
        "since" => plan.selection.since.clone(),
        "until" => plan.selection.until.clone(),
        _ => None,
    };
    let all = form.get("which") == Some("all");
    html! {
        input type="hidden" name="do" value=(plan.word());
        input type="hidden" name="which" value=(if all { "all" } else { "selected" });
        input type="hidden" name="count" value=(events);
        @if let Some(to) = &plan.to { input type="hidden" name="to" value=(to); }
        @for name in CARRIED {
            @match fixed(name) {
                Some(value) => input type="hidden" name=(name) value=(value);,
                None => @if (name == "id") != all { @for value in form.all(name) { input type="hidden" name=(name) value=(value); } },
            }
        }
    }
}

/// `POST /events/carry-out`: does it, if the count was typed.
pub(super) async fn carry_out(State(console): State<Arc<Console>>, Change { visit, form }: Change) -> Page {
    let plan = Plan::of(&form)?;
    if form.get("typed").map(|typed| typed.replace([',', ' '], "")).as_deref() != form.get("count") {
        let (events, bytes) = plan.run(&console, &visit, true).await?;
        return Ok(ask(&visit, &form, &plan, events, bytes, Some("That is not the number: nothing was done.")));
    }
    let (events, _) = plan.run(&console, &visit, false).await?;
    let to = view::link("/events", [("done", Some(plan.word())), ("n", Some(&*events.to_string()))]);
    Ok(Redirect::to(&to).into_response())
}
