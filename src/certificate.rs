//! A certificate and its key, from files in PEM: what finhook shows to those who connect to it, and to sinks that want to know
//! who it is. And the authorities that such a sink is checked against.
//!
//! The files are read again every second, as those of signing secrets are: whoever renews a certificate (certbot, cert-manager)
//! restarts nothing. A pair counts only when two reads gave the same, and only when it fits together; what doesn't leaves
//! the one in use as it is, and is reported once.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use tokio::time::MissedTickBehavior;

/// Largest file that is read, in bytes: room for a long chain.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Time between two reads.
const PERIOD: Duration = Duration::from_secs(1);

/// The two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those that lead to its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Which of the two files is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The certificate's.
    Cert,
    /// The key's.
    Key,
}

/// What is wrong with a certificate or its key, and what to do. Holds nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}; {fix}", path.display())]
pub struct Problem {
    /// Which file.
    pub which: Which,
    /// Its path.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub fix: &'static str,
}

/// The authorities in a file of PEM, as those whose certificates are trusted; with blocking I/O.
///
/// # Errors
/// It can't be read, or holds none that can be used.
pub fn authorities(path: &Path) -> Result<RootCertStore, Problem> {
    let files = Files { cert: path.to_owned(), key: PathBuf::new() };
    let mut roots = RootCertStore::empty();
    for certificate in files.chain(&files.file(Which::Cert)?)? {
        roots.add(certificate).map_err(|error| {
            files.problem(
                Which::Cert,
                format!("it holds no authority: {error}"),
                "name the authority's own certificate, in PEM",
            )
        })?;
    }
    Ok(roots)
}

/// What both files hold, as bytes.
type Content = (Vec<u8>, Zeroizing<Vec<u8>>);

impl Files {
    /// Reads and checks both, with blocking I/O.
    ///
    /// # Errors
    /// One can't be read, is not PEM, or they don't fit together.
    pub fn read(&self) -> Result<CertifiedKey, Problem> {
        self.parse(&self.content()?)
    }

    /// The certificate alone, as it is shown to others; its key is not looked at.
    ///
    /// # Errors
    /// It can't be read or is not PEM.
    pub fn certificate(&self) -> Result<CertificateDer<'static>, Problem> {
        let chain = self.chain(&self.file(Which::Cert)?)?;
        chain.into_iter().next().ok_or_else(|| self.no_certificate())
    }

    fn content(&self) -> Result<Content, Problem> {
        Ok((self.file(Which::Cert)?, Zeroizing::new(self.file(Which::Key)?)))
    }

    fn file(&self, which: Which) -> Result<Vec<u8>, Problem> {
        let path = if which == Which::Cert { &self.cert } else { &self.key };
        read(path).map_err(|error| {
            self.problem(
                which,
                format!("it can't be read: {error}"),
                "make it readable for the user that finhook runs as",
            )
        })
    }

    fn problem(&self, which: Which, why: impl Into<String>, fix: &'static str) -> Problem {
        let path = if which == Which::Cert { &self.cert } else { &self.key };
        Problem { which, path: path.clone(), why: why.into(), fix }
    }

    fn no_certificate(&self) -> Problem {
        let fix = "name a file with the certificate and those that lead to its authority, in PEM";
        self.problem(Which::Cert, "it holds no certificate", fix)
    }

    fn chain(&self, cert: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>().map_err(|error| {
            self.problem(Which::Cert, format!("it is not PEM: {error}"), "name the certificate in PEM, not in DER")
        })?;
        if chain.is_empty() { Err(self.no_certificate()) } else { Ok(chain) }
    }

    fn parse(&self, (cert, key): &Content) -> Result<CertifiedKey, Problem> {
        let chain = self.chain(cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            let fix = "name a file with the key in PEM, without a passphrase";
            self.problem(Which::Key, "it holds no private key", fix)
        })?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => self.problem(
                Which::Key,
                "it is not the certificate's key",
                "name the key that the certificate was made with",
            ),
            error => {
                self.problem(Which::Key, format!("it can't be used: {error}"), "use a key of RSA, ECDSA or Ed25519")
            }
        })
    }
}

/// A file's bytes, within [`MAX_FILE_BYTES`].
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Before opening: to open a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(io::Error::other("it is larger than 256 KiB")) } else { Ok(bytes) }
}

fn digest((cert, key): &Content) -> [u8; 32] {
    Sha256::new().chain_update(Sha256::digest(cert)).chain_update(Sha256::digest(key)).finalize().into()
}

/// The certificate in use: shown in each handshake, and replaced when its files change.
pub struct Current {
    files: Files,
    pair: RwLock<Arc<CertifiedKey>>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Current {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// See [`Files::read`].
    pub fn new(files: Files) -> Result<Arc<Self>, Problem> {
        let pair = RwLock::new(Arc::new(files.read()?));
        Ok(Arc::new(Self { files, pair }))
    }

    /// How a listener talks TLS with it: HTTP/1.1, TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// TLS can't be set up at all.
    pub fn server(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = ServerConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()?;
        let mut config =
            builder.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Keeps it up to date with its files, for ever; dropping the future ends it. `key` is the configuration's, for the log.
    pub async fn watch(self: Arc<Self>, key: String) -> Infallible {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut settled) = (None, None);
        loop {
            ticks.tick().await;
            let files = self.files.clone();
            let read = tokio::task::spawn_blocking(move || files.content()).await;
            let Ok(content) = read else { continue };
            let seen = Some(content.as_ref().map(digest).map_err(Problem::clone));
            if last != seen {
                last = seen;
            } else if settled != seen {
                settled = seen;
                match content.and_then(|content| self.files.parse(&content)) {
                    Ok(pair) => self.take(pair, &key),
                    Err(problem) => {
                        tracing::warn!(key, %problem, "the former certificate stays in use: mend the files")
                    }
                }
            }
        }
    }

    fn take(&self, pair: CertifiedKey, key: &str) {
        let mut current = self.pair.write().unwrap_or_else(PoisonError::into_inner);
        let new = current.cert != pair.cert;
        *current = Arc::new(pair);
        drop(current);
        if new {
            tracing::info!(key, "a new certificate is in use, for connections from now on");
        }
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
