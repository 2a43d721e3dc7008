//! Several host processes on one PostgreSQL store fetch many mailboxes while connections break, tokens expire, and one
//! process after the other is killed or frozen. In the end every message was filed once and settled once.
//!
//! All mail lies in real mailboxes; the hosts share one database of tickets, whose key column is unique, as README asks.

use std::{
    env, fs,
    io::Read,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    log::Logger,
};
use rusqlite::{Connection, params};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use crate::{
    Error, Options, Result, Servers,
    ca::Ca,
    fixture::{self, STORE_KEY, parse},
    idp,
    mailbox::{hash, note},
    postgres::Postgres,
    relay::Relay,
};

/// The file with the order to a node, as JSON: `store`, `desk`, `settings`.
const ORDER: &str = "OAUTH_MAIL_SOAK_ORDER";
/// Of each call; a lease lasts half a minute longer.
const DEADLINE_MS: u64 = 10_000;
/// A frozen node wakes up when its leases are over.
const FROZEN: Duration = Duration::from_secs(45);
const BATCH: usize = 20;
/// Threads of a node; each has its share of the mailboxes.
const THREADS: usize = 4;
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Plan {
    pub mailboxes: usize,
    pub mails: usize,
    pub nodes: usize,
    /// Half of the mail is there at the beginning, the rest comes in this time.
    pub seconds: u64,
    /// Between two kills or freezes.
    pub chaos_seconds: u64,
    /// Of a hundred reads from the mail server, how many break the connection.
    pub faults_percent: u64,
    /// Until all must be filed and settled.
    pub limit_seconds: u64,
}

impl Plan {
    /// `SOAK_MAILBOXES` (200), `SOAK_MAILS` (100000), `SOAK_NODES` (4), `SOAK_SECONDS` (1200), `SOAK_CHAOS_SECONDS` (10),
    /// `SOAK_FAULTS_PERCENT` (1), `SOAK_LIMIT_SECONDS` (7200).
    pub fn from_env() -> Self {
        let number = |name: &str, default: u64| {
            env::var(format!("SOAK_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        Self {
            mailboxes: number("MAILBOXES", 200).max(1) as usize,
            mails: number("MAILS", 100_000) as usize,
            nodes: number("NODES", 4).max(1) as usize,
            seconds: number("SECONDS", 1_200).max(1),
            chaos_seconds: number("CHAOS_SECONDS", 10).max(1),
            faults_percent: number("FAULTS_PERCENT", 1),
            limit_seconds: number("LIMIT_SECONDS", 7_200),
        }
    }
}

/// What came out of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub filed: usize,
    pub wanted: usize,
    /// The same message under two keys.
    pub doubled: usize,
    /// Keys that were settled by two calls, both of which said so.
    pub settled_twice: usize,
    /// Keys that were handed out, by a node that could settle them, after they had been settled.
    pub handed_out_again: usize,
    /// Handed out at the very end.
    pub left: usize,
    pub killed: usize,
    pub frozen: usize,
    pub broken: u64,
    pub refreshes: u64,
    /// Errors that no waiting cures.
    pub bad_errors: Vec<String>,
    pub errors: usize,
    /// Of each node's last process: memory after its first third and at its end, KB.
    pub memory: Vec<(u64, u64)>,
    pub seconds: f64,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        let flat = self.memory.iter().all(|(before, after)| *after <= before + before / 4 + 8_192);
        let wrong = self.doubled + self.settled_twice + self.handed_out_again + self.left + self.bad_errors.len();
        self.filed == self.wanted && wrong == 0 && flat
    }

    pub fn text(&self) -> String {
        let memory: Vec<_> =
            self.memory.iter().map(|(before, after)| format!("{} → {}", before / 1_024, after / 1_024)).collect();
        let bad: String = self.bad_errors.iter().map(|error| format!("     {error}\n")).collect();
        format!(
            "{bad}{} soak {}/{}: doubled {}, settled twice {}, handed out after settle {}, left {}; {} kills, {} freezes, {} \
             broken connections, {} token requests, {} errors that passed; memory of each node's last process, MB: {} \
             ({:.0} s)",
            if self.is_good() { "ok  " } else { "MISS" },
            self.filed,
            self.wanted,
            self.doubled,
            self.settled_twice,
            self.handed_out_again,
            self.left,
            self.killed,
            self.frozen,
            self.broken,
            self.refreshes,
            self.errors,
            memory.join(", "),
            self.seconds
        )
    }
}

pub fn run(plan: &Plan, say: impl Fn(&str)) -> Result<Outcome> {
    let names: Vec<_> = (0..plan.mailboxes).map(|number| format!("m{number}")).collect();
    let servers = Servers::start(Options { users: names.clone(), ..Options::default() })?;
    let dir = tempfile::Builder::new().prefix("omsoak").tempdir()?;
    let postgres = Postgres::start(&Ca::create(dir.path())?)?;
    let relay = Relay::start(servers.dovecot.port)?;
    let settings: Vec<_> = names.iter().map(|name| settings(&servers, &relay, name)).collect();
    say(&format!("{} people consent", plan.mailboxes));
    let plugin = open_plugin(&postgres.url())?;
    for (name, settings) in names.iter().zip(&settings) {
        let handle = plugin.open(&settings.to_string()).map_err(Error::doing("open"))?;
        fixture::consent(&servers, &handle, name)?;
        handle.close();
    }
    let share = |number: usize, of: usize| of / plan.mailboxes + usize::from(number < of % plan.mailboxes);
    let early = plan.mails / 2;
    say(&format!("{early} mails are put into their mailboxes"));
    for (number, name) in names.iter().enumerate() {
        let first = number * plan.mails;
        let raws = (0..share(number, early)).map(|at| note(first + at));
        servers.dovecot.fill(&servers.address(name), "INBOX", raws)?;
    }

    let desk_file = dir.path().join("desk.db");
    let desk = Desk::open(&desk_file)?;
    let order = dir.path().join("order.json");
    fs::write(&order, json!({"store": postgres.url(), "desk": desk_file, "settings": settings}).to_string())?;
    let begun = Instant::now();
    relay.set_bad_luck(plan.faults_percent * 10);
    let mut nodes = (0..plan.nodes).map(|_| Node::start(&order)).collect::<Result<Vec<_>>>()?;
    let mut outcome = Outcome { wanted: plan.mails, ..Outcome::default() };
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let delivering = scope.spawn(|| deliver_rest(plan, &servers, &names, early, &over));
        let looked_after = look_after(plan, &mut nodes, &order, &desk, &mut outcome, begun, &say);
        over.store(true, Ordering::SeqCst);
        let delivered = delivering.join().map_err(|_| Error::new("the delivering thread panicked"))?;
        looked_after.and(delivered)
    })?;
    relay.set_bad_luck(0);
    outcome.broken = relay.unlucky();
    outcome.memory = nodes.iter().filter_map(Node::memory).collect();
    nodes.into_iter().for_each(Node::end);
    outcome.refreshes = servers.idp.refreshes() as u64;
    outcome.left = left(&plugin, &settings, &desk)?;
    desk.read_into(&mut outcome)?;
    outcome.seconds = begun.elapsed().as_secs_f64();
    Ok(outcome)
}

fn settings(servers: &Servers, relay: &Relay, name: &str) -> Value {
    let mut settings = servers.incoming_settings(name);
    let form = &mut settings["incoming"];
    form["client_id"] = json!(idp::MINUTE);
    form["port"] = json!(relay.port());
    form["advanced"]["fetch_since"] = json!("all");
    form["advanced"]["after_import"] = json!("mark_seen");
    settings
}

fn open_plugin(store: &str) -> Result<Plugin> {
    let config = json!({"store": store, "key": {"value": STORE_KEY}});
    Plugin::new(&config.to_string(), Logger::silent()).map_err(Error::doing("a plugin"))
}

/// Mail that arrives while the hosts work, through LMTP.
fn deliver_rest(plan: &Plan, servers: &Servers, names: &[String], early: usize, over: &AtomicBool) -> Result<()> {
    let begun = Instant::now();
    let rest = plan.mails - early;
    for at in 0..rest {
        let due = Duration::from_secs(plan.seconds).mul_f64(at as f64 / rest as f64);
        while begun.elapsed() < due && !over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if over.load(Ordering::SeqCst) {
            return Err(Error::new(format!("the soak ended when {at} of {rest} late mails had been delivered")));
        }
        let (number, name) = (at % names.len(), &names[at % names.len()]);
        // Above the numbers of the early ones.
        servers.deliver(name, &note(number * plan.mails + early + at))?;
    }
    Ok(())
}

/// Kills, freezes and wakes until all is filed and settled.
fn look_after(
    plan: &Plan,
    nodes: &mut [Node],
    order: &Path,
    desk: &Desk,
    outcome: &mut Outcome,
    begun: Instant,
    say: &impl Fn(&str),
) -> Result<()> {
    let chaos = Duration::from_secs(plan.chaos_seconds);
    let (mut next_chaos, mut next_sample, mut event) = (begun + chaos, begun, 0usize);
    loop {
        let now = Instant::now();
        if begun.elapsed() > Duration::from_secs(plan.limit_seconds) {
            say("the limit has passed");
            break;
        }
        let delivered = begun.elapsed() >= Duration::from_secs(plan.seconds);
        if delivered && desk.count("SELECT count(*) FROM ticket")? >= plan.mails as i64 {
            break;
        }
        for node in nodes.iter_mut() {
            node.look_after()?;
        }
        if now >= next_sample {
            next_sample = now + SAMPLE;
            nodes.iter_mut().for_each(Node::sample);
        }
        if now >= next_chaos {
            next_chaos = now + chaos;
            let node = &mut nodes[event % plan.nodes];
            // Each node has both fates in turn.
            if (event + event / plan.nodes).is_multiple_of(2) {
                node.kill();
                *node = Node::start(order)?;
                outcome.killed += 1;
            } else if node.freeze() {
                outcome.frozen += 1;
            }
            event += 1;
            let filed = desk.count("SELECT count(*) FROM ticket")?;
            say(&format!("{:.0} s: {filed}/{} filed", begun.elapsed().as_secs_f64(), plan.mails));
        }
        thread::sleep(Duration::from_millis(100));
    }
    nodes.iter_mut().for_each(Node::wake);
    Ok(())
}

/// What a last node still gets, when the leases of the dead are over.
fn left(plugin: &Plugin, settings: &[Value], desk: &Desk) -> Result<usize> {
    let end = Instant::now() + Duration::from_secs(120);
    let mut left = 0;
    for settings in settings {
        let handle = plugin.open(&settings.to_string()).map_err(Error::doing("open"))?;
        loop {
            // Killed between its ticket and its settlement: the host knows it, and says so.
            match fetch(&handle, desk, "the last") {
                Ok(Fetched { elsewhere: false, messages: 0, more: false, .. }) => break,
                Ok(Fetched { elsewhere: false, new, .. }) => left += new,
                Ok(_) | Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(200)),
                Ok(_) => return Err(Error::new("a lease did not end")),
                Err(error) => return Err(Error::new(format!("at the end: {error}"))),
            }
        }
        handle.close();
    }
    Ok(left)
}

struct Fetched {
    elsewhere: bool,
    messages: usize,
    /// Without a ticket so far.
    new: usize,
    more: bool,
}

/// One batch: filed, then settled.
fn fetch(handle: &Handle, desk: &Desk, node: &str) -> oauth_mail_core::Result<Fetched> {
    let batch = handle.fetch_batch(&json!({"max_messages": BATCH, "deadline_ms": DEADLINE_MS}).to_string())?;
    let header = parse(&batch.header);
    let mut fetched = Fetched {
        elsewhere: header["elsewhere_seconds"].is_i64(),
        messages: batch.messages.len(),
        new: 0,
        more: header["more"] == true,
    };
    if batch.messages.is_empty() {
        return Ok(fetched);
    }
    let (mut results, mut again) = (Map::new(), Vec::new());
    for message in &batch.messages {
        if desk.is_settled(&message.key)? {
            again.push(message.key.clone());
        }
        let is_new = desk.file(&message.key, &hash(&message.raw), node)?;
        fetched.new += usize::from(is_new);
        results.insert(message.key.clone(), json!(if is_new { "imported" } else { "duplicate" }));
    }
    handle.settle_batch(&json!({"results": results, "deadline_ms": DEADLINE_MS}).to_string())?;
    desk.settled(results.keys(), &again, node)?;
    Ok(fetched)
}

/// What `oauth-mail-soak --node` does, until its standard input ends.
pub fn run_node() -> Result<()> {
    let order = parse(&fs::read_to_string(env::var_os(ORDER).unwrap_or_default())?);
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    let plugin = open_plugin(text("store"))?;
    let node = std::process::id().to_string();
    let over = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let over = over.clone();
        move || {
            let _ = std::io::stdin().read(&mut [0]);
            over.store(true, Ordering::SeqCst);
        }
    });
    let all = order["settings"].as_array().cloned().unwrap_or_default();
    let handles = all.iter().map(|settings| plugin.open(&settings.to_string()).map_err(Error::doing("open")));
    let handles = handles.collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for share in handles.chunks(handles.len().div_ceil(THREADS)) {
            let (node, over, desk) = (&node, &over, text("desk"));
            scope.spawn(move || -> Result<()> {
                let desk = Desk::open(Path::new(desk))?;
                while !over.load(Ordering::SeqCst) {
                    for handle in share {
                        if let Err(error) = fetch(handle, &desk, node) {
                            desk.error(&error)?;
                        }
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                Ok(())
            });
        }
    });
    handles.iter().for_each(Handle::close);
    Ok(())
}

/// The helpdesk's database, of all nodes.
struct Desk(Connection);

impl Desk {
    fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(Error::doing("the desk"))?;
        connection.busy_timeout(Duration::from_secs(60)).map_err(Error::doing("the desk"))?;
        // A frozen process may hold the lock of a writer: transactions are single statements, and short.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                 CREATE TABLE IF NOT EXISTS ticket (key TEXT PRIMARY KEY, hash TEXT, node TEXT);
                 CREATE TABLE IF NOT EXISTS settled (key TEXT, node TEXT);
                 CREATE INDEX IF NOT EXISTS settled_key ON settled (key);
                 CREATE TABLE IF NOT EXISTS again (key TEXT, node TEXT);
                 CREATE TABLE IF NOT EXISTS error (kind TEXT, message TEXT, passes INTEGER);",
            )
            .map_err(Error::doing("the desk"))?;
        Ok(Self(connection))
    }

    fn file(&self, key: &str, hash: &str, node: &str) -> oauth_mail_core::Result<bool> {
        let filed = self.0.execute("INSERT OR IGNORE INTO ticket VALUES (?1, ?2, ?3)", params![key, hash, node]);
        filed.map(|rows| rows == 1).map_err(failed)
    }

    fn is_settled(&self, key: &str) -> oauth_mail_core::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM settled WHERE key = ?1)";
        self.0.query_row(sql, [key], |row| row.get(0)).map_err(failed)
    }

    fn settled<'a>(
        &self,
        keys: impl Iterator<Item = &'a String>,
        again: &[String],
        node: &str,
    ) -> oauth_mail_core::Result<()> {
        for key in keys {
            self.0.execute("INSERT INTO settled VALUES (?1, ?2)", params![key, node]).map_err(failed)?;
        }
        for key in again {
            self.0.execute("INSERT INTO again VALUES (?1, ?2)", params![key, node]).map_err(failed)?;
        }
        Ok(())
    }

    fn error(&self, error: &oauth_mail_core::Error) -> Result<()> {
        let passes = matches!(error.kind(), Kind::Transient | Kind::Throttled | Kind::ServerMisbehaved);
        let sql = "INSERT INTO error VALUES (?1, ?2, ?3)";
        self.0.execute(sql, params![error.kind().name(), error.to_string(), passes]).map_err(Error::doing(sql))?;
        Ok(())
    }

    fn count(&self, sql: &str) -> Result<i64> {
        self.0.query_row(sql, [], |row| row.get(0)).map_err(Error::doing(sql))
    }

    fn read_into(&self, outcome: &mut Outcome) -> Result<()> {
        let count = |sql: &str| self.count(sql).map(|count| count as usize);
        outcome.filed = count("SELECT count(*) FROM ticket")?;
        outcome.doubled = count("SELECT count(*) - count(DISTINCT hash) FROM ticket")?;
        outcome.settled_twice = count("SELECT count(*) - count(DISTINCT key) FROM settled")?;
        outcome.handed_out_again = count("SELECT count(*) FROM again")?;
        outcome.errors = count("SELECT count(*) FROM error WHERE passes")?;
        let sql =
            "SELECT kind || ': ' || message || ' × ' || count(*) FROM error WHERE NOT passes GROUP BY kind, message";
        let mut query = self.0.prepare(sql).map_err(Error::doing(sql))?;
        let rows = query.query_map([], |row| row.get(0)).map_err(Error::doing(sql))?;
        outcome.bad_errors = rows.collect::<Result<_, _>>().map_err(Error::doing(sql))?;
        Ok(())
    }
}

fn failed(error: rusqlite::Error) -> oauth_mail_core::Error {
    oauth_mail_core::Error::new(Kind::Transient, "The host's own database failed.").source_error(error)
}

/// A host process. Killed when dropped.
struct Node {
    child: Child,
    lifeline: Option<ChildStdin>,
    frozen: Option<Instant>,
    /// Resident memory, KB.
    samples: Vec<u64>,
}

impl Node {
    fn start(order: &Path) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg("--node")
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let lifeline = child.stdin.take();
        Ok(Self { child, lifeline, frozen: None, samples: Vec::new() })
    }

    fn signal(&self, signal: Signal) -> bool {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    fn freeze(&mut self) -> bool {
        let freezes = self.frozen.is_none() && self.signal(Signal::STOP);
        if freezes {
            self.frozen = Some(Instant::now());
        }
        freezes
    }

    fn wake(&mut self) {
        if self.frozen.take().is_some() {
            self.signal(Signal::CONT);
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Wakes it when it was frozen long enough. One that ended by itself is an error of the soak.
    fn look_after(&mut self) -> Result<()> {
        if self.frozen.is_some_and(|since| since.elapsed() >= FROZEN) {
            self.wake();
        }
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Error::new(format!("a node ended by itself: {status}"))),
        }
    }

    fn sample(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        self.samples.extend(line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()));
    }

    /// The most until the end of its second third, and the most after it; when there is enough to tell.
    fn memory(&self) -> Option<(u64, u64)> {
        let (before, after) = self.samples.split_at(self.samples.len() * 2 / 3);
        if self.samples.len() < 9 { None } else { Some((*before.iter().max()?, *after.iter().max()?)) }
    }

    /// In order: leases are given back.
    fn end(mut self) {
        drop(self.lifeline.take());
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
