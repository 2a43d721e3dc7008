//! Runs the sweeps and prints a line for each, n/n. Ends with 1 when one is not complete.

use std::{process::ExitCode, thread};

use clap::Parser;
use oauth_mail_tests::{
    Result,
    sweep::{
        Line, Tally, host,
        scenario::{Scenario, Server},
        steps::{self, Disturbance},
        world::World,
    },
};

#[derive(Parser)]
struct Arguments {
    /// Only these: kill, fail-once, fail-for-ever.
    sweeps: Vec<String>,
    /// A few steps of each scenario: what runs among the tests.
    #[arg(long)]
    short: bool,
    /// Every how many steps. Without it, each one (`--short`: a few of each scenario).
    #[arg(long)]
    stride: Option<usize>,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    scenario: String,
    /// Be the host of one case; the parent says the rest.
    #[arg(long, hide = true)]
    host: bool,
}

/// Strides of the short form; primes, so that the cases of one scenario are not all of one kind.
const SHORT_STRIDE: usize = 23;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.host {
        return match host::run() {
            Ok(report) => {
                print(&report.to_string());
                ExitCode::SUCCESS
            }
            Err(error) => {
                print(&error.to_string());
                ExitCode::FAILURE
            }
        };
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print(&format!("oauth-mail-sweep: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let wants = |name: &str| arguments.sweeps.is_empty() || arguments.sweeps.iter().any(|sweep| sweep == name);
    let scenarios: Vec<_> =
        Scenario::all().into_iter().filter(|scenario| scenario.name.contains(&arguments.scenario)).collect();
    let stride = arguments.stride.unwrap_or(if arguments.short { SHORT_STRIDE } else { 1 });
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let mut lines = Vec::new();
    if wants("kill") || wants("fail-once") || wants("fail-for-ever") {
        let old = scenarios.iter().any(|scenario| scenario.server == Server::Old);
        let world = World::start(workers, old)?;
        for (name, how) in [
            ("kill", Disturbance::Kill),
            ("fail-once", Disturbance::FailOnce),
            ("fail-for-ever", Disturbance::FailForEver),
        ] {
            if wants(name) {
                lines.push(show(steps::sweep(&world, workers, &scenarios, how, stride)?));
            }
        }
    }
    let mut all = Tally::default();
    lines.iter().for_each(|line| all.add(Tally { notes: Vec::new(), ..line.tally.clone() }));
    for Line { name, tally, .. } in &lines {
        print(&format!("{name} {}/{}", tally.good, tally.cases));
    }
    let Tally { cases, good, lost, doubled, hangs, panics, early, .. } = &all;
    print(&format!(
        "sweeps {good}/{cases}: lost {lost}, doubled {doubled}, hangs {hangs}, panics {panics}, actions before settle \
         {early}"
    ));
    Ok(all.is_good())
}

fn show(line: Line) -> Line {
    print(&line.to_string());
    line
}

#[allow(clippy::print_stdout, reason = "the report is what this program is for")]
fn print(line: &str) {
    println!("{line}");
}
