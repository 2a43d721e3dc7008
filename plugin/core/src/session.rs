//! Account and token become an open transport.
