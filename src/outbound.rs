//! What every HTTP client of finhook's own has in common: rustls with ring, no proxy, no redirects, HTTP/1.1, and
//! bounded answers.

use bytes::Bytes;
use reqwest::{Client, ClientBuilder, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

/// A client's builder. It trusts the certificates that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are
/// heeded); where the system has none, `https` fails when it is used, and `http` works.
///
/// # Errors
/// When TLS can't be set up at all.
pub fn client() -> Result<ClientBuilder, rustls::Error> {
    let builder = || {
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
    };
    let tls = match builder()?.with_platform_verifier() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "no root certificates: https requests will fail; install ca-certificates");
            builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("finhook/", env!("CARGO_PKG_VERSION"))))
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than were allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It broke off or took too long.
    #[error(transparent)]
    Read(#[from] reqwest::Error),
}

/// Reads a whole body of at most `most` bytes.
///
/// # Errors
/// When it is larger, or can't be read.
pub async fn body(mut response: Response, most: usize) -> Result<Bytes, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(BodyError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}
