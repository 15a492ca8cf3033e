//! What is wrong with the configuration, on one line.

use std::fmt;

/// A fault in the configuration: which key, where its value came from, what is wrong, and the fix.
///
/// Its `Display` is one line whatever the parts hold, and never shows a secret: the parts are made without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The key, e.g. `server.bind`.
    pub key: String,
    /// File and line, environment variable, or `built-in default`.
    pub origin: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl Error {
    pub(super) fn new(
        key: impl Into<String>,
        origin: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), origin: origin.into(), problem: problem.into(), fix: fix.into() }
    }
}

impl Error {
    /// Whether an option of the command line is at fault, and not what is configured.
    #[must_use]
    pub fn is_wrong_usage(&self) -> bool {
        self.origin == super::layer::FORWARD_TO
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, problem, fix } = self;
        f.write_str(&one_line(&format!("configuration: {key} ({origin}): {problem}; {fix}")))
    }
}

impl std::error::Error for Error {}

/// Keys, paths and values come from outside: a line break or an escape code among them must not get through.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
