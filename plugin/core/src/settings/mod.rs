//! What a person writes into the "Mail Server Settings" form, and its proven form, the [`Account`].

pub mod account;

pub use account::*;
