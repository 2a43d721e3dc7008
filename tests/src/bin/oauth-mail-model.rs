//! `make model`: see `oauth_mail_tests::model`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // the report is what this program is for

use std::{process::ExitCode, thread, time::Instant};

use clap::Parser;
use oauth_mail_tests::model::{Kind, Options, PLANTS, WAYS, model};

/// A random mailbox, a random host and a server of moods, until so many steps were made.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 2_000_000)]
    steps: u64,
    /// Of the first run; each further run has the next one. A run is repeated with its seed and `--steps 1 --jobs 1`.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs at the same time; as many as there are processors when not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Only this one: imap, ews, graph.
    #[arg(long)]
    only: Option<String>,
    /// Ways of the servers to leave out, with commas between.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// A fault of the host, which must turn the model red.
    #[arg(long)]
    plant: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let unknown = arguments.without.iter().find(|way| !WAYS.contains(&way.as_str()));
    let unknown = unknown.or(arguments.plant.as_ref().filter(|plant| !PLANTS.contains(&plant.as_str())));
    if let Some(unknown) = unknown {
        eprintln!("{unknown} is none of {WAYS:?} and {PLANTS:?}");
        return ExitCode::from(2);
    }
    let kinds = match arguments.only.as_deref() {
        Some("imap") => vec![Kind::Imap],
        Some("ews") => vec![Kind::Ews],
        Some("graph") => vec![Kind::Graph],
        // IMAP has the most ways to be wrong.
        _ => vec![Kind::Imap, Kind::Imap, Kind::Imap, Kind::Ews, Kind::Graph],
    };
    let options = Options {
        steps: arguments.steps,
        seed: arguments.seed,
        jobs: arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from)),
        kinds,
        without: arguments.without,
        plant: arguments.plant,
    };
    let begun = Instant::now();
    let report = model(&options);
    for (seed, seen) in &report.broken {
        println!("seed {seed}:");
        seen.iter().for_each(|line| println!("  {line}"));
    }
    let (runs, again, seconds) = (report.runs, report.again, begun.elapsed().as_secs());
    println!("{runs} runs in {seconds} s; {again} messages came again after a renumbering or a restored state");
    println!("{report}");
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
