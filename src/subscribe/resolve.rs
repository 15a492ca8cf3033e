//! Name lookups whose answers are checked before anyone connects to them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::allow::may_have;

/// Looks names up and keeps only the addresses that a name may have. The connection is made to these very addresses, so
/// there is no second lookup that could say something else.
pub(super) struct Checked<L> {
    look_up: Arc<L>,
}

/// Where addresses come from.
pub(super) trait LookUp: Send + Sync + 'static {
    /// All addresses of a name.
    fn look_up(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The system's resolver.
pub(super) struct System;

impl LookUp for System {
    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

impl<L> Checked<L> {
    pub(super) fn new(look_up: L) -> Self {
        Self { look_up: Arc::new(look_up) }
    }
}

impl<L: LookUp> Resolve for Checked<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let look_up = Arc::clone(&self.look_up);
        Box::pin(async move {
            let mut found = look_up.look_up(name.as_str()).await?;
            found.retain(|address| may_have(name.as_str(), *address));
            if found.is_empty() {
                return Err("the name leads to addresses that it may not have".into());
            }
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// Every name leads to this machine, as an attacker's name server may say.
    struct Rebound;

    impl LookUp for Rebound {
        async fn look_up(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(vec![[127, 0, 0, 1].into(), [169, 254, 169, 254].into()])
        }
    }

    #[tokio::test]
    async fn localhost_is_found_on_this_machine() {
        let mut found = Checked::new(System).resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(found.all(|address| address.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_name_that_was_rebound_to_this_machine_gets_no_connection() {
        let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = trap.local_addr().unwrap().port();
        let client = crate::outbound::client().unwrap().dns_resolver(Arc::new(Checked::new(Rebound))).build().unwrap();
        let refused = client.get(format!("http://a.intercom-messenger.com:{port}/")).send().await;
        assert!(refused.unwrap_err().is_connect());
        let none = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
        assert!(none.is_err(), "nobody connected");
        // The same client does connect where the name may have the address.
        let (allowed, caught) = tokio::join!(
            client.get(format!("http://localhost:{port}/")).timeout(Duration::from_millis(50)).send(),
            trap.accept()
        );
        assert!(allowed.is_err_and(|error| error.is_timeout()) && caught.is_ok());
    }
}
