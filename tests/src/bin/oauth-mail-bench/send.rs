//! Sending over one warm authenticated session.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use oauth_mail_tests::{Error, Result, mailgen::Generator, process, servers::DOMAIN};

use crate::{
    Plan,
    report::{Client, Report, Target, table},
    run::{Run, run},
    world::{SENDER, World},
};

const MEAN_KB: usize = 20;
/// Different messages; they are sent again from the beginning when they run out.
const DIFFERENT: usize = 200;
/// Nothing is left of the run before when the next begins.
const QUIET_LIMIT: Duration = Duration::from_secs(60);

pub fn measure(world: &World, plan: &Plan, report: &mut Report) -> Result<()> {
    println!("\nSending {} messages of about {MEAN_KB} KB over one SMTPS session, to Postfix", plan.sent);
    let mail = world.folder("mail")?;
    let generator = Generator::new(2, MEAN_KB);
    let mut bytes = 0;
    for number in 0..DIFFERENT {
        let raw = generator.message(number);
        bytes += raw.len() as u64;
        fs::write(mail.join(format!("{number:04}.eml")), raw)?;
    }
    let bytes = bytes * plan.sent as u64 / DIFFERENT as u64;
    let mut ours = Client { name: "ours, one session", rounds: Vec::new() };
    let mut peer = Client { name: "nodemailer, one connection", rounds: Vec::new() };
    for round in 0..=plan.rounds {
        // The first warms up, and is short.
        let count = if round == 0 { plan.sent.min(DIFFERENT) } else { plan.sent };
        for (client, result) in
            [(&mut peer, nodemailer(world, &mail, count)), (&mut ours, through_library(world, &mail, count))]
        {
            let result = result?;
            if round > 0 {
                client.rounds.push(result);
            }
        }
    }
    table(&[&peer, &ours], plan.sent, bytes, |_| 0);
    let rate = |client: &Client| plan.sent as f64 / client.seconds();
    let ratio = ours.times_as_fast_as(&peer);
    let target = Some(Target::RatioAtLeast(1.2));
    report.add("send vs nodemailer, messages/s", rate(&ours), Some(rate(&peer)), Some(ratio), target);
    Ok(())
}

fn through_library(world: &World, mail: &Path, count: usize) -> Result<Run> {
    let folder = world.folder("send")?;
    let settings = world.settings(&folder, &world.servers.outgoing_settings(SENDER))?;
    let mut command = world.program("bench-host");
    command.arg("send").arg(settings).arg(mail).args([&count.to_string(), &format!("sink@{DOMAIN}")]);
    inner(world, run("bench-host", &folder, &mut command)?, count)
}

fn nodemailer(world: &World, mail: &Path, count: usize) -> Result<Run> {
    let folder = world.folder("nodemailer")?;
    let servers = &world.servers;
    let config = json!({
        "host": "localhost",
        "port": servers.postfix.smtps_port,
        "ca_file": servers.ca_file(),
        "user": servers.address(SENDER),
        "token": servers.access_token(SENDER)?,
        "to": format!("sink@{DOMAIN}"),
        "folder": mail,
        "messages": count,
    });
    let file = folder.join("config.json");
    fs::write(&file, config.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/nodemailer/send.mjs");
    let mut command = std::process::Command::new(process::on_path("node")?);
    inner(world, run("nodemailer", &folder, command.arg(script).arg(file))?, count)
}

/// Both programs count from the first message that was sent, without connecting; the queue is waited for outside.
fn inner(world: &World, run: Run, count: usize) -> Result<Run> {
    let number = |what: &str| run.answer[what].as_f64();
    let (Some(seconds), Some(cpu_seconds), Some(peak_mb)) =
        (number("seconds"), number("cpu_seconds"), number("peak_mb"))
    else {
        return Err(Error::new(format!("no figures: {}", run.answer)));
    };
    if run.answer["messages"].as_u64() != Some(count as u64) {
        return Err(Error::new(format!("{} of {count} messages were sent", run.answer["messages"])));
    }
    wait_for_empty_queue(&world.servers.dir().join("postfix/queue"))?;
    Ok(Run { seconds, cpu_seconds, peak_mb, answer: run.answer })
}

fn wait_for_empty_queue(queue: &Path) -> Result<()> {
    let end = Instant::now() + QUIET_LIMIT;
    loop {
        let mut waiting = 0;
        for sub in ["maildrop", "incoming", "active", "deferred"] {
            waiting += fs::read_dir(queue.join(sub))?.count();
        }
        if waiting == 0 {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Error::new(format!("Postfix still has {waiting} messages in its queue")));
        }
        thread::sleep(Duration::from_millis(50));
    }
}
