//! `fetch`: one round. Each message becomes a request, goes into one, or is ignored, and the mailbox is settled.

use std::path::{Path, PathBuf};

use clap::Args;
use oauth_mail_abi::Batch;
use serde_json::json;

use super::Desk;
use crate::{
    failure::{Failure, Result},
    helpdesk::{Imported, Outcome},
    host::{Direction, Host},
    output::Output,
    round,
};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    desk: Desk,
    /// Only show the first batch: nothing is imported, nothing is settled.
    #[arg(long)]
    list: bool,
    /// Write the raw message of each key into this folder as well.
    #[arg(long, value_name = "FOLDER")]
    raw_to: Option<PathBuf>,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.desk.settings
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let account = host.open(Direction::Incoming)?;
    if arguments.list {
        let batch = account.fetch_batch(&round::request())?;
        list(&batch, output);
        account.close();
        return Ok(());
    }
    let mut helpdesk = arguments.desk.helpdesk(&host.settings)?;
    let mut totals = Totals::default();
    let mut failed_write = None;
    round::run(&account, &mut helpdesk, host.settings.new_requests(), output.progress(), |batch, imported| {
        if let Some(folder) = &arguments.raw_to
            && let Err(error) = write_raw(batch, folder)
        {
            failed_write.get_or_insert(error);
        }
        totals.report(batch, imported, output);
    })?;
    account.close();
    totals.say(output);
    match failed_write {
        Some(error) => Err(Failure::other(format!("Raw messages could not be written: {error}."))),
        None => Ok(()),
    }
}

/// Counted over the batches of one round.
#[derive(Default)]
pub struct Totals {
    created: u64,
    appended: u64,
    duplicate: u64,
    ignored: u64,
    bytes: u64,
}

impl Totals {
    pub fn report(&mut self, batch: &Batch, imported: &[Imported], output: &Output) {
        self.bytes += batch.iter().map(|message| message.raw.len() as u64).sum::<u64>();
        for message in imported {
            let (count, text) = match &message.outcome {
                Outcome::Created(request) => (&mut self.created, format!("request {request} created")),
                Outcome::Appended(request) => (&mut self.appended, format!("added to request {request}")),
                Outcome::Duplicate => (&mut self.duplicate, "known already".to_owned()),
                Outcome::Ignored(reason) => (&mut self.ignored, format!("ignored: {reason}")),
            };
            *count += 1;
            let request = match message.outcome {
                Outcome::Created(request) | Outcome::Appended(request) => Some(request),
                _ => None,
            };
            output.say(
                &format!("{text} — {} — {}", message.from, message.subject),
                &json!({"event": "message", "key": message.key, "result": message.result(), "request": request,
                        "from": message.from, "subject": message.subject, "what": text}),
            );
        }
        let header = batch.header();
        for list in ["skipped", "quarantined"] {
            for message in header[list].as_array().into_iter().flatten() {
                // What is not put aside comes again.
                let what = if message["aside"] == true { "quarantined" } else { "skipped" };
                let reason = message["reason"].as_str().unwrap_or("no reason given");
                output.say(
                    &format!("{what}: {reason} ({})", message["key"].as_str().unwrap_or_default()),
                    &json!({"event": what, "key": message["key"], "reason": reason}),
                );
            }
        }
    }

    pub fn any(&self) -> bool {
        self.created + self.appended + self.duplicate + self.ignored > 0
    }

    pub fn say(&self, output: &Output) {
        output.say(
            &format!(
                "{} requests created, {} messages added, {} known, {} ignored, {} bytes",
                self.created, self.appended, self.duplicate, self.ignored, self.bytes
            ),
            &json!({"event": "fetched", "created": self.created, "appended": self.appended,
                    "duplicate": self.duplicate, "ignored": self.ignored, "bytes": self.bytes}),
        );
    }
}

fn list(batch: &Batch, output: &Output) {
    for message in batch {
        let facts = message.facts();
        let read = crate::facts::Facts::read(&facts);
        output.say(
            &format!("{} — {} — {} bytes — {}", read.from, read.subject, message.raw.len(), message.key),
            &json!({"event": "waiting", "key": message.key, "bytes": message.raw.len(), "facts": facts}),
        );
    }
    let header = batch.header();
    let remaining = header["remaining"].as_u64().map_or_else(String::new, |left| format!(", {left} more wait"));
    output.say(&format!("{} messages{remaining}", batch.len()), &json!({"event": "batch", "header": header}));
}

fn write_raw(batch: &Batch, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for message in batch {
        // A key may hold any character; a file name may not.
        let name: String =
            message.key.chars().map(|c| if c.is_ascii_alphanumeric() || "@.-".contains(c) { c } else { '_' }).collect();
        std::fs::write(folder.join(format!("{name}.eml")), message.raw)?;
    }
    Ok(())
}

/// For `run`, which reports each round alike.
pub fn nothing(output: &Output) {
    output.say("nothing new", &json!({"event": "nothing_new"}));
}
