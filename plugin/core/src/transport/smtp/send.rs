//! One mail transaction: MAIL, RCPT, DATA, content, dot (RFC 5321 3.3), pipelined where offered (RFC 2920).
//!
//! One moment matters: the end of the content, with its final dot, is about to be written. Before it the server cannot
//! have taken the message, and every failure is a `Retry`. From then on only its reply says what happened: no reply is
//! `Unknown`, never a second try. A reply that does not fit its command belongs to another one: the connection is given up.

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
    refusal::{self, Step},
    reply::{NoReply, Reply},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind},
    limits,
    message::{address::is_safe, wire},
    net::Stream,
    transport::{Envelope, Offer, Outcome, Refused},
};

/// What is left of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Ready for the next message.
    Ready,
    /// Not to be used again, not even for QUIT: unsent bytes may wait in it, and among them the final dot.
    Broken,
    /// The same, before anything was offered and for no reason of the message's: another connection may do.
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
    offer: Offer<'_>,
) -> (Outcome, After) {
    let mail = match prepare(extensions, host, envelope, raw) {
        Ok(mail) => mail,
        Err(error) => return (Outcome::Rejected(error), After::Ready),
    };
    dialogue.stream.set_deadline(deadline);
    if dialogue.has_unread() {
        return (Outcome::Retry { error: unasked(host), after: None }, After::BrokenAtOnce);
    }
    let mut transaction = Transaction { mail: None, recipients: Vec::with_capacity(envelope.to.len()), data: None };
    let end = if extensions.pipelining {
        pipelined(dialogue, &mail, &envelope.to, &mut transaction)
    } else {
        stepwise(dialogue, &mail, &envelope.to, &mut transaction)
    };
    if let Err(Broken { lost, step }) = end {
        let after = if transaction.mail.is_some() { After::Broken } else { After::BrokenAtOnce };
        let outcome = match transaction.last_word(envelope.to.len()) {
            Some((reply, step)) => refusal::outcome(reply, step, host, &transaction.whom(step)),
            None => Outcome::Retry { error: lost.into_error(host, step.name()), after: None },
        };
        return (outcome, after);
    }
    let Some((reply, step)) = transaction.refusal() else {
        // A line too many would be taken for the answer to the final dot.
        if dialogue.has_unread() {
            return (Outcome::Retry { error: unasked(host), after: None }, After::BrokenAtOnce);
        }
        return content(dialogue, host, raw, transaction.refused(), deadline, offer);
    };
    let after = if reply.code() < 400 {
        After::BrokenAtOnce
    } else {
        let data_open = transaction.data.as_ref().is_some_and(is_go);
        clean_up(dialogue, reply, data_open, step == Step::Mail, deadline)
    };
    (refusal::outcome(reply, step, host, &transaction.whom(step)), after)
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
    step: Step,
}

/// The replies up to DATA, as far as they came.
struct Transaction<'a> {
    mail: Option<Reply>,
    recipients: Vec<(&'a Address, Reply)>,
    data: Option<Reply>,
}

impl Transaction<'_> {
    /// Why nobody gets the message: the reply, and to what.
    fn refusal(&self) -> Option<(&Reply, Step)> {
        if let Some(mail) = self.mail.as_ref().filter(|reply| !reply.is_done()) {
            return Some((mail, Step::Mail));
        }
        let replies = || self.recipients.iter().map(|(_, reply)| reply);
        if let Some(foreign) = replies().find(|reply| reply.code() < 400 && !reply.is_done()) {
            return Some((foreign, Step::Rcpt));
        }
        if replies().all(|reply| !reply.is_done()) {
            // Nobody was accepted. One that may be accepted later makes the whole message worth another try.
            let chosen = replies().find(|reply| refusal::passes(reply, Step::Rcpt)).or(replies().next());
            return chosen.map(|reply| (reply, Step::Rcpt));
        }
        self.data.as_ref().filter(|reply| !is_go(reply)).map(|reply| (reply, Step::Data))
    }

    /// Whom a refusal at `step` is about: where nobody was accepted, all of them.
    fn whom(&self, step: Step) -> Vec<&Address> {
        let refused = self.recipients.iter().filter(|(_, reply)| step == Step::Rcpt && !reply.is_done());
        refused.map(|(address, _)| *address).collect()
    }

    /// What the server had said before the connection broke, when that decides: a refusal that nothing still to come could
    /// change, or its goodbye.
    fn last_word(&self, recipients: usize) -> Option<(&Reply, Step)> {
        let goodbye = self.recipients.last().filter(|(_, reply)| reply.code() == 421);
        self.refusal()
            .filter(|(_, step)| *step != Step::Rcpt || self.recipients.len() == recipients)
            .or(goodbye.map(|(_, reply)| (reply, Step::Rcpt)))
    }

    fn refused(&self) -> Vec<Refused> {
        let no = self.recipients.iter().filter(|(_, reply)| !reply.is_done());
        no.map(|(address, reply)| Refused {
            address: address.to_string(),
            reply: reply.text(),
            transient: refusal::passes(reply, Step::Rcpt),
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
        dialogue.write(group.as_bytes()).map_err(|lost| Broken { lost, step: Step::Mail })?;
        group.clear();
        if transaction.mail.is_none() {
            let reply = dialogue.reply().map_err(|lost| Broken { lost, step: Step::Mail })?;
            let goodbye = matches!(reply.code(), 221 | 421);
            transaction.mail = Some(reply);
            if goodbye {
                break;
            }
        }
        for address in addresses {
            let reply = dialogue.reply().map_err(|lost| Broken { lost, step: Step::Rcpt })?;
            transaction.recipients.push((address, reply));
        }
        if last {
            transaction.data = Some(dialogue.reply().map_err(|lost| Broken { lost, step: Step::Data })?);
        }
        if transaction.mail.as_ref().is_some_and(|reply| !reply.is_done()) {
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
    let reply = command(mail.to_string(), Step::Mail)?;
    let go_on = reply.is_done();
    transaction.mail = Some(reply);
    if !go_on {
        return Ok(());
    }
    for address in to {
        let reply = command(Rcpt::new(address.clone(), Vec::new()).to_string(), Step::Rcpt)?;
        transaction.recipients.push((address, reply));
    }
    if transaction.refusal().is_none() {
        transaction.data = Some(command(Data.to_string(), Step::Data)?);
    }
    Ok(())
}

fn content(
    dialogue: &mut Dialogue<Stream>,
    host: &str,
    raw: &[u8],
    refused: Vec<Refused>,
    deadline: Deadline,
    offer: Offer<'_>,
) -> (Outcome, After) {
    if dialogue.transcript.is_on() {
        dialogue.show("C:", &format!("{{{} bytes}}", raw.len()));
    }
    let end = match write_content(dialogue, raw) {
        Ok(end) => match offer() {
            Ok(()) => dialogue.write(&end),
            Err(error) => return (Outcome::Retry { error, after: None }, After::Broken),
        },
        Err(lost) => Err(lost),
    };
    if let Err(lost) = end {
        // A server that will not have it may say so and hang up before it has read the rest.
        let said = dialogue.last_reply(deadline.at_most(limits::SMTP_GOODBYE_TIMEOUT));
        let outcome = match said.ok().filter(|reply| reply.code() >= 400) {
            Some(reply) => refusal::outcome(&reply, Step::Content, host, &[]),
            None => Outcome::Retry { error: lost.into_error(host, Step::Content.name()), after: None },
        };
        return (outcome, After::Broken);
    }
    match dialogue.patient_reply(deadline.at_most(limits::SMTP_FINAL_TIMEOUT)) {
        Ok(reply) if reply.is_done() => {
            (Outcome::Sent { reply: reply.text(), server: host.to_owned(), refused }, After::Ready)
        }
        Ok(reply) if reply.code() >= 400 => {
            let after = if reply.code() == 421 { After::Broken } else { After::Ready };
            (refusal::outcome(&reply, Step::End, host, &[]), after)
        }
        Ok(reply) => (Outcome::Unknown(unknown(host).provider_code(reply.text())), After::Broken),
        Err(lost) => {
            let error = unknown(host).source_error(lost.into_error(host, Step::End.name()));
            (Outcome::Unknown(error), After::Broken)
        }
    }
}

/// Content with dots stuffed (RFC 5321 4.5.2), in few large writes. Returned and not written: the end of it with the final
/// dot, because a dot in a packet of its own would wait for a delayed ACK.
fn write_content(dialogue: &mut Dialogue<Stream>, raw: &[u8]) -> Result<Vec<u8>, NoReply> {
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
    // Together in one piece, so that nothing but the whole dot can end the message.
    if chunk.len() + FINAL_DOT.len() > limits::SMTP_WRITE_CHUNK {
        dialogue.write(&chunk)?;
        chunk.clear();
    }
    chunk.extend_from_slice(FINAL_DOT);
    Ok(chunk)
}

const FINAL_DOT: &[u8] = b".\r\n";

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
    if untouched || dialogue.command(&Rset.to_string()).is_ok_and(|reply| reply.is_done()) {
        return After::Ready;
    }
    After::Broken
}

fn unasked(host: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("{host} said more than it was asked for."))
        .remedy("It is tried again over a new connection; if it keeps happening, report it to the server's operator.")
}

fn unknown(host: &str) -> Error {
    Error::new(Kind::Transient, format!("{host} got the whole message but did not say whether it took it."))
        .remedy("Look for its Message-ID in the sent folder before it is sent again.")
}
