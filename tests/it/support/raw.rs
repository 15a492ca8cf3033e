//! An HTTP/1.1 client that sends exactly the bytes it is told to. Everything it waits for has a deadline.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wait::PATIENCE;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Read, but not yet taken for an answer.
    read: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value; panics when it is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {}", self.head);
        value
    }

    /// Whether the connection ends with this answer, by its own words.
    pub fn is_last(&self) -> bool {
        self.header("connection") == Some("close")
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Raw {
    /// Connects to the listener.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(addr)).await.expect("connecting takes too long").unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Sends all of these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the connection is closed");
    }

    /// Sends all of these bytes, or as many as the other side lets through; false when it has closed the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("sending takes too long").is_ok()
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next answer.
    pub async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let length = head.header("content-length").map_or(0, |value| value.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more(PATIENCE).await.expect("the answer takes too long"), "closed within an answer's body");
        }
        Reply { body: self.read.drain(..length).collect(), ..head }
    }

    /// The next answer when it is one without a body whatever its head says: to `HEAD`, or an interim one.
    pub async fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let more = self.more(PATIENCE).await.expect("the answer takes too long");
            assert!(more, "closed without a complete answer: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = ["HTTP/1.1 ", "HTTP/1.0 "].iter().find_map(|version| head.strip_prefix(version));
        let status = status.unwrap_or_else(|| panic!("{head:?} is no answer"))[..3].parse().unwrap();
        Reply { status, head, body: Vec::new() }
    }

    /// Waits until the other side closes the connection, having said nothing more; how long that took.
    pub async fn closed(&mut self) -> Duration {
        let began = Instant::now();
        assert!(self.stays_silent(PATIENCE).await.is_err(), "the connection is still open");
        began.elapsed()
    }

    /// Everything that comes until the other side closes the connection.
    pub async fn rest(mut self) -> Vec<u8> {
        while self.more(PATIENCE).await.expect("the connection is still open") {}
        self.read
    }

    /// What comes next of a text, as it comes.
    pub async fn some(&mut self) -> String {
        while self.read.is_empty() || std::str::from_utf8(&self.read).is_err() {
            self.read.reserve(64 << 10);
            assert!(self.more(PATIENCE).await.expect("more takes too long"), "closed");
        }
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }

    /// Watches the connection for a while: `Ok` when it stays open, `Err` when it is closed. Panics when bytes come.
    pub async fn stays_silent(&mut self, this_long: Duration) -> Result<(), ()> {
        assert_eq!(String::from_utf8_lossy(&self.read), "", "more was said");
        match self.more(this_long).await {
            None => Ok(()),
            Some(false) => Err(()),
            Some(true) => panic!("more was said: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    /// Reads on: false at the end (a reset is one too), `None` when nothing came in time.
    async fn more(&mut self, within: Duration) -> Option<bool> {
        let read = timeout(within, self.stream.read_buf(&mut self.read)).await.ok()?;
        Some(read.is_ok_and(|count| count > 0))
    }
}
