//! Child processes: started on chosen cores, looked at through `/proc`, always ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Result;

/// Which cores the server and the generator run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Both on all of them.
    Shared,
    /// The server on core 0, the generator on core 1.
    Pinned,
}

impl Cores {
    /// Starts a child on the server's cores.
    pub(crate) fn spawn(self, command: &mut Command) -> Result<Child> {
        // A child inherits the affinity of the thread that starts it, so it has it from its first instruction.
        self.place(0)?;
        let child = command.spawn();
        Self::Shared.place(0)?;
        Ok(child?)
    }

    /// Puts the calling thread on the generator's cores for as long as the guard lives.
    pub(crate) fn generator(self) -> Result<Placed> {
        self.place(1)?;
        Ok(Placed)
    }

    fn place(self, core: usize) -> Result<()> {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut set = CpuSet::new();
        match self {
            Self::Shared => (0..CpuSet::MAX_CPU.min(256)).for_each(|core| set.set(core)),
            Self::Pinned if count == 1 && core > 0 => return Err("pinning needs two cores".into()),
            Self::Pinned => set.set(core),
        }
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// The calling thread is on the generator's cores.
pub(crate) struct Placed;

impl Drop for Placed {
    fn drop(&mut self) {
        let _ = Cores::Shared.place(0);
    }
}

/// A running child; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it takes requests.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Wraps a child that listens, or will listen, on `address`.
    pub(crate) fn new(child: Child, address: SocketAddr) -> Self {
        Self { child, address }
    }

    /// Starts this program in another role. The role prints its address first.
    pub(crate) fn helper(role: &str, cores: Cores) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["helper", role]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = cores.spawn(&mut command)?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| format!("the helper {role} did not start: {line:?}"))?;
        Ok(Self { child, address })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now, in bytes.
    pub(crate) fn rss(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub(crate) fn peak_rss(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// Forgets the peak: from now on [`Self::peak_rss`] is that of what follows.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?)
    }

    /// Time on a processor so far, over all threads that live.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0_u64;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Voluntary and involuntary context switches so far, over all threads that live.
    pub(crate) fn switches(&self) -> Result<u64> {
        let mut count = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let Ok(text) = fs::read_to_string(task?.path().join("status")) else { continue };
            count += text
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(count)
    }

    /// True once it has ended.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks it to end and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > Duration::from_secs(30) {
                return Err("a server did not end within 30 s of SIGTERM".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends it the hard way (SIGKILL).
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn status(&self, key: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = text.lines().find(|line| line.starts_with(key)).ok_or("no such line in /proc/…/status")?;
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
        Ok(kibibytes * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory on the disk that holds `target/`, removed when dropped.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    /// Makes one. Not in `/tmp`, which may be memory: what is measured has to reach a disk.
    pub(crate) fn new() -> Result<Self> {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-data");
        fs::create_dir_all(&parent)?;
        Ok(Self(tempfile::Builder::new().prefix("run-").tempdir_in(parent)?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
