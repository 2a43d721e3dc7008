//! The loadable library `oauth_mail`. Shims only; everything that happens is in `oauth-mail-core`.
//!
//! ```text
//! host ──▶ rust_abi ─┬─▶ handle ──▶ guard ──▶ core::hooks
//!      ──▶ c_abi ────┘      └─ convert ─┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | `rust_abi` | the abi_stable root module; one line per shim |
//! | `c_abi` | the table for all other languages, behind one exported symbol |
//! | `handle` | what a trait object owns; after a panic it stays closed |
//! | `guard` | no panic leaves a shim |
//! | `sqlite_locks` | locks of the store that nobody else in the host can drop |
//! | `convert` | core types to ABI types and back; the only file that names both |

mod c_abi;
mod convert;
mod guard;
mod handle;
mod rust_abi;
mod sqlite_locks;
