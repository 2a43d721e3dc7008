//! Reports of mail systems (RFC 6522): delivery status (RFC 3464, RFC 6533) and receipts (RFC 8098), whatever multipart
//! they came in.

use super::{
    facts::{Report, ReportRecipient},
    field::{Name, Section},
    mime::Leaf,
    people,
};
use crate::limits;

/// What the parts of a message report. `declared`: the `report-type` when the message calls itself a multipart/report.
///
/// The second value is the Message-ID of an attached message, whether this is a report or not.
pub fn report_of(declared: Option<Option<String>>, leaves: &[Leaf<'_>]) -> (Option<Report>, Option<String>) {
    let mut report = Report::default();
    let (mut delivery, mut receipt) = (false, false);
    let mut returned = None;
    for leaf in leaves.iter().take(LEAVES_MAX) {
        // Only header sections are read; 64 KiB hold any of them.
        let bytes = leaf.encoding.decode(&leaf.body[..leaf.body.len().min(limits::MIME_FIELD_MAX)]);
        match leaf.media_type.as_str() {
            "message/delivery-status" | "message/global-delivery-status" => delivery |= status(&bytes, &mut report),
            "message/disposition-notification" | "message/global-disposition-notification" => {
                receipt |= status(&bytes, &mut report);
            }
            "message/rfc822"
            | "message/global"
            | "message/rfc822-headers"
            | "message/global-headers"
            | "text/rfc822-headers"
            | "text/rfc822"
                if returned.is_none() =>
            {
                returned = Section::read(&bytes, 0, |_| false).ids(Name::MessageId).into_iter().next();
            }
            _ => {}
        }
    }
    let is_report = declared.is_some() || delivery || receipt;
    if !is_report {
        return (None, returned);
    }
    report.original_message_id = report.original_message_id.or_else(|| returned.clone());
    let found = if receipt { "disposition-notification" } else { "delivery-status" };
    report.report_type = match declared {
        Some(Some(name)) if !name.is_empty() => Some(name.to_ascii_lowercase()),
        _ => (delivery || receipt).then(|| found.to_owned()),
    };
    // A report may speak of thousands; whom it speaks of as failed is what matters.
    report.recipients.sort_by_key(|one| one.action.as_deref() != Some("failed"));
    if let Some(first) = report.recipients.first().cloned() {
        report.final_recipient = Some(first.address);
        (report.action, report.status, report.diagnostic) = (first.action, first.status, first.diagnostic);
    }
    (Some(report), returned)
}

/// Parts that are looked at: reports have three.
const LEAVES_MAX: usize = 100;
/// Recipients of one report that are listed.
const RECIPIENTS_MAX: usize = limits::REPORT_RECIPIENTS_MAX;

/// RFC 3464 2.1: fields of the message, then one group of fields for each recipient. `false`: it names nobody.
fn status(bytes: &[u8], report: &mut Report) -> bool {
    let mut is_one = false;
    for group in groups(bytes) {
        let group = Section::read(group, 0, |_| false);
        is_one |= group.first(Name::ReportingMta).is_some();
        if let Some(id) = group.ids(Name::OriginalMessageId).into_iter().next() {
            report.original_message_id.get_or_insert(id);
        }
        let named = group.verbatim(Name::FinalRecipient).or_else(|| group.verbatim(Name::OriginalRecipient));
        let disposition = group.verbatim(Name::Disposition);
        let Some(recipient) = named.map(|value| recipient(&value)).filter(|address| !address.is_empty()) else {
            is_one |= disposition.is_some();
            continue;
        };
        is_one = true;
        if report.recipients.len() < RECIPIENTS_MAX {
            let action = group.verbatim(Name::Action).map(|action| word(&action));
            report.recipients.push(ReportRecipient {
                address: recipient,
                // RFC 8098 section 3.2.6: `manual-action/MDN-sent-manually; displayed`.
                action: action.or_else(|| disposition.map(|value| word(&after_type(&value)))),
                status: group.verbatim(Name::Status).map(|status| word(&status)).filter(|status| !status.is_empty()),
                diagnostic: group.verbatim(Name::DiagnosticCode).map(|code| after_type(&code)),
            });
        }
    }
    is_one
}

/// Between empty lines.
fn groups(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            let mut end = bytes.len();
            while at < bytes.len() {
                let next = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |len| at + len + 1);
                let is_empty = bytes[at..next].trim_ascii().is_empty();
                if is_empty {
                    end = at;
                }
                at = next;
                if is_empty {
                    break;
                }
            }
            if end > start {
                return Some(&bytes[start..end]);
            }
        }
        None
    })
}

/// `rfc822; <a@b>` as `a@b`; RFC 6533 section 3 writes `utf-8; j\x{F6}rg@b`.
fn recipient(value: &str) -> String {
    let is_utf8 = value.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("utf-8;"));
    let text = after_type(value);
    let text = if is_utf8 { unescaped(&text) } else { text };
    people::canonical(&text).unwrap_or_else(|| text.trim_matches(['<', '>', ' ']).to_owned())
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x{") {
        out.push_str(before);
        let end = after.find('}').filter(|end| *end <= 8);
        match end.and_then(|end| char::from_u32(u32::from_str_radix(&after[..end], 16).ok()?).map(|c| (c, end))) {
            Some((c, end)) => {
                out.push(c);
                rest = &after[end + 1..];
            }
            None => {
                out.push_str("\\x{");
                rest = after;
            }
        }
    }
    out + rest
}

/// `rfc822; a@b` and `smtp; 550 …` without the type in front (RFC 3464 section 2.1.2).
fn after_type(value: &str) -> String {
    value.split_once(';').map_or(value, |(_, text)| text).trim().to_owned()
}

/// The first word, lower-case, without a comment.
fn word(value: &str) -> String {
    value.split([' ', '\t', '(', ';', ',', '/']).find(|word| !word.is_empty()).unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use crate::message::parse;

    fn bounce(kind: &str, status: &str, rest: &str) -> String {
        format!(
            "From: MAILER-DAEMON@x.test\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
             --b\n\nfailed\n--b\nContent-Type: {kind}\n\n{status}\n{rest}--b--\n"
        )
    }

    fn report(raw: &str) -> crate::message::facts::Report {
        parse(raw.as_bytes()).report.unwrap()
    }

    #[test]
    fn fault_09_every_recipient_of_a_report_is_told_and_the_failed_ones_first() {
        let status = "Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; ok@y.test\nAction: delivered\nStatus: 2.0.0\n\n\
            Final-Recipient: rfc822; <gone@y.test>\nAction: failed (x)\nStatus: 5.1.1 (bad)\nDiagnostic-Code: smtp; 550 no\n\n\
            Original-Recipient: rfc822; late@y.test\nAction: delayed\nStatus: 4.0.0\n";
        for kind in ["message/delivery-status", "message/global-delivery-status"] {
            let report = report(&bounce(kind, status, ""));
            assert_eq!(report.final_recipient.as_deref(), Some("gone@y.test"));
            assert_eq!((report.action.as_deref(), report.status.as_deref()), (Some("failed"), Some("5.1.1")));
            let all: Vec<_> =
                report.recipients.iter().map(|one| (one.address.as_str(), one.action.as_deref())).collect();
            assert_eq!(
                all,
                [("gone@y.test", Some("failed")), ("ok@y.test", Some("delivered")), ("late@y.test", Some("delayed"))]
            );
        }
    }

    #[test]
    fn fault_09_the_returned_message_is_found_in_each_shape() {
        let status =
            "Reporting-MTA: dns; x\n\nFinal-Recipient: utf-8; j\\x{F6}rg@y.test\nAction: failed\nStatus: 5.1.1\n";
        for kind in ["message/rfc822", "message/global", "message/global-headers", "text/rfc822-headers"] {
            let rest = format!("--b\nContent-Type: {kind}\n\nMessage-ID:\n <orig@example.test>\nSubject: x\n\n");
            let report = report(&bounce("message/global-delivery-status", status, &rest));
            assert_eq!(report.original_message_id.as_deref(), Some("orig@example.test"), "{kind}");
            assert_eq!(report.final_recipient.as_deref(), Some("jörg@y.test"));
        }
        let gmail = "Reporting-MTA: dns; googlemail.com\nX-Original-Message-ID: <orig@example.test>\n\n\
            Final-Recipient: rfc822; a@y.test\nAction: failed\n";
        let told = report(&bounce("message/delivery-status", gmail, "")).original_message_id;
        assert_eq!(told.as_deref(), Some("orig@example.test"));
        let receipt = "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n--b\n\nread\n\
            --b\nContent-Type: message/disposition-notification\n\nReporting-UA: x\nFinal-Recipient: rfc822;a@y.test\n\
            Original-Message-ID: <orig@example.test>\nDisposition: manual-action/MDN-sent-manually; displayed\n\n--b--\n";
        let receipt = report(receipt);
        assert_eq!(receipt.original_message_id.as_deref(), Some("orig@example.test"));
        assert_eq!(
            (receipt.report_type.as_deref(), receipt.action.as_deref()),
            (Some("disposition-notification"), Some("displayed"))
        );
    }

    #[test]
    fn fault_08_a_status_in_any_multipart_is_a_report_and_one_in_an_attached_message_is_not() {
        let inner = bounce(
            "message/delivery-status",
            "Final-Recipient: rfc822; gone@y.test\nAction: failed\nStatus: 5.1.1\n",
            "",
        );
        let (_, body) = inner.split_once('\n').unwrap();
        let mixed = format!(
            "From: postmaster@x.test\nContent-Type: multipart/mixed; boundary=o\n\n--o\n{body}\n--o\n\ndisclaimer\n--o--\n"
        );
        let told = report(&mixed);
        assert_eq!((told.report_type.as_deref(), told.status.as_deref()), (Some("delivery-status"), Some("5.1.1")));
        let forwarded = format!(
            "From: a@b.test\nContent-Type: multipart/mixed; boundary=o\n\n--o\n\nlook\n--o\nContent-Type: message/rfc822\n\n{inner}\n--o--\n"
        );
        assert_eq!(parse(forwarded.as_bytes()).report, None);
    }
}
