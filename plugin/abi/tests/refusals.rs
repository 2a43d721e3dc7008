//! Libraries that a host must refuse, each with one sentence. They are real ones, built as this package's examples.

#![allow(clippy::unwrap_used)]

use oauth_mail_abi::Library;

#[test]
fn a_newer_major_is_refused_with_both_versions() {
    let sentence = refusal("newer_major");
    assert!(sentence.contains("has the newer interface 2.1.0, and this host needs 1.0.0"), "{sentence}");
}

#[test]
fn an_older_major_is_refused_with_both_versions() {
    let sentence = refusal("older_major");
    assert!(sentence.contains("has the older interface 0.9.0, and this host needs 1.0.0"), "{sentence}");
}

#[test]
fn another_layout_under_our_name_and_version_is_refused() {
    let sentence = refusal("other_layout");
    assert!(sentence.contains("its layout differs"), "{sentence}");
}

#[test]
fn somebody_elses_library_is_refused() {
    let sentence = refusal("foreign");
    assert!(sentence.ends_with("is a library, but not oauth-mail."), "{sentence}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_c_library_is_refused() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.split_whitespace().find(|word| word.contains("libc.so") || word.contains("/libc-")).unwrap();
    let sentence = Library::load(libc).unwrap_err().to_string();
    assert!(sentence.ends_with("is a library, but not oauth-mail."), "{sentence}");
}

fn refusal(example: &str) -> String {
    // target/<profile>/deps/refusals-… → target/<profile>/examples
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{}{example}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    let sentence = Library::load(&path).unwrap_err().to_string();
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert_eq!(sentence.matches(example).count(), 1, "the file is named once: {sentence}");
    sentence
}
