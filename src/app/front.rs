//! The runtime of the way to a 200.
//!
//! The public listener and the answers of the journal have a runtime of their own, so that no sink, no admin request and
//! no gateway call, however many there are, stands between a request and its answer.
//!
//! It has one thread less than there are cores (and one at least): the journal's writer is busy whenever the listener is.
//! Measured on two cores with the load on the same two: 10 % more durable 200s with one thread than with two.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

/// A runtime that may be dropped anywhere; what still runs in it then is given up.
#[derive(Debug)]
pub(super) struct Front {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Front {
    /// Starts its threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.saturating_sub(1).max(1))
            .thread_name("finhook-front")
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// What is bound or spawned while the guard lives belongs to this runtime.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// Where to spawn what runs in it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Any other end would wait, which a thread of another runtime must not.
            runtime.shutdown_background();
        }
    }
}
