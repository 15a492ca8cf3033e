//! Secrets: given as a value, or in a file named by the key's twin that ends in `_file`; never both.
//!
//! Of a file's contents the line ends at its end are trimmed, nothing else. Files of signing secrets are read by
//! [`crate::verify::rotation`], which also reads them again when they change.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::Error;
use super::tree::{Field, Table};
use crate::verify::SHORT_SECRET;
use crate::verify::rotation;

/// Larger files are surely not secrets.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The contents of a file that must not be larger than `max` bytes.
pub(super) fn read_bounded(file: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(std::io::Error::other(format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// A key and its twin that ends in `_file`, of which at most one is given.
pub(super) enum Twin {
    Neither,
    Value(Field),
    File(Field),
}

/// Takes both keys out of the table.
pub(super) fn twin(table: &mut Table, name: &'static str, file_name: &'static str) -> Result<Twin, Error> {
    let value = table.take(name).filter(|field| !field.is_empty());
    let file = table.take(file_name).filter(|field| !field.is_empty());
    match (value, file) {
        (None, None) => Ok(Twin::Neither),
        (Some(value), None) => Ok(Twin::Value(value)),
        (None, Some(file)) => Ok(Twin::File(file)),
        (Some(value), Some(file)) => {
            let problem = format!("is given together with {} ({})", file.key, file.origin);
            Err(value.error(problem, "remove one of them"))
        }
    }
}

/// A single secret, with the field that gave it. With `read` false (a sink that is off) a file is not looked at.
pub(super) fn single(
    table: &mut Table,
    name: &'static str,
    file_name: &'static str,
    read: bool,
) -> Result<Option<(SecretString, Field)>, Error> {
    match twin(table, name, file_name)? {
        Twin::Neither => Ok(None),
        Twin::Value(field) => {
            let secret = SecretString::from(field.text()?);
            Ok(Some((secret, field)))
        }
        Twin::File(field) => {
            let path = PathBuf::from(field.text()?);
            if !read {
                return Ok(None);
            }
            let fix = "name a readable file that holds the secret alone";
            let bytes = read_bounded(&path, MAX_FILE_BYTES)
                .map_err(|e| field.error(format!("can't read {}: {e}", path.display()), fix))?;
            let text =
                String::from_utf8(bytes).map_err(|_| field.error(format!("{} is not UTF-8", path.display()), fix))?;
            let secret = text.trim_end_matches(['\r', '\n']);
            if secret.trim().is_empty() {
                return Err(field.error(format!("{} is empty", path.display()), fix));
            }
            if secret.contains('\n') {
                return Err(field.error(format!("{} has more than one line", path.display()), fix));
            }
            Ok(Some((SecretString::from(secret), field)))
        }
    }
}

/// What is given for the secrets that sign an endpoint's events: those known by now, of which there may be none, and the
/// file to watch.
pub(super) fn several(
    table: &mut Table,
    (name, file_name): (&'static str, &'static str),
    warnings: &mut Vec<String>,
) -> Result<(Vec<SecretString>, Option<PathBuf>), Error> {
    match twin(table, name, file_name)? {
        Twin::Neither => Ok((Vec::new(), None)),
        Twin::Value(field) => {
            let mut secrets = Vec::new();
            for item in field.list()? {
                let secret = SecretString::from(item.text()?);
                warn_if_short(&secret, &item, warnings);
                secrets.push(secret);
            }
            Ok((secrets, None))
        }
        Twin::File(field) => {
            let path = PathBuf::from(field.text()?);
            let secrets = match rotation::read(&path) {
                Ok(secrets) => secrets,
                // The endpoint waits for its secret.
                Err(problem) if problem.is_waiting() => Vec::new(),
                Err(problem) => {
                    let problem = format!("{}: {problem}", path.display());
                    return Err(
                        field.error(problem, "or name another file; it may be missing until the secret is known")
                    );
                }
            };
            for secret in &secrets {
                warn_if_short(secret, &field, warnings);
            }
            Ok((secrets, Some(path)))
        }
    }
}

/// A Bearer token: it must be possible to send it in a header.
pub(super) fn token(
    table: &mut Table,
    required: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Option<SecretString>, Error> {
    let Some((token, field)) = single(table, "token", "token_file", true)? else {
        return match required {
            Some(why) => {
                let fix = format!("set {} or its twin that ends in _file, or bind to 127.0.0.1", table.key("token"));
                Err(Error::new(table.key("token"), table.origin(), format!("is missing, and {why}"), fix))
            }
            None => Ok(None),
        };
    };
    header_safe(&token, &field)?;
    warn_if_short(&token, &field, warnings);
    Ok(Some(token))
}

/// The token of those who look only. It says nothing where everybody may do everything, or where it is the operators' own.
pub(super) fn reader_token(
    table: &mut Table,
    operators: Option<&SecretString>,
    warnings: &mut Vec<String>,
) -> Result<Option<SecretString>, Error> {
    let Some((token, field)) = single(table, "reader_token", "reader_token_file", true)? else { return Ok(None) };
    let (key, fix) = (table.key("token"), "set both, each to a secret of its own");
    match operators {
        None => return Err(field.error(format!("is given without {key}, so everybody may do everything"), fix)),
        Some(same) if same.expose_secret() == token.expose_secret() => {
            return Err(field.error(format!("is the same as {key}"), fix));
        }
        Some(_) => {}
    }
    header_safe(&token, &field)?;
    warn_if_short(&token, &field, warnings);
    Ok(Some(token))
}

/// Refuses a secret that can't stand in an `Authorization` header as it is.
pub(super) fn header_safe(secret: &SecretString, field: &Field) -> Result<(), Error> {
    if secret.expose_secret().bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(field.error("holds characters that can't be sent as a Bearer token", "use visible ASCII without spaces"))
}

fn warn_if_short(secret: &SecretString, field: &Field, warnings: &mut Vec<String>) {
    if secret.expose_secret().len() < SHORT_SECRET {
        let (key, origin) = (&field.key, &field.origin);
        warnings.push(format!("{key} ({origin}): a secret has fewer than {SHORT_SECRET} bytes, which may be guessed"));
    }
}
