//! A connection's socket on its way to hyper: every byte passes the [`Gate`], the first of a request ends the idle
//! time, and an answer that goes out before its request is in reaches the client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::automatic::Problem;
use super::head::{Fault, Gate};
use super::slots::Conn;

/// What the socket's side of a connection tells the side that answers. Both run in one task.
#[derive(Debug)]
pub(super) struct Seen {
    in_head: AtomicBool,
    /// The number of the first request with a fault, shifted, and which; `u64::MAX`: none so far.
    fault: AtomicU64,
}

const FAULTS: [Fault; 4] = [Fault::Line, Fault::Length, Fault::Coding, Fault::Host];

impl Seen {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { in_head: AtomicBool::new(false), fault: AtomicU64::new(u64::MAX) })
    }

    /// Whether a head has begun and isn't complete.
    pub(super) fn in_head(&self) -> bool {
        self.in_head.load(Relaxed)
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
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    gate: Gate,
    seen: Arc<Seen>,
    conn: Conn,
    /// An answer of hyper's own, in place of which this one goes out.
    problem: Option<Problem>,
    /// The write side is closed, and what still comes is thrown away.
    lingering: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, seen: Arc<Seen>, conn: Conn) -> Self {
        Self { socket, gate: Gate::default(), seen, conn, problem: None, lingering: false }
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
    fn poll_problem(&mut self, cx: &mut Context<'_>, hypers: &[u8]) -> Poll<io::Result<bool>> {
        if self.problem.is_none() {
            self.problem = Problem::instead_of(hypers);
        }
        let Some(problem) = &mut self.problem else { return Poll::Ready(Ok(false)) };
        ready!(problem.poll_write(Pin::new(&mut self.socket), cx))?;
        self.problem = None;
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_problem(cx, buf))? {
            true => Poll::Ready(Ok(buf.len())),
            false => Pin::new(&mut self.socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_problem(cx, bufs.first().map_or(&[], |first| &**first)))? {
            true => Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum())),
            false => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        }
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
