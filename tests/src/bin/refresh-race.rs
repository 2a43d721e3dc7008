//! One token request per expiry, whoever asks, whoever dies: counted at a server that forgives nothing.
//!
//! Prints one line per part, n/n, and ends with 1 when one is not complete.

use std::{env, process::ExitCode, time::Instant};

use clap::Parser;
use oauth_mail_tests::{
    Result,
    ca::Ca,
    postgres::{PgBouncer, Postgres},
    race::{self, Part},
};

#[derive(Parser)]
struct Arguments {
    /// Expiries of each part with processes.
    #[arg(long, default_value_t = 1_000)]
    expiries: usize,
    /// Processes of each such part.
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// Be one of the processes; the parent says the rest.
    #[arg(long, hide = true)]
    node: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.node { race::run_node().map(|()| true) } else { run(&arguments) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            print(&format!("refresh-race: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let begun = Instant::now();
    let program = env::current_exe()?;
    let dir = tempfile::Builder::new().prefix("omrace").tempdir()?;
    let ca = Ca::create(dir.path())?;
    let postgres = Postgres::start(&ca)?;
    let pgbouncer = PgBouncer::start(&ca, &postgres)?;
    let sqlite = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
    let (nodes, expiries) = (arguments.nodes, arguments.expiries);

    let mut complete = show(race::threads(&ca, 200)?);
    let stores = [
        ("SQLite", sqlite("race.db")),
        ("PostgreSQL", postgres.url()),
        ("PostgreSQL behind pgbouncer", pgbouncer.url()),
    ];
    for (number, (what, store)) in stores.iter().enumerate() {
        complete &= show(race::processes(&program, &ca, store, what, nodes, expiries, &format!("race{number}"))?);
    }
    for (what, store) in [("SQLite", sqlite("killed.db")), ("PostgreSQL behind pgbouncer", pgbouncer.url())] {
        complete &= show(race::killed(&program, &ca, &store, what)?);
    }
    complete &= show(race::failing_store(&ca)?);
    print(&format!("{} in {:.0} s", if complete { "all" } else { "NOT all" }, begun.elapsed().as_secs_f64()));
    Ok(complete)
}

fn show(part: Part) -> bool {
    print(&part.line());
    part.is_complete()
}

#[allow(clippy::print_stdout, reason = "the report is what this program is for")]
fn print(line: &str) {
    println!("{line}");
}
