//! Fetching a mailbox of many small messages.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use oauth_mail_tests::{Error, Result, mailgen::Generator, relay::Relay};

use crate::{
    Plan,
    report::{Client, Report, Target, table},
    run::{Run, run},
    world::{MANY, World},
};

const MEAN_KB: usize = 20;
const ONE_WAY: Duration = Duration::from_millis(10);
/// A relay that slows the reader down by more than this would be what is measured.
const RELAY_SHARE: f64 = 0.75;

const READER: usize = 0;
const MBSYNC: usize = 1;
const HANDED_OVER: usize = 2;
const COMMITTED: usize = 3;
const READER_RELAYED: usize = 4;
const READER_FAR: usize = 5;
const HANDED_OVER_FAR: usize = 6;
const NAMES: [&str; 7] = [
    "raw reader, discards",
    "mbsync (XOAUTH2, Maildir, FSync yes)",
    "ours, handed over",
    "ours, committed (host-sample, SQLite)",
    "raw reader through the relay, no delay",
    "raw reader, 20 ms round trip",
    "ours, handed over, 20 ms round trip",
];

pub fn measure(world: &World, plan: &Plan, report: &mut Report) -> Result<()> {
    let servers = &world.servers;
    println!("\nFetching {} messages of about {MEAN_KB} KB, mdbox, everything in memory", plan.messages);
    servers.fill(MANY, plan.messages, MEAN_KB)?;
    let generator = Generator::new(1, MEAN_KB);
    let bytes: u64 = (0..plan.messages).map(|number| generator.message(number).len() as u64).sum();
    let token = servers.dir().join("token");
    fs::write(&token, servers.access_token(MANY)?)?;
    let (near, far) = (Relay::start(servers.dovecot.port)?, Relay::start(servers.dovecot.port)?);
    far.set_one_way_delay(ONE_WAY);

    let bench = Bench { world, token: &token, messages: plan.messages, bytes };
    let mut clients: Vec<_> = NAMES.into_iter().map(|name| Client { name, rounds: Vec::new() }).collect();
    for round in 0..=plan.rounds {
        for (at, client) in clients.iter_mut().enumerate() {
            let result = match at {
                READER => bench.reader(None),
                MBSYNC => bench.mbsync(),
                HANDED_OVER => bench.handed_over(None),
                COMMITTED => bench.committed(),
                READER_RELAYED => bench.reader(Some(&near)),
                READER_FAR => bench.reader(Some(&far)),
                _ => bench.handed_over(Some(&far)),
            }?;
            // The first round warms up: caches of the server, files of the programs.
            if round > 0 {
                client.rounds.push(result);
            }
        }
    }

    let all: Vec<_> = clients.iter().collect();
    let peer_of = |at| if at == HANDED_OVER_FAR { READER_FAR } else { READER };
    table(&all, plan.messages, bytes, peer_of);
    let relayed = clients[READER_RELAYED].times_as_fast_as(&clients[READER]);
    if relayed < RELAY_SHARE {
        println!("  Note: the relay itself slows the reader down to {relayed:.2}; so it does to the 20 ms lines.");
    }
    let rate = |at: usize| plan.messages as f64 / clients[at].seconds();
    let mut line = |name: &str, ours: usize, peer: usize, target: Option<f64>| {
        let ratio = clients[ours].times_as_fast_as(&clients[peer]);
        report.add(name, rate(ours), Some(rate(peer)), Some(ratio), target.map(Target::RatioAtLeast));
    };
    line("fetch handed over vs reader, messages/s", HANDED_OVER, READER, Some(0.75));
    line("fetch handed over vs mbsync, messages/s", HANDED_OVER, MBSYNC, Some(1.0));
    line("fetch handed over at 20 ms vs reader at 20 ms, messages/s", HANDED_OVER_FAR, READER_FAR, Some(0.9));
    line("fetch committed vs reader, messages/s", COMMITTED, READER, None);
    line("fetch committed vs mbsync, messages/s", COMMITTED, MBSYNC, None);
    line("mbsync vs reader, messages/s", MBSYNC, READER, None);
    let peak =
        [HANDED_OVER, COMMITTED, HANDED_OVER_FAR].map(|at| clients[at].peak_mb()).into_iter().fold(0.0, f64::max);
    report.add("fetch peak memory of the whole host, MiB", peak, None, None, Some(Target::AtMost(64.0)));
    Ok(())
}

struct Bench<'a> {
    world: &'a World,
    token: &'a Path,
    messages: usize,
    bytes: u64,
}

impl Bench<'_> {
    fn reader(&self, relay: Option<&Relay>) -> Result<Run> {
        let folder = self.world.folder("reader")?;
        let servers = &self.world.servers;
        let port = relay.map_or(servers.dovecot.port, Relay::port).to_string();
        let mut command = self.world.program("floor");
        command.arg(servers.ca_file()).args([&port, &servers.address(MANY)]).arg(self.token);
        let run = run("the reader", &folder, &mut command)?;
        match run.answer["bytes"].as_u64() {
            Some(bytes) if bytes >= self.bytes => Ok(run),
            _ => Err(Error::new(format!("the reader read {} of {} bytes", run.answer["bytes"], self.bytes))),
        }
    }

    fn mbsync(&self) -> Result<Run> {
        let folder = self.world.folder("mbsync")?;
        let servers = &self.world.servers;
        let (port, user, near) = (servers.dovecot.port, servers.address(MANY), folder.display());
        let (token, ca) = (self.token.display(), servers.ca_file().display());
        let settings = format!(
            "FSync yes\n\nIMAPAccount far\nHost localhost\nPort {port}\nUser {user}\nPassCmd \"cat {token}\"\n\
             AuthMechs XOAUTH2\nSSLType IMAPS\nCertificateFile {ca}\n\nIMAPStore far\nAccount far\n\n\
             MaildirStore near\nPath {near}/\nInbox {near}/INBOX\n\n\
             Channel all\nFar :far:INBOX\nNear :near:\nCreate Near\nSync Pull\nSyncState *\n"
        );
        let file = folder.join("mbsyncrc");
        fs::write(&file, settings)?;
        let run = run("mbsync", &folder, Command::new("mbsync").arg("-q").arg("-c").arg(&file).arg("all"))?;
        let mut written = 0;
        for sub in ["new", "cur"] {
            written += fs::read_dir(folder.join("INBOX").join(sub))?.count();
        }
        self.complete("mbsync", written as u64).map(|()| run)
    }

    fn handed_over(&self, relay: Option<&Relay>) -> Result<Run> {
        let folder = self.world.folder("handed-over")?;
        let settings = self.world.settings(&folder, &self.world.incoming(MANY, relay.map(Relay::port)))?;
        let run = run("bench-host", &folder, self.world.program("bench-host").arg("fetch").arg(settings))?;
        if run.answer["bytes"].as_u64() != Some(self.bytes) {
            return Err(Error::new(format!("bench-host got {} of {} bytes", run.answer["bytes"], self.bytes)));
        }
        self.complete("bench-host", run.answer["messages"].as_u64().unwrap_or(0)).map(|()| run)
    }

    fn committed(&self) -> Result<Run> {
        let folder = self.world.folder("committed")?;
        let settings = self.world.settings(&folder, &self.world.incoming(MANY, None))?;
        let mut command = self.world.program("host-sample");
        command.args(["--json", "fetch"]).arg(settings);
        let run = run("host-sample", &folder, &mut command)?;
        let count = |what: &str| run.answer[what].as_u64().unwrap_or(0);
        self.complete("host-sample", ["created", "appended", "ignored"].map(count).iter().sum())?;
        match &run.answer["bytes"] {
            Value::Number(bytes) if bytes.as_u64() == Some(self.bytes) => Ok(run),
            other => Err(Error::new(format!("host-sample got {other} of {} bytes", self.bytes))),
        }
    }

    fn complete(&self, who: &str, got: u64) -> Result<()> {
        if got == self.messages as u64 {
            return Ok(());
        }
        Err(Error::new(format!("{who} got {got} of {} messages", self.messages)))
    }
}
