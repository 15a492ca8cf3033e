//! `/fin/start`, `/fin/reply` and `/fin/csat`, with Fin's own errors.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::Shared;
use crate::clock;
use crate::fin::{self, Answer, COMPLETE, ErrorList, Problem, Rate, Say, THINKING, VERSION_HEADER};

/// Most attachments, earlier messages and attributes in a request.
const MOST: usize = 10;
/// Keys of the ratings.
const RATINGS: [&str; 5] = ["terrible", "bad", "ok", "good", "amazing"];

/// `POST /fin/start`.
pub(super) async fn start(state: State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    say(state, &headers, &body, true)
}

/// `POST /fin/reply`.
pub(super) async fn reply(state: State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    say(state, &headers, &body, false)
}

fn say(State(shared): State<Arc<Shared>>, headers: &HeaderMap, body: &Bytes, start: bool) -> Response {
    let said: Say = match admitted(&shared, headers, body) {
        Ok(said) => said,
        Err(refused) => return refused,
    };
    let refuse = |message| error(&shared, StatusCode::BAD_REQUEST, "parameter_invalid", message);
    if said.conversation_id.is_empty() || said.user.id.is_empty() || said.message.body.is_empty() {
        return refuse("conversation_id, user.id and message.body are required");
    }
    if said.message.author != "user" {
        return refuse("message.author must be 'user'");
    }
    let metadata = said.conversation_metadata.unwrap_or_default();
    if said.attachments.len() > MOST || metadata.history.len() > MOST {
        return refuse("at most 10 attachments and 10 messages of history");
    }
    let known = shared.memory().conversations.contains_key(&said.conversation_id);
    if !start && !known {
        return error(&shared, StatusCode::BAD_REQUEST, "conversation_not_found", "Start the conversation first");
    }
    let excess: Vec<_> = [&said.user.attributes, &metadata.attributes]
        .into_iter()
        .flat_map(|attributes| attributes.keys().skip(MOST))
        .map(|name| serde_json::json!({"code": "attribute_not_accepted", "field": name}))
        .collect();
    let url = shared.begin(&said.conversation_id, &said.user.id, &said.message.body, start);
    let answer = Answer {
        conversation_id: said.conversation_id,
        user_id: Some(said.user.id),
        status: Some(THINKING.to_owned()),
        created_at_ms: clock::rfc3339(clock::now_ms()),
        sse_subscription_url: url,
        errors: (!excess.is_empty()).then(|| excess.into()),
    };
    Json(answer).into_response()
}

/// `POST /fin/csat`.
pub(super) async fn csat(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let rate: Rate = match admitted(&shared, &headers, &body) {
        Ok(rate) => rate,
        Err(refused) => return refused,
    };
    if !RATINGS.contains(&rate.rating.as_str()) {
        return error(&shared, StatusCode::BAD_REQUEST, "parameter_invalid", "rating is not one of the options");
    }
    let user_id = {
        let memory = shared.memory();
        memory
            .conversations
            .get(&rate.conversation_id)
            .filter(|known| known.rateable)
            .map(|known| known.user_id.clone())
    };
    let Some(user_id) = user_id else {
        let message = "No rating has been requested for this conversation";
        return error(&shared, StatusCode::UNPROCESSABLE_ENTITY, "csat_not_possible", message);
    };
    let answer = Answer {
        conversation_id: rate.conversation_id,
        user_id: Some(user_id),
        status: Some(COMPLETE.to_owned()),
        created_at_ms: clock::rfc3339(clock::now_ms()),
        ..Answer::default()
    };
    Json(answer).into_response()
}

/// Everything else.
pub(super) async fn not_found(State(shared): State<Arc<Shared>>) -> Response {
    error(&shared, StatusCode::NOT_FOUND, "not_found", "No such path")
}

/// An answer in Intercom's form of errors.
pub(super) fn error(shared: &Shared, status: StatusCode, code: &str, message: &str) -> Response {
    let request = {
        let mut memory = shared.memory();
        memory.requests += 1;
        memory.requests
    };
    let list = ErrorList {
        kind: "error.list".to_owned(),
        request_id: format!("fake{:016x}", shared.settings.seed.wrapping_add(request)),
        errors: vec![Problem { code: code.to_owned(), message: message.to_owned() }],
    };
    (status, Json(list)).into_response()
}

/// Checks the key and the version, and parses the body.
#[expect(clippy::result_large_err, reason = "the error is the answer itself")]
fn admitted<T: DeserializeOwned>(shared: &Shared, headers: &HeaderMap, body: &Bytes) -> Result<T, Response> {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if key.and_then(|value| value.strip_prefix("Bearer ")) != Some(shared.settings.api_key.as_str()) {
        return Err(error(shared, StatusCode::UNAUTHORIZED, "unauthorized", "Access Token Invalid"));
    }
    let version = headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
    if !version.is_some_and(serves) {
        let message = "The requested version could not be found or has no Fin Agent API";
        return Err(error(shared, StatusCode::BAD_REQUEST, "intercom_version_invalid", message));
    }
    serde_json::from_slice(body).map_err(|cause| {
        let message = format!("The body is not what was expected at line {} column {}", cause.line(), cause.column());
        error(shared, StatusCode::BAD_REQUEST, "parameter_invalid", &message)
    })
}

/// Whether a version has the Fin Agent API.
fn serves(version: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    let pair = version.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    matches!(version, "Preview" | "Unstable") || pair.is_some_and(|pair| pair >= fin::LOWEST_VERSION)
}

#[cfg(test)]
mod tests {
    use super::serves;

    #[test]
    fn versions_before_2_14_do_not_have_the_api() {
        assert!(["2.14", "2.15", "3.0", "Preview"].into_iter().all(serves));
        assert!(!["2.13", "1.99", "2", "", "latest", "2.x"].into_iter().any(serves));
    }
}
