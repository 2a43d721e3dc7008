//! The four hooks.
