//! Child processes that cannot outlive us, and whose own children cannot either.

use std::{
    collections::HashMap,
    env,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the program and reports its id; then waits for the end of its own standard input, which comes when
/// [`Process`] is dropped and also when the test process is killed, and ends the program. Its last act is to end
/// its own process group, itself included.
const KEEPER: &str = r#"
log=$1; shift
"$@" </dev/null >>"$log" 2>&1 &
program=$!
echo "$program"
exec >/dev/null 2>&1
read -r _
kill -TERM "$program"
(sleep 5; kill -KILL -$$) &
wait "$program"
kill -KILL -$$
"#;

/// A server that was started. Dropping it ends it.
pub struct Process {
    name: String,
    log: PathBuf,
    keeper: Child,
    lifeline: Option<ChildStdin>,
    main: ProcessId,
}

impl Process {
    /// `command`: program, arguments and environment; what it prints goes to `log`.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self> {
        OpenOptions::new().create(true).append(true).open(log)?;
        let mut wrapped = Command::new("/bin/sh");
        wrapped.arg("-c").arg(KEEPER).arg(name).arg(log).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        // A group of its own: Ctrl-C in a terminal reaches us alone, and we end the servers in order.
        wrapped.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = wrapped.spawn().map_err(Error::doing(format_args!("starting {name}")))?;
        let lifeline = keeper.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line.trim().parse().map_err(Error::doing(format_args!("starting {name}")))?;
        let main = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
        Ok(Self { name: name.to_owned(), log: log.to_owned(), keeper, lifeline, main })
    }

    pub fn pid(&self) -> u32 {
        self.main.pid
    }

    /// The server and everything that it started.
    pub fn tree(&self) -> Vec<ProcessId> {
        let mut tree = vec![self.main];
        tree.extend(ProcessId::descendants(self.main.pid));
        tree
    }

    pub fn is_running(&self) -> bool {
        self.main.is_running()
    }

    /// Waits until `ready` gives something. Fails when the server ends before, or after `limit`.
    pub fn wait_until<T>(&self, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            if !self.is_running() {
                return Err(Error::new(format!("{} ended at once:\n{}", self.name, self.log_tail())));
            }
            if let Some(value) = ready() {
                return Ok(value);
            }
            if Instant::now() > end {
                return Err(Error::new(format!("{} was not ready after {limit:?}:\n{}", self.name, self.log_tail())));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order (SIGTERM), and by force what has not gone after five seconds.
    pub fn stop(&mut self) {
        let tree = self.tree();
        drop(self.lifeline.take());
        let _ = self.keeper.wait();
        let end = Instant::now() + STOP_TIMEOUT;
        while tree.iter().any(ProcessId::is_running) && Instant::now() < end {
            thread::sleep(Duration::from_millis(2));
        }
        end_by_force(&tree);
    }

    /// The machine loses power: everything gone at once, nothing said to anybody.
    pub fn kill(&mut self) {
        end_by_force(&self.tree());
        drop(self.lifeline.take());
        let _ = self.keeper.wait();
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lifeline.is_some() {
            self.stop();
        }
    }
}

/// A process, not only its number: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot (proc(5), field 22).
    started: u64,
}

impl ProcessId {
    fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// A zombie does not run.
    pub fn is_running(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// The children of a process, and theirs.
    pub fn descendants(root: u32) -> Vec<Self> {
        let mut children: HashMap<u32, Vec<ProcessId>> = HashMap::new();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Some(stat) = Stat::read(pid) {
                children.entry(stat.parent).or_default().push(ProcessId { pid, started: stat.started });
            }
        }
        let mut found = Vec::new();
        let mut queue = vec![root];
        while let Some(parent) = queue.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                queue.push(child.pid);
                found.push(child);
            }
        }
        found
    }
}

/// The first of these files that exists; otherwise a sentence that says how to get it.
pub fn installed(candidates: &[&str]) -> Result<PathBuf> {
    candidates.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
        Error::new(format!("{} is not installed. Run tests/install.sh once.", candidates.first().unwrap_or(&"It")))
    })
}

/// The program of this name on the PATH.
pub fn on_path(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
    found.ok_or_else(|| Error::new(format!("{name} is not installed. Run tests/install.sh once.")))
}

fn end_by_force(processes: &[ProcessId]) {
    for process in processes.iter().filter(|process| process.is_running()) {
        if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    while processes.iter().any(ProcessId::is_running) {
        thread::sleep(Duration::from_millis(2));
    }
}

/// What proc(5) says in /proc/PID/stat.
struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may contain anything.
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_its_children_are_gone_after_drop() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // `sh` that stays the parent of a `sleep` which ignores SIGTERM's effect on its parent.
        command.args(["-c", "sleep 1000 & wait"]);
        let process = Process::start("a test", &command, &folder.path().join("log")).unwrap();
        let tree =
            process.wait_until(Duration::from_secs(60), || Some(process.tree()).filter(|t| t.len() == 2)).unwrap();
        drop(process);
        assert!(!tree.iter().any(ProcessId::is_running));
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported_with_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such port; exit 1"]);
        let process = Process::start("a test", &command, &folder.path().join("log")).unwrap();
        let error = process.wait_until(Duration::from_secs(60), || None::<()>).unwrap_err();
        assert!(error.to_string().contains("no such port"), "{error}");
    }
}
