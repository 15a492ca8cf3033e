//! What every client of finhook's own has in common: rustls with ring, no proxy, no redirects, HTTP/1.1. Their answers are
//! read by [`body::read`](crate::body::read), which bounds them.

use reqwest::{Client, ClientBuilder, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

/// TLS that trusts the certificates that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded).
///
/// # Errors
/// The system has no root certificates.
pub fn tls() -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?.with_platform_verifier()?.with_no_client_auth())
}

/// TLS that trusts nobody: every connection fails.
///
/// # Errors
/// TLS can't be set up at all.
pub fn no_tls() -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// A client's builder. Where the system has no root certificates, `https` fails when it is used, and `http` works.
///
/// # Errors
/// When TLS can't be set up at all.
pub fn client() -> Result<ClientBuilder, rustls::Error> {
    let tls = tls().or_else(|error| {
        tracing::warn!(%error, "no root certificates: https requests will fail; install ca-certificates");
        no_tls()
    })?;
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("finhook/", env!("CARGO_PKG_VERSION"))))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
}
