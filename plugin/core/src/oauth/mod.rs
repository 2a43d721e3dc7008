//! Grants, consent, refresh.
