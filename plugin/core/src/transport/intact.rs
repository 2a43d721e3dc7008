//! What a server gave out as a message is looked at before it may become the only copy: after `move` or
//! `delete` nothing else is left. An empty body, a page to sign in at or an error in JSON is not a
//! message, whatever status it came with.

use std::io::{Read, Seek};

use super::{Raw, spool};
use crate::{
    error::{Error, Kind, Result},
    limits, seam,
};

/// Fields that a message which was delivered has at least one of: who, when, what or which way (RFC 5322
/// 3.6), or how to read it (RFC 2045). `Error: not found` is a line of text and not one of them.
const FIELDS: [&str; 24] = [
    "from",
    "date",
    "to",
    "cc",
    "bcc",
    "subject",
    "sender",
    "reply-to",
    "message-id",
    "in-reply-to",
    "references",
    "received",
    "return-path",
    "delivered-to",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "resent-from",
    "dkim-signature",
    "authentication-results",
    "x-ms-exchange-organization-authas",
    "x-mailer",
    "x-sender",
    "x-received",
];

/// The same message, when it begins with a header.
///
/// # Errors
/// `ServerMisbehaved` for what is not a message; `Transient` when its temporary file cannot be read.
pub fn checked(raw: Raw, server: &str) -> Result<Raw> {
    let refused = |what: &str| {
        Err(Error::new(Kind::ServerMisbehaved, format!("{server} gave out {what} instead of the message."))
            .remedy("The message stays in the mailbox and is read again; after three tries it goes to quarantine."))
    };
    match &raw {
        Raw::Memory(bytes) if bytes.is_empty() => refused("nothing"),
        Raw::Memory(bytes) if !has_header(bytes) => refused("something without a header"),
        Raw::Spool { file, .. } => {
            let mut head = Vec::new();
            let mut file: &std::fs::File = file;
            let read = seam::step("spool.read")
                .and_then(|()| file.take(limits::HEADER_LOOK as u64).read_to_end(&mut head))
                .and_then(|_| file.rewind());
            read.map_err(spool::unreadable)?;
            if has_header(&head) { Ok(raw) } else { refused("something without a header") }
        }
        Raw::Memory(_) => Ok(raw),
    }
}

/// What a server writes itself, in place of a message that it does not give out. IMAP has no other way to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Substitute {
    /// It cannot give the message out.
    Refusal,
    /// It cannot open the message, or another client expunged it.
    Absence,
}

/// `listed`: the size that the server told before; `limits::READ_ALONE` or less than it gave: nothing follows from it.
///
/// The known apologies have no field of a message that was delivered, and a fixed author. Exchange writes "Microsoft Exchange
/// Server" (with a year in some versions) without an address, and "Retrieval using the IMAP4 protocol failed"; Courier-IMAP
/// writes 129 bytes, also for a message that another client expunged.
pub fn substitute(bytes: &[u8], listed: u64) -> Option<Substitute> {
    let head = &bytes[..bytes.len().min(limits::SUBSTITUTE_MAX)];
    let (mut from, mut subject) = (None, None);
    for (name, value) in fields(head) {
        if DELIVERED.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())) {
            return None;
        }
        let place = match name {
            name if name.eq_ignore_ascii_case(b"from") => &mut from,
            name if name.eq_ignore_ascii_case(b"subject") => &mut subject,
            _ => continue,
        };
        place.get_or_insert_with(|| String::from_utf8_lossy(value.trim_ascii()).to_ascii_lowercase());
    }
    let (from, subject) = (from.unwrap_or_default(), subject.unwrap_or_default());
    let is_exchange = from.trim_matches('"').starts_with("microsoft exchange server") && !from.contains('@');
    let is_courier = subject == "message unavailable" && from.contains("system administrator");
    // Far less than was listed, and no sign of a delivery: whatever it says, it is not the message.
    let is_far_less =
        listed != limits::READ_ALONE && listed > limits::SUBSTITUTE_MAX as u64 && (bytes.len() as u64) < listed / 4;
    if is_courier { Some(Substitute::Absence) } else { (is_exchange || is_far_less).then_some(Substitute::Refusal) }
}

/// Fields of which a message that was delivered has one.
const DELIVERED: [&str; 3] = ["received", "message-id", "date"];

/// Is one of the fields that every message has among the first lines? Folded lines and lines that are no
/// field do not count against it: servers keep what senders wrote.
fn has_header(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    // A document in another language may hold such a line further down.
    if matches!(bytes.first(), Some(b'{' | b'[' | b'<')) {
        return false;
    }
    let head = &bytes[..bytes.len().min(limits::HEADER_LOOK)];
    fields(head).any(|(name, _)| FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())))
}

/// Name and first line of each field before the first empty line.
fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            // White space before the colon is obsolete and still seen (RFC 5322 4.5).
            Some((line[..colon].trim_ascii_end(), &line[colon + 1..]))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::spool::Spool;

    #[test]
    fn only_what_begins_with_a_header_is_a_message() {
        for good in [
            "From: a@b\r\n\r\nx",
            "SUBJECT : x\n",
            "X-Odd: 1\r\n folded\r\nsomething odd\r\nReceived: by x\r\n\r\n",
            ">From somebody\nDate: x\n\n",
            "\u{FEFF}Message-ID: <a>\r\n\r\n",
        ] {
            assert!(checked(Raw::Memory(good.into()), "S").is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "\r\n\r\n",
            "{}",
            "{\"error\":{\"code\":\"x\"}}",
            "{\n  \"from\": 1\n}",
            "<html><head>\n<title>Sign in</title>\nFrom: x",
            "\u{1f}\u{8b}\u{8}binary",
            "Error: the message could not be read",
            "\r\nFrom: in the body\r\n",
        ] {
            assert!(checked(Raw::Memory(bad.into()), "S").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_message_in_a_file_is_looked_at_and_read_from_its_beginning() {
        let Ok(Raw::Spool { mut file, .. }) = checked(Spool::of(b"From: a\r\n\r\nx").unwrap(), "S") else {
            panic!("refused")
        };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "From: a\r\n\r\nx");
        assert!(checked(Spool::of(b"{\"value\":1}").unwrap(), "S").is_err());
    }
}
