//! One program, measured from its start to its end.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use oauth_mail_tests::{Error, Result};

/// How often the memory of a program that does not report its own is looked at. Peaks only grow (VmHWM), so that
/// only a rise in the last moment can be missed.
const LOOK: Duration = Duration::from_millis(10);
/// Longer than anything that is measured.
const LIMIT: Duration = Duration::from_secs(300);
/// Clock ticks per second in /proc (USER_HZ, the same on every Linux but Alpha's).
const TICKS: f64 = 100.0;

/// What one run cost.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub seconds: f64,
    /// User and system.
    pub cpu_seconds: f64,
    pub peak_mb: f64,
    /// The last line that it printed, where that is JSON.
    pub answer: Value,
}

/// Runs to the end. What it prints goes to files in `folder`.
///
/// wait4(2) would count the memory of this process, from before exec(2), as the child's: so it is read from /proc.
pub fn run(name: &str, folder: &Path, command: &mut Command) -> Result<Run> {
    let (out, err) = (folder.join("stdout"), folder.join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    // Spool files stay in memory like everything else.
    command.env("TMPDIR", folder);
    let start = Instant::now();
    let mut child = command.spawn().map_err(Error::doing(format_args!("starting {name}")))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("no process id"))?;
    let (end, ended) = mpsc::channel::<()>();
    let watcher = thread::spawn(move || {
        let mut peak_kb = 0.0_f64;
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            peak_kb = peak_kb.max(peak_of(pid));
            if start.elapsed() > LIMIT {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        peak_kb
    });
    // It stays a zombie for a moment, so that its CPU time can still be read.
    let waited = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = cpu_of(pid);
    let status = child.wait()?;
    drop(end);
    let sampled_kb = watcher.join().map_err(|_| Error::new("the watcher ended"))?;
    waited.map_err(Error::doing(format_args!("waiting for {name}")))?;
    if !status.success() {
        let said = fs::read_to_string(&err).unwrap_or_default();
        return Err(Error::new(format!("{name} failed ({status}): {}", said.trim())));
    }
    let printed = fs::read_to_string(&out)?;
    let answer: Value = printed.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        eprintln!("  {name}: {seconds:.3} s, CPU {cpu_seconds:.2} s, {answer}");
    }
    let peak_kb = answer["peak_kb"].as_f64().unwrap_or(sampled_kb);
    Ok(Run { seconds, cpu_seconds, peak_mb: peak_kb / 1024.0, answer })
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn peak_of(pid: Pid) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Fields 14 and 15 of proc(5)'s stat; the second may contain spaces and parentheses.
fn cpu_of(pid: Pid) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let after_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}
