//! `make test-servers`: walks servers of other families through their suites. Names on the command line choose some.
#![allow(clippy::print_stdout, clippy::print_stderr)] // the report is what this program is for

use std::{env, process::ExitCode};

use oauth_mail_tests::families::FAMILIES;

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).map(|name| name.to_lowercase()).collect();
    let is_wanted = |name: &str, kind: &str| {
        wanted.is_empty() || wanted.iter().any(|word| name.to_lowercase().contains(word.as_str()) || word == kind)
    };
    let mut clean = true;
    for family in FAMILIES.iter().filter(|family| is_wanted(family.name, family.kind)) {
        let tally = family.run();
        println!("{tally}");
        clean &= tally.is_clean();
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
