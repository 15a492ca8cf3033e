//! A request on its way from hyper to the router, and its answer on the way back: what the connection's slot and the raw
//! bytes have to say is added here, so that no route needs to know of connections.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tower::Service;

use super::head::Fault;
use super::io::Seen;
use super::slots::{Conn, Phase};
use super::{OnRefused, Problem};

/// The connection that a request came by.
pub(super) struct Origin {
    pub(super) conn: Conn,
    pub(super) seen: Arc<Seen>,
    /// The request's number on the connection, from 0.
    pub(super) number: u64,
}

/// Answers one request.
///
/// Each open connection has one of these futures, most of them waiting for the disk, and many more than fit into a
/// processor's cache: what is not needed any more is left behind before the future begins.
pub(super) fn respond(
    router: &Router,
    on_refused: &OnRefused,
    origin: Origin,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
    let Origin { conn, seen, number } = origin;
    let fault = seen.fault(number);
    // Nothing behind a chunked request is read as a request: see `head`.
    let chunked = request.body().size_hint().exact().is_none();
    seen.set_body_left(!request.body().is_end_stream());
    let entered = conn.enter(Phase::Busy, Instant::now());
    let answered = match fault {
        Some(fault) => {
            on_refused(StatusCode::BAD_REQUEST, request.uri().path());
            Err(malformed(fault).into_response())
        }
        None => {
            let body =
                |incoming| Body::new(Received { incoming, conn: conn.clone(), seen: Arc::clone(&seen), late: false });
            Ok(router.clone().call(request.map(body)))
        }
    };
    async move {
        if !entered {
            // Given up by the accept loop, which is about to end this task.
            return std::future::pending().await;
        }
        let mut response = match answered {
            Ok(answer) => answer.await?,
            Err(malformed) => malformed,
        };
        if chunked || fault.is_some() || seen.body_left() || conn.draining() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // What is there as a whole is hyper's from here: the connection waits for its next request.
        let is_stream = response.body().size_hint().exact().is_none();
        let until_sent = Some(UntilSent { conn, seen }).filter(|_| is_stream);
        Ok(response.map(|body| Answer { body, _until_sent: until_sent }))
    }
}

fn malformed(fault: Fault) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        match fault {
            Fault::Line => "A header line is malformed.",
            Fault::Length => "The body's length is given in more than one way.",
            Fault::Coding => "The only transfer coding is one chunked.",
            Fault::Host => "There must be one Host header; HTTP/1.0 may do without.",
        },
    )
}

/// A request's body. Tells the slot when it is waited for, and when all of it is in.
struct Received {
    incoming: Incoming,
    conn: Conn,
    seen: Arc<Seen>,
    /// Not all of it was there when it was first asked for.
    late: bool,
}

impl Received {
    /// Moves the connection on; false when the accept loop has given it up.
    fn enter(&self, phase: Phase) -> bool {
        self.conn.enter(phase, Instant::now())
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if !this.late {
                    this.late = true;
                    // Given up or not, there is nothing to do but wait.
                    let _ = this.enter(Phase::Body);
                }
                return Poll::Pending;
            }
        };
        if this.incoming.is_end_stream() || frame.is_none() {
            this.seen.set_body_left(false);
            if std::mem::take(&mut this.late) && !this.enter(Phase::Busy) {
                // This task is about to be ended: nothing may be begun.
                return Poll::Pending;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// An answer's body.
pub(super) struct Answer {
    body: Body,
    /// Of a stream: its request goes on until it ends.
    _until_sent: Option<UntilSent>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// While it lives a request is being answered.
struct UntilSent {
    conn: Conn,
    seen: Arc<Seen>,
}

impl Drop for UntilSent {
    fn drop(&mut self) {
        self.conn.answered(self.seen.in_head(), Instant::now());
    }
}
