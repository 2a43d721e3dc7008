//! Every protocol against the sandbox: how fast, how many requests, how many bytes on the way, and what one large message
//! costs in memory. IMAP is the peer of the others: the same mailbox, the same host, the same provider.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use oauth_mail_abi::Library;
use oauth_mail_sandbox::{Config, Sandbox, faults::Face};
use oauth_mail_tests::{
    Error, Result,
    mailgen::{self, Generator},
    sandboxed::{self, Protocol},
};
use serde_json::{Value, json};

use crate::{
    Plan,
    report::{Report, Target},
    run::{median, run},
};

const MANY: &str = "alice";
const LARGE: &str = "bob";
const MEAN_KB: usize = 20;
const LARGE_BYTES: usize = 30 << 20;
const MIB: f64 = 1_048_576.0;

pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    // In memory and beside each other: a tenth of what the real servers hold.
    let count = (plan.messages / 10).max(100);
    println!("\nEach protocol against the sandbox: {count} messages of about {MEAN_KB} KB, and one of 30 MiB");
    let mut imap = None;
    for protocol in Protocol::ALL {
        let figures = one(protocol, plan.rounds, count)?;
        let name = protocol.name();
        println!(
            "  {name:<6} {:>7.0} messages/s  {:>7.0} requests per 1,000  {:>8.0} bytes per message (mail: {:.0})  {:.1} MiB \
             above idle with 30 MiB",
            figures.rate, figures.requests, figures.bytes, figures.mail, figures.large_mib
        );
        let peer = *imap.get_or_insert(figures.rate);
        report.add(&format!("{name}: messages/s vs imap"), figures.rate, Some(peer), Some(figures.rate / peer), None);
        report.add(&format!("{name}: requests per 1,000 messages"), figures.requests, None, None, None);
        let ratio = figures.bytes / figures.mail;
        report.add(&format!("{name}: bytes per message"), figures.bytes, Some(figures.mail), Some(ratio), None);
        let (large, size) = (figures.large_mib, LARGE_BYTES as f64 / MIB);
        let target = Some(Target::RatioAtMost(2.0));
        let line = format!("{name}: one message of 30 MiB, above idle vs its size");
        report.add(&line, large, Some(size), Some(large / size), target);
    }
    Ok(())
}

struct Figures {
    rate: f64,
    requests: f64,
    bytes: f64,
    /// Bytes of a message itself.
    mail: f64,
    large_mib: f64,
}

fn one(protocol: Protocol, rounds: usize, count: usize) -> Result<Figures> {
    let sandbox = Sandbox::start(Config::default())?;
    let generator = Generator::new(1, MEAN_KB);
    for number in 0..count {
        deliver(&sandbox, MANY, &generator.message(number))?;
    }
    deliver(&sandbox, LARGE, &mailgen::large_message(LARGE_BYTES))?;
    let (mut rates, mut requests, mut bytes, mut mail, mut large_mib) = (Vec::new(), 0.0, 0.0, 0.0, 0.0_f64);
    for round in 0..=rounds {
        let folder = tempfile::Builder::new().prefix("oauth-mail-bench").tempdir()?;
        let before = counted(&sandbox, protocol);
        let answer = fetch(&sandbox, protocol, MANY, folder.path(), count)?;
        let after = counted(&sandbox, protocol);
        let messages = count as f64;
        if round > 0 {
            rates.push(messages / number(&answer, "seconds"));
        }
        (requests, bytes) = ((after.0 - before.0) / messages * 1000.0, (after.1 - before.1) / messages);
        mail = number(&answer, "bytes") / messages;
        let folder = tempfile::Builder::new().prefix("oauth-mail-bench").tempdir()?;
        let answer = fetch(&sandbox, protocol, LARGE, folder.path(), 1)?;
        large_mib = large_mib.max((number(&answer, "peak_kb") - number(&answer, "idle_kb")) / 1024.0);
    }
    Ok(Figures { rate: median(rates), requests, bytes, mail, large_mib })
}

fn deliver(sandbox: &Sandbox, name: &str, raw: &[u8]) -> Result<()> {
    match sandbox.state.mail.deliver("", &sandboxed::address(name), raw) {
        true => Ok(()),
        false => Err(Error::new(format!("the sandbox has no mailbox of {name}"))),
    }
}

/// Requests so far, and bytes either way.
fn counted(sandbox: &Sandbox, protocol: Protocol) -> (f64, f64) {
    let face = match protocol {
        Protocol::Imap => Face::Imap,
        Protocol::Ews => Face::Ews,
        Protocol::Graph => Face::Graph,
    };
    let count = sandbox.state.faults.counted(face);
    (count.requests as f64, (count.bytes_in + count.bytes_out) as f64)
}

/// A consent, and a fresh process that has never fetched: what it said.
fn fetch(sandbox: &Sandbox, protocol: Protocol, name: &str, folder: &Path, count: usize) -> Result<Value> {
    let programs = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let (key, store) = (folder.join("store.key"), folder.join("store.db"));
    // 32 bytes that protect nothing.
    fs::write(&key, format!("{}\n", STANDARD.encode([7; 32])))?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let mut settings = sandboxed::settings(sandbox, protocol, name, "incoming");
    settings["plugin"] = json!({"store": format!("sqlite:{}", store.display()), "key": {"file": key},
        "private_networks": "allow"});
    let library = programs.join(format!("{}oauth_mail{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX));
    let library = Library::load(library).map_err(Error::doing("loading the library"))?;
    let plugin = library.plugin(&settings["plugin"], |_, _, _| {}).map_err(Error::doing("the plugin"))?;
    let account = plugin.open(&json!({"incoming": settings["incoming"]})).map_err(Error::doing("the mailbox"))?;
    let asked = account.authenticate(&json!({"action": "start"})).map_err(Error::doing("the consent"))?;
    let redirect = sandboxed::consent(sandbox, asked["authorize_url"].as_str().unwrap_or_default(), name)?;
    let complete = json!({"action": "complete", "redirect": redirect.as_str()});
    account.authenticate(&complete).map_err(Error::doing("the consent"))?;
    account.close();
    let file = folder.join("settings.json");
    fs::write(&file, settings.to_string())?;
    let run = run("bench-host", folder, Command::new(programs.join("bench-host")).arg("fetch").arg(file))?;
    match run.answer["messages"].as_u64() {
        Some(got) if got == count as u64 => Ok(run.answer),
        _ => Err(Error::new(format!("bench-host got {} of {count} messages", run.answer["messages"]))),
    }
}

fn number(answer: &Value, name: &str) -> f64 {
    answer[name].as_f64().unwrap_or(f64::NAN)
}
