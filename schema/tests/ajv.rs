//! The second opinion: ajv in strict mode, from npm.
#![allow(clippy::print_stdout)]

use std::process::{Command, Output};

use oauth_mail_schema::folder;

#[test]
fn ajv_in_strict_mode_agrees_on_every_example() {
    let folder = folder().join("ajv");
    let run = |program: &str, arguments: &[&str]| -> Option<Output> {
        Command::new(program).args(arguments).current_dir(&folder).output().ok()
    };
    let Some(node) = run("node", &["--version"]).filter(|output| output.status.success()) else {
        println!("SKIPPED: node is not installed, so ajv was not asked");
        return;
    };
    if !folder.join("node_modules/ajv").exists() {
        let Some(installed) = run("npm", &["ci", "--no-audit", "--no-fund"]) else {
            println!("SKIPPED: npm is not installed, so ajv could not be fetched");
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
