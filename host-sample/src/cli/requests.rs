//! `requests`: what the helpdesk has, and answers to it.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use oauth_mail_abi::Account;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Desk, send, start};
use crate::{
    failure::{Failure, Result},
    helpdesk::{Helpdesk, Sent},
    host::{Direction, Settings},
    output::{Output, one_line},
};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// All requests, newest first.
    List {
        #[command(flatten)]
        desk: Desk,
    },
    /// One request with its messages.
    Show {
        #[command(flatten)]
        desk: Desk,
        id: i64,
    },
    /// Answer the person who asked, at their Reply-To where they gave one; the same text twice is one answer, until another message comes in.
    Reply {
        #[command(flatten)]
        desk: Desk,
        id: i64,
        #[arg(long)]
        text: String,
    },
}

pub fn run(arguments: &Arguments, library: Option<&Path>, output: &Output) -> Result<()> {
    match &arguments.action {
        Action::List { desk } => {
            for request in desk.helpdesk(&Settings::read(&desk.settings)?)?.requests()? {
                let line = format!(
                    "{:>5}  {}  {} messages  {}  {}",
                    request["id"],
                    text(&request, "created_at"),
                    request["messages"],
                    text(&request, "requester"),
                    text(&request, "subject")
                );
                output.say(&line, &request);
            }
            Ok(())
        }
        Action::Show { desk, id } => {
            let request = known(&desk.helpdesk(&Settings::read(&desk.settings)?)?, *id)?;
            output.say_lines(&page(&request), &request);
            Ok(())
        }
        Action::Reply { desk, id, text } => {
            let host = start(library, &desk.settings, output)?;
            let helpdesk = desk.helpdesk(&host.settings)?;
            let account = host.open(Direction::Outgoing)?;
            let from = host.settings.field(Direction::Outgoing, "username").as_str().unwrap_or_default().to_owned();
            let answer = reply(&account, &helpdesk, *id, &from, text, None)?;
            account.close();
            send::report(&answer, output)
        }
    }
}

/// Answers the newest message that came in, and keeps what was sent in the request. The same text under the same `attempt`
/// is one answer, however often it is tried; without an attempt, the same text to the same newest message is.
pub fn reply(
    account: &Account,
    helpdesk: &Helpdesk,
    id: i64,
    from: &str,
    text: &str,
    attempt: Option<&str>,
) -> Result<Value> {
    let request = known(helpdesk, id)?;
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let answered = messages.iter().rev().find(|message| message["direction"] == "in");
    let ids: Vec<String> = messages
        .iter()
        .filter_map(|message| message["message_id"].as_str())
        .map(|message_id| format!("<{message_id}>"))
        .collect();
    let subject = subject(self::text(&request, "subject"), id);
    let attempt = attempt.map_or_else(
        || format!("to-{}", answered.map_or(&Value::Null, |message| &message["id"])),
        |attempt| format!("as-{attempt}"),
    );
    let mut document = json!({
        "to": request["answer_to"],
        "subject": subject,
        "text": text,
        "references": ids,
        "idempotency_key": format!("request-{id}-{attempt}-{}", URL_SAFE_NO_PAD.encode(Sha256::digest(text))),
    });
    if let Some(message_id) = answered.and_then(|message| message["message_id"].as_str()) {
        document["in_reply_to"] = format!("<{message_id}>").into();
    }
    let answer = account.send_message(&document, &[])?;
    if let ("sent" | "unknown", Some(message_id)) =
        (answer["outcome"].as_str().unwrap_or_default(), answer["message_id"].as_str())
    {
        helpdesk.record_sent(&Sent { request: id, message_id, from, subject: &subject, text })?;
    }
    Ok(answer)
}

/// With the tag by which the library recognises an answer whose References were lost.
fn subject(subject: &str, id: i64) -> String {
    let tag = format!("[Request ID: ##{id}##]");
    let bare = subject.trim();
    let answers = bare.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("re:"));
    let bare = if answers { bare[3..].trim_start() } else { bare };
    if bare.contains(&tag) { format!("Re: {bare}") } else { format!("Re: {tag} {bare}") }
}

fn known(helpdesk: &Helpdesk, id: i64) -> Result<Value> {
    helpdesk.request(id)?.ok_or_else(|| {
        Failure::settings(format!("There is no request {id}. `host-sample requests list` shows which there are."))
    })
}

fn page(request: &Value) -> String {
    let mut page = format!(
        "Request {}: {}\nfrom {} at {}\nanswers go to {}\n",
        request["id"],
        one_line(text(request, "subject")),
        one_line(text(request, "requester")),
        text(request, "created_at"),
        one_line(&answer_to(request))
    );
    for message in request["messages"].as_array().into_iter().flatten() {
        let way = if message["direction"] == "in" { "received from" } else { "sent from" };
        page.push_str(&format!(
            "\n--- {way} {} at {} ---\n{}\n",
            one_line(text(message, "from")),
            text(message, "at"),
            text(message, "text").trim_end()
        ));
    }
    page
}

/// Whom an answer goes to, for people.
pub fn answer_to(request: &Value) -> String {
    request["answer_to"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn the_tag_is_put_in_once() {
        assert_eq!(subject("Printer", 7), "Re: [Request ID: ##7##] Printer");
        assert_eq!(subject("RE: [Request ID: ##7##] Printer", 7), "Re: [Request ID: ##7##] Printer");
        assert_eq!(subject("rE:ä", 7), "Re: [Request ID: ##7##] ä");
    }
}
