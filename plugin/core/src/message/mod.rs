//! Messages: parsing into facts, disposition, composing.

pub mod address;
pub mod codec;
pub mod compose;
pub mod disposition;
pub mod facts;
pub mod field;
pub mod mime;
pub mod parse;
pub mod wire;

pub use disposition::{Disposition, disposition};
pub use facts::Facts;
pub use parse::{attachment, parse};
