//! What the build left beside the tests: programs, and the library.

use std::{env, path::PathBuf};

/// The file in `target/PROFILE` of a test in `target/PROFILE/deps`.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap_or_else(|e| panic!("this program does not know where it is: {e}"));
    let file = test.ancestors().nth(2).map(|folder| folder.join(name)).unwrap_or_default();
    assert!(file.is_file(), "{} is not there: `make test` builds it first.", file.display());
    file
}

/// `liboauth_mail.so`.
///
/// # Panics
/// As [`program`].
pub fn library() -> PathBuf {
    program(&format!("{}oauth_mail{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX))
}
