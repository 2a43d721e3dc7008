//! Servers for a sweep: real ones, and the sandbox for EWS and Microsoft Graph. Each worker has a person of its own, each case folders of its own and a copy of a store in
//! which consent was given.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{Config, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::{
    beside::Beside,
    host::{Desk, ORDER},
    scenario::{Before, Scenario, Server, Submission, Task, Verdicts},
    steps::{CALM_DEADLINE_MS, Disturbance, STALL_DEADLINE_MS},
};
use crate::{
    Error, Options, Result, Servers,
    fixture::{self, STORE_KEY, parse},
    idp,
    mailbox::{self, note},
    relay::{Ending, Relay},
    sandboxed::{self, Protocol},
};

/// A child that says nothing for this long hangs: its own deadlines are half of it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than a claim or a lease of a process that was killed lasts, shorter than an access token.
const LATER: u64 = 1_800;
/// After this an access token has expired.
const EXPIRED: u64 = 3_700;
/// More than the library keeps in memory.
const LARGE: usize = 1_200_000;

pub struct World {
    full: Servers,
    old: Option<Servers>,
    sandbox: Option<Sandbox>,
    dir: TempDir,
    /// Of all seats: no name is used twice.
    cases: AtomicUsize,
}

/// One worker's place.
pub struct Seat<'a> {
    world: &'a World,
    person: String,
    full: Beside<'a>,
    old: Option<Beside<'a>>,
    sandbox: Option<Beside<'a>>,
}

/// Who plays the provider.
#[derive(Clone, Copy)]
enum Provider<'a> {
    Real(&'a Servers),
    Sandbox(&'a Sandbox, Protocol),
}

impl Provider<'_> {
    /// A client whose refresh token may be used again: the stores of the cases are copies of one.
    fn incoming(self, person: &str) -> Value {
        match self {
            Self::Real(servers) => {
                let mut settings = servers.incoming_settings(person);
                settings["incoming"]["client_id"] = json!(idp::NO_ROTATION);
                settings
            }
            Self::Sandbox(sandbox, protocol) => sandboxed::settings(sandbox, protocol, person, "incoming"),
        }
    }

    fn outgoing(self, person: &str, how: Submission) -> Value {
        match self {
            Self::Real(servers) => outgoing(servers, person, how),
            Self::Sandbox(sandbox, protocol) => sandboxed::settings(sandbox, protocol, person, "outgoing"),
        }
    }

    /// The redirect, after the person consented.
    fn consent(self, handle: &Handle, person: &str) -> Result<Url> {
        match self {
            Self::Real(servers) => fixture::redirect(servers, handle, person),
            Self::Sandbox(sandbox, _) => fixture::redirect_by(handle, |url| sandboxed::consent(sandbox, url, person)),
        }
    }

    fn address(self, name: &str) -> String {
        match self {
            Self::Real(servers) => servers.address(name),
            Self::Sandbox(..) => sandboxed::address(name),
        }
    }
}

/// What a case left.
pub struct End {
    pub report: Option<Value>,
    /// Killed by its own abort.
    pub aborted: bool,
    pub hung: bool,
    pub stderr: String,
}

impl End {
    pub fn panicked(&self) -> bool {
        self.stderr.contains("panicked at") || self.errors().any(|error| error["kind"] == "internal")
    }

    pub fn errors(&self) -> impl Iterator<Item = &Value> {
        self.report.iter().filter_map(|report| report["errors"].as_array()).flatten()
    }

    pub fn is_complete(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report["ended"] == true)
    }
}

impl World {
    /// Only what `wanted` needs; the real ones always.
    pub fn start(workers: usize, wanted: &[Server]) -> Result<Self> {
        let users: Vec<_> = (0..workers).flat_map(|n| [person(n), sink(&person(n))]).collect();
        let options = |capability: Option<&str>| Options {
            users: users.clone(),
            imap_capability: capability.map(str::to_owned),
            ..Options::default()
        };
        let full = Servers::start(options(None))?;
        let old = match wanted.contains(&Server::Old) {
            true => Some(Servers::start(options(Some("IMAP4rev1 LITERAL+ SASL-IR ID AUTH=XOAUTH2")))?),
            false => None,
        };
        let sandbox = match wanted.contains(&Server::Ews) || wanted.contains(&Server::Graph) {
            true => Some(Sandbox::start(Config {
                users: users.iter().map(|name| Config::user(name)).collect(),
                rotate_refresh_tokens: false,
                ..Config::default()
            })?),
            false => None,
        };
        let dir = tempfile::Builder::new().prefix("omsweep").tempdir()?;
        let world = Self { full, old, sandbox, dir, cases: AtomicUsize::new(0) };
        for number in 0..workers {
            for server in Server::ALL {
                if let Some(provider) = world.provider(server) {
                    world.make_template(provider, server, &person(number))?;
                }
            }
        }
        Ok(world)
    }

    pub fn seat(&self, number: usize) -> Result<Seat<'_>> {
        let person = person(number);
        let full = Beside::Imap(mailbox::log_in(&self.full, &person)?.into());
        let old = self.old.as_ref().map(|servers| mailbox::log_in(servers, &person)).transpose()?;
        let sandbox = self.sandbox.as_ref().map(|sandbox| Beside::Memory(sandbox, sandboxed::address(&person)));
        Ok(Seat { world: self, person, full, old: old.map(|wire| Beside::Imap(wire.into())), sandbox })
    }

    fn provider(&self, server: Server) -> Option<Provider<'_>> {
        match server {
            Server::Full => Some(Provider::Real(&self.full)),
            Server::Old => self.old.as_ref().map(Provider::Real),
            Server::Ews => self.sandbox.as_ref().map(|sandbox| Provider::Sandbox(sandbox, Protocol::Ews)),
            Server::Graph => self.sandbox.as_ref().map(|sandbox| Provider::Sandbox(sandbox, Protocol::Graph)),
        }
    }

    /// A store in which somebody's consent lies; nothing in it was fetched from the folders of the cases.
    fn make_template(&self, provider: Provider<'_>, server: Server, person: &str) -> Result<()> {
        let path = self.template(server, person);
        let plugin = open_plugin(&path)?;
        let handle = plugin.open(&provider.incoming(person).to_string()).map_err(Error::doing("open"))?;
        let redirect = provider.consent(&handle, person)?;
        fixture::complete(&handle, redirect.as_str()).map_err(Error::doing("complete"))?;
        handle.close();
        Ok(())
    }

    fn template(&self, server: Server, person: &str) -> PathBuf {
        self.dir.path().join(format!("{person}-{server:?}.db"))
    }

    /// Subjects in the mailbox to which somebody's cases send.
    pub fn arrived(&self, number: usize) -> Result<Vec<String>> {
        let name = sink(&person(number));
        let mut arrived = Beside::Imap(mailbox::log_in(&self.full, &name)?.into()).look("INBOX")?;
        if let Some(sandbox) = &self.sandbox {
            arrived.extend(Beside::Memory(sandbox, sandboxed::address(&name)).look("INBOX")?);
        }
        Ok(arrived.into_iter().map(|(subject, _)| subject).collect())
    }
}

/// Files and folders of one case.
pub struct Case<'a> {
    pub scenario: &'a Scenario,
    name: String,
    store: PathBuf,
    desk: PathBuf,
    settings: Value,
    redirect: Option<String>,
    stall_deadline_ms: Option<u64>,
    /// Idempotency keys of what it sends.
    pub keys: Vec<String>,
}

impl<'a> Seat<'a> {
    pub fn person(&self) -> &str {
        &self.person
    }

    fn provider(&self, server: Server) -> Result<Provider<'a>> {
        self.world.provider(server).ok_or_else(|| Error::new("this world has no such server"))
    }

    fn beside(&mut self, server: Server) -> Result<&mut Beside<'a>> {
        let beside = match server {
            Server::Full => return Ok(&mut self.full),
            Server::Old => &mut self.old,
            Server::Ews | Server::Graph => &mut self.sandbox,
        };
        beside.as_mut().ok_or_else(|| Error::new("this world has no such server"))
    }

    /// Everything as it is before the host begins.
    pub fn prepare<'s>(&mut self, scenario: &'s Scenario) -> Result<Case<'s>> {
        let name = format!("{}c{}", self.person, self.world.cases.fetch_add(1, Ordering::SeqCst));
        let provider = self.provider(scenario.server)?;
        let (store, desk) =
            (self.world.dir.path().join(format!("{name}.db")), self.world.dir.path().join(format!("{name}.desk")));
        let mut case = Case {
            scenario,
            name,
            store,
            desk,
            settings: Value::Null,
            redirect: None,
            stall_deadline_ms: None,
            keys: Vec::new(),
        };
        case.settings = match scenario.task {
            Task::Send(how) => provider.outgoing(&self.person, how),
            _ => {
                let mut settings = provider.incoming(&self.person);
                let form = &mut settings["incoming"]["advanced"];
                for (key, value) in scenario.advanced(&case.name).as_object().into_iter().flatten() {
                    form[key] = value.clone();
                }
                settings
            }
        };
        match scenario.task {
            Task::Consent => case.redirect = Some(self.consent(&case)?),
            _ => {
                fs::copy(self.world.template(scenario.server, &self.person), &case.store)?;
            }
        }
        if matches!(scenario.task, Task::Send(_)) {
            case.keys = (0..2).map(|number| format!("{} {number}", case.name)).collect();
            return Ok(case);
        }
        self.fill(&case)?;
        Ok(case)
    }

    fn fill(&mut self, case: &Case<'_>) -> Result<()> {
        let scenario = case.scenario;
        let first = match scenario.before {
            Before::Nothing => scenario.messages,
            Before::Looked => 0,
            Before::Renumbered | Before::Expunged => scenario.messages / 2,
        };
        for folder in case.sources() {
            let beside = self.beside(scenario.server)?;
            beside.create(&folder)?;
            append(beside, &folder, scenario, 0..first)?;
        }
        if scenario.before == Before::Nothing {
            return Ok(());
        }
        let end = self.run(case, None, false, 0)?;
        if !end.is_complete() {
            return Err(Error::new(format!("before it began: {:?} {}", end.report, end.stderr)));
        }
        let beside = self.beside(scenario.server)?;
        for folder in case.sources() {
            match scenario.before {
                Before::Renumbered => {
                    beside.delete(&folder);
                    beside.create(&folder)?;
                    append(beside, &folder, scenario, 0..scenario.messages)?;
                }
                Before::Expunged => {
                    append(beside, &folder, scenario, first..scenario.messages + 1)?;
                    beside.expunge_newest(&folder)?;
                }
                _ => append(beside, &folder, scenario, 0..scenario.messages)?,
            }
        }
        Ok(())
    }

    /// The host once: disturbed by `plan` from its start on, then (with `again`) once more from the beginning.
    pub fn run(&mut self, case: &Case<'_>, plan: Option<&str>, again: bool, resumed: usize) -> Result<End> {
        let scenario = case.scenario;
        let expired = if scenario.expired { EXPIRED } else { 0 };
        let mut order = json!({
            "store": case.store,
            "desk": case.desk,
            "settings": case.settings,
            "plan": plan,
            "again": again,
            "max_messages": scenario.max_messages,
            "verdicts": match scenario.verdicts {
                Verdicts::Imported => "imported",
                Verdicts::Refused => "refused",
                Verdicts::Mixed => "mixed",
                Verdicts::Failing => "failing",
            },
            "skip_seconds": expired + LATER * resumed as u64,
            "redirect": case.redirect,
            "stall_deadline_ms": case.stall_deadline_ms,
            "deadline_ms": case.stall_deadline_ms.map(|_| CALM_DEADLINE_MS),
        });
        if let Task::Send(how) = scenario.task {
            let to = self.provider(scenario.server)?.address(&sink(&self.person));
            order["sends"] = case.keys.iter().map(|key| message_to(&to, key, how)).collect();
        }
        run_host(&order, self.world.dir.path())
    }

    /// Between the host and the server, where bytes of TLS are to be cut.
    pub fn relay(&self, case: &mut Case<'_>, how: Disturbance) -> Result<Option<Relay>> {
        let stalls = [Disturbance::Tls(Ending::Stall), Disturbance::Stall, Disturbance::StallCancelled];
        case.stall_deadline_ms = stalls.contains(&how).then_some(STALL_DEADLINE_MS);
        if !matches!(how, Disturbance::Tls(_)) {
            return Ok(None);
        }
        let direction = if case.settings["incoming"].is_object() { "incoming" } else { "outgoing" };
        let form = &mut case.settings[direction];
        let url = form["connect_url"].as_str().map(Url::parse).transpose().map_err(Error::doing("the URL"))?;
        let port = url.as_ref().map_or_else(|| form["port"].as_u64(), |url| url.port().map(u64::from));
        let relay = Relay::start(port.and_then(|port| port.try_into().ok()).unwrap_or_default())?;
        match url {
            Some(mut url) => {
                let _ = url.set_port(Some(relay.port()));
                form["connect_url"] = json!(url);
            }
            None => form["port"] = json!(relay.port()),
        }
        Ok(Some(relay))
    }

    /// A person consents once more.
    pub fn consent_again(&mut self, case: &mut Case<'_>) -> Result<()> {
        case.redirect = Some(self.consent(case)?);
        Ok(())
    }

    fn consent(&self, case: &Case<'_>) -> Result<String> {
        let plugin = open_plugin(&case.store)?;
        let handle = plugin.open(&case.settings.to_string()).map_err(Error::doing("open"))?;
        Ok(self.provider(case.scenario.server)?.consent(&handle, &self.person)?.to_string())
    }

    /// Subject and flags of all mail of a case, by folder.
    pub fn look(&mut self, case: &Case<'_>) -> Result<Vec<Vec<(String, String)>>> {
        let beside = self.beside(case.scenario.server)?;
        let folders = case.sources().into_iter().chain(case.targets());
        folders
            .map(|folder| {
                let mut found = beside.look(&folder)?;
                found.sort();
                Ok(found)
            })
            .collect()
    }

    pub fn clear(&mut self, case: &Case<'_>) {
        for file in [&case.store, &case.desk] {
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(format!("{}{suffix}", file.display()));
            }
        }
        if let Ok(beside) = self.beside(case.scenario.server) {
            for folder in case.sources().into_iter().chain(case.targets()) {
                beside.delete(&folder);
            }
        }
    }
}

impl Case<'_> {
    /// As they are written on the wire.
    fn sources(&self) -> Vec<String> {
        match self.scenario.task {
            Task::Send(_) => Vec::new(),
            _ => (0..self.scenario.folders)
                .map(|number| on_the_wire(&self.scenario.folder(&self.name, number)))
                .collect(),
        }
    }

    fn targets(&self) -> Vec<String> {
        match self.scenario.task {
            Task::Send(_) => Vec::new(),
            _ => {
                vec![on_the_wire(&self.scenario.processed(&self.name)), on_the_wire(&self.scenario.refused(&self.name))]
            }
        }
    }

    pub fn desk(&self) -> Result<Desk> {
        Desk::open(&self.desk.display().to_string())
    }
}

fn person(number: usize) -> String {
    format!("w{number}")
}

fn sink(person: &str) -> String {
    format!("{person}sink")
}

fn open_plugin(store: &Path) -> Result<Plugin> {
    let config = json!({"store": format!("sqlite:{}", store.display()), "key": {"value": STORE_KEY}});
    Plugin::new(&config.to_string(), Logger::silent()).map_err(Error::doing("a plugin"))
}

fn outgoing(servers: &Servers, person: &str, how: Submission) -> Value {
    let mut settings = match how {
        Submission::Starttls => servers.outgoing_settings_starttls(person),
        _ => servers.outgoing_settings(person),
    };
    let form = &mut settings["outgoing"];
    form["client_id"] = json!(idp::NO_ROTATION);
    if how == Submission::Alternate {
        form["server_name"] = json!("127.0.0.3");
        form["alternate_server_name"] = json!("localhost");
    }
    settings
}

fn message_to(to: &str, key: &str, how: Submission) -> Value {
    let request = json!({"idempotency_key": key});
    let mut send = json!({"request": request, "raw": ""});
    if how == Submission::Raw {
        send["request"]["envelope"] = json!({"to": [to]});
        send["raw"] = json!(format!("To: <{to}>\r\nSubject: {key}\r\n\r\nA line.\r\n"));
    } else {
        for (name, value) in [("to", json!([to])), ("subject", json!(key)), ("text", json!("A line.\n"))] {
            send["request"][name] = value;
        }
    }
    send
}

/// This program once more, as a host.
pub fn run_host(order: &Value, dir: &Path) -> Result<End> {
    let (out, err) = (tempfile::tempfile_in(dir)?, tempfile::tempfile_in(dir)?);
    let mut child = Command::new(env::current_exe()?)
        .arg("--host")
        .env(ORDER, order.to_string())
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()?;
    let end = Instant::now() + PATIENCE;
    let (mut hung, mut pause) = (false, Duration::from_millis(1));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            hung = true;
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    let text = |mut file: fs::File| -> Result<String> {
        let mut text = String::new();
        std::io::Seek::rewind(&mut file)?;
        std::io::Read::read_to_string(&mut file, &mut text)?;
        Ok(text)
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let (out, stderr) = (text(out)?, text(err)?);
    let report = status.success().then(|| parse(&out)).filter(Value::is_object);
    Ok(End { report, aborted: signal == Some(Signal::ABORT.as_raw()), hung, stderr })
}

fn append(beside: &mut Beside<'_>, folder: &str, scenario: &Scenario, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        let mut raw = note(number);
        if scenario.large && number + 1 == scenario.messages {
            while raw.len() < LARGE {
                raw.extend_from_slice(b"A long line of a large message, which goes through a file on its way.\r\n");
            }
        }
        beside.append(folder, &raw)?;
    }
    Ok(())
}

/// Modified UTF-7 (RFC 3501 section 5.1.3), of the names that scenarios have.
fn on_the_wire(folder: &str) -> String {
    folder.replace('&', "&-").replace('ü', "&APw-").replace('Ü', "&ANw-")
}
