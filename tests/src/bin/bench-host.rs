//! The host of the benchmark: loads the library as any Rust host does, and does the least that a host can do with it.
//!
//! ```text
//! bench-host fetch SETTINGS     fetches all, touches every byte and all facts, settles
//! bench-host send SETTINGS FOLDER COUNT TO
//! bench-host load               loads the library
//! bench-host call SETTINGS COUNT   the cheapest hook call
//! ```
//!
//! Prints one JSON line. SETTINGS as host-sample takes it; the library lies beside this program.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, fs, hint::black_box, process::ExitCode, time::Instant};

use serde_json::{Map, Value, json};

use oauth_mail_abi::{Account, Library};
use oauth_mail_tests::{Error, Result};

/// What host-sample asks for, too.
const BATCH: &str = r#"{"max_messages":500,"max_bytes":8388608,"deadline_ms":120000}"#;
/// Calls between two looks at the clock, which itself takes as long as a tenth of the call.
const CALLS_PER_SAMPLE: u32 = 100;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["fetch", settings] => fetch(settings),
        ["send", settings, folder, count, to] => send(settings, folder, count, to),
        ["load"] => load(),
        ["call", settings, count] => call(settings, count),
        _ => Err(Error::new("usage: bench-host fetch | send | load | call …")),
    };
    match result {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fetch(settings: &str) -> Result<Value> {
    let account = open(settings, "incoming")?;
    let request: Value = serde_json::from_str(BATCH).map_err(Error::doing("the request"))?;
    // The library is loaded, the store and the mailbox are open, nothing was fetched.
    let idle_kb = memory_kb("VmRSS")?;
    let start = Instant::now();
    let mut first_seconds = None;
    let (mut messages, mut bytes, mut touched) = (0u64, 0u64, 0u64);
    loop {
        let batch = account.fetch_batch(&request).map_err(Error::doing("fetch_batch"))?;
        first_seconds.get_or_insert_with(|| start.elapsed().as_secs_f64());
        let header = batch.header();
        if header["skipped"] != json!([]) || header["quarantined"] != json!([]) {
            return Err(Error::new(format!("not everything was delivered: {header}")));
        }
        let mut results = Map::new();
        for message in &batch {
            touched = touched.wrapping_add(sum(message.raw)).wrapping_add(sum(message.facts_json.as_bytes()));
            messages += 1;
            bytes += message.raw.len() as u64;
            results.insert(message.key.to_owned(), "imported".into());
        }
        drop(batch);
        account.settle_batch(&json!({ "results": results })).map_err(Error::doing("settle_batch"))?;
        if header["more"] != json!(true) {
            break;
        }
    }
    black_box(touched);
    account.close();
    let seconds = start.elapsed().as_secs_f64();
    let peak_kb = memory_kb("VmHWM")?;
    Ok(json!({"messages": messages, "bytes": bytes, "first_seconds": first_seconds, "seconds": seconds,
              "idle_kb": idle_kb, "peak_kb": peak_kb}))
}

/// The first message opens the connection and is not counted, as in the peer's program.
fn send(settings: &str, folder: &str, count: &str, to: &str) -> Result<Value> {
    let count: usize = count.parse().map_err(Error::doing("COUNT"))?;
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let raws: Vec<_> = files.iter().map(|file| fs::read(file.path())).collect::<std::io::Result<_>>()?;
    let account = open(settings, "outgoing")?;
    let request = json!({"envelope": {"to": [to]}});
    let one = |number: usize| -> Result<usize> {
        let raw = &raws[number % raws.len()];
        let answer = account.send_message(&request, raw).map_err(Error::doing("send_message"))?;
        if answer["outcome"] == "sent" { Ok(raw.len()) } else { Err(Error::new(format!("not sent: {answer}"))) }
    };
    one(0)?;
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let mut bytes = 0;
    for number in 0..count {
        bytes += one(number)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds()? - cpu;
    let peak_mb = memory_kb("VmHWM")? / 1024.0;
    account.close();
    Ok(json!({"messages": count, "bytes": bytes, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))
}

fn load() -> Result<Value> {
    let start = Instant::now();
    let library = library()?;
    let seconds = start.elapsed().as_secs_f64();
    let description = library.describe();
    if description["name"] != "oauth-mail" {
        return Err(Error::new(format!("not our library: {description}")));
    }
    Ok(json!({ "seconds": seconds }))
}

/// `settle_batch` with no results: a request parsed, an answer made, nothing done.
fn call(settings: &str, count: &str) -> Result<Value> {
    let count: u32 = count.parse().map_err(Error::doing("COUNT"))?;
    let account = open(settings, "incoming")?;
    let request = json!({"results": {}});
    let mut samples = Vec::new();
    for _ in 0..count.div_ceil(CALLS_PER_SAMPLE) {
        let start = Instant::now();
        for _ in 0..CALLS_PER_SAMPLE {
            black_box(account.settle_batch(&request).map_err(Error::doing("settle_batch"))?);
        }
        samples.push(start.elapsed().as_secs_f64() / f64::from(CALLS_PER_SAMPLE));
    }
    samples.sort_by(f64::total_cmp);
    account.close();
    Ok(json!({ "seconds": samples[samples.len() / 2] }))
}

fn library() -> Result<Library> {
    let file = format!("{}oauth_mail{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    Library::load(env::current_exe()?.with_file_name(file)).map_err(Error::doing("loading the library"))
}

fn open(settings: &str, direction: &str) -> Result<Account> {
    let text = fs::read_to_string(settings).map_err(Error::doing(settings))?;
    let settings: Value = serde_json::from_str(&text).map_err(Error::doing(settings))?;
    let plugin = library()?
        .plugin(&settings["plugin"], |level, mailbox, line| {
            if level <= oauth_mail_abi::Level::Warn {
                eprintln!("{mailbox}: {line}");
            }
        })
        .map_err(Error::doing("the plugin"))?;
    plugin.open(&json!({ direction: settings[direction] })).map_err(Error::doing("opening the mailbox"))
}

/// Reads every byte, eight at a time: the memory is what may cost, not the arithmetic.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let rest = rest.iter().map(|byte| u64::from(*byte)).sum();
    words.iter().fold(rest, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

/// A line of /proc/self/status (proc(5)): VmRSS is memory now, VmHWM the most it ever was.
fn memory_kb(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error::new(format!("/proc/self/status has no {field}")))
}

/// User and system time of all threads so far, from the scheduler's own count in nanoseconds.
fn cpu_seconds() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}
