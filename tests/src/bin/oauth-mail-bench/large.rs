//! What one large message costs in memory.

use oauth_mail_tests::{Error, Result, mailgen};

use crate::{
    Plan,
    report::{Report, Target},
    run::{median, run},
    world::{LARGE, World},
};

const MIB: f64 = 1_048_576.0;

pub fn measure(world: &World, plan: &Plan, report: &mut Report) -> Result<()> {
    let raw = mailgen::large_message(plan.large_bytes);
    let (bytes, size) = (raw.len() as u64, raw.len() as f64 / MIB);
    println!("\nOne message of {size:.1} MiB");
    let servers = &world.servers;
    servers.dovecot.fill(&servers.address(LARGE), "INBOX", std::iter::once(raw))?;
    let mut above_idle = Vec::new();
    let mut seconds = Vec::new();
    for _ in 0..plan.rounds {
        let folder = world.folder("large")?;
        let settings = world.settings(&folder, &world.incoming(LARGE, None))?;
        let run = run("bench-host", &folder, world.program("bench-host").arg("fetch").arg(settings))?;
        let number = |what: &str| run.answer[what].as_f64().unwrap_or(f64::NAN);
        if run.answer["bytes"].as_u64() != Some(bytes) {
            return Err(Error::new(format!("bench-host got {} of {bytes} bytes", run.answer["bytes"])));
        }
        above_idle.push((number("peak_kb") - number("idle_kb")) / 1024.0);
        seconds.push(run.seconds);
    }
    let above_idle = above_idle.into_iter().fold(f64::NAN, f64::max);
    println!("  {:.2} s, {above_idle:.1} MiB above the idle host", median(seconds));
    let target = Some(Target::RatioAtMost(2.0));
    report.add(
        "one large message, MiB above idle vs its size",
        above_idle,
        Some(size),
        Some(above_idle / size),
        target,
    );
    Ok(())
}
