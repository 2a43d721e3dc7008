//! Runs `check.mjs` of a folder with npm packages.
#![allow(clippy::print_stdout)]

use std::process::{Command, Output};

use oauth_mail_schema::folder;

/// Installs what its package-lock.json names, if that was not done; skipped without node or npm, and says so.
///
/// # Panics
/// When the check fails: with what it said.
pub fn check(name: &str) {
    let folder = folder().join(name);
    let run = |program: &str, arguments: &[&str]| -> Option<Output> {
        Command::new(program).args(arguments).current_dir(&folder).output().ok()
    };
    let Some(node) = run("node", &["--version"]).filter(|output| output.status.success()) else {
        println!("SKIPPED: node is not installed, so {name} was not asked");
        return;
    };
    // npm leaves it when it is through.
    if !folder.join("node_modules/.package-lock.json").exists() {
        let Some(installed) = run("npm", &["ci", "--no-audit", "--no-fund"]) else {
            println!("SKIPPED: npm is not installed, so {name} could not be fetched");
            return;
        };
        assert!(installed.status.success(), "npm ci: {}", String::from_utf8_lossy(&installed.stderr));
    }
    let checked = run("node", &["check.mjs"]).expect("node runs");
    let node = String::from_utf8_lossy(&node.stdout);
    let (out, err) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    println!("node {}: {}", node.trim(), out.trim());
    assert!(checked.status.success(), "{out}{err}");
}
