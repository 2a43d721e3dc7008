//! Fuzzes every parser: `oauth-mail-fuzz --seconds 60 --seed 1`. One line per target; a finding is written to
//! `tests/corpus/crash-TARGET-*.bin`, from where `cargo test` replays it ever after, and the exit code is 1.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::Duration,
};

use clap::Parser;
use oauth_mail_tests::{
    Error, Result,
    fuzz::{self, BEGUN, Scratch, targets},
};
use sha2::{Digest, Sha256};

/// Without a next case for this long, the process is ended.
const HANGS: Duration = Duration::from_secs(15);
const FOUND: u8 = 1;
const HUNG: i32 = 3;

#[derive(Parser)]
#[command(about = "Mutates inputs of every parser.")]
struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The same seed tries the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these.
    #[arg(long)]
    target: Vec<String>,
    /// Where this process notes the input that it tries: one target, in a process that may die.
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.scratch {
        Some(scratch) => one(&arguments, scratch),
        None => all(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FOUND),
        Err(error) => {
            eprintln!("oauth-mail-fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

/// Each target in a process of its own: a stack that overflows ends only that.
fn all(arguments: &Arguments) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let names: Vec<_> = targets::all()?.into_iter().map(|target| target.name).collect();
    if let Some(unknown) = arguments.target.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        return Err(Error::new(format!("There is no target {unknown}; there are {}.", names.join(", "))));
    }
    let mut clean = true;
    for name in names {
        if !arguments.target.is_empty() && !arguments.target.iter().any(|wanted| wanted == name) {
            continue;
        }
        let scratch = dir.path().join(name);
        let status = Command::new(env::current_exe()?)
            .args(["--seconds", &arguments.seconds.to_string(), "--seed", &arguments.seed.to_string()])
            .args(["--target", name, "--scratch"])
            .arg(&scratch)
            .status()?;
        if !status.success() {
            clean = false;
            if status.code() != Some(i32::from(FOUND)) {
                report(name, &Scratch::read(&scratch)?, &format!("the process ended: {status}"))?;
            }
        }
    }
    Ok(clean)
}

fn one(arguments: &Arguments, scratch: &Path) -> Result<bool> {
    let scratch = Scratch::create(scratch)?;
    let name = arguments.target.first().ok_or_else(|| Error::new("--scratch needs --target"))?;
    let mut targets = targets::all()?;
    let target = targets
        .iter_mut()
        .find(|target| target.name == name)
        .ok_or_else(|| Error::new(format!("There is no target {name}.")))?;
    thread::spawn(watch);
    let report_of = fuzz::run(target, arguments.seed, Duration::from_secs(arguments.seconds), Some(&scratch))?;
    let crashes = u8::from(report_of.crash.is_some());
    let megabytes = report_of.bytes as f64 / 1e6;
    println!("{:16} {:9} cases {megabytes:9.1} MB {crashes} crashes", report_of.name, report_of.cases);
    if let Some(crash) = &report_of.crash {
        report(name, &crash.input, &crash.what)?;
    }
    Ok(crashes == 0)
}

fn watch() {
    let mut before = u64::MAX;
    loop {
        let now = BEGUN.load(SeqCst);
        if now == before {
            process::exit(HUNG);
        }
        before = now;
        thread::sleep(HANGS);
    }
}

fn report(name: &str, input: &[u8], what: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    fs::create_dir_all(&folder)?;
    let hash: String = Sha256::digest(input).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let file = folder.join(format!("crash-{name}-{hash}.bin"));
    fs::write(&file, input)?;
    println!("{name}: {what}\n{name}: kept as {}", file.display());
    Ok(())
}
