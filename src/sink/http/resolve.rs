//! Looks the sink's name up, and refuses addresses that `egress.deny_private` rules out. The connection is made to the very addresses
//! that were looked at, so no second lookup can say something else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use crate::outbound::is_private;

/// The system's resolver, and which of its answers are refused.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    deny_private: bool,
}

/// A name leads to private addresses only.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to private addresses, which egress.deny_private refuses")]
pub(super) struct Private;

impl Resolver {
    pub(super) fn new(deny_private: bool) -> Self {
        Self { system: GaiResolver::new(), deny_private }
    }
}

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<IntoIter<SocketAddr>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Service::<Name>::poll_ready(&mut self.system, cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (looking_up, deny_private) = (self.system.call(name), self.deny_private);
        Box::pin(async move {
            let mut found: Vec<SocketAddr> = looking_up.await?.collect();
            if deny_private {
                found.retain(|address| !is_private(address.ip()));
                if found.is_empty() {
                    return Err(io::Error::other(Private));
                }
            }
            Ok(found.into_iter())
        })
    }
}
