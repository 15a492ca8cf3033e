//! What a handler gets of a request: its claim, from the head alone, and its whole body.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::request::Parts;
use bytes::Bytes;

use super::answer::Reply;
use super::{Answer, Door, Intake};
use crate::body::{self, BodyError};

/// What a head claims, after all checks that need no more than the head.
pub(super) struct Claimed<I: Intake> {
    pub(super) claim: I::Claim,
    /// When the head was complete.
    pub(super) began: Instant,
}

impl<I: Intake> FromRequestParts<Arc<Door<I>>> for Claimed<I> {
    type Rejection = Reply;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door<I>>) -> Result<Self, Reply> {
        let began = Instant::now();
        let claim = if !is_identity(&parts.headers) {
            Err(Reply::Encoded)
        } else if declared_length(&parts.headers) > door.max_body_bytes as u64 {
            Err(Reply::TooLarge)
        } else {
            let claim = door.intake.claim(door.number, &parts.headers);
            claim.map_err(|refusal| Reply::Taken(Answer::Refused(refusal)))
        };
        match claim {
            Ok(claim) => Ok(Self { claim, began }),
            Err(reply) => Err(door.count(reply, began)),
        }
    }
}

/// A whole body, within `server.max_body_bytes` and `server.body_timeout`.
pub(super) struct Whole(pub(super) Bytes);

impl<I: Intake> FromRequest<Arc<Door<I>>> for Whole {
    type Rejection = Reply;

    async fn from_request(request: Request, door: &Arc<Door<I>>) -> Result<Self, Reply> {
        let began = Instant::now();
        // The values of the headers hold on to the connection's read buffer: they go before the body is waited for.
        let mut reading = pin!(body::read(request.into_body(), door.max_body_bytes));
        // Mostly it came with the head: then there is no timer.
        let read = match std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
            Poll::Ready(read) => Ok(read),
            // Seldom needed, so the timer needn't lie in every request's future.
            Poll::Pending => Box::pin(tokio::time::timeout(door.body_timeout, reading)).await,
        };
        let reply = match read {
            Ok(Ok(body)) => return Ok(Self(body)),
            Ok(Err(BodyError::TooLarge(_))) => Reply::TooLarge,
            Ok(Err(BodyError::Broken(_))) => Reply::Broken,
            Err(_elapsed) => Reply::Timeout,
        };
        Err(door.count(reply, began))
    }
}

/// 0 when none is declared. `serve` lets only plain digits through.
fn declared_length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0)
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        value.as_bytes().split(|byte| *byte == b',').all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
    })
}
