//! One SQLite file.

pub struct SqliteStore {}
