//! What every client of finhook's own has in common: rustls with ring, no proxy, no redirects, HTTP/1.1. Their answers are
//! read by [`body::read`](crate::body::read), which bounds them.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::certificate::Current;
use reqwest::{Client, ClientBuilder, redirect};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

/// TLS that trusts the certificates that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded).
///
/// # Errors
/// The system has no root certificates.
pub fn tls() -> Result<ClientConfig, rustls::Error> {
    tls_of(None, None)
}

/// TLS that shows a certificate of its own, or trusts other authorities than the system's.
///
/// # Errors
/// The system has no root certificates, if those are to be trusted.
pub fn tls_of(client: Option<Arc<Current>>, authorities: Option<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let builder = match authorities {
        Some(roots) => builder()?.with_root_certificates(roots),
        None => builder()?.with_platform_verifier()?,
    };
    Ok(match client {
        Some(client) => builder.with_client_cert_resolver(client),
        None => builder.with_no_client_auth(),
    })
}

/// TLS that trusts nobody: every connection fails.
///
/// # Errors
/// TLS can't be set up at all.
pub fn no_tls() -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Whether an address is this machine's, or of the private network that it stands in: loopback, private, link-local (where clouds
/// keep what a machine may know of itself), shared, multicast.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            let this_network = ip.octets()[0] == 0;
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || shared
                || this_network
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
        }
    }
}

/// How long a connection serves, give or take a fifth. One that never rests would never notice that its host's name leads
/// elsewhere by now.
pub const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// When a connection that is made now has served long enough: after `age`, give or take a fifth, so that not all end at once.
#[must_use]
pub fn end_of_connection(age: Duration) -> Instant {
    Instant::now() + age.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// A client's builder. Where the system has no root certificates, `https` fails when it is used, and `http` works.
///
/// # Errors
/// When TLS can't be set up at all.
pub fn client() -> Result<ClientBuilder, rustls::Error> {
    Ok(builder_with(tls_or_none()?))
}

/// The same for a listener of this machine's own configuration: trusts its certificate and no other, whatever name that is made
/// out to.
///
/// # Errors
/// When TLS can't be set up at all.
pub fn client_of(certificate: CertificateDer<'static>) -> Result<ClientBuilder, rustls::Error> {
    let only = Arc::new(Only { certificate, provider: rustls::crypto::ring::default_provider() });
    Ok(builder_with(builder()?.dangerous().with_custom_certificate_verifier(only).with_no_client_auth()))
}

/// Trusts one certificate.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client whose connections don't serve for longer than about [`CONNECTION_AGE`]: then it is made anew. Requests under way
/// keep the connections that they have.
#[derive(Debug)]
pub struct RenewedClient {
    tls: ClientConfig,
    configure: fn(ClientBuilder) -> ClientBuilder,
    age: Duration,
    /// With the time at which it is replaced.
    current: Mutex<(Client, Instant)>,
}

impl RenewedClient {
    /// `configure` adds what this client has of its own.
    ///
    /// # Errors
    /// When TLS or the client can't be set up at all.
    pub fn new(configure: fn(ClientBuilder) -> ClientBuilder) -> io::Result<Self> {
        Self::with_age(configure, CONNECTION_AGE)
    }

    fn with_age(configure: fn(ClientBuilder) -> ClientBuilder, age: Duration) -> io::Result<Self> {
        let tls = tls_or_none().map_err(io::Error::other)?;
        let client = configure(builder_with(tls.clone())).build().map_err(io::Error::other)?;
        Ok(Self { tls, configure, age, current: Mutex::new((client, end_of_connection(age))) })
    }

    /// The client for the next request.
    pub fn get(&self) -> Client {
        // Nothing that runs under the lock can panic half way through a change.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 <= Instant::now() {
            // What could be set up once can be set up again; if not, the old one is better than none.
            if let Ok(client) = (self.configure)(builder_with(self.tls.clone())).build() {
                current.0 = client;
            }
            current.1 = end_of_connection(self.age);
        }
        current.0.clone()
    }
}

fn tls_or_none() -> Result<ClientConfig, rustls::Error> {
    tls().or_else(|error| {
        tracing::warn!(%error, "no root certificates: https requests will fail; install ca-certificates");
        no_tls()
    })
}

fn builder_with(tls: ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("finhook/", env!("CARGO_PKG_VERSION")))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_is_always_busy_connects_anew_after_a_while() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let server = tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                        if request.ends_with(b"\r\n\r\n") {
                            request.clear();
                            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                        }
                    }
                });
            }
        });
        let ask = async |client: &RenewedClient| client.get().get(&url).send().await.unwrap().bytes().await.unwrap();
        let client = RenewedClient::new(|builder| builder).unwrap();
        for _ in 0..50 {
            ask(&client).await;
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1, "a young connection is kept");
        let client = RenewedClient::with_age(|builder| builder, Duration::from_millis(20)).unwrap();
        let several = async {
            while opened.load(Ordering::Relaxed) < 5 {
                ask(&client).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), several).await.expect("busy connections end");
        server.abort();
    }
}
