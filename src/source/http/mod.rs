//! The public HTTP listener.
