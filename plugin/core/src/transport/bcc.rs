//! Exchange, over EWS and Graph, knows no envelope: sender and recipients are those of the header.

use lettre::Address;
use mail_parser::{Address as Parsed, MessageParser};

use super::Envelope;
use crate::{
    error::{Error, Kind, Result},
    message::wire,
};

/// `raw`, with a Bcc field before it where the envelope names more recipients than To, Cc and Bcc; the server takes it out.
///
/// # Errors
/// `Unsupported` for what a header cannot say: no sender, another sender than From or Sender, and a recipient in the header
/// who is not to get it.
pub fn with_bcc(envelope: &Envelope, raw: &[u8], server: &str) -> Result<Vec<u8>> {
    let cannot = |what: String| {
        Error::new(Kind::Unsupported, format!("{server} cannot send {what}."))
            .remedy("Let the header say the same as the envelope, or choose SMTP for outgoing mail.")
    };
    let Some(from) = &envelope.from else { return Err(cannot("a message without a sender".into())) };
    let (_, end) = wire::fields(raw);
    let header = MessageParser::default().parse_headers(&raw[..end]);
    let header = header.as_ref();
    let named = |fields: &[Option<&Parsed<'_>>]| -> Vec<String> {
        let groups = fields.iter().flatten().flat_map(|field| field.iter());
        groups.filter_map(|one| one.address.as_deref()).map(str::to_lowercase).collect()
    };
    let senders = named(&[header.and_then(|h| h.from()), header.and_then(|h| h.sender())]);
    if !senders.is_empty() && !senders.contains(&lower(from)) {
        return Err(cannot(format!("as {from} what the header says is from {}", senders.join(", "))));
    }
    let named = named(&[header.and_then(|h| h.to()), header.and_then(|h| h.cc()), header.and_then(|h| h.bcc())]);
    let wanted: Vec<String> = envelope.to.iter().map(lower).collect();
    if let Some(other) = named.iter().find(|address| !wanted.contains(address)) {
        return Err(cannot(format!("past {other}, who stands in the header and not in the envelope")));
    }
    let hidden: Vec<&str> =
        envelope.to.iter().filter(|to| !named.contains(&lower(to))).map(AsRef::<str>::as_ref).collect();
    if hidden.is_empty() {
        return Ok(raw.to_vec());
    }
    let mut out = format!("Bcc: {}\r\n", hidden.join(",\r\n ")).into_bytes();
    out.extend_from_slice(raw);
    Ok(out)
}

fn lower(address: &Address) -> String {
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
        let raw = with_bcc(&envelope, format!("{header}\r\nTo: x@not.header\r\n").as_bytes(), "Exchange")?;
        Ok(String::from_utf8(raw).unwrap())
    }

    #[test]
    fn who_stands_only_in_the_envelope_becomes_bcc() {
        let header = "From: Desk <D@a.test>\r\nTo: \"x, y\" <B@b.test>,\r\n c@c.test\r\n";
        let done = fit(Some("d@a.test"), &["b@b.test", "c@c.test", "e@e.test", "f@f.test"], header).unwrap();
        assert!(done.starts_with("Bcc: e@e.test,\r\n f@f.test\r\nFrom:"), "{done}");
        let same = fit(Some("d@a.test"), &["b@b.test", "c@c.test"], header).unwrap();
        assert!(same.starts_with("From:"));
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
        ] {
            assert_eq!(fit(from, &to, header).unwrap_err().kind(), Kind::Unsupported, "{header}");
        }
        let as_sender = "From: other@a.test\r\nSender: d@a.test\r\nTo: b@b.test\r\n";
        assert!(fit(Some("d@a.test"), &["b@b.test"], as_sender).is_ok());
    }
}
