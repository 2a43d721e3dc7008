//! Bytes as lower-case hexadecimal digits, and random ones.

use crate::error::{Error, Kind, Result};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `N` random bytes, as 2·`N` digits.
///
/// # Errors
/// `Internal` when the system has no randomness.
pub fn random<const N: usize>() -> Result<String> {
    random_bytes::<N>().map(|random| hex(&random))
}

/// # Errors
/// As [`random`].
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut random = [0u8; N];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(Kind::Internal, "This machine gives out no randomness.").source_error(e.to_string()))?;
    Ok(random)
}
