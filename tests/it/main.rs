//! Integration tests: real listeners on port 0, a directory of their own each.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod admin;
mod cli;
mod config;
mod crash;
mod delivery;
mod disk;
mod docs;
mod fin_cli;
mod fin_fake;
mod fin_flow;
mod fin_gateway;
mod fin_live;
mod hostile_http;
mod hostile_program;
mod journal;
mod listener;
mod model;
mod packaging;
mod purge;
mod receive;
mod secrecy;
mod sinks;
mod support;
mod timing;
mod vectors;
