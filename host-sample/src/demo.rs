//! `demo`: the main job, end to end, against a provider on this machine. Each step prints what it proves.

mod steps;
mod world;

use std::path::{Path, PathBuf};

use clap::Args;
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
    /// Keep the demo's folder (settings, stores, database) and say where it is.
    #[arg(long)]
    keep: bool,
}

pub fn run(arguments: &Arguments, library: Option<&Path>, output: &Output) -> Result<()> {
    let mut world = world::World::new(library, arguments.servers.as_deref(), arguments.keep, *output)?;
    let total = steps::ALL.len();
    let mut proven = 0;
    let mut failure = None;
    for (number, step) in (1..).zip(steps::ALL) {
        let result = interrupt::check().and_then(|()| (step.work)(&mut world));
        match result {
            Ok(seen) => {
                proven += 1;
                output.say(
                    &format!(
                        "[{number:>2}/{total}] {}\n        proves: {}\n        seen:   {seen}",
                        step.title, step.proves
                    ),
                    &json!({"event": "step", "number": number, "title": step.title, "proves": step.proves,
                            "seen": seen, "ok": true}),
                );
            }
            Err(error) => {
                let why = error.sentences().join(" ");
                output.say(
                    &format!("[{number:>2}/{total}] {}\n        NOT proven: {why}", step.title),
                    &json!({"event": "step", "number": number, "title": step.title, "seen": why, "ok": false}),
                );
                failure = Some(step.title);
                break;
            }
        }
    }
    // The servers are gone before the last line says how it went.
    drop(world);
    output.say(
        &format!("demo: {proven}/{total} steps proven"),
        &json!({"event": "demo", "proven": proven, "total": total}),
    );
    match failure {
        None => Ok(()),
        Some(title) => Err(Failure::other(format!("The demo stopped at: {title}."))),
    }
}
