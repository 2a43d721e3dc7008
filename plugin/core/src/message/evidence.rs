//! What shows what a message is.

use serde::Serialize;

/// One observation: where, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub field: &'static str,
    pub value: String,
}

/// One sentence, and what shows it.
pub(super) type Finding = Option<(&'static str, Evidence)>;
