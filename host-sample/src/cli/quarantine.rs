//! `quarantine`: messages that failed three times and were put aside; to look at, to try again, to end.

use std::{io::Write as _, path::Path};

use clap::{Args, Subcommand};
use oauth_mail_abi::Account;
use serde_json::{Value, json};

use super::Common;
use crate::{
    failure::{Failure, Result},
    host::{Direction, Host},
    output::Output,
};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Show what was put aside, and why (the default).
    List,
    /// Write the raw bytes of one message to standard output.
    Raw { key: String },
    /// Hand one message out again with the next fetch.
    Replay { key: String },
    /// Forget one message. In the mailbox it stays as it is.
    Drop { key: String },
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.common.settings
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let account = host.open(Direction::Incoming)?;
    match arguments.action.as_ref().unwrap_or(&Action::List) {
        Action::List => list(&account, output)?,
        Action::Raw { key } => {
            let batch = account.fetch_batch(&json!({ "quarantine": key }))?;
            let message =
                batch.message(0).ok_or_else(|| Failure::other(format!("The bytes of {key} cannot be had.")))?;
            std::io::stdout().lock().write_all(message.raw).map_err(|error| Failure::other(error.to_string()))?;
        }
        Action::Replay { key } => decide(&account, key, "replay", output)?,
        Action::Drop { key } => decide(&account, key, "drop", output)?,
    }
    account.close();
    Ok(())
}

fn list(account: &Account, output: &Output) -> Result<()> {
    let header = account.fetch_batch(&json!({"quarantine": "list"}))?.header();
    let aside = header["quarantine"].as_array().cloned().unwrap_or_default();
    for one in &aside {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        let line = format!("{}  {} bytes, {} failures. {}", text("key"), one["size"], one["tries"], text("reason"));
        output.say(&line, &json!({"event": "quarantined", "message": one}));
    }
    if aside.is_empty() {
        output.say("Nothing was put aside.", &json!({"event": "quarantine_empty"}));
    }
    Ok(())
}

fn decide(account: &Account, key: &str, verdict: &str, output: &Output) -> Result<()> {
    let answer = account.settle_batch(&json!({"results": {key: verdict}}))?;
    let done = answer["done"][key].as_str().unwrap_or_default();
    if done == "not_put_aside" {
        return Err(Failure::other(format!("{key} is not in quarantine. Ask `host-sample quarantine` for what is.")));
    }
    let sentence = if done == "replay" { "It comes again with the next fetch." } else { "It is forgotten." };
    output.say(sentence, &json!({"event": "quarantine", "key": key, "done": Value::from(done)}));
    Ok(())
}
