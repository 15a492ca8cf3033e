//! What the tests share.

pub mod app;
pub mod browser;
pub mod command;
pub mod events;
pub mod fin;
pub mod intake;
pub mod process;
pub mod raw;
pub mod receiver;
pub mod server;
pub mod wait;

/// The signing secret of every endpoint that a test configures.
pub const SECRET: &str = "a signing secret for tests";
