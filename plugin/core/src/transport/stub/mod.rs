//! Outbox that records instead of sending, for tests.
