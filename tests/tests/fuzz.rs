//! A short run of the fuzzer, and everything it ever found. `make fuzz` runs it for longer.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use oauth_mail_tests::fuzz::{self, targets};

/// One test: a panic on any thread is a finding, so nothing may run beside it.
#[test]
fn no_parser_panics_hangs_or_breaks_its_promise() {
    let mut findings = Vec::new();
    for mut target in targets::all().unwrap() {
        for (name, input) in found_before(target.name) {
            findings.extend(fuzz::case(&mut target, &input).map(|crash| format!("{name}: {}", crash.what)));
        }
        let report = fuzz::run(&mut target, 1, Duration::from_secs(2), None).unwrap();
        assert!(report.cases > target.seeds.len() as u64, "{} tried nothing", target.name);
        findings.extend(
            report
                .crash
                .map(|crash| format!("{}: {} on {:?}", target.name, crash.what, String::from_utf8_lossy(&crash.input))),
        );
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// `tests/corpus/crash-TARGET-*.bin`.
fn found_before(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let prefix = format!("crash-{target}-");
    names
        .filter(|name| name.starts_with(&prefix))
        .map(|name| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(&name);
            (name, fs::read(path).unwrap())
        })
        .collect()
}
