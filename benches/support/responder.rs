//! A minimal HTTP server: one thread, one `epoll`. It is the generator's ceiling, and the receiver behind finhook's
//! HTTP sink, where it checks what arrives and may fail on purpose.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::Result;
use super::events::read_back;
use super::http::Framing;
use super::latency::Latency;

const LISTENER: u64 = u64::MAX;

/// Decides how requests are answered.
pub(crate) trait Answers: Send + 'static {
    /// The status for a request with this body.
    fn answer(&mut self, body: &[u8]) -> u16;

    /// How long an answer is held back.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Told how many requests are unanswered whenever that grows.
    fn in_flight(&mut self, _count: usize) {}
}

/// 200 to everything.
pub(crate) struct Always200;

impl Answers for Always200 {
    fn answer(&mut self, _body: &[u8]) -> u16 {
        200
    }
}

/// What a [`Receiver`] does and has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// This share of requests is answered 503, at random.
    pub(crate) fail: f64,
    /// Events of this conversation are answered 503.
    pub(crate) block: Option<u64>,
    /// Events taken, i.e. answered 200.
    pub(crate) taken: u64,
    /// Of those, events of the watched conversation.
    pub(crate) taken_of_one: u64,
    /// Requests refused on purpose.
    pub(crate) refused: u64,
    /// Events that came before one that was stored before them, in the same conversation.
    pub(crate) inversions: u64,
    /// Events that were taken before. Not an error where an answer was lost, of which there are none here.
    pub(crate) repeated: u64,
    /// Most requests unanswered at once.
    pub(crate) most_in_flight: usize,
    /// When the last event was taken.
    pub(crate) last: Option<Instant>,
    /// When each of the last events was taken, if asked for: number and time.
    pub(crate) arrivals: Option<Vec<(u64, Instant)>>,
    /// Numbers of the watched conversation's events in the order in which they were taken, if asked for.
    pub(crate) order: Option<Vec<u64>>,
    /// Answers are held back so long.
    pub(crate) delay: Duration,
    newest: Vec<u64>,
    watched: u64,
}

impl Seen {
    /// Forgets what came last in each conversation: another run's numbers begin at 0 again.
    pub(crate) fn forget_order(&mut self) {
        self.newest.clear();
    }

    /// Watches this conversation apart from the others.
    pub(crate) fn watch(&mut self, conversation: u64) {
        self.watched = conversation;
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            fail: 0.0,
            block: None,
            taken: 0,
            taken_of_one: 0,
            refused: 0,
            inversions: 0,
            repeated: 0,
            most_in_flight: 0,
            last: None,
            arrivals: None,
            order: None,
            delay: Duration::ZERO,
            newest: Vec::new(),
            watched: u64::MAX,
        }
    }
}

/// Answers like a backend that keeps account of what it got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<Seen>>);

impl Receiver {
    /// Looks at, or changes, what it does.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Answers for Receiver {
    fn answer(&mut self, body: &[u8]) -> u16 {
        self.with(|seen| {
            let Some((_, number, conversation)) = read_back(body) else { return 400 };
            if seen.block == Some(conversation) || (seen.fail > 0.0 && fastrand::f64() < seen.fail) {
                seen.refused += 1;
                return 503;
            }
            let place = usize::try_from(conversation).unwrap_or(usize::MAX);
            if conversation != seen.watched && place < 10_000_000 {
                if seen.newest.len() <= place {
                    seen.newest.resize(place + 1, 0);
                }
                // Stored plus one, so that 0 means none.
                match (number + 1).cmp(&seen.newest[place]) {
                    std::cmp::Ordering::Less => seen.inversions += 1,
                    std::cmp::Ordering::Equal => seen.repeated += 1,
                    std::cmp::Ordering::Greater => seen.newest[place] = number + 1,
                }
            }
            seen.taken += 1;
            if conversation == seen.watched {
                seen.taken_of_one += 1;
                if let Some(order) = &mut seen.order {
                    order.push(number);
                }
            }
            let now = Instant::now();
            seen.last = Some(now);
            if let Some(arrivals) = &mut seen.arrivals {
                arrivals.push((number, now));
            }
            200
        })
    }

    fn delay(&self) -> Duration {
        self.with(|seen| seen.delay)
    }

    fn in_flight(&mut self, count: usize) {
        self.with(|seen| seen.most_in_flight = seen.most_in_flight.max(count));
    }
}

/// A responder on a thread of this process; stops when dropped.
pub(crate) struct Responder {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Starts on the given address, or any port of the loopback.
    pub(crate) fn start(at: Option<SocketAddr>, answers: impl Answers) -> Result<Self> {
        let listener = TcpListener::bind(at.unwrap_or(([127, 0, 0, 1], 0).into()))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            if let Err(error) = serve(&listener, answers, &stopped) {
                eprintln!("receiver: {error}");
            }
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Connection {
    stream: TcpStream,
    partial: Vec<u8>,
}

/// Serves until `stop`.
pub(crate) fn serve(listener: &TcpListener, mut answers: impl Answers, stop: &AtomicBool) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut held: VecDeque<(Instant, usize, u16)> = VecDeque::new();
    let mut framing = Framing::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut ready = Vec::with_capacity(256);
    while !stop.load(Ordering::Relaxed) {
        let pause = held.front().map_or(Duration::from_millis(50), |(due, ..)| {
            due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50))
        });
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in ready.drain(..) {
            if event.data.u64() == LISTENER {
                accept(listener, &epoll, &mut connections)?;
                continue;
            }
            let index = usize::try_from(event.data.u64())?;
            let Some(connection) = &mut connections[index] else { continue };
            match connection.stream.read(&mut buffer) {
                Ok(0) => connections[index] = None,
                Ok(read) => {
                    let Some(status) = take(connection, &buffer[..read], &mut framing, &mut answers)? else { continue };
                    let delay = answers.delay();
                    answers.in_flight(held.len() + 1);
                    if delay.is_zero() {
                        reply(&mut connections[index], status);
                    } else {
                        held.push_back((Instant::now() + delay, index, status));
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => connections[index] = None,
            }
        }
        while held.front().is_some_and(|(due, ..)| *due <= Instant::now()) {
            if let Some((_, index, status)) = held.pop_front() {
                reply(&mut connections[index], status);
            }
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, epoll: &OwnedFd, connections: &mut Vec<Option<Connection>>) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                // Places are never reused, so a held answer can't go to another connection.
                let data = epoll::EventData::new_u64(connections.len() as u64);
                epoll::add(epoll, &stream, data, epoll::EventFlags::IN)?;
                connections.push(Some(Connection { stream, partial: Vec::new() }));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The status for a request that is now complete.
fn take(
    connection: &mut Connection,
    read: &[u8],
    framing: &mut Framing,
    answers: &mut impl Answers,
) -> Result<Option<u16>> {
    let bytes = if connection.partial.is_empty() {
        read
    } else {
        connection.partial.extend_from_slice(read);
        &connection.partial
    };
    let Some(message) = framing.message(bytes)? else {
        if connection.partial.is_empty() {
            connection.partial.extend_from_slice(read);
        }
        return Ok(None);
    };
    let status = answers.answer(&bytes[message.head..message.head + message.body]);
    connection.partial.clear();
    Ok(Some(status))
}

fn reply(connection: &mut Option<Connection>, status: u16) {
    let text: &[u8] = match status {
        200 => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        _ => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
    };
    if let Some(open) = connection
        && open.stream.write_all(text).is_err()
    {
        *connection = None;
    }
}

/// How long after it was sent each event arrived; for events sent one at a time.
pub(crate) fn from_sent_to_seen(sent: &[(u64, Instant)], seen: &[(u64, Instant)]) -> Latency {
    let mut latency = Latency::new();
    let mut arrivals = seen.iter();
    for (number, at) in sent {
        if let Some((_, arrived)) = arrivals.find(|(seen, _)| seen == number) {
            latency.record(arrived.saturating_duration_since(*at));
        }
    }
    latency
}
