//! Exchange, over EWS and Graph, knows no envelope: sender and recipients are those of the header.

use std::borrow::Cow;

use lettre::Address;
use mail_parser::{HeaderName, Message, MessageParser};

use super::Envelope;
use crate::{
    error::{Error, Kind, Result},
    message::{address::parse_address, wire},
};

/// `raw`, with a Bcc field before it where the envelope names more recipients than To, Cc and Bcc; the server takes it out.
///
/// # Errors
/// `Unsupported` for what a header cannot say: no sender, another sender than From or Sender, and a recipient in the header
/// who is not to get it. To take them out of it would change what everybody else reads.
pub fn with_bcc<'a>(envelope: &Envelope, raw: &'a [u8], server: &str) -> Result<Cow<'a, [u8]>> {
    let cannot = |what: String| {
        Error::new(Kind::Unsupported, format!("{server} cannot send {what}."))
            .remedy("Let the header say the same as the envelope, or choose SMTP for outgoing mail.")
    };
    let Some(from) = &envelope.from else { return Err(cannot("a message without a sender".into())) };
    let (_, end) = wire::fields(raw);
    let header = MessageParser::default().parse_headers(&raw[..end]);
    let senders = named(header.as_ref(), &[HeaderName::From, HeaderName::Sender]);
    if !senders.is_empty() && !senders.contains(&plain(from)) {
        return Err(cannot(format!("as {from} what the header says is from {}", senders.join(", "))));
    }
    let named = named(header.as_ref(), &[HeaderName::To, HeaderName::Cc, HeaderName::Bcc]);
    let wanted: Vec<String> = envelope.to.iter().map(plain).collect();
    if let Some(other) = named.iter().find(|address| !wanted.contains(address)) {
        return Err(cannot(format!("past {other}, who stands in the header and not in the envelope")));
    }
    let hidden: Vec<&str> =
        envelope.to.iter().filter(|to| !named.contains(&plain(to))).map(AsRef::<str>::as_ref).collect();
    if hidden.is_empty() {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = format!("Bcc: {}\r\n", hidden.join(",\r\n ")).into_bytes();
    out.extend_from_slice(raw);
    Ok(Cow::Owned(out))
}

/// All addresses of all fields with these names: a field that stands there twice counts twice at Exchange, too.
fn named(header: Option<&Message<'_>>, names: &[HeaderName<'_>]) -> Vec<String> {
    let fields = header.into_iter().flat_map(Message::headers).filter(|field| names.contains(&field.name));
    let addresses = fields.filter_map(|field| field.value.as_address()).flat_map(|list| list.iter());
    addresses
        .filter_map(|one| one.address.as_deref())
        .map(|text| parse_address(text).map_or_else(|_| text.to_lowercase(), |address| plain(&address)))
        .collect()
}

/// As two writings of one address are compared: without case, the domain in A-labels.
fn plain(address: &Address) -> String {
    AsRef::<str>::as_ref(address).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(from: Option<&str>, to: &[&str], header: &str) -> Result<String> {
        let envelope = Envelope {
            from: from.map(|from| from.parse().unwrap()),
            to: to.iter().map(|to| to.parse().unwrap()).collect(),
        };
        let raw = format!("{header}\r\nTo: x@not.header\r\n");
        let raw = with_bcc(&envelope, raw.as_bytes(), "Exchange")?.into_owned();
        Ok(String::from_utf8(raw).unwrap())
    }

    #[test]
    fn who_stands_only_in_the_envelope_becomes_bcc() {
        let header = "From: Desk <D@a.test>\r\nTo: \"x, y\" <B@b.test>,\r\n c@c.test\r\n";
        let done = fit(Some("d@a.test"), &["b@b.test", "c@c.test", "e@e.test", "f@f.test"], header).unwrap();
        assert!(done.starts_with("Bcc: e@e.test,\r\n f@f.test\r\nFrom:"), "{done}");
        let same = fit(Some("d@a.test"), &["b@b.test", "c@c.test"], header).unwrap();
        assert!(same.starts_with("From:"));
        let other_writing = "To: x <x@b\u{fc}cher.test>\r\n";
        assert!(fit(Some("d@a.test"), &["x@xn--bcher-kva.test"], other_writing).unwrap().starts_with("To:"));
        // The end of another address is none.
        assert!(
            fit(Some("d@a.test"), &["b@b.test", "xc@c.test"], "To: b@b.test\r\n").unwrap().contains("Bcc: xc@c.test")
        );
    }

    #[test]
    fn what_a_header_cannot_say_is_refused() {
        for (from, to, header) in [
            (None, vec!["b@b.test"], "To: b@b.test\r\n"),
            (Some("d@a.test"), vec!["b@b.test"], "From: other@a.test\r\nTo: b@b.test\r\n"),
            (Some("d@a.test"), vec!["b@b.test"], "From: d@a.test\r\nTo: b@b.test\r\nCc: c@c.test\r\n"),
            (Some("d@a.test"), vec!["b@b.test"], "From: d@a.test\r\nTo: c@c.test\r\nTo: b@b.test\r\n"),
            (Some("d@a.test"), vec!["b@b.test"], "From: d@a.test\r\nTo: Team: b@b.test, c@c.test;\r\n"),
        ] {
            assert_eq!(fit(from, &to, header).unwrap_err().kind(), Kind::Unsupported, "{header}");
        }
        let as_sender = "From: other@a.test\r\nSender: d@a.test\r\nTo: b@b.test\r\n";
        assert!(fit(Some("d@a.test"), &["b@b.test"], as_sender).is_ok());
    }
}
