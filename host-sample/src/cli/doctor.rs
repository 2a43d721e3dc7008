//! `doctor`: walks from the settings to a sample of mail; exit code 1 when something does not work. What it prints can be
//! pasted into a ticket.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Result},
    host::{Direction, Host},
    output::Output,
};

#[derive(Args)]
pub struct Arguments {
    /// Settings file: {"plugin":{…},"incoming":{…},"outgoing":{…}}.
    settings: PathBuf,
    /// Send one short message to this address.
    #[arg(long, value_name = "ADDRESS")]
    send_to: Option<String>,
    /// Send it to the mailbox's own address.
    #[arg(long, conflicts_with = "send_to")]
    send: bool,
    /// Renew the access token even when it is good for long.
    #[arg(long)]
    refresh: bool,
    /// Show the subject of the newest message, too.
    #[arg(long)]
    verbose: bool,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.settings
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let mut unhealthy = Vec::new();
    for direction in host.settings.directions() {
        let diagnosis = diagnose(host, direction, arguments)?;
        let document = json!({"event": "diagnosis", "direction": direction.name(), "diagnosis": diagnosis});
        output.say_lines(&transcript(direction, &diagnosis), &document);
        if diagnosis["healthy"] != true {
            unhealthy.push(format!("{}: {}", direction.name(), text(&diagnosis, "summary")));
        }
    }
    if unhealthy.is_empty() { Ok(()) } else { Err(Failure::other(unhealthy.join("\n"))) }
}

fn diagnose(host: &Host, direction: Direction, arguments: &Arguments) -> Result<Value> {
    let account = match host.open(direction) {
        Ok(account) => account,
        Err(failure @ Failure::Hook(_)) => return Ok(not_opened(&failure)),
        Err(failure) => return Err(failure),
    };
    let mut request = json!({"action": "diagnose", "refresh": arguments.refresh, "verbose": arguments.verbose});
    if direction == Direction::Outgoing {
        request["send"] = arguments.send.into();
        request["send_to"] = json!(arguments.send_to);
    }
    let diagnosis = account.authenticate(&request)?;
    account.close();
    Ok(diagnosis)
}

/// What the library says of settings that it does not open, as the first step of a walk that ends there.
pub fn not_opened(failure: &Failure) -> Value {
    let sentences = failure.sentences().join(" ");
    let step = json!({
        "step": "settings",
        "status": "failed",
        "saw": "settings that cannot be opened",
        "means": sentences,
        "who": "whoever keeps these settings",
        "remedy": "Correct the settings that are named here.",
        "took_ms": 0,
    });
    let rest = json!({
        "step": "all others",
        "status": "skipped",
        "saw": "skipped because settings failed",
        "means": "",
        "who": null,
        "remedy": null,
        "took_ms": 0,
    });
    let summary = format!("To act now: whoever keeps these settings — {sentences}");
    json!({"state": "unhealthy", "healthy": false, "summary": summary, "steps": [step, rest]})
}

/// One line per step; below it what it means and who does what, where somebody must.
fn transcript(direction: Direction, diagnosis: &Value) -> String {
    let mut lines = vec![format!("{} mail {}", direction.name(), text(diagnosis, "mailbox")).trim_end().to_owned()];
    let steps = diagnosis["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let widest = steps.iter().map(|step| text(step, "step").len()).max().unwrap_or_default();
    for step in steps {
        let name = text(step, "step");
        let status = text(step, "status");
        let mark = match status {
            "ok" => '✓',
            "warning" => '!',
            "failed" => '✗',
            _ => '–',
        };
        let took = match step["took_ms"].as_u64() {
            Some(took_ms) if status != "skipped" => format!(" ({took_ms} ms)"),
            _ => String::new(),
        };
        lines.push(format!("  {mark} {name:widest$}  {}{took}", text(step, "saw")));
        if matches!(status, "warning" | "failed") {
            let indent = " ".repeat(widest + 6);
            lines.push(format!("{indent}means: {}", text(step, "means")));
            lines.push(format!("{indent}{}: {}", text(step, "who"), text(step, "remedy")));
        }
    }
    lines.push(format!("  {}", text(diagnosis, "summary")));
    lines.join("\n")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_has_a_mark_per_step_and_says_who_acts() {
        let step = |name: &str, status: &str, who: Value| {
            json!({"step": name, "status": status, "saw": "seen", "means": "meant", "who": who, "remedy": "Do it.",
                   "took_ms": 3})
        };
        let diagnosis = json!({"mailbox": "a@b.test", "healthy": false, "summary": "Do it.", "steps": [
            step("dns", "ok", Value::Null), step("token", "warning", json!("ann")),
            step("login", "failed", json!("bob")), step("mailbox", "skipped", Value::Null),
        ]});
        let expected = "incoming mail a@b.test
  ✓ dns      seen (3 ms)
  ! token    seen (3 ms)
             means: meant
             ann: Do it.
  ✗ login    seen (3 ms)
             means: meant
             bob: Do it.
  – mailbox  seen
  Do it.";
        assert_eq!(transcript(Direction::Incoming, &diagnosis), expected);
    }
}
