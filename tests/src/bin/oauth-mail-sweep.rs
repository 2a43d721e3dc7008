//! Runs the sweeps and prints a line for each, n/n. Ends with 1 when one is not complete.

use std::{env, process::ExitCode, thread};

use clap::Parser;
use oauth_mail_core::seam::control::How;
use oauth_mail_tests::{
    Error, Result,
    relay::Ending,
    sweep::{
        Line, Tally, host, power,
        scenario::Scenario,
        steps::{self, Disturbance},
        world::World,
    },
};

#[derive(Parser)]
struct Arguments {
    /// Only these: kill, fail-once, fail-for-ever, stall, stall-cancelled, cut-fin, cut-reset, cut-stall, cut-sent, tls-cut, tls-reset, tls-stall, power.
    sweeps: Vec<String>,
    /// A few steps of each scenario: what runs among the tests.
    #[arg(long)]
    short: bool,
    /// Every how many steps or bytes. Without it, each one (`--short`: a few of each scenario).
    #[arg(long)]
    stride: Option<usize>,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    scenario: String,
    /// Be the host of one case; the parent says the rest.
    #[arg(long, hide = true)]
    host: bool,
    /// Be the process whose writes are recorded.
    #[arg(long, hide = true)]
    record_rounds: Option<usize>,
}

/// Bytes of TLS between two cuts.
const TLS_STRIDE: usize = 97;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.host {
        host::run().map(|report| print(&report.to_string())).map(|()| true)
    } else if let Some(rounds) = arguments.record_rounds {
        let folder = env::var(power::FOLDER).map_err(Error::doing(power::FOLDER));
        folder.and_then(|folder| power::work(&folder, rounds)).map(|()| true)
    } else {
        run(&arguments)
    };
    match outcome {
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
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let mut lines = Vec::new();
    let named = |scenario: &Scenario| scenario.name.contains(&arguments.scenario);
    let all: Vec<_> = Scenario::all().into_iter().filter(named).collect();
    let sent: Vec<_> = Scenario::for_sent().into_iter().filter(named).collect();
    let received: Vec<_> = Scenario::for_received().into_iter().filter(named).collect();
    let (cut, tls) = (Disturbance::Cut, TLS_STRIDE);
    // The name, what happens, and every how many places in the long and in the short form.
    let sweeps = [
        ("kill", Disturbance::Kill, &all, 1, 23),
        ("fail-once", Disturbance::FailOnce, &all, 1, 23),
        ("fail-for-ever", Disturbance::FailForEver, &all, 1, 53),
        ("stall", Disturbance::Stall, &all, 1, 41),
        ("stall-cancelled", Disturbance::StallCancelled, &all, 1, 83),
        ("cut-fin", cut(How::Fin), &received, 1, 499),
        ("cut-reset", cut(How::Reset), &received, 1, 499),
        ("cut-stall", cut(How::Stall), &received, 1, 499),
        ("cut-sent", Disturbance::CutSent, &sent, 1, 499),
        ("tls-cut", Disturbance::Tls(Ending::Close), &received, tls, 16 * tls),
        ("tls-reset", Disturbance::Tls(Ending::Reset), &received, tls, 16 * tls),
        ("tls-stall", Disturbance::Tls(Ending::Stall), &received, 4 * tls, 64 * tls),
    ];
    let wanted: Vec<_> = sweeps.into_iter().filter(|(name, ..)| wants(name)).collect();
    if !wanted.is_empty() {
        let servers: Vec<_> =
            wanted.iter().flat_map(|(.., scenarios, _, _)| scenarios.iter().map(|one| one.server)).collect();
        let world = World::start(workers, &servers)?;
        for (_, how, scenarios, long, short) in wanted {
            let stride = arguments.stride.unwrap_or(if arguments.short { short } else { long });
            lines.push(show(steps::sweep(&world, workers, scenarios, how, stride)?));
        }
    }
    if wants("power") {
        let (rounds, stride) = if arguments.short { (6, 7) } else { (16, 1) };
        lines.push(show(power::sweep(rounds, arguments.stride.unwrap_or(stride))?));
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
