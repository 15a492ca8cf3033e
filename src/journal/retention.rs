//! Retention (soon).
