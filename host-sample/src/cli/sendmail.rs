//! `sendmail`: for programs that send by the sendmail command, such as PHP's mail(), cron or a helpdesk.
//!
//! ```text
//! sendmail_path = "host-sample sendmail /etc/helpdesk/mail.json -t -i"       php.ini
//! ```
//! The message comes on standard input. `-t` takes its recipients from To, Cc and Bcc; else they are arguments. `-f` names
//! the envelope's sender where recipients are named; else it is the account's address, because providers refuse others.
//! Other options of sendmail are read and mean nothing here. The same message twice, with a Message-ID of its own, is one
//! message, so a caller that tries again after 75 sends nothing twice. Without one, the same bytes may be another message
//! (cron says the same every month): each call sends, and one whose end is not known, or that some recipients did not get
//! yet, ends with 70, not to be tried again. With one, those whom the server puts off get it alone: at once, and by the same
//! call again after 75.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::send::{put_off, report};
use crate::{
    failure::{Failure, Result},
    host::{Direction, Host},
    output::Output,
};

#[derive(Args)]
pub struct Arguments {
    /// Settings file: {"plugin":{…},"outgoing":{…}}.
    settings: PathBuf,
    /// As sendmail takes them: -t, -f ADDRESS, -i, -oi, recipients.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.settings
    }
}

/// What the arguments say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    from_headers: bool,
    from: Option<String>,
    recipients: Vec<String>,
}

impl Call {
    fn read(arguments: &[String]) -> Result<Self> {
        let mut call = Self::default();
        let mut rest = arguments.iter();
        let mut only_recipients = false;
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                _ if only_recipients || !argument.starts_with('-') => call.recipients.push(argument.clone()),
                "--" => only_recipients = true,
                "-t" | "-ti" => call.from_headers = true,
                "-f" | "-r" => call.from = rest.next().cloned(),
                // Their values stand alone: a full name, a body type, an option, notifications, an envelope id.
                "-F" | "-B" | "-o" | "-O" | "-N" | "-R" | "-V" | "-h" | "-p" | "-X" => drop(rest.next()),
                "-bs" | "-bp" | "-bd" | "-q" => {
                    return Err(Failure::settings(format!("{argument} is not for sending: this sends one message.")));
                }
                other => {
                    if let Some(from) = other.strip_prefix("-f").or_else(|| other.strip_prefix("-r")) {
                        call.from = Some(from.to_owned());
                    }
                }
            }
        }
        if call.recipients.is_empty() && !call.from_headers {
            return Err(Failure::settings(
                "Nobody is to get it: name recipients, or take them from the message by -t.",
            ));
        }
        Ok(call)
    }

    fn request(&self, raw: &[u8]) -> Value {
        let mut request = Map::new();
        if !self.from_headers {
            let mut envelope = json!({ "to": self.recipients });
            if let Some(from) = &self.from {
                envelope["from"] = json!(from);
            }
            request.insert("envelope".into(), envelope);
        }
        if has_message_id(raw) {
            let mut digest = Sha256::new();
            digest.update(raw);
            digest.update(self.recipients.join("\n"));
            let key: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            request.insert("idempotency_key".into(), format!("sendmail {key}").into());
        }
        Value::Object(request)
    }
}

fn has_message_id(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"Message-ID:";
    raw.split(|&byte| byte == b'\n')
        .take_while(|line| !line.trim_ascii().is_empty())
        .any(|line| line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)))
}

/// Exit codes of sysexits.h: 0 sent, 69 refused, 70 perhaps or partly sent, 75 try again, 78 settings.
pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let call = Call::read(&arguments.arguments)?;
    let mut raw = Vec::new();
    std::io::stdin()
        .read_to_end(&mut raw)
        .map_err(|error| Failure::other(format!("The message cannot be read from standard input: {error}.")))?;
    let account = host.open(Direction::Outgoing)?;
    let mut request = call.request(&raw);
    loop {
        let answer = account.send_message(&request, &raw)?;
        if answer["outcome"] == "rejected" {
            return Err(Failure::Refused(answer["error"]["message"].as_str().unwrap_or_default().to_owned()));
        }
        let (reported, put_off) = (report(&answer, output), put_off(&answer));
        // Without a key the same call again would send to everybody again.
        let Some(key) = request["idempotency_key"].as_str() else { return reported };
        if put_off.is_empty() {
            return reported.map_err(|failure| match failure {
                Failure::NotAgain(sentence) => Failure::Other(sentence),
                failure => failure,
            });
        }
        // The others have it. Each time they are fewer: when all are put off, nothing was sent.
        request["idempotency_key"] = format!("{key}\n{}", put_off.join("\n")).into();
        request["envelope"]["to"] = json!(put_off);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Call {
        Call::read(&arguments.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn it_is_called_as_sendmail_is() {
        let by_headers = Call { from_headers: true, ..Call::default() };
        assert_eq!(read("-t -i"), by_headers);
        assert_eq!(read("-oi -oem -t"), by_headers);
        let named = Call { from: Some("desk@a.test".into()), recipients: vec!["b@a.test".into()], ..Call::default() };
        assert_eq!(read("-f desk@a.test -i b@a.test"), named);
        assert_eq!(read("-fdesk@a.test -F Desk -- b@a.test"), named);
        assert!(Call::read(&["-i".to_owned()]).is_err() && Call::read(&["-bs".to_owned()]).is_err());
    }

    #[test]
    fn only_a_message_id_of_its_own_makes_the_same_bytes_the_same_message() {
        let key = |raw: &str| read("-t").request(raw.as_bytes())["idempotency_key"].as_str().map(str::to_owned);
        assert_eq!(key("Subject: x\n\nMessage-ID: <1@a.test>\n"), None);
        let one = key("Subject: x\r\nmessage-id: <1@a.test>\r\n\r\nx\r\n");
        assert!(one.is_some() && one != key("Message-ID: <2@a.test>\n\nx\n"));
    }
}
