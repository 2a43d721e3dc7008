//! The soak. Parameters by environment variables, see [`oauth_mail_tests::soak::Plan::from_env`]. Ends with 1 when
//! something was lost, doubled or settled twice, or when memory grew.

use std::{env, process::ExitCode};

use oauth_mail_tests::soak::{self, Plan};

fn main() -> ExitCode {
    let outcome = if env::args().any(|argument| argument == "--node") {
        soak::run_node().map(|()| true)
    } else {
        let plan = Plan::from_env();
        print(&format!("{plan:?}"));
        soak::run(&plan, print).map(|outcome| {
            print(&outcome.text());
            outcome.is_good()
        })
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print(&format!("oauth-mail-soak: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the report is what this program is for")]
fn print(line: &str) {
    println!("{line}");
}
