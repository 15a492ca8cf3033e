//! Who comes: sessions, and what a change must be accompanied by.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use tokio::time::timeout;
use url::form_urlencoded;

use super::Console;
use super::frame::{Failed, bare};
use crate::body;
use crate::serve::guard::{By, Caller, Role};
use crate::serve::{Problem, Seldom};

/// Largest form: a page's worth of ids, and filters.
const MAX_FORM_BYTES: usize = 128 * 1024;
/// For a whole form.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Log-ins that failed: whoever reaches the listener makes them happen.
static FAILED: Mutex<Option<Seldom>> = Mutex::new(None);

/// Somebody who looks at a page.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) caller: Caller,
    /// For the forms of the page.
    pub(super) csrf: Arc<str>,
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Put there by `admit`, which stands before every page.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

impl Visit {
    /// Whether changes are offered.
    pub(super) fn may_change(&self) -> bool {
        !self.caller.is_reader()
    }
}

/// The middleware of the pages: only with a session, where there is a token.
pub(super) async fn admit(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Err(problem) = console.guard.own(headers) {
        return Failed::from(problem).into_response();
    }
    let caller = match console.guard.is_open() {
        true => Some(Caller { role: Role::Operator, by: By::Machine }),
        false => console.sessions().caller(headers),
    };
    let Some(caller) = caller else {
        // Where to go on, but for forms: what was in one is lost.
        let from = if request.method() == Method::GET { request.uri().path() } else { "/" };
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", from).finish();
        return Redirect::to(&format!("/log-in?{query}")).into_response();
    };
    let csrf = console.sessions().csrf(headers).into();
    request.extensions_mut().insert(Visit { caller, csrf });
    next.run(request).await
}

/// The middleware of the log-in.
pub(super) async fn own(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    match console.guard.own(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => Failed::from(problem).into_response(),
    }
}

/// The fields of a form, in their order.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    async fn read(body: Body) -> Result<Self, Problem> {
        match timeout(FORM_TIMEOUT, body::read(body, MAX_FORM_BYTES)).await {
            Ok(Ok(bytes)) => Ok(Self(form_urlencoded::parse(&bytes).into_owned().collect())),
            Ok(Err(_)) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large, or broke off")),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the form did not come in time")),
        }
    }

    /// A field; what is empty is not given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, value)| key == name && !value.is_empty());
        values.next().map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// A change that may be made: by an operator, from a page of this session.
pub(super) struct Change {
    pub(super) visit: Visit,
    pub(super) form: Form,
}

impl FromRequest<Arc<Console>> for Change {
    type Rejection = Failed;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Failed> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, console).await?;
        let form = Form::read(body).await?;
        if !console.sessions().is_csrf(&parts.headers, form.get("csrf").unwrap_or_default()) {
            let detail = "this form is of another session, or of none: go back, load the page anew, and try again";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail).into());
        }
        if !visit.may_change() {
            let detail = "you are here to look: whoever logs in with admin.token may change things";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail).into());
        }
        Ok(Self { visit, form })
    }
}

/// The query of a URL, as its type; what is empty in it is not given, as in the forms that lead there.
pub(super) fn asked<T: serde::de::DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let query = uri.query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let uri = Uri::try_from(format!("/?{query}")).map_err(|_| Problem::bad("the query can't be read"))?;
    let read = axum::extract::Query::<T>::try_from_uri(&uri);
    read.map(|asked| asked.0).map_err(|error| Problem::bad(error.body_text()))
}

/// `GET /log-in`
pub(super) async fn ask(State(console): State<Arc<Console>>, uri: Uri) -> Response {
    if console.guard.is_open() {
        return Redirect::to("/").into_response();
    }
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let next = pairs.into_iter().find(|(name, _)| name == "next").map(|(_, value)| value.into_owned());
    form(StatusCode::OK, next.as_deref().unwrap_or("/"), None)
}

fn form(status: StatusCode, next: &str, wrong: Option<&str>) -> Response {
    let main = html! {
        form.login method="post" action="/log-in" {
            h1 { "Log in" }
            @if let Some(wrong) = wrong { p.problem role="alert" { (wrong) } }
            input type="hidden" name="next" value=(next);
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="current-password" required autofocus;
            p.hint { "The one of " code { "admin.token" } ", or of " code { "admin.reader_token" } " to look only." }
            button type="submit" { "Log in" }
        }
    };
    (status, bare("Log in", &main)).into_response()
}

/// `POST /log-in`
pub(super) async fn log_in(State(console): State<Arc<Console>>, body: Body) -> Result<Response, Failed> {
    let form = Form::read(body).await?;
    let next = form.get("next").filter(|next| is_here(next)).unwrap_or("/");
    let role = console.guard.role(form.get("token").unwrap_or_default().trim().as_bytes());
    let Some((cookie, caller)) = role.and_then(|role| console.sessions().begin(role)) else {
        if let Some(times) = FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().happened() {
            tracing::warn!(times, "somebody presented a wrong token to the console");
        }
        return Ok(self::form(StatusCode::FORBIDDEN, next, Some("That is not the token.")));
    };
    tracing::info!(by = %caller, "logged in to the console");
    Ok(([(SET_COOKIE, cookie)], Redirect::to(next)).into_response())
}

/// `POST /log-out`
pub(super) async fn log_out(
    State(console): State<Arc<Console>>,
    visit: Visit,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failed> {
    // Readers log out, too: all that is asked is that it was they.
    if console.sessions().is_csrf(&headers, Form::read(body).await?.get("csrf").unwrap_or_default()) {
        tracing::info!(by = %visit.caller, "logged out of the console");
        return Ok(([(SET_COOKIE, console.sessions().end(&headers))], Redirect::to("/log-in")).into_response());
    }
    Ok(Redirect::to("/").into_response())
}

/// Whether it is a path of this listener, and of no other host.
fn is_here(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    path.starts_with('/') && !path.starts_with("//") && path.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn after_the_log_in_nobody_is_sent_to_another_host() {
        for here in ["/", "/events", "/conversations/a%2Fb"] {
            assert!(is_here(here), "{here}");
        }
        for there in ["//evil.example", "/\\evil.example", "https://evil.example", "", "events", "/a\r\nb", "/\t/evil"]
        {
            assert!(!is_here(there), "{there}");
        }
    }
}
