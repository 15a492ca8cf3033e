//! The load generator: one thread, one `epoll`, keep-alive connections, one request in flight on each.
//!
//! - **Closed loop**: every connection sends its next request as soon as it has the answer to the last. Measures rate.
//! - **Open loop**: requests are due at a fixed rate whether or not answers come. A request's latency counts from when
//!   it was *due*, so a server that stalls is charged for everything that had to wait (no coordinated omission).

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::Result;
use super::events::Events;
use super::http::{Framing, status};
use super::latency::Latency;

/// No answer for so long ends a run with an error, so that every run ends.
const STUCK: Duration = Duration::from_secs(20);

/// How long a run lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Measured for this long, after a warm-up that is not counted.
    Time {
        /// Before measuring.
        warm_up: Duration,
        /// What is counted.
        measured: Duration,
    },
    /// Until this many requests were answered.
    Count(u64),
}

impl Until {
    /// A warm-up of a quarter of what is measured.
    pub(crate) fn measured(measured: Duration) -> Self {
        Self::Time { warm_up: measured / 4, measured }
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Answers with 200 in the measured time.
    pub(crate) answered: u64,
    /// How long the measured time was.
    pub(crate) took: Duration,
    /// Latencies of those answers.
    pub(crate) latency: Latency,
    /// Answers of any kind, over the whole run.
    pub(crate) answers: u64,
    /// Other answers by status, and connections that broke under 0; over the whole run.
    pub(crate) errors: BTreeMap<u16, u64>,
}

impl Run {
    /// Answers with 200 a second.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    /// This run, or an error if anything but 200 came back.
    pub(crate) fn all_answered(self) -> Result<Self> {
        if self.errors.is_empty() { Ok(self) } else { Err(format!("answers other than 200: {:?}", self.errors).into()) }
    }
}

struct Connection {
    stream: TcpStream,
    since: Instant,
    busy: bool,
    partial: Vec<u8>,
}

/// Connections to one server.
pub(crate) struct Generator {
    address: SocketAddr,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    framing: Framing,
    buffer: Box<[u8]>,
}

impl Generator {
    /// Opens `connections` connections.
    pub(crate) fn connect(address: SocketAddr, connections: usize) -> Result<Self> {
        let mut generator = Self {
            address,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(connections),
            framing: Framing::default(),
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
        };
        for index in 0..connections {
            let stream = generator.open(index)?;
            generator.connections.push(Connection { stream, since: Instant::now(), busy: false, partial: Vec::new() });
        }
        Ok(generator)
    }

    /// Every connection sends again as soon as it is answered.
    pub(crate) fn closed_loop(&mut self, events: &mut Events, until: Until) -> Result<Run> {
        let begun = Instant::now();
        let (from, to, mut to_send) = match until {
            Until::Time { warm_up, measured } => (begun + warm_up, Some(begun + warm_up + measured), u64::MAX),
            Until::Count(count) => (begun, None, count),
        };
        let wanted = to_send;
        let mut run = Tally::new(from, to);
        for index in 0..self.connections.len() {
            if to_send > 0 {
                to_send -= 1;
                self.send(index, events.next_request(), Instant::now())?;
            }
        }
        let mut ready = Vec::with_capacity(256);
        let mut last_answer = Instant::now();
        loop {
            self.wait(&mut ready, Duration::from_millis(100))?;
            let now = Instant::now();
            if to.is_some_and(|to| now >= to) || run.answers >= wanted {
                break;
            }
            if !ready.is_empty() {
                last_answer = now;
            } else if now.duration_since(last_answer) > STUCK {
                return Err(format!("no answer for {STUCK:?}").into());
            }
            events.tick();
            for event in ready.drain(..) {
                let index = usize::try_from(event.data.u64())?;
                if self.receive(index, &mut run)? && to_send > 0 {
                    to_send -= 1;
                    self.send(index, events.next_request(), Instant::now())?;
                }
            }
        }
        Ok(run.finish(Instant::now()))
    }

    /// Sends `rate` requests a second, evenly spaced, whatever the answers do.
    pub(crate) fn open_loop(&mut self, events: &mut Events, rate: f64, until: Until) -> Result<Run> {
        let Until::Time { warm_up, measured } = until else { return Err("an open loop lasts for a time".into()) };
        // The kernel may otherwise wake this thread 50 µs late, which would count as the server's.
        rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?;
        let begun = Instant::now();
        let end = begun + warm_up + measured;
        let mut run = Tally::new(begun + warm_up, Some(end));
        run.by_due_time = true;
        let mut idle: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut waiting = VecDeque::new();
        let mut ready = Vec::with_capacity(256);
        let mut sent = 0_u32;
        let due = |sent: u32| begun + Duration::from_secs_f64(f64::from(sent) / rate);
        loop {
            let now = Instant::now();
            if now >= end && ((idle.len() == self.connections.len() && waiting.is_empty()) || now >= end + STUCK) {
                break;
            }
            events.tick();
            while due(sent) <= now.min(end) {
                waiting.push_back(due(sent));
                sent += 1;
            }
            while let (Some(since), Some(index)) = (waiting.front(), idle.front()) {
                self.send(*index, events.next_request(), *since)?;
                waiting.pop_front();
                idle.pop_front();
            }
            let pause = if now < end { due(sent).saturating_duration_since(Instant::now()) } else { STUCK / 100 };
            self.wait(&mut ready, pause)?;
            for event in ready.drain(..) {
                let index = usize::try_from(event.data.u64())?;
                if self.receive(index, &mut run)? {
                    // The connection that was used longest ago is used next: all of them stay in use.
                    idle.push_back(index);
                }
            }
        }
        let unanswered = self.connections.len() - idle.len() + waiting.len();
        if unanswered > 0 {
            *run.errors.entry(0).or_default() += unanswered as u64;
        }
        Ok(run.finish(end))
    }

    /// Sends one request on the first connection and waits for its answer. Returns when the answer was there, and its
    /// status.
    pub(crate) fn once(&mut self, request: &[u8]) -> Result<(Instant, u16)> {
        self.send(0, request, Instant::now())?;
        let mut run = Tally::new(Instant::now(), None);
        let mut ready = Vec::with_capacity(16);
        loop {
            self.wait(&mut ready, Duration::from_secs(5))?;
            if ready.is_empty() {
                return Err("no answer for 5 s".into());
            }
            for event in ready.drain(..) {
                if self.receive(usize::try_from(event.data.u64())?, &mut run)? {
                    return Ok((Instant::now(), run.errors.keys().copied().next().unwrap_or(200)));
                }
            }
        }
    }

    fn open(&self, index: usize) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        Ok(stream)
    }

    fn wait(&self, ready: &mut Vec<epoll::Event>, at_most: Duration) -> Result<()> {
        let timeout =
            Timespec { tv_sec: i64::try_from(at_most.as_secs())?, tv_nsec: i64::from(at_most.subsec_nanos()) };
        ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self, index: usize, request: &[u8], since: Instant) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.since = since;
        connection.busy = true;
        let mut rest = request;
        // A request always fits the socket's buffer: the connection is idle. So this loop spins only in theory.
        while !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // Noticed and counted when reading.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there. True if the connection is free for the next request.
    fn receive(&mut self, index: usize, run: &mut Tally) -> Result<bool> {
        let connection = &mut self.connections[index];
        let read = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return self.reopen(index, run),
            Ok(read) => &self.buffer[..read],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return self.reopen(index, run),
            Err(error) => return Err(error.into()),
        };
        let bytes = if connection.partial.is_empty() {
            read
        } else {
            connection.partial.extend_from_slice(read);
            &connection.partial
        };
        let Some(message) = self.framing.message(bytes)? else {
            if connection.partial.is_empty() {
                connection.partial.extend_from_slice(read);
            }
            return Ok(false);
        };
        run.answer(status(&bytes[..message.head]), connection.since);
        connection.partial.clear();
        connection.busy = false;
        Ok(true)
    }

    fn reopen(&mut self, index: usize, run: &mut Tally) -> Result<bool> {
        // Closing an idle connection is a server's right; closing one with a request on it is an error.
        let was_busy = self.connections[index].busy;
        if was_busy {
            run.answer(0, Instant::now());
        }
        let stream = self.open(index)?;
        self.connections[index] = Connection { stream, since: Instant::now(), busy: false, partial: Vec::new() };
        Ok(was_busy)
    }
}

/// Counts while a run goes on.
struct Tally {
    from: Instant,
    to: Option<Instant>,
    /// What was due in the measured time counts, rather than what was answered in it.
    by_due_time: bool,
    answers: u64,
    counted: u64,
    latency: Latency,
    errors: BTreeMap<u16, u64>,
}

impl Tally {
    fn new(from: Instant, to: Option<Instant>) -> Self {
        let (latency, errors) = (Latency::new(), BTreeMap::new());
        Self { from, to, by_due_time: false, answers: 0, counted: 0, latency, errors }
    }

    fn answer(&mut self, status: u16, since: Instant) {
        let now = Instant::now();
        let at = if self.by_due_time { since } else { now };
        self.answers += 1;
        if status != 200 {
            *self.errors.entry(status).or_default() += 1;
        } else if at >= self.from && self.to.is_none_or(|to| at < to) {
            self.counted += 1;
            self.latency.record(now.saturating_duration_since(since));
        }
    }

    fn finish(self, now: Instant) -> Run {
        let took = self.to.unwrap_or(now).saturating_duration_since(self.from);
        Run { answered: self.counted, took, latency: self.latency, answers: self.answers, errors: self.errors }
    }
}
