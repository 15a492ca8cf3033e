//! What the tests share.

pub mod app;
pub mod command;
pub mod events;
pub mod fin;
pub mod intake;
pub mod process;
pub mod program;
pub mod raw;
pub mod receiver;
