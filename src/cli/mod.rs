//! The commands.

pub mod fake_fin;
