//! Many who want the same fresh token at once: threads, processes, nodes; some of them die on the way.
//!
//! A node is a process of its own (`refresh-race --node`) that is told over its standard input when the access token
//! has expired: all clocks move together, so that all nodes want the next token at the same moment.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    Kind,
    clock::{Clock, Deadline},
    log::{Level, Logger},
    net::{Egress, Net},
    oauth::{AccessToken, Grants},
    settings::{self, Account},
    store::{self, Record, SealingKey, Store, Table},
};
use serde_json::{Value, json};

use crate::{
    Error, Result,
    ca::Ca,
    fixture::STORE_KEY,
    strict_idp::{Hold, LIFETIME, REDIRECT_URL, StrictIdp},
};

/// Thirty seconds are promised; the rest is for whoever shares the machine.
pub const RECOVERY_MAX: Duration = Duration::from_secs(45);
const PATIENCE: Duration = Duration::from_secs(60);

/// One line of the report.
#[derive(Debug)]
pub struct Part {
    pub name: String,
    pub reached: usize,
    pub wanted: usize,
    pub note: String,
    pub took: Duration,
}

impl Part {
    pub fn is_complete(&self) -> bool {
        self.reached == self.wanted
    }

    pub fn line(&self) -> String {
        let Self { name, reached, wanted, note, took } = self;
        let word = if self.is_complete() { "ok  " } else { "MISS" };
        format!("{word} {reached}/{wanted} {name}: {note} ({:.1} s)", took.as_secs_f64())
    }
}

/// `threads` threads of one process want the next token: one request.
pub fn threads(ca: &Ca, threads: usize) -> Result<Part> {
    let begun = Instant::now();
    let idp = StrictIdp::start(ca)?;
    let node = Member::new(open("sqlite::memory:")?, &idp.settings("threads", ca))?;
    node.consent("threads")?;
    node.clock.advance(LIFETIME);
    let barrier = Barrier::new(threads);
    let tokens: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    node.token().map(|token| token.secret().expose().to_owned())
                })
            })
            .collect();
        running.into_iter().filter_map(|thread| thread.join().ok()?.ok()).collect()
    });
    let refreshes = idp.counts("threads").refreshes;
    let same = tokens.iter().filter(|token| **token == tokens[0]).count();
    Ok(Part {
        name: format!("{threads} threads, one expiry"),
        reached: if refreshes == 1 { same } else { 0 },
        wanted: threads,
        note: format!("token requests {refreshes}, threads with the new token {same}"),
        took: begun.elapsed(),
    })
}

/// `nodes` processes on one store want the next token, `expiries` times: one request each time, none with a spent token.
pub fn processes(
    program: &Path,
    ca: &Ca,
    store: &str,
    what: &str,
    nodes: usize,
    expiries: usize,
    mailbox: &str,
) -> Result<Part> {
    let begun = Instant::now();
    let idp = StrictIdp::start(ca)?;
    let settings = idp.settings(mailbox, ca);
    Member::new(open(store)?, &settings)?.consent(mailbox)?;
    let mut members = (0..nodes).map(|_| Node::start(program, store, &settings, None)).collect::<Result<Vec<_>>>()?;
    let (mut reached, mut before, mut seen) = (0, 0, String::new());
    let mut first_miss = None;
    for expiry in 1..=expiries {
        for member in &mut members {
            member.expire()?;
        }
        let answers = members.iter_mut().map(Node::answer).collect::<Result<Vec<_>>>()?;
        let counts = idp.counts(mailbox);
        let is_new = answers[0].starts_with("token ") && answers[0] != seen;
        if is_new && counts.refreshes == before + 1 && answers.iter().all(|answer| *answer == answers[0]) {
            reached += 1;
        } else if first_miss.is_none() {
            first_miss = Some(format!("; expiry {expiry}: {} requests, {answers:?}", counts.refreshes - before));
        }
        before = counts.refreshes;
        seen = answers[0].clone();
    }
    let counts = idp.counts(mailbox);
    if counts.is_revoked || counts.refreshes != expiries {
        reached = reached.min(expiries - 1);
    }
    Ok(Part {
        name: format!("{nodes} processes x {expiries} expiries, {what}"),
        reached,
        wanted: expiries,
        note: format!(
            "token requests {}, spent tokens presented {}, families revoked {}{}",
            counts.refreshes,
            counts.reused,
            usize::from(counts.is_revoked),
            first_miss.unwrap_or_default(),
        ),
        took: begun.elapsed(),
    })
}

/// Where the holder of the lease is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    BeforeLease,
    AfterLease,
    RequestSent,
    Accepted,
    BeforeSave,
    AfterSave,
}

impl Step {
    pub const ALL: [Self; 6] =
        [Self::BeforeLease, Self::AfterLease, Self::RequestSent, Self::Accepted, Self::BeforeSave, Self::AfterSave];

    /// The server accepted, and nobody alive has its answer.
    fn loses_the_answer(self) -> bool {
        matches!(self, Self::Accepted | Self::BeforeSave)
    }
}

/// The holder is killed at every step of a refresh, each time in a grant of its own: another node has a token within
/// 30 s, or is told that a person must consent, where the answer is lost; a new consent then helps.
pub fn killed(program: &Path, ca: &Ca, store: &str, what: &str) -> Result<Part> {
    let begun = Instant::now();
    let idp = StrictIdp::start(ca)?;
    let outcomes: Vec<Result<Duration>> = thread::scope(|scope| {
        let running = Step::ALL.map(|step| {
            let idp = &idp;
            scope.spawn(move || killed_at(program, ca, store, idp, step))
        });
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::new("the test itself failed"))))
            .collect()
    });
    let misses: Vec<_> = Step::ALL
        .iter()
        .zip(&outcomes)
        .filter_map(|(step, outcome)| Some(format!("{step:?}: {}", outcome.as_ref().err()?)))
        .collect();
    let longest = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).max().copied().unwrap_or_default();
    Ok(Part {
        name: format!("holder killed at every step, {what}"),
        reached: outcomes.len() - misses.len(),
        wanted: outcomes.len(),
        note: match misses.is_empty() {
            true => {
                format!("longest recovery {:.1} s; consent again only where the answer was lost", longest.as_secs_f64())
            }
            false => misses.join("; "),
        },
        took: begun.elapsed(),
    })
}

fn killed_at(program: &Path, ca: &Ca, store: &str, idp: &StrictIdp, step: Step) -> Result<Duration> {
    let family = format!("{step:?}").to_lowercase();
    let settings = idp.settings(&family, ca);
    let member = Member::new(open(store)?, &settings)?;
    member.consent(&family)?;
    let mut victim = Node::start(program, store, &settings, Some(step))?;
    let mut other = Node::start(program, store, &settings, None)?;
    match step {
        Step::RequestSent => idp.hold(&family, Hold::BeforeAccepting),
        Step::Accepted => idp.hold(&family, Hold::AfterAccepting),
        _ => {}
    }
    victim.expire()?;
    match step {
        Step::RequestSent | Step::Accepted if !idp.wait_held(&family, PATIENCE) => {
            return Err(Error::new("no request came"));
        }
        Step::RequestSent | Step::Accepted => {}
        _ => {
            let said = victim.answer()?;
            if said != "stopped" {
                return Err(Error::new(format!("the victim said {said}")));
            }
        }
    }
    victim.kill();
    let killed_at = Instant::now();
    other.expire()?;
    let said = other.answer()?;
    let took = killed_at.elapsed();
    let expected = if step.loses_the_answer() { "error consent_required" } else { "token " };
    if !said.starts_with(expected) {
        return Err(Error::new(format!("the other node said {said}")));
    }
    if took > RECOVERY_MAX {
        return Err(Error::new(format!("recovery took {took:?}")));
    }
    let counts = idp.counts(&family);
    if counts.refreshes != 1 + usize::from(step.loses_the_answer()) {
        return Err(Error::new(format!("{counts:?}")));
    }
    if step.loses_the_answer() {
        let again = format!("{family}-again");
        member.consent(&again)?;
        let said = other.ask("ask")?;
        if !said.starts_with("token ") || !said.ends_with(&again) {
            return Err(Error::new(format!("after a new consent the other node said {said}")));
        }
    }
    Ok(took)
}

/// The store fails right after the server rotated: the spent token is never shown again, the new pair serves from memory,
/// is saved later, and the host is told.
pub fn failing_store(ca: &Ca) -> Result<Part> {
    let begun = Instant::now();
    let idp = StrictIdp::start(ca)?;
    let store = Arc::new(Failing { inner: open("sqlite::memory:")?, writes_left: AtomicUsize::new(usize::MAX) });
    let (log, lines) = mpsc::channel();
    let logger = Logger::new(move |level, _, line| drop(log.send((level, line.to_owned()))));
    let member = Member::with_logger(store.clone(), &idp.settings("failing", ca), logger)?;
    member.consent("failing")?;
    member.clock.advance(LIFETIME);
    // The lease is written; nothing after it.
    store.writes_left.store(1, Ordering::SeqCst);
    let mut checks = Vec::new();
    let first = member.token();
    checks.push(("the new token serves", first.as_ref().is_ok_and(|token| token.generation() == 2)));
    checks.push(("also the next time", member.token().is_ok_and(|token| token.generation() == 2)));
    let told = lines.try_iter().any(|(level, line)| level == Level::Error && line.contains("could not be saved"));
    let status = member.grants.status(&member.account).map(|status| status.to_json().to_string()).unwrap_or_default();
    checks.push(("the host is told", told && status.contains("saved")));
    member.clock.advance(LIFETIME);
    checks.push(("nothing is asked that could not be saved", member.token().is_err()));
    checks.push(("one request so far", idp.counts("failing").refreshes == 1));
    store.writes_left.store(usize::MAX, Ordering::SeqCst);
    checks.push(("then it goes on", member.token().is_ok_and(|token| token.generation() == 3)));
    let after = Member::with_clock(store.clone(), &idp.settings("failing", ca), member.clock.clone())?;
    checks.push(("and is saved", after.token().is_ok_and(|token| token.generation() == 3)));
    checks.push(("no spent token was presented", idp.counts("failing").reused == 0));
    let missed: Vec<_> = checks.iter().filter(|(_, is_so)| !is_so).map(|(what, _)| *what).collect();
    Ok(Part {
        name: "store fails after the rotation".into(),
        reached: checks.len() - missed.len(),
        wanted: checks.len(),
        note: match missed.is_empty() {
            true => "old token never replayed, pair kept and stored later, host told".into(),
            false => format!("not so: {}", missed.join("; ")),
        },
        took: begun.elapsed(),
    })
}

/// What `refresh-race --node` does: one line of JSON says what it is, then `expire` and `ask` are answered.
pub fn run_node() -> Result<()> {
    let mut lines = std::io::stdin().lines();
    let first = lines.next().ok_or_else(|| Error::new("nothing was said"))??;
    let order: Value = serde_json::from_str(&first).map_err(Error::doing("reading the order"))?;
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    let mut store = open(text("store"))?;
    if let Some(step) = Step::ALL.into_iter().find(|step| format!("{step:?}") == text("stop_at")) {
        store = Arc::new(Stopping { inner: store, step, writes: AtomicUsize::new(0) });
    }
    let member = Member::new(store, &order["settings"])?;
    say("ready")?;
    for line in lines {
        if line? == "expire" {
            member.clock.advance(LIFETIME);
        }
        match member.token() {
            Ok(token) => say(&format!("token {} {}", token.generation(), token.secret().expose()))?,
            Err(e) => say(&format!("error {} {e}", e.kind().name()))?,
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A node as its parent sees it. Killed when dropped.
struct Node {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl Node {
    fn start(program: &Path, store: &str, settings: &Value, stop_at: Option<Step>) -> Result<Self> {
        let mut child = Command::new(program).arg("--node").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new("a node has no pipes"));
        };
        let mut node = Self { child, input, output: lines_of(output) };
        let stop_at = stop_at.map(|step| format!("{step:?}"));
        node.tell(&json!({"store": store, "settings": settings, "stop_at": stop_at}).to_string())?;
        match node.answer()?.as_str() {
            "ready" => Ok(node),
            other => Err(Error::new(format!("a node said {other}"))),
        }
    }

    fn expire(&mut self) -> Result<()> {
        self.tell("expire")
    }

    fn ask(&mut self, what: &str) -> Result<String> {
        self.tell(what)?;
        self.answer()
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    fn answer(&mut self) -> Result<String> {
        self.output.recv_timeout(PATIENCE).map_err(|_| Error::new("a node gave no answer"))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lines_of(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What one process has of a mailbox.
struct Member {
    account: Account,
    net: Net,
    grants: Grants,
    clock: Clock,
}

impl Member {
    fn new(store: Arc<dyn Store>, settings: &Value) -> Result<Self> {
        Self::build(store, settings, Clock::default(), Logger::silent())
    }

    fn with_clock(store: Arc<dyn Store>, settings: &Value, clock: Clock) -> Result<Self> {
        Self::build(store, settings, clock, Logger::silent())
    }

    fn with_logger(store: Arc<dyn Store>, settings: &Value, logger: Logger) -> Result<Self> {
        Self::build(store, settings, Clock::default(), logger)
    }

    fn build(store: Arc<dyn Store>, settings: &Value, clock: Clock, logger: Logger) -> Result<Self> {
        let account = settings::parse(&settings.to_string()).map_err(Error::doing("the settings"))?;
        let net = Net::new(account.ca_file.as_deref(), Egress::default()).map_err(Error::doing("the way out"))?;
        Ok(Self { account, net, grants: Grants::new(store, clock.clone(), logger), clock })
    }

    /// The consent of a person, whose code names the family.
    fn consent(&self, family: &str) -> Result<()> {
        let doing = |what: &'static str| Error::doing::<oauth_mail_core::Error>(what);
        let started = self.grants.start(&self.account, &self.net, soon()).map_err(doing("start"))?;
        let state = started.authorize_url.query_pairs().find(|(name, _)| name == "state");
        let state = state.map(|(_, value)| value.into_owned()).unwrap_or_default();
        let redirect = format!("{REDIRECT_URL}?state={state}&code={family}");
        let redeemed = self.grants.redeem(&self.account, &self.net, &redirect, soon()).map_err(doing("redeem"))?;
        self.grants.keep(&self.account, redeemed).map(|_| ()).map_err(doing("keep"))
    }

    fn token(&self) -> oauth_mail_core::Result<AccessToken> {
        self.grants.access_token(&self.account, &self.net, soon())
    }
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

fn open(url: &str) -> Result<Arc<dyn Store>> {
    let key = SealingKey::from_config(&json!({"value": STORE_KEY})).map_err(Error::doing("the key"))?;
    store::open(url, key).map_err(Error::doing("the store"))
}

/// Stops its process for ever at one step of the first refresh.
struct Stopping {
    inner: Arc<dyn Store>,
    step: Step,
    writes: AtomicUsize,
}

impl Stopping {
    fn stop_at(&self, step: Step) {
        if self.step == step && say("stopped").is_ok() {
            loop {
                thread::park();
            }
        }
    }
}

impl Store for Stopping {
    fn read(&self, table: Table, id: &str) -> oauth_mail_core::Result<Option<Record>> {
        self.inner.read(table, id)
    }

    fn write(
        &self,
        table: Table,
        id: &str,
        expected: Option<u64>,
        bytes: &[u8],
    ) -> oauth_mail_core::Result<Option<u64>> {
        let (before, after) = match self.writes.fetch_add(1, Ordering::SeqCst) {
            0 => (Step::BeforeLease, Step::AfterLease),
            _ => (Step::BeforeSave, Step::AfterSave),
        };
        self.stop_at(before);
        let done = self.inner.write(table, id, expected, bytes);
        self.stop_at(after);
        done
    }

    fn take(&self, table: Table, id: &str) -> oauth_mail_core::Result<Option<Record>> {
        self.inner.take(table, id)
    }

    fn delete(&self, table: Table, id: &str) -> oauth_mail_core::Result<()> {
        self.inner.delete(table, id)
    }
}

/// Writes nothing any more after some writes.
struct Failing {
    inner: Arc<dyn Store>,
    writes_left: AtomicUsize,
}

impl Store for Failing {
    fn read(&self, table: Table, id: &str) -> oauth_mail_core::Result<Option<Record>> {
        self.inner.read(table, id)
    }

    fn write(
        &self,
        table: Table,
        id: &str,
        expected: Option<u64>,
        bytes: &[u8],
    ) -> oauth_mail_core::Result<Option<u64>> {
        let left = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.inner.write(table, id, expected, bytes),
            Err(_) => Err(oauth_mail_core::Error::new(Kind::Transient, "The disk of the store is full.")),
        }
    }

    fn take(&self, table: Table, id: &str) -> oauth_mail_core::Result<Option<Record>> {
        self.inner.take(table, id)
    }

    fn delete(&self, table: Table, id: &str) -> oauth_mail_core::Result<()> {
        self.inner.delete(table, id)
    }
}
