//! The ability `oauth-mail/parts/1`: facts and decoded attachments of a raw message, as the C face gives them. Frozen for
//! ever.

use abi_stable::{
    StableAbi,
    std_types::{RResult, RSlice, RString, RVec},
};

use crate::root::HookError;

/// Its id, as `describe` lists it.
pub const PARTS_EXTENSION: &str = "oauth-mail/parts/1";

/// What [`PARTS_EXTENSION`] points to. It needs no account: a host may ask long after the batch was settled.
#[repr(C)]
#[derive(StableAbi)]
pub struct PartsTable {
    /// The facts of one raw message as JSON, as `fetch_batch` gives them, without what settings decide: `disposition`,
    /// `received_at`, `sender_verdict`. Any thread.
    pub facts: extern "C" fn(RSlice<'_, u8>) -> RResult<RString, HookError>,
    /// The decoded octets of the attachment with this `part_index` in the facts of the same raw message. Any thread.
    pub attachment: extern "C" fn(RSlice<'_, u8>, u32) -> RResult<RVec<u8>, HookError>,
}
