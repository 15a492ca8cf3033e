//! What the API says when the journal fails. The errors themselves go to the log, once, here.

use crate::conversations::Failed;
use crate::journal::{EraseError, ReadError, WriteError};
use crate::serve::Problem;

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "the admin API could not read the journal");
        Self::unavailable("the journal could not be read; see finhook's log")
    }
}

impl From<Failed> for Problem {
    fn from(error: Failed) -> Self {
        tracing::error!(%error, "the admin API could not read the conversations");
        Self::unavailable("the conversations could not be read; see finhook's log")
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        tracing::error!(%error, "the admin API could not write to the journal");
        Self::unavailable("the journal did not take the change; see finhook's log, try again")
    }
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Self {
        tracing::error!(%error, "the journal's log still holds what was purged");
        Self::unavailable("the events are deleted, but copies of them may still be in the journal's files: purge again")
    }
}
