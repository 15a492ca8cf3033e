//! One worker a sink.

pub mod matching;
pub mod retry;
