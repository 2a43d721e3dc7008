//! No panic leaves a shim: abi_stable would end the process ("Attempted to panic across the ffi boundary").

use oauth_mail_core::{Result, guard::guarded};

pub use oauth_mail_core::guard::quiet;

/// Runs one hook's body; a panic in it becomes an `Internal` error.
///
/// `request` is what the host handed in: the test build looks in it for the order to panic.
pub fn hook<T>(name: &str, request: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    guarded(name, || {
        panic_on_order(name, request);
        body()
    })
}

/// For what answers nothing: a panic while closing or dropping is dropped with it.
pub fn quietly(name: &str, body: impl FnOnce()) {
    let _ = guarded(name, || {
        body();
        Ok(())
    });
}

#[cfg(feature = "test-panics")]
fn panic_on_order(name: &str, request: &str) {
    let ordered = serde_json::from_str::<serde_json::Value>(request)
        .is_ok_and(|request| request["test_panic"] == serde_json::Value::Bool(true));
    assert!(!ordered, "ordered in {name}");
}

#[cfg(not(feature = "test-panics"))]
fn panic_on_order(_name: &str, _request: &str) {}
