//! `make bench`: the loaded library beside mbsync, a raw TLS reader and nodemailer, on the same servers, alternating.
//!
//! `oauth-mail-bench [fetch] [large] [send] [calls] [protocols]`, without a word: all. Environment: `ROUNDS` (default 5) measured
//! rounds after one that warms up; `BENCH_SMALL=1` for a form of half a minute that shows that it works.
//!
//! A missed target is said and is no failure of this program; something that cannot be measured is.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod calls;
mod fetch;
mod large;
mod protocols;
mod report;
mod run;
mod send;
mod world;

use std::{env, fs, process::ExitCode};

use oauth_mail_tests::{Error, Result};

use report::Report;
use world::World;

/// How much is measured.
pub struct Plan {
    pub rounds: usize,
    pub messages: usize,
    pub large_bytes: usize,
    pub sent: usize,
}

impl Plan {
    fn from_env() -> Result<Self> {
        let small = env::var_os("BENCH_SMALL").is_some_and(|value| value == "1");
        let (messages, large_bytes, sent) = if small { (500, 10 << 20, 100) } else { (10_000, 50 << 20, 2_000) };
        let rounds = match env::var("ROUNDS") {
            Ok(text) => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::new("ROUNDS is no number."))?,
            Err(_) if small => 1,
            Err(_) => 5,
        };
        Ok(Self { rounds, messages, large_bytes, sent })
    }
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oauth-mail-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    const ON_SERVERS: [&str; 4] = ["calls", "large", "fetch", "send"];
    let parts: Vec<_> = env::args().skip(1).collect();
    let known = |part: &str| ON_SERVERS.contains(&part) || part == "protocols";
    if let Some(unknown) = parts.iter().find(|part| !known(part)) {
        return Err(Error::new(format!("there is no part {unknown}: {}, protocols", ON_SERVERS.join(", "))));
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let plan = Plan::from_env()?;
    println!("{}", machine());
    let mut report = Report::default();
    if ON_SERVERS.into_iter().any(wanted) {
        let world = World::start()?;
        if wanted("calls") {
            calls::measure(&world, &mut report)?;
        }
        if wanted("large") {
            large::measure(&world, &plan, &mut report)?;
        }
        if wanted("fetch") {
            fetch::measure(&world, &plan, &mut report)?;
        }
        if wanted("send") {
            send::measure(&world, &plan, &mut report)?;
        }
    }
    if wanted("protocols") {
        protocols::measure(&plan, &mut report)?;
    }
    report.finish();
    Ok(())
}

/// One line for whoever compares two runs.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores, {}, Linux {}, load before: {load}", model.unwrap_or("unknown"), kernel.trim())
}
