//! `demo`: the main job, end to end, against a provider on this machine. Each step prints what it proves.

mod steps;
mod world;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    failure::{Failure, Result},
    interrupt,
    output::Output,
};

#[derive(Args)]
pub struct Arguments {
    /// The program that plays the provider; by default `oauth-mail-sandbox` beside this program. `oauth-mail-servers` starts
    /// Dovecot, Postfix and oidc-provider.
    #[arg(long, value_name = "PATH")]
    servers: Option<PathBuf>,
    /// The way the mail goes. `ews` and `graph` need the sandbox.
    #[arg(long, value_enum, default_value_t = Choice::Imap)]
    protocol: Choice,
    /// Keep the demo's folder (settings, stores, database) and say where it is.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    Imap,
    Ews,
    Graph,
    /// One after the other.
    All,
}

/// How one walk fetches and sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// IMAPS, and SMTP with STARTTLS.
    Imap,
    Ews,
    Graph,
}

impl Protocol {
    /// As in the facts of the servers.
    fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Ews => "ews",
            Self::Graph => "graph",
        }
    }
}

pub fn run(arguments: &Arguments, library: Option<&Path>, output: &Output) -> Result<()> {
    let protocols: &[Protocol] = match arguments.protocol {
        Choice::Imap => &[Protocol::Imap],
        Choice::Ews => &[Protocol::Ews],
        Choice::Graph => &[Protocol::Graph],
        Choice::All => &[Protocol::Imap, Protocol::Ews, Protocol::Graph],
    };
    let total = steps::ALL.len() * protocols.len();
    let mut proven = 0;
    let mut stopped = None;
    for &protocol in protocols {
        let mut world = world::World::new(library, arguments.servers.as_deref(), protocol, arguments.keep, *output)?;
        // The servers are gone before the last line says how it went.
        stopped = walk(&mut world, protocol, total, &mut proven, output);
        if stopped.is_some() {
            break;
        }
    }
    output.say(
        &format!("demo: {proven}/{total} steps proven"),
        &json!({"event": "demo", "proven": proven, "total": total}),
    );
    match stopped {
        None => Ok(()),
        Some(title) => Err(Failure::other(format!("The demo stopped at: {title}."))),
    }
}

/// Title of the step that was not proven.
fn walk(
    world: &mut world::World,
    protocol: Protocol,
    total: usize,
    proven: &mut usize,
    output: &Output,
) -> Option<&'static str> {
    for step in steps::ALL {
        let number = *proven + 1;
        let result = interrupt::check().and_then(|()| (step.work)(world));
        match result {
            Ok(seen) => {
                *proven += 1;
                output.say_lines(
                    &format!(
                        "[{number:>2}/{total}] {}\n        proves: {}\n        seen:   {seen}",
                        step.title, step.proves
                    ),
                    &json!({"event": "step", "number": number, "protocol": protocol.name(), "title": step.title,
                            "proves": step.proves, "seen": seen, "ok": true}),
                );
            }
            Err(error) => {
                let why = error.sentences().join(" ");
                output.say_lines(
                    &format!("[{number:>2}/{total}] {}\n        NOT proven: {why}", step.title),
                    &json!({"event": "step", "number": number, "protocol": protocol.name(), "title": step.title,
                            "seen": why, "ok": false}),
                );
                return Some(step.title);
            }
        }
    }
    None
}
