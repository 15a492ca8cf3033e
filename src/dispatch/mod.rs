//! One worker a sink.
