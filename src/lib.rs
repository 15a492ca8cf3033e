//! finhook receives Fin Agent API events, proves that they are authentic, stores them durably and delivers each to
//! where it is needed, in order.
//!
//! The modules stand in the order in which an event meets them:
//!
//! ```text
//! receive ──► verify ──► event ──► journal ──► dispatch ──► sink
//! ```
//!
//! - [`receive`], [`subscribe`]: how bytes come in, by webhook and by event stream. [`serve`] is the accept loop below.
//! - [`verify`]: the proof that the bytes are authentic. Only [`verify::Verified`] bytes can become an event.
//! - [`event`]: what the bytes say: names, ids, times, and the content-derived id.
//! - [`journal`]: the durable store; an event is acknowledged once it is in there.
//! - [`dispatch`]: one worker a sink, delivering in order from its cursor.
//! - [`sink`]: where events go: log, file, HTTP.
//!
//! Each of them knows only what stands left of it, and [`event`]'s types. [`app`] knows all of them and wires them
//! together, with [`config`], [`metrics`], [`admin`], [`console`] and [`cli`] beside the pipe.

pub mod admin;
pub mod app;
pub mod body;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod conversations;
pub mod dispatch;
pub mod event;
pub mod fake_fin;
pub mod fin;
pub mod gateway;
pub mod journal;
pub mod live;
pub mod metrics;
pub mod outbound;
pub mod receive;
pub mod serve;
pub mod sink;
pub mod subscribe;
mod terminal;
pub mod verify;
