//! From a complete head to an answer: the checks of the contract, in its order.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};

use super::answer::Reply;
use super::head::Fault;
use super::io::Seen;
use super::slots::{Conn, Phase};
use crate::metrics::{EndpointMetrics, Metrics};
use crate::source::{Answer, Intake};

/// Room that is made for a body before any of it has come: a declared length is only a promise.
const FIRST_RESERVE: usize = 64 * 1024;

/// What all connections of a listener share.
pub(super) struct Service<I> {
    pub(super) endpoints: Box<[Endpoint]>,
    pub(super) intake: Arc<I>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) max_body_bytes: usize,
    pub(super) body_timeout: Duration,
}

/// An endpoint as it is found for a request.
pub(super) struct Endpoint {
    pub(super) name: Box<str>,
    pub(super) path: Box<str>,
    pub(super) metrics: EndpointMetrics,
}

/// The connection that a request came by.
pub(super) struct Origin {
    pub(super) conn: Conn,
    pub(super) seen: Arc<Seen>,
    /// The request's number on the connection, from 0.
    pub(super) number: u64,
}

/// Answers one request, whatever happens.
///
/// Each open connection has one of these futures, most of them waiting for the disk, and many more than fit into a
/// processor's cache: what is not needed any more is left behind before the future begins.
pub(super) fn respond<I: Intake>(
    service: Arc<Service<I>>,
    origin: Origin,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let asked = Asked {
        endpoint: service.endpoints.iter().position(|endpoint| *endpoint.path == *head.uri.path()),
        method: match head.method {
            Method::POST => Asks::Post,
            Method::HEAD => Asks::Head,
            _ => Asks::Other,
        },
        // Nothing behind a chunked request is read as a request: see `head`.
        chunked: body.size_hint().exact().is_none(),
        fault: origin.seen.fault(origin.number),
        began,
    };
    answer(service, origin, asked, head.headers, body)
}

/// What a request's head asks for.
#[derive(Clone, Copy)]
struct Asked {
    endpoint: Option<usize>,
    method: Asks,
    chunked: bool,
    fault: Option<Fault>,
    began: Instant,
}

/// A request's method, as far as it matters.
#[derive(Clone, Copy)]
enum Asks {
    Post,
    Head,
    Other,
}

async fn answer<I: Intake>(
    service: Arc<Service<I>>,
    origin: Origin,
    asked: Asked,
    mut headers: HeaderMap,
    mut body: Incoming,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let Asked { endpoint, chunked, fault, began, .. } = asked;
    enter(&origin.conn, Phase::Busy, began).await;
    let reply = match fault {
        Some(fault) => Reply::Malformed(fault),
        None => or_bug(pin!(handle(&service, &origin.conn, asked, &mut headers, &mut body))).await,
    };
    let last = chunked || fault.is_some() || reply == Reply::Bug || !body.is_end_stream() || origin.conn.draining();
    let now = Instant::now();
    if let (Some(endpoint), Some(outcome)) = (endpoint, reply.outcome()) {
        service.endpoints[endpoint].metrics.request(outcome);
        service.metrics.ack_seconds.observe((now - began).as_secs_f64());
    }
    let response = reply.response(last, headers);
    if !response.status().is_success() {
        let endpoint = endpoint.map(|at| &*service.endpoints[at].name);
        tracing::debug!(endpoint, status = response.status().as_u16(), reason = ?reply, "request refused");
    }
    origin.conn.answered(origin.seen.in_head(), now);
    Ok(response)
}

async fn handle<I: Intake>(
    service: &Service<I>,
    conn: &Conn,
    asked: Asked,
    headers: &mut HeaderMap,
    body: &mut Incoming,
) -> Reply {
    let Some(endpoint) = asked.endpoint else {
        return Reply::NotFound;
    };
    match asked.method {
        Asks::Head => return Reply::Here,
        Asks::Other => return Reply::Method,
        Asks::Post => {}
    }
    if !is_identity(headers) {
        return Reply::Encoded;
    }
    if body.size_hint().lower() > service.max_body_bytes as u64 {
        return Reply::TooLarge;
    }
    let claim = match service.intake.claim(endpoint, headers) {
        Ok(claim) => claim,
        Err(refusal) => return Reply::Taken(Answer::Refused(refusal)),
    };
    // Their values hold on to the connection's read buffer.
    headers.clear();
    match complete(service, conn, body, asked.began).await {
        Ok(body) => Reply::Taken(service.intake.take(endpoint, claim, body).await),
        Err(reply) => reply,
    }
}

/// The whole body, or why not. Mostly it came with the head: then there is no timer.
async fn complete<I>(service: &Service<I>, conn: &Conn, body: &mut Incoming, began: Instant) -> Result<Bytes, Reply> {
    let mut reading = pin!(read(body, service.max_body_bytes));
    if let Poll::Ready(body) = std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return body;
    }
    // Seldom needed, so the timer needn't lie in every request's future.
    Box::pin(async move {
        enter(conn, Phase::Body, began).await;
        let deadline = tokio::time::Instant::from_std(began + service.body_timeout);
        let body = tokio::time::timeout_at(deadline, reading).await.unwrap_or(Err(Reply::Timeout))?;
        enter(conn, Phase::Busy, Instant::now()).await;
        Ok(body)
    })
    .await
}

async fn read(body: &mut Incoming, limit: usize) -> Result<Bytes, Reply> {
    let declared = body.size_hint().exact().map_or(0, |length| usize::try_from(length).unwrap_or(limit));
    let mut whole: Vec<u8> = Vec::new();
    while !body.is_end_stream() {
        let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { break };
        let Ok(data) = frame.map_err(|_| Reply::Broken)?.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > limit {
            return Err(Reply::TooLarge);
        }
        if length == declared && whole.is_empty() {
            // Copied, so that a stored event keeps no read buffer alive and the connection can go on using it.
            return Ok(Bytes::copy_from_slice(&data));
        }
        if whole.is_empty() {
            whole.reserve_exact(declared.min(FIRST_RESERVE).max(data.len()));
        } else if length > whole.capacity() && declared > length {
            whole.reserve_exact(declared - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    // Of its own size: it is kept until it is stored, and counted by its length.
    whole.shrink_to_fit();
    Ok(Bytes::from(whole))
}

/// Moves the connection on; never returns when the accept loop has given it up, which is about to end this task.
async fn enter(conn: &Conn, phase: Phase, now: Instant) {
    if !conn.enter(phase, now) {
        std::future::pending().await
    }
}

/// A panic in a handler is answered and does no harm to the next request. What it says may hold a body: not logged.
async fn or_bug(mut handler: Pin<&mut impl Future<Output = Reply>>) -> Reply {
    std::future::poll_fn(|cx| {
        std::panic::catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))).unwrap_or_else(|_| {
            tracing::error!("a request's handler panicked: this is a bug in finhook, please report it");
            Poll::Ready(Reply::Bug)
        })
    })
    .await
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        value.as_bytes().split(|byte| *byte == b',').all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
    })
}
