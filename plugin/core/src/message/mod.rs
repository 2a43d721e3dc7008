//! Messages: parsing into facts, composing, disposition.

pub mod codec;
pub mod disposition;
pub mod facts;
pub mod field;
pub mod mime;
pub mod parse;

pub use disposition::{Disposition, disposition};
pub use facts::Facts;
pub use parse::{attachment, parse};
