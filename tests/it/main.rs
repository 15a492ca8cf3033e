//! Integration tests: real listeners on port 0, a directory of their own each.
#![allow(clippy::unwrap_used)]

mod fin_fake;
mod packaging;
mod vectors;
