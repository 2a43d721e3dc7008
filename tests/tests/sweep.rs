//! The sweeps in their short form, and the proof that each can fail. The long one is `make sweep`.
#![cfg(feature = "test-seam")]
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use oauth_mail_tests::sweep::PLANT;

fn sweep(arguments: &[&str], plant: Option<&str>) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oauth-mail-sweep"));
    command.args(arguments);
    if let Some(plant) = plant {
        command.env(PLANT, plant);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn the_short_form_of_every_sweep_is_green() {
    let (output, text) = sweep(&["--short"], None);
    assert!(output.status.success(), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.ends_with("lost 0, doubled 0, hangs 0, panics 0, actions before settle 0"), "{last}");
}

#[test]
fn a_host_that_settles_before_it_files_turns_kills_and_failures_red() {
    for what in ["kill", "fail-once"] {
        let (output, text) =
            sweep(&[what, "--scenario", "refused, moved", "--stride", "3"], Some("settle-before-import"));
        let last = text.lines().last().unwrap();
        assert!(!output.status.success() && !last.contains("lost 0,"), "{text}");
        assert!(what != "kill" || !last.ends_with("settle 0"), "{text}");
    }
}

#[test]
fn a_host_that_swallows_errors_turns_the_cuts_red() {
    for what in ["cut-stall", "cut-sent"] {
        let (output, text) = sweep(&[what, "--scenario", "mixed", "--stride", "97"], Some("swallow-errors"));
        assert!(!output.status.success() && !text.lines().last().unwrap().contains("doubled 0,"), "{text}");
    }
}

#[test]
fn a_store_that_forgets_to_sync_turns_the_power_losses_red() {
    let (output, text) = sweep(&["power", "--short"], Some("forget-fsync"));
    assert!(!output.status.success() && !text.lines().last().unwrap().contains("lost 0,"), "{text}");
}
