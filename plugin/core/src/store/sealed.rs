//! Sealing of records.

pub struct SealingKey {}
