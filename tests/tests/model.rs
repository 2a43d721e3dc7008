//! The model in short (`make model`), and that it turns red when somebody breaks a promise.
#![allow(clippy::unwrap_used)]

use oauth_mail_tests::model::{Kind, Options, PLANTS, Report, model};

fn short(kinds: &[Kind], steps: u64) -> Options {
    Options { steps, seed: 1_000, jobs: 2, kinds: kinds.to_vec(), without: Vec::new(), plant: None }
}

fn clean(report: &Report) {
    assert!(report.is_clean(), "{report}\n{:#?}", report.broken);
}

#[test]
fn every_message_is_settled_once_over_imap() {
    clean(&model(&short(&[Kind::Imap], 15_000)));
}

#[test]
fn every_message_is_settled_once_over_ews_and_graph() {
    clean(&model(&short(&[Kind::Ews, Kind::Graph], 10_000)));
}

#[test]
fn a_host_that_breaks_its_promise_turns_the_model_red() {
    for plant in PLANTS {
        let options = Options { plant: Some(plant.to_owned()), ..short(&[Kind::Imap], 6_000) };
        let report = model(&options);
        assert!(!report.is_clean(), "{plant}: {report}");
    }
}
