//! Messages: parsing into facts, composing, disposition.
