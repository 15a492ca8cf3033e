//! Passing a call on to Fin, and Fin's answer back.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use super::{MAX_BODY_BYTES, Shared, read};
use crate::body::{self, BodyError};
use crate::fin::{Answer, VERSION_HEADER};
use crate::serve::Problem;

/// Headers of an answer of Fin's that its caller needs.
const PASSED_BACK: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];
/// And those that begin with these.
const PASSED_BACK_PREFIXES: [&str; 2] = ["x-ratelimit-", "x-request-id"];

/// The `Authorization` that Fin gets; marked so that it is in no `Debug` output.
pub(super) fn bearer(key: &SecretString) -> io::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
        .map_err(|_| io::Error::other("gateway.api_key can't be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `POST /fin/{*path}`.
pub(super) async fn on(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let url = target(&shared.base, head.uri.path(), head.uri.query());
    let url = url.ok_or_else(|| Problem::not_found("There is nothing here."))?;
    let key = shared.key.as_ref().ok_or_else(|| Problem::unavailable("The gateway has no API key."))?;
    let body = read(body).await?;
    let request = shared.client.get().post(url).headers(sent_on(&head.headers, key, &shared.version)).body(body);
    match fetch(request).await {
        Ok((status, headers, body)) => {
            if contains(&body, &key.as_bytes()["Bearer ".len()..]) {
                tracing::error!("Fin's answer holds the API key: withheld");
                return Err(Problem::new(StatusCode::BAD_GATEWAY, "Fin's answer can't be passed on."));
            }
            listen(&shared, status, &body);
            Ok((status, passed_back(&headers), body).into_response())
        }
        Err(failure) => {
            tracing::warn!(reason = failure.reason(), "Fin did not answer");
            Err(match failure {
                Failure::Late => Problem::new(StatusCode::GATEWAY_TIMEOUT, "Fin did not answer in time."),
                Failure::Unreachable => Problem::new(StatusCode::BAD_GATEWAY, "Fin can't be reached."),
                Failure::Broken => Problem::new(StatusCode::BAD_GATEWAY, "Fin's answer broke off."),
                Failure::TooLarge => Problem::new(StatusCode::BAD_GATEWAY, "Fin's answer is too large."),
            })
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    Late,
    Unreachable,
    Broken,
    TooLarge,
}

impl Failure {
    fn of(error: &reqwest::Error) -> Self {
        match error {
            error if error.is_timeout() => Self::Late,
            error if error.is_connect() => Self::Unreachable,
            _ => Self::Broken,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Late => "timeout",
            Self::Unreachable => "no connection",
            Self::Broken => "the connection broke",
            Self::TooLarge => "the answer is too large",
        }
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
    let mut answer = request.send().await.map_err(|error| Failure::of(&error))?;
    let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    match body::read(reqwest::Body::from(answer), MAX_BODY_BYTES).await {
        Ok(body) => Ok((status, headers, body)),
        Err(BodyError::TooLarge(_)) => Err(Failure::TooLarge),
        Err(BodyError::Broken(error)) => Err(Failure::of(&error)),
    }
}

/// Listens to the event stream that an answer names. The answer goes back whatever becomes of that.
fn listen(shared: &Shared, status: StatusCode, body: &[u8]) {
    let Some(subscriptions) = shared.answers.as_ref().filter(|_| status.is_success()) else { return };
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return };
    let Some(url) = answer.sse_subscription_url else { return };
    if let Err(refused) = subscriptions.answered(&url) {
        tracing::warn!(reason = %refused, "the event stream of an answer is not listened to; its events come by webhook only");
    }
}

/// Where a call goes: the base's path, then the request's. `None` unless each segment is made of letters, digits, `_`
/// and `-`, so that what Fin gets can't be read in another way, e.g. with `..` in some encoding.
fn target(base: &url::Url, path: &str, query: Option<&str>) -> Option<url::Url> {
    let rest = path.strip_prefix("/fin/")?;
    let plain = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    if !rest.split('/').all(plain) {
        return None;
    }
    let mut url = base.clone();
    url.set_path(&format!("{}/fin/{rest}", base.path().trim_end_matches('/')));
    url.set_query(query);
    Some(url)
}

/// The headers that Fin gets: the key, the version, and what the body is. Nothing else of the caller's.
fn sent_on(headers: &HeaderMap, key: &HeaderValue, version: &HeaderValue) -> HeaderMap {
    let or = |name: &str, default: HeaderValue| headers.get(name).cloned().unwrap_or(default);
    let json = HeaderValue::from_static("application/json");
    let mut sent = HeaderMap::new();
    sent.insert(header::CONTENT_TYPE, or(header::CONTENT_TYPE.as_str(), json.clone()));
    sent.insert(header::ACCEPT, json);
    sent.insert(VERSION_HEADER, or(VERSION_HEADER, version.clone()));
    sent.insert(header::AUTHORIZATION, key.clone());
    sent
}

fn passed_back(headers: &HeaderMap) -> HeaderMap {
    let wanted = |name: &HeaderName| {
        PASSED_BACK.contains(name) || PASSED_BACK_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
    };
    headers.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn contains(body: &[u8], key: &[u8]) -> bool {
    !key.is_empty() && body.windows(key.len()).any(|window| window == key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_plain_paths_below_fin_are_passed_on() {
        let base: url::Url = "https://api.eu.intercom.io/".parse().unwrap();
        let to = |path: &str| target(&base, path, None).map(String::from);
        assert_eq!(to("/fin/start").as_deref(), Some("https://api.eu.intercom.io/fin/start"));
        assert_eq!(to("/fin/procedures/run-1").as_deref(), Some("https://api.eu.intercom.io/fin/procedures/run-1"));
        for bad in [
            "/fin/",
            "/fin",
            "/fin//start",
            "/fin/start/",
            "/fin/..",
            "/fin/../contacts",
            "/fin/%2e%2e/contacts",
            "/fin/%252e%252e/contacts",
            "/fin/a/../../contacts",
            "/fin/.",
            "/fin/a%2f..%2f..",
            "/fin/a;b",
            "/fin/a\\b",
            "/contacts",
            "/finn/start",
        ] {
            assert_eq!(to(bad), None, "{bad}");
        }
        let nested: url::Url = "http://127.0.0.1:1/mock/".parse().unwrap();
        assert_eq!(target(&nested, "/fin/csat", Some("a=b")).unwrap().as_str(), "http://127.0.0.1:1/mock/fin/csat?a=b");
    }

    #[test]
    fn the_callers_authorization_is_never_sent_on_and_its_version_is() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer caller"));
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b"));
        headers.insert(VERSION_HEADER, HeaderValue::from_static("Preview"));
        let key = bearer(&SecretString::from("key")).unwrap();
        let sent = sent_on(&headers, &key, &HeaderValue::from_static("2.14"));
        assert_eq!(sent[header::AUTHORIZATION], "Bearer key");
        assert_eq!(sent[VERSION_HEADER], "Preview");
        assert!(!sent.contains_key(header::COOKIE));
        assert!(!format!("{sent:?}").contains("key\""), "marked as sensitive");
    }
}
