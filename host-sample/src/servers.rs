//! The servers of the demo, in a process of their own: `oauth-mail-sandbox`, or `oauth-mail-servers` of the tests package,
//! which starts Dovecot, Postfix and oidc-provider.
//!
//! `up` prints one JSON line when everything answers, and ends when its standard input closes. `consent` walks the
//! provider's pages as a person would.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    failure::{Failure, Result},
    interrupt,
};

/// Dovecot, Postfix and the provider together need a few seconds; on a busy machine many times that.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// They end their own children first.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const WALK_TIMEOUT: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub struct Servers {
    program: PathBuf,
    child: Child,
    /// Closing it asks the servers to end.
    stdin: Option<ChildStdin>,
    /// What `up` said: ports, URLs, users.
    pub facts: Value,
}

impl Servers {
    /// `users` are local parts; the servers choose the domain.
    pub fn start(program: Option<&Path>, users: &[&str], folder: &Path) -> Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => beside_this_program("oauth-mail-sandbox")?,
        };
        let log = folder.join("servers.log");
        let failed = |why: String| Failure::other(format!("The servers did not start: {why}. {}", last_line(&log)));
        let stderr = fs::File::create(&log).map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(&program)
            .args(["up", "--users", &users.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| failed(format!("{} cannot be run: {error}", program.display())))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // From here on the child is ended with this value, whatever happens.
        let mut servers = Self { program, child, stdin, facts: Value::Null };
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok) {
                // Read on after the first line: a full pipe would stop the servers.
                let _ = sender.send(line);
            }
        });
        let end = Instant::now() + START_TIMEOUT;
        let line = loop {
            interrupt::check()?;
            match receiver.recv_timeout(LOOK_AGAIN) {
                Ok(line) if line.trim_start().starts_with('{') => break line,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(failed("they ended at once".into())),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                    return Err(failed(format!("nothing was heard within {} seconds", START_TIMEOUT.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        servers.facts =
            serde_json::from_str(&line).map_err(|error| failed(format!("their answer is not JSON: {error}")))?;
        Ok(servers)
    }

    /// Name of the program that plays them.
    pub fn name(&self) -> String {
        self.program.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    pub fn text(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_default()
    }

    /// Address and password of the user with this number.
    pub fn user(&self, index: usize) -> (&str, &str) {
        let user = &self.facts["users"][index];
        (user["address"].as_str().unwrap_or_default(), user["password"].as_str().unwrap_or_default())
    }

    /// Sends a person to `url`, who signs in as that user and consents; returns at once.
    ///
    /// What went wrong on the pages is in the returned channel.
    pub fn walk(&self, url: &str, user: usize) -> mpsc::Receiver<Result<()>> {
        let (address, password) = self.user(user);
        let mut command = Command::new(&self.program);
        command
            .args(["consent", "--ca", self.text("ca_file"), "--url", url, "--login", address, "--password", password])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let result =
                command.spawn().map_err(|error| error.to_string()).and_then(|child| finish(child, WALK_TIMEOUT));
            let _ =
                sender.send(result.map_err(|why| Failure::other(format!("The person did not get through: {why}."))));
        });
        receiver
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let end = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits, and ends the child when it takes too long; the last line of what it complained about is the error.
fn finish(mut child: Child, patience: Duration) -> Result<(), String> {
    let stderr = child.stderr.take();
    let complaints = thread::spawn(move || {
        let lines = stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok);
        lines.filter(|line| !line.trim().is_empty()).last().unwrap_or_default()
    });
    let end = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < end => thread::sleep(LOOK_AGAIN),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let complaint = complaints.join().unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(complaint),
        None => Err(format!("no end within {} seconds {complaint}", patience.as_secs())),
    }
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let path = env::current_exe()
        .map_err(|error| Failure::other(format!("This program does not know where it is: {error}.")))?
        .with_file_name(format!("{name}{}", env::consts::EXE_SUFFIX));
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::other(format!(
        "The demo needs {}, which is not there. `make demo` builds it; or name it with --servers.",
        path.display()
    )))
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
