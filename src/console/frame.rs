//! What all pages have around them: navigation, the policy for browsers, and how a failure looks.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::view::{self, csrf};
use super::visit::Visit;
use crate::serve::Problem;

/// Nothing runs and nothing is loaded but this console's own files; no page is put into a frame; texts become elements by no way.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The screens, in the order of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Screen {
    Overview,
    Live,
    Events,
    Conversations,
    Sinks,
    DeadLetters,
    Setup,
}

impl Screen {
    const ALL: [Self; 7] =
        [Self::Overview, Self::Live, Self::Events, Self::Conversations, Self::Sinks, Self::DeadLetters, Self::Setup];

    fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Live => "Live",
            Self::Events => "Events",
            Self::Conversations => "Conversations",
            Self::Sinks => "Sinks",
            Self::DeadLetters => "Dead letters",
            Self::Setup => "Set-up",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Live => "/live",
            Self::Events => "/events",
            Self::Conversations => "/conversations",
            Self::Sinks => "/sinks",
            Self::DeadLetters => "/dead-letters",
            Self::Setup => "/setup",
        }
    }

    /// The key that leads there, after `g`.
    fn key(self) -> &'static str {
        match self {
            Self::Overview => "o",
            Self::Live => "l",
            Self::Events => "e",
            Self::Conversations => "c",
            Self::Sinks => "s",
            Self::DeadLetters => "d",
            Self::Setup => "u",
        }
    }
}

/// A page of a screen.
pub(super) fn page(visit: &Visit, screen: Screen, title: &str, main: &Markup) -> Response {
    let body = html! {
        a.skip href="#main" { "Skip to content" }
        header.side {
            a.brand href="/" { (view::logo()) "finhook" }
            nav aria-label="Screens" {
                @for one in Screen::ALL {
                    a href=(one.path()) aria-current=[(one == screen).then_some("page")] data-go=(one.key()) { (one.name()) }
                }
            }
            div.who {
                span { @if visit.may_change() { "Operator" } @else { "Reader: bodies are masked" } }
                @if !matches!(visit.caller.by, crate::serve::guard::By::Machine) {
                    form method="post" action="/log-out" { (csrf(visit)) button.plain type="submit" { "Log out" } }
                }
                button.plain.script #show-keys type="button" { "Keys " kbd { "?" } }
            }
        }
        main #main tabindex="-1" { (main) }
        (keys())
    };
    document(title, &body).into_response()
}

/// A page without navigation: for those who are not let in yet, and for failures.
pub(super) fn bare(title: &str, main: &Markup) -> Markup {
    document(
        title,
        &html! {
            header.top { a.brand href="/" { (view::logo()) "finhook" } }
            main #main.bare tabindex="-1" { (main) }
        },
    )
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · finhook" }
                link rel="stylesheet" href=(assets::css());
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                script src=(assets::js()) defer {}
            }
            body { (body) }
        }
    }
}

/// The keys, for whoever asks; letters alone can be turned off, as speech input types them unasked.
fn keys() -> Markup {
    let keys = [
        ("j k", "down and up in a list"),
        ("Enter", "open"),
        ("/", "to the filter"),
        ("r", "replay, retry or resume"),
        ("p", "pause"),
        ("g then o l e c s d u", "Overview, Live, Events, Conversations, Sinks, Dead letters, Set-up"),
        ("?", "this list"),
    ];
    html! {
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keys" }
            dl.keys { @for (key, does) in keys { dt { @for one in key.split(' ') { @if one == "then" { " then " } @else { kbd { (one) } } } } dd { (does) } } }
            label.check { input #keys-off type="checkbox"; " Turn keys off in this browser" }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// Adds what browsers must know to every answer.
pub(super) async fn policy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: with that a browser says `Origin: null` of its own forms.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A problem, as a page.
pub(super) struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Problem { status, title, detail, .. } = &self.0;
        let main = html! {
            h1 { (title) }
            p { (detail) }
            p { a href="/" { "Overview" } }
        };
        let code = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, bare(title, &main)).into_response()
    }
}

pub(super) type Page = Result<Response, Failed>;
