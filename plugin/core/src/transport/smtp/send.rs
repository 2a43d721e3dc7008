//! One mail transaction: MAIL, RCPT, DATA, content, dot (RFC 5321 3.3), pipelined where offered (RFC 2920).
//!
//! Two moments matter. Until the last byte of the final dot has left, the server cannot have taken the message: every
//! failure is a `Retry`. From then on only its reply says what happened: no reply is `Unknown`, never a second try.

use lettre::{
    Address,
    transport::smtp::{
        commands::{Data, Mail, Rcpt, Rset},
        extension::{MailBodyParameter, MailParameter},
    },
};

use super::{
    connect::Extensions,
    dialogue::Dialogue,
    refusal,
    reply::{NoReply, Reply},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind},
    limits,
    message::{address::is_safe, wire},
    net::Stream,
    transport::{Envelope, Outcome, Refused},
};

/// What is left of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Ready for the next message.
    Ready,
    /// Not to be used again, not even for QUIT: unsent bytes may wait in it, and among them the final dot.
    Broken,
    /// The same, and the server had not answered anything yet.
    BrokenAtOnce,
}

/// Sends one message. The deadline bounds everything; the final reply gets at most `limits::SMTP_FINAL_TIMEOUT`.
pub(super) fn send(
    dialogue: &mut Dialogue<Stream>,
    extensions: &Extensions,
    host: &str,
    envelope: &Envelope,
    raw: &[u8],
    deadline: Deadline,
) -> (Outcome, After) {
    let mail = match prepare(extensions, host, envelope, raw) {
        Ok(mail) => mail,
        Err(error) => return (Outcome::Rejected(error), After::Ready),
    };
    dialogue.stream.set_deadline(deadline);
    let mut transaction = Transaction { mail: None, recipients: Vec::with_capacity(envelope.to.len()), data: None };
    let end = if extensions.pipelining {
        pipelined(dialogue, &mail, &envelope.to, &mut transaction)
    } else {
        stepwise(dialogue, &mail, &envelope.to, &mut transaction)
    };
    if let Err(Broken { lost, step }) = end {
        let after = if transaction.mail.is_some() { After::Broken } else { After::BrokenAtOnce };
        let outcome = match transaction.last_word(envelope.to.len()) {
            Some((reply, step)) => refusal::outcome(reply, step, host),
            None => Outcome::Retry { error: lost.into_error(host, step), after: None },
        };
        return (outcome, after);
    }
    let Some((reply, step)) = transaction.refusal() else {
        return content(dialogue, host, raw, transaction.refused(), deadline);
    };
    let data_open = transaction.data.as_ref().is_some_and(is_go);
    let after = clean_up(dialogue, reply, data_open, step == "MAIL", deadline);
    (refusal::outcome(reply, step, host), after)
}

/// Everything that can be judged without the server.
fn prepare(extensions: &Extensions, host: &str, envelope: &Envelope, raw: &[u8]) -> Result<Mail, Error> {
    let needs = wire::verify(raw)?;
    if envelope.to.is_empty() {
        return Err(Error::new(Kind::Misuse, "The message has no recipient."));
    }
    let addresses = || envelope.from.iter().chain(&envelope.to);
    if addresses().any(|address| !is_safe(address)) {
        return Err(Error::new(Kind::Misuse, "An address of the envelope holds characters that no address may have."));
    }
    let mut parameters = Vec::new();
    if let Some(limit) = extensions.size {
        if limit.is_some_and(|limit| raw.len() as u64 > limit) {
            return Err(Error::new(
                Kind::TooLarge,
                format!("The message has {} bytes; {host} takes {}.", raw.len(), limit.unwrap_or_default()),
            )
            .remedy("Send fewer or smaller attachments."));
        }
        parameters.push(MailParameter::Size(raw.len()));
    }
    let utf8 = needs.utf8_headers || addresses().any(|address| !address.to_string().is_ascii());
    if utf8 && !extensions.smtputf8 {
        return Err(Error::new(
            Kind::Unsupported,
            format!("{host} takes no addresses or headers outside ASCII (no SMTPUTF8)."),
        )
        .remedy("Use an address in ASCII, and encode headers (RFC 2047)."));
    }
    if needs.eight_bit && !extensions.eight_bit_mime {
        return Err(Error::new(Kind::Unsupported, format!("{host} takes no bytes above 127 (no 8BITMIME)."))
            .remedy("Encode the parts as quoted-printable or base64."));
    }
    if needs.eight_bit {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    if utf8 {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    Ok(Mail::new(envelope.from.clone(), parameters))
}

/// The connection broke before the content.
struct Broken {
    lost: NoReply,
    step: &'static str,
}

/// The replies up to DATA, as far as they came.
struct Transaction<'a> {
    mail: Option<Reply>,
    recipients: Vec<(&'a Address, Reply)>,
    data: Option<Reply>,
}

impl Transaction<'_> {
    /// Why nobody gets the message: the reply, and to what.
    fn refusal(&self) -> Option<(&Reply, &'static str)> {
        if let Some(mail) = self.mail.as_ref().filter(|reply| !reply.is_positive()) {
            return Some((mail, "MAIL"));
        }
        let replies = || self.recipients.iter().map(|(_, reply)| reply);
        if replies().all(|reply| !reply.is_positive()) {
            // Nobody was accepted. One that may be accepted later makes the whole message worth another try.
            let chosen = replies().find(|reply| reply.is_transient()).or(replies().next());
            return chosen.map(|reply| (reply, "RCPT"));
        }
        self.data.as_ref().filter(|reply| !is_go(reply)).map(|reply| (reply, "DATA"))
    }

    /// What the server had said before the connection broke, when that decides: a refusal that nothing still to come could
    /// change, or its goodbye.
    fn last_word(&self, recipients: usize) -> Option<(&Reply, &'static str)> {
        let goodbye = self.recipients.last().filter(|(_, reply)| reply.code() == 421);
        self.refusal()
            .filter(|(_, step)| *step != "RCPT" || self.recipients.len() == recipients)
            .or(goodbye.map(|(_, reply)| (reply, "RCPT")))
    }

    fn refused(&self) -> Vec<Refused> {
        let no = self.recipients.iter().filter(|(_, reply)| !reply.is_positive());
        no.map(|(address, reply)| Refused {
            address: address.to_string(),
            reply: reply.text(),
            transient: reply.is_transient(),
        })
        .collect()
    }
}

/// The server waits for content.
fn is_go(reply: &Reply) -> bool {
    reply.code() == 354
}

/// MAIL, all RCPT and DATA without waiting in between, in groups whose replies fit into any socket buffer.
fn pipelined<'a>(
    dialogue: &mut Dialogue<Stream>,
    mail: &Mail,
    to: &'a [Address],
    transaction: &mut Transaction<'a>,
) -> Result<(), Broken> {
    let mut group = mail.to_string();
    for (index, addresses) in to.chunks(limits::SMTP_PIPELINE_MAX).enumerate() {
        let last = (index + 1) * limits::SMTP_PIPELINE_MAX >= to.len();
        for address in addresses {
            group.push_str(&Rcpt::new(address.clone(), Vec::new()).to_string());
        }
        // DATA may only be the last of a group; with somebody accepted, or still to be answered, it is worth it.
        if last {
            group.push_str(&Data.to_string());
        }
        dialogue.show("C:", &group);
        dialogue.write(group.as_bytes()).map_err(|lost| Broken { lost, step: "MAIL" })?;
        group.clear();
        if transaction.mail.is_none() {
            let reply = dialogue.reply().map_err(|lost| Broken { lost, step: "MAIL" })?;
            let goodbye = reply.code() == 421;
            transaction.mail = Some(reply);
            if goodbye {
                break;
            }
        }
        for address in addresses {
            let reply = dialogue.reply().map_err(|lost| Broken { lost, step: "RCPT" })?;
            transaction.recipients.push((address, reply));
        }
        if last {
            transaction.data = Some(dialogue.reply().map_err(|lost| Broken { lost, step: "DATA" })?);
        }
        if transaction.mail.as_ref().is_some_and(|reply| !reply.is_positive()) {
            break;
        }
    }
    Ok(())
}

/// One command, one reply.
fn stepwise<'a>(
    dialogue: &mut Dialogue<Stream>,
    mail: &Mail,
    to: &'a [Address],
    transaction: &mut Transaction<'a>,
) -> Result<(), Broken> {
    let mut command = |line: String, step| dialogue.command(&line).map_err(|lost| Broken { lost, step });
    let reply = command(mail.to_string(), "MAIL")?;
    let go_on = reply.is_positive();
    transaction.mail = Some(reply);
    if !go_on {
        return Ok(());
    }
    for address in to {
        let reply = command(Rcpt::new(address.clone(), Vec::new()).to_string(), "RCPT")?;
        transaction.recipients.push((address, reply));
    }
    if transaction.refusal().is_none() {
        transaction.data = Some(command(Data.to_string(), "DATA")?);
    }
    Ok(())
}

fn content(
    dialogue: &mut Dialogue<Stream>,
    host: &str,
    raw: &[u8],
    refused: Vec<Refused>,
    deadline: Deadline,
) -> (Outcome, After) {
    if dialogue.transcript.is_on() {
        dialogue.show("C:", &format!("{{{} bytes}}", raw.len()));
    }
    if let Err(lost) = write_content(dialogue, raw) {
        const STEP: &str = "the content of the message";
        // A server that will not have it may say so and hang up before it has read the rest.
        let said = dialogue.last_reply(deadline.at_most(limits::SMTP_GOODBYE_TIMEOUT));
        let outcome = match said.ok().filter(|reply| reply.code() >= 400) {
            Some(reply) => refusal::outcome(&reply, STEP, host),
            None => Outcome::Retry { error: lost.into_error(host, STEP), after: None },
        };
        return (outcome, After::Broken);
    }
    match dialogue.patient_reply(deadline.at_most(limits::SMTP_FINAL_TIMEOUT)) {
        Ok(reply) if reply.code() / 100 == 2 => {
            (Outcome::Sent { reply: reply.text(), server: host.to_owned(), refused }, After::Ready)
        }
        Ok(reply) if reply.code() >= 400 => {
            let after = if reply.code() == 421 { After::Broken } else { After::Ready };
            (refusal::outcome(&reply, "the end of the message", host), after)
        }
        Ok(reply) => (Outcome::Unknown(unknown(host).provider_code(reply.text())), After::Broken),
        Err(lost) => {
            let error = unknown(host).source_error(lost.into_error(host, "the end of the message"));
            (Outcome::Unknown(error), After::Broken)
        }
    }
}

/// Content with dots stuffed (RFC 5321 4.5.2), then the final dot, in few large writes: a dot in a packet of its own
/// would wait for a delayed ACK.
fn write_content(dialogue: &mut Dialogue<Stream>, raw: &[u8]) -> Result<(), NoReply> {
    let mut chunk: Vec<u8> = Vec::with_capacity(limits::SMTP_WRITE_CHUNK.min(raw.len() + raw.len() / 16 + 5));
    let mut put = |bytes: &[u8]| -> Result<(), NoReply> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if chunk.len() == limits::SMTP_WRITE_CHUNK {
                dialogue.write(&chunk)?;
                chunk.clear();
            }
            let n = rest.len().min(limits::SMTP_WRITE_CHUNK - chunk.len());
            chunk.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
        }
        Ok(())
    };
    // A field's name may begin with a dot.
    if raw.starts_with(b".") {
        put(b".")?;
    }
    let mut from = 0;
    for (at, pair) in raw.windows(2).enumerate() {
        if pair == b"\n." {
            put(&raw[from..=at])?;
            put(b".")?;
            from = at + 1;
        }
    }
    put(&raw[from..])?;
    put(b".\r\n")?;
    dialogue.write(&chunk)
}

/// Brings the server back to where MAIL is expected.
fn clean_up(
    dialogue: &mut Dialogue<Stream>,
    reply: &Reply,
    data_open: bool,
    untouched: bool,
    deadline: Deadline,
) -> After {
    if reply.code() == 421 {
        // The usual goodbye to a connection that was idle for too long waits to be read until the next MAIL.
        return if untouched { After::BrokenAtOnce } else { After::Broken };
    }
    dialogue.stream.set_deadline(deadline.at_most(limits::SMTP_GOODBYE_TIMEOUT));
    // RFC 2920 3.1: nobody was accepted, yet DATA was: a lone dot, which delivers nothing to nobody.
    if data_open && dialogue.command(".\r\n").is_err() {
        return After::Broken;
    }
    if untouched || dialogue.command(&Rset.to_string()).is_ok_and(|reply| reply.is_positive()) {
        return After::Ready;
    }
    After::Broken
}

fn unknown(host: &str) -> Error {
    Error::new(Kind::Transient, format!("{host} got the whole message but did not say whether it took it."))
        .remedy("Look for its Message-ID in the sent folder before it is sent again.")
}
