//! The `finhook` command.

fn main() {}
