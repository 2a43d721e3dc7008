//! The commands, one file each.

mod check;
mod consent;
pub mod doctor;
mod fetch;
mod quarantine;
pub mod requests;
mod revoke;
mod run;
mod send;
mod sendmail;
mod status;

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::{
    demo, descriptors,
    failure::{Failure, Result},
    helpdesk::Helpdesk,
    host::{self, Direction, Host, Settings},
    output::{LogLevel, Output, health_line},
    serve,
};

pub use consent::{Consented, consent_with, is_complete, redirect_url, start_consent};

/// A small helpdesk that fetches and sends mail through the oauth-mail library.
#[derive(Parser)]
#[command(version, about, after_help = "Exit codes: 0 done, 1 failed, 2 settings, 3 consent needed, 130 interrupted.")]
pub struct Arguments {
    /// The library; by default the one beside this program.
    #[arg(long, global = true, env = "OAUTH_MAIL_LIBRARY", value_name = "PATH")]
    library: Option<PathBuf>,
    /// One JSON document per line on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Which of the library's log lines are shown on standard error.
    #[arg(long, global = true, value_enum, default_value = "warn", value_name = "LEVEL")]
    pub log: LogLevel,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the settings; every fault is named at once.
    Check(Common),
    /// Sign in at the provider, once.
    Consent(consent::Arguments),
    /// Fetch what waits, and turn it into requests.
    Fetch(fetch::Arguments),
    /// Send one message.
    Send(send::Arguments),
    /// Send the message on standard input, called as sendmail is.
    Sendmail(sendmail::Arguments),
    /// Keep fetching at the interval of the settings, until Ctrl-C.
    Run(run::Arguments),
    /// Say in which state the accounts are.
    Status(Common),
    /// Find out why mail does not work: from the names of the servers to a sample of mail.
    Doctor(doctor::Arguments),
    /// Look at messages that were put aside after three failures; try them again, or end them.
    Quarantine(quarantine::Arguments),
    /// Take back the consent.
    Revoke(Common),
    /// List, show and answer requests.
    Requests(requests::Arguments),
    /// Serve the web page, and fetch every mailbox at its interval, day and night.
    Serve(Box<serve::Arguments>),
    /// Start a provider on this machine and walk the whole way through it.
    Demo(demo::Arguments),
}

#[derive(Args)]
pub struct Common {
    /// Settings file: {"plugin":{…},"incoming":{…},"outgoing":{…}}.
    settings: PathBuf,
}

#[derive(Args)]
pub struct Desk {
    /// Settings file: {"plugin":{…},"incoming":{…},"outgoing":{…}}.
    settings: PathBuf,
    /// The helpdesk's database; by default it lies beside the settings file.
    #[arg(long, value_name = "PATH")]
    database: Option<PathBuf>,
}

impl Desk {
    fn helpdesk(&self, settings: &Settings) -> Result<Helpdesk> {
        Helpdesk::open(&self.database.clone().unwrap_or_else(|| settings.database()))
    }
}

pub fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let library = arguments.library.as_deref();
    if matches!(arguments.command, Command::Run(_) | Command::Serve(_)) {
        descriptors::allow_all();
    }
    match arguments.command {
        Command::Check(common) => check::run(&start(library, &common.settings, output)?, output),
        Command::Consent(arguments) => consent::run(&start(library, arguments.settings(), output)?, &arguments, output),
        Command::Fetch(arguments) => fetch::run(&start(library, arguments.settings(), output)?, &arguments, output),
        Command::Send(arguments) => send::run(&start(library, arguments.settings(), output)?, &arguments, output),
        Command::Sendmail(arguments) => {
            let run = || sendmail::run(&start(library, arguments.settings(), output)?, &arguments, output);
            run().map_err(|failure| Failure::Sendmail(Box::new(failure)))
        }
        Command::Run(arguments) => {
            let settings = Settings::read(arguments.settings())?;
            run::run(&Host::watching(&host::load(library)?, settings, output)?, &arguments, output)
        }
        Command::Status(common) => status::run(&start(library, &common.settings, output)?, output),
        Command::Doctor(arguments) => doctor::run(&start(library, arguments.settings(), output)?, &arguments, output),
        Command::Quarantine(arguments) => {
            quarantine::run(&start(library, arguments.settings(), output)?, &arguments, output)
        }
        Command::Revoke(common) => revoke::run(&start(library, &common.settings, output)?, output),
        Command::Requests(arguments) => requests::run(&arguments, library, output),
        Command::Serve(arguments) => serve::run(&arguments, library, output),
        Command::Demo(arguments) => demo::run(&arguments, library, output),
    }
}

fn start(library: Option<&Path>, settings: &Path, output: &Output) -> Result<Host> {
    // The settings first: what a person can mend is said before what an installer can.
    let settings = Settings::read(settings)?;
    Host::start(&host::load(library)?, settings, output)
}

/// The answer of `authenticate` for a person: one line, and one for each warning.
pub fn state_line(direction: Direction, answer: &Value) -> String {
    let mut state = answer["state"].as_str().unwrap_or("unknown").replace('_', " ");
    if let Some(identity) = answer["identity"].as_str() {
        state.push_str(&format!(" as {identity}"));
    }
    let mut sentences = vec![format!("{}: {state}.", direction.name())];
    let reason = &answer["reason"];
    let told = [&answer["message"], &answer["note"], &reason["message"], &reason["remedy"]];
    sentences.extend(told.into_iter().filter_map(Value::as_str).map(str::to_owned));
    if let Some(end) = answer["expires_at"].as_i64() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        sentences.push(format!("The access token is good for {} seconds and renewed by itself.", (end - now).max(0)));
    }
    let mut line = sentences.join(" ");
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        line.push_str(&format!("\n  warning: {}", warning.as_str().unwrap_or_default()));
    }
    let health = &answer["health"];
    if !["ok", "consent_needed"].contains(&health["state"].as_str().unwrap_or("ok")) {
        line.push_str(&format!("\n  health: {}", health_line(health)));
    }
    line
}
