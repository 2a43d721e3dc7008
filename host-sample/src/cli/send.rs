//! `send`: one message, composed from its parts or as it is.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    failure::{Failure, Result},
    host::{Direction, Host},
    output::Output,
};

#[derive(Args)]
pub struct Arguments {
    /// Settings file: {"plugin":{…},"incoming":{…},"outgoing":{…}}.
    settings: PathBuf,
    /// Recipient, "Name <a@b>" or "a@b"; may be repeated.
    #[arg(long, required = true, value_name = "ADDRESS")]
    to: Vec<String>,
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    #[arg(long, value_name = "ADDRESS")]
    bcc: Vec<String>,
    #[arg(long, default_value = "")]
    subject: String,
    /// The text; "-" reads it from standard input.
    #[arg(long, conflicts_with = "raw")]
    text: Option<String>,
    /// File with an HTML body.
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    html: Option<PathBuf>,
    /// File to attach; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    attachment: Vec<PathBuf>,
    /// A finished message (RFC 5322), sent byte for byte to the recipients named here.
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Message-ID of the message that this one answers.
    #[arg(long, value_name = "ID")]
    in_reply_to: Option<String>,
    /// The same key twice is one message.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.settings
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let (request, raw) = request(arguments)?;
    let account = host.open(Direction::Outgoing)?;
    let answer = account.send_message(&request, &raw)?;
    account.close();
    report(&answer, output)
}

/// Whom the server did not refuse for good while it took the message for others.
pub fn put_off(answer: &Value) -> Vec<&str> {
    let refused = answer["refused"].as_array().into_iter().flatten();
    refused.filter(|one| one["transient"] == true).filter_map(|one| one["address"].as_str()).collect()
}

/// Says what became of it; anything but `sent`, to all that are not refused for good, is a failure.
pub fn report(answer: &Value, output: &Output) -> Result<()> {
    let outcome = answer["outcome"].as_str().unwrap_or("unknown");
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let why = [text(&answer["error"], "message"), text(&answer["error"], "remedy")].join(" ");
    if outcome == "retry" && answer["error"]["kind"] == "consent_required" {
        // Nothing was accepted, and waiting does not help: a person must act first.
        return Err(Failure::Consent(why));
    }
    let seen = match outcome {
        "sent" => {
            format!("sent as {}; {} says {}", text(answer, "message_id"), text(answer, "server"), text(answer, "reply"))
        }
        _ => format!("{outcome}: {}", why.trim()),
    };
    output.say(&seen, &json!({"event": "sent", "result": answer}));
    for refused in answer["refused"].as_array().into_iter().flatten() {
        let line = format!("not for {}: {}", text(refused, "address"), text(refused, "reply"));
        output.say(&line, &json!({"event": "refused", "recipient": refused}));
    }
    match outcome {
        "sent" if put_off(answer).is_empty() => Ok(()),
        "sent" => Err(Failure::NotAgain(format!(
            "Not yet for {}: send it again later, to them alone.",
            put_off(answer).join(", ")
        ))),
        "retry" => {
            let wait = answer["retry_after_seconds"].as_u64();
            let when = wait.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds} seconds"));
            Err(Failure::other(format!("Nothing was accepted. Send it again {when}.")))
        }
        "rejected" => Err(Failure::other("The server refused this message for good. Change it or its recipients.")),
        _ => Err(Failure::NotAgain(
            "The answer of the server was lost. Look for the message before you send it again.".into(),
        )),
    }
}

fn request(arguments: &Arguments) -> Result<(Value, Vec<u8>)> {
    let mut request = Map::new();
    if let Some(key) = &arguments.idempotency_key {
        request.insert("idempotency_key".into(), key.as_str().into());
    }
    if let Some(path) = &arguments.raw {
        let everybody: Vec<&String> = arguments.to.iter().chain(&arguments.cc).chain(&arguments.bcc).collect();
        request.insert("envelope".into(), json!({ "to": everybody }));
        return Ok((Value::Object(request), read(path)?));
    }
    for (field, list) in [("to", &arguments.to), ("cc", &arguments.cc), ("bcc", &arguments.bcc)] {
        request.insert(field.into(), json!(list));
    }
    request.insert("subject".into(), arguments.subject.as_str().into());
    let text = match arguments.text.as_deref() {
        Some("-") => Some(standard_input()?),
        text => text.map(str::to_owned),
    };
    if let Some(text) = text {
        request.insert("text".into(), text.into());
    }
    if let Some(path) = &arguments.html {
        request.insert("html".into(), String::from_utf8_lossy(&read(path)?).into());
    }
    if let Some(id) = &arguments.in_reply_to {
        request.insert("in_reply_to".into(), id.as_str().into());
    }
    let attachments = arguments.attachment.iter().map(|path| attachment(path)).collect::<Result<Vec<_>>>()?;
    if !attachments.is_empty() {
        request.insert("attachments".into(), attachments.into());
    }
    Ok((Value::Object(request), Vec::new()))
}

fn attachment(path: &Path) -> Result<Value> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let media_type = match extension.as_str() {
        "txt" | "log" => "text/plain",
        "csv" => "text/csv",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    };
    Ok(json!({"name": name, "type": media_type, "content_base64": STANDARD.encode(read(path)?)}))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::settings(format!("The file {} cannot be read: {error}.", path.display())))
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::settings(format!("Standard input cannot be read as text: {error}.")))?;
    Ok(text)
}
