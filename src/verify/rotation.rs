//! Keeps a keyring up to date with its `signing_secrets_file`.
