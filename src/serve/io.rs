//! A connection's socket on its way to hyper: every byte passes the [`Gate`], the first of a request ends the idle
//! time, and an answer that goes out before its request is in reaches the client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::OnRefused;
use super::automatic::Automatic;
use super::head::{Fault, Gate};
use super::slots::Conn;

/// What the socket's side of a connection tells the side that answers. Both run in one task.
#[derive(Debug)]
pub(super) struct Seen {
    in_head: AtomicBool,
    /// Of the request that is being answered some of the body was not read.
    body_left: AtomicBool,
    /// The number of the first request with a fault, shifted, and which; `u64::MAX`: none so far.
    fault: AtomicU64,
}

const FAULTS: [Fault; 4] = [Fault::Line, Fault::Length, Fault::Coding, Fault::Host];

impl Seen {
    pub(super) fn new() -> Arc<Self> {
        let (in_head, body_left) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { in_head, body_left, fault: AtomicU64::new(u64::MAX) })
    }

    /// Whether a head has begun and isn't complete.
    pub(super) fn in_head(&self) -> bool {
        self.in_head.load(Relaxed)
    }

    /// Whether some of the body of the request that is being answered was not read.
    pub(super) fn body_left(&self) -> bool {
        self.body_left.load(Relaxed)
    }

    pub(super) fn set_body_left(&self, left: bool) {
        self.body_left.store(left, Relaxed);
    }

    /// The fault of the connection's request number `request` (from 0). Behind a faulty one all are.
    pub(super) fn fault(&self, request: u64) -> Option<Fault> {
        let word = self.fault.load(Relaxed);
        if request < word >> 2 { None } else { FAULTS.get((word & 3) as usize).copied() }
    }

    fn look_at(&self, gate: &Gate) {
        self.in_head.store(gate.in_head(), Relaxed);
        if let Some((request, fault)) = gate.fault() {
            self.fault.store(request << 2 | fault as u64, Relaxed);
        }
    }
}

/// A watched socket.
pub(super) struct Watched<S> {
    socket: S,
    gate: Gate,
    seen: Arc<Seen>,
    conn: Conn,
    /// An answer of hyper's own, in place of which this one goes out.
    automatic: Option<Automatic>,
    on_refused: OnRefused,
    /// The write side is closed, and what still comes is thrown away.
    lingering: bool,
    /// How long a reader may take nothing.
    patience: Duration,
    /// Runs while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, seen: Arc<Seen>, conn: Conn, patience: Duration, on_refused: OnRefused) -> Self {
        let gate = Gate::default();
        Self { socket, gate, seen, conn, automatic: None, on_refused, lingering: false, patience, stalled: None }
    }

    /// Gives up when nothing could be written for a while.
    fn written(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let patience = self.patience;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let new = &buf.filled()[before..];
                if !new.is_empty() {
                    this.conn.bytes_came();
                    this.gate.feed(new);
                    this.seen.look_at(&this.gate);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if this.conn.idle_ends() => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes a problem in place of what hyper writes, if that is an error of its own: then true.
    fn poll_automatic(&mut self, cx: &mut Context<'_>, hypers: &[u8]) -> Poll<io::Result<bool>> {
        if self.automatic.is_none() {
            self.automatic = Automatic::instead_of(hypers);
            if let Some(automatic) = &self.automatic {
                (self.on_refused)(automatic.status(), &self.gate.path());
            }
        }
        let Some(automatic) = &mut self.automatic else { return Poll::Ready(Ok(false)) };
        ready!(automatic.poll_write(Pin::new(&mut self.socket), cx))?;
        self.automatic = None;
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if ready!(self.poll_automatic(cx, buf))? {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.poll_automatic(cx, bufs.first().map_or(&[], |first| &**first)))? {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Closes the write side. When the client may still be sending (its request was refused before all of it was
    /// read), what comes is read and thrown away: to close a socket with unread bytes resets the connection, and the
    /// reset may overtake the answer. The sweep of the slots ends it after `header_timeout`.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.lingering {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            if !this.gate.in_body() && !this.gate.in_head() {
                return Poll::Ready(Ok(()));
            }
            this.lingering = true;
            this.conn.lingers();
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
