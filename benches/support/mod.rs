//! What the macro benchmarks share: a load generator, servers to compare with, processes, statistics and reports.
//!
//! Everything here is made for one purpose: that a figure says something about finhook and not about the tool that
//! measured it. So the generator and the receivers are plain `epoll` loops on one thread each, with no runtime and no
//! allocation a request.

pub(crate) mod bare;
pub(crate) mod cli;
pub(crate) mod events;
pub(crate) mod finhook;
pub(crate) mod generator;
pub(crate) mod http;
pub(crate) mod latency;
pub(crate) mod machine;
pub(crate) mod picture;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod responder;
pub(crate) mod stats;
pub(crate) mod verified;

/// What a benchmark returns: a failure ends the run with a message.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
