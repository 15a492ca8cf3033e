//! What the tests share.

pub mod command;
pub mod receiver;
