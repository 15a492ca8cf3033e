//! Certificates and keys, given as files: read once to see that they can be used.

use std::path::PathBuf;

use super::Error;
use super::tree::Table;
use crate::certificate::{Files, Which, authorities};

/// The keys of what a listener shows.
pub(super) const LISTENER: [&str; 2] = ["tls_cert_file", "tls_key_file"];
/// The keys of what a sink is shown.
pub(super) const CLIENT: [&str; 2] = ["client_cert_file", "client_key_file"];

/// A certificate and its key: both or neither, and a pair that fits.
pub(super) fn pair(t: &mut Table, [cert_name, key_name]: [&'static str; 2]) -> Result<Option<Files>, Error> {
    let mut file = |name| t.take(name).filter(|field| !field.is_empty());
    let (cert, key) = match (file(cert_name), file(key_name)) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(cert), None) => {
            return Err(cert.error(format!("is given without {key_name}"), "name the certificate's key there"));
        }
        (None, Some(key)) => {
            return Err(key.error(format!("is given without {cert_name}"), "name the key's certificate there"));
        }
    };
    let files = Files { cert: cert.text()?.into(), key: key.text()?.into() };
    match files.read() {
        Ok(_) => Ok(Some(files)),
        Err(problem) => {
            let field = if problem.which == Which::Cert { &cert } else { &key };
            Err(field.error(format!("{}: {}", problem.path.display(), problem.why), problem.fix))
        }
    }
}

/// A file of authorities.
pub(super) fn ca_file(t: &mut Table) -> Result<Option<PathBuf>, Error> {
    let Some(field) = t.take("ca_file").filter(|field| !field.is_empty()) else { return Ok(None) };
    let path = PathBuf::from(field.text()?);
    match authorities(&path) {
        Ok(_) => Ok(Some(path)),
        Err(problem) => Err(field.error(format!("{}: {}", path.display(), problem.why), problem.fix)),
    }
}
