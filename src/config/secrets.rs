//! Secrets: given as a value, or in a file named by the key's twin that ends in `_file`; never both.
//!
//! Of a file's contents the line ends at its end are trimmed, nothing else.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::Error;
use super::tree::{Field, Table};
use crate::verify::SHORT_SECRET;

/// Larger files are surely not secrets.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why a file of signing secrets can't be used; never with what it contains.
#[derive(Debug, thiserror::Error)]
pub enum SecretsFileError {
    /// It is there, but can't be read.
    #[error("can't read the file: {0}")]
    Io(#[from] std::io::Error),
    /// It is not text.
    #[error("the file is not UTF-8")]
    NotUtf8,
    /// One of its lines holds nothing.
    #[error("line {0} of the file is empty")]
    EmptyLine(usize),
}

/// The secrets in a file, one a line; none when it is empty or not there yet.
///
/// # Errors
/// When the file is there but can't be read (a directory, no permission, over 64 KiB), is not UTF-8, or has an empty
/// line before its end.
pub fn read_signing_secrets(file: &Path) -> Result<Vec<SecretString>, SecretsFileError> {
    let bytes = match read_bounded(file, MAX_FILE_BYTES) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let text = String::from_utf8(bytes).map_err(|_| SecretsFileError::NotUtf8)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let secret = |(n, line): (usize, &str)| {
        if line.trim().is_empty() { Err(SecretsFileError::EmptyLine(n + 1)) } else { Ok(SecretString::from(line)) }
    };
    lines.enumerate().map(secret).collect()
}

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

/// What is given for `signing_secrets`: secrets known by now, and the file to watch.
pub(super) fn signing_secrets(
    table: &mut Table,
    warnings: &mut Vec<String>,
) -> Result<(Vec<SecretString>, Option<PathBuf>), Error> {
    let fix_waiting = "POST is answered with 503 until there is one";
    match twin(table, "signing_secrets", "signing_secrets_file")? {
        Twin::Neither => {
            let key = table.key("signing_secrets");
            let var = format!("FINHOOK__{}", key.to_uppercase().replace('.', "__"));
            warnings.push(format!("{key} is not set: {fix_waiting}; set it, {key}_file or {var}"));
            Ok((Vec::new(), None))
        }
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
            let secrets = read_signing_secrets(&path).map_err(|e| {
                let problem = format!("{}: {e}", path.display());
                field.error(problem, "name a readable file with one secret a line; it may be missing until it is known")
            })?;
            if secrets.is_empty() {
                let shown = path.display();
                warnings.push(format!("{} ({}): {shown} holds no secret yet: {fix_waiting}", field.key, field.origin));
            }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(contents: &[u8]) -> Result<Vec<String>, SecretsFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        let secrets = read_signing_secrets(file.path())?;
        Ok(secrets.iter().map(|s| s.expose_secret().to_owned()).collect())
    }

    #[test]
    fn a_file_holds_one_secret_a_line_and_only_line_ends_are_trimmed() {
        assert_eq!(read(b"one\ntwo\n").unwrap(), ["one", "two"]);
        assert_eq!(read(b"one\r\ntwo\r\n").unwrap(), ["one", "two"]);
        assert_eq!(read(b" spaces matter ").unwrap(), [" spaces matter "]);
        assert_eq!(read(b"00123\n\n").unwrap(), ["00123"]);
    }

    #[test]
    fn an_empty_or_missing_file_holds_no_secret_yet() {
        assert!(read(b"").unwrap().is_empty());
        assert!(read(b"\n").unwrap().is_empty());
        let dir = tempfile::tempdir().unwrap();
        assert!(read_signing_secrets(&dir.path().join("not/yet")).unwrap().is_empty());
    }

    #[test]
    fn an_empty_line_a_directory_and_other_than_text_are_refused() {
        assert!(matches!(read(b"one\n\ntwo\n"), Err(SecretsFileError::EmptyLine(2))));
        assert!(matches!(read(b"one\n  \ntwo"), Err(SecretsFileError::EmptyLine(2))));
        assert!(matches!(read(b"\xff\xfe"), Err(SecretsFileError::NotUtf8)));
        assert!(matches!(read(&vec![b'x'; 70_000]), Err(SecretsFileError::Io(_))));
        assert!(matches!(read_signing_secrets(Path::new("/")), Err(SecretsFileError::Io(_))));
    }
}
