use mail_parser::MimeHeaders;
use serde_json::{Value, json};

use super::*;
use crate::message::Signer;

const NOW: UnixSeconds = 1_764_000_000;
const ID: &str = "<0123@desk.test>";

fn sending() -> Sending {
    Sending {
        smtp_user: "desk@desk.test".into(),
        from: "desk@desk.test".parse().unwrap(),
        sender_name: Some("Help Desk".into()),
        reply_to: Some("answers@desk.test".parse().unwrap()),
        automatic_mails_per_day: 2,
        messages_per_minute: None,
        app_messages_per_minute: None,
        sent_folder_server: None,
    }
}

fn made(request: Value) -> Composed {
    compose(&serde_json::from_value(request).unwrap(), &sending(), NOW, ID).unwrap()
}

fn refused(request: Value) -> Error {
    compose(&serde_json::from_value(request).unwrap(), &sending(), NOW, ID).unwrap_err()
}

fn text_of(composed: &Composed) -> &str {
    std::str::from_utf8(&composed.raw).unwrap()
}

/// The names of the header fields that a receiver will see.
fn names(composed: &Composed) -> Vec<String> {
    wire::fields(&composed.raw).0.iter().map(|field| field.name.to_ascii_lowercase()).collect()
}

#[test]
fn a_whole_message_arrives_as_it_was_meant() {
    let composed = made(json!({
        "to": ["J\u{f6}rg <joerg@a.test>", {"name": "Doe, Jane", "address": "jane@b.test"}],
        "cc": ["c@c.test"], "bcc": ["secret@d.test"],
        "subject": "Re: Gr\u{fc}\u{df}e \u{2603} und ein sehr langes Thema, das auf mehr als eine Zeile geht",
        "text": "Zeile 1\nZeile 2 \u{e4}", "html": "<p>\u{e4} <img src=\"cid:logo\"></p>",
        "attachments": [
            {"name": "logo.png", "type": "image/png", "content_base64": "iVBORw==", "content_id": "logo", "inline": true},
            {"name": "r\u{e9}sum\u{e9}.txt", "type": "text/plain", "content_base64": "YQpiDQpj"},
            {"name": "mail.eml", "type": "message/rfc822", "content_base64": STANDARD.encode("Subject: x\n\ny\n")},
        ],
        "in_reply_to": "<q@a.test>", "references": ["<p@a.test> <o@a.test>"],
        "auto_submitted": true, "headers": [{"name": "X-Request", "value": "17"}],
    }));
    let raw = text_of(&composed);
    assert!(raw.is_ascii());
    assert!(!raw.contains("secret@d.test"));
    assert_eq!(composed.envelope.to.len(), 4);
    assert_eq!(composed.message_id, ID);

    let parsed = MessageParser::default().parse(&composed.raw).unwrap();
    assert_eq!(parsed.message_id(), Some("0123@desk.test"));
    assert_eq!(parsed.date().unwrap().to_timestamp(), NOW);
    assert_eq!(
        parsed.subject(),
        Some("Re: Gr\u{fc}\u{df}e \u{2603} und ein sehr langes Thema, das auf mehr als eine Zeile geht")
    );
    assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some("Help Desk"));
    assert_eq!(parsed.to().unwrap().first().unwrap().name(), Some("J\u{f6}rg"));
    assert_eq!(parsed.to().unwrap().last().unwrap().name(), Some("Doe, Jane"));
    assert_eq!(parsed.reply_to().unwrap().first().unwrap().address(), Some("answers@desk.test"));
    assert_eq!(parsed.in_reply_to().as_text(), Some("q@a.test"));
    assert_eq!(
        parsed.references().as_text_list().unwrap().iter().map(|id| id.as_ref()).collect::<Vec<_>>(),
        ["p@a.test", "o@a.test", "q@a.test"]
    );
    assert!(raw.contains("Auto-Submitted: auto-replied\r\n") && raw.contains("X-Request: 17\r\n"));
    assert_eq!(parsed.body_text(0).unwrap().trim_end(), "Zeile 1\r\nZeile 2 \u{e4}");
    assert!(parsed.body_html(0).unwrap().contains("cid:logo"));
    let files: Vec<_> = parsed.attachments().map(|part| part.attachment_name().map(str::to_owned)).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.contains(&Some("r\u{e9}sum\u{e9}.txt".into())));
    let text = parsed.attachments().find(|part| part.attachment_name() == Some("r\u{e9}sum\u{e9}.txt")).unwrap();
    assert_eq!(text.contents(), b"a\nb\r\nc");
}

#[test]
fn nothing_injects_a_header() {
    let plain = names(&made(json!({"to": ["a@a.test"], "subject": "x", "in_reply_to": "<i@x>", "text": "t"})));
    for end in ["\r\n", "\n", "\r", "\0", "\u{760d}\u{760a}", "\u{2028}", "\u{85}", "\r\n\r\n", "\r\n ", "%0d%0a"] {
        let evil = format!("x{end}Bcc: evil@x.test{end}{end}<script>");
        let mut sending = sending();
        sending.sender_name = Some(evil.clone());
        let request = json!({
            "to": [{"name": evil, "address": "a@a.test"}], "subject": evil, "text": "t",
            "reply_to": {"name": evil, "address": "r@r.test"},
            "in_reply_to": "<i@x>", "references": [evil, format!("<a{end}Bcc:evil@x.test>")],
            "headers": [{"name": "X-A", "value": evil}],
        });
        let composed = compose(&serde_json::from_value(request).unwrap(), &sending, NOW, ID).unwrap();
        let mut found = names(&composed);
        found.retain(|name| name != "x-a");
        assert_eq!(found, plain, "{end:?}");
        assert_eq!(composed.envelope.to.len(), 1);

        let composed = made(json!({"to": ["a@a.test"], "in_reply_to": format!("<i@x>{end}Bcc: evil@x.test")}));
        assert!(!names(&composed).contains(&"bcc".into()));

        let composed = made(json!({"to": ["a@a.test"], "attachments": [
            {"name": evil, "type": format!("text/plain{end}Bcc: evil@x.test"), "content_base64": "YQ=="}]}));
        for line in text_of(&composed).split("\r\n") {
            assert!(!line.to_ascii_lowercase().starts_with("bcc"), "{end:?}: {line}");
        }
    }
    for request in [
        json!({"to": ["a@a.test\r\nBcc: evil@x.test"]}),
        json!({"to": [{"address": "a@a.test>\r\nRCPT TO:<evil@x.test"}]}),
        json!({"to": ["a@a.test"], "reply_to": "r@r.test\nBcc: evil@x.test"}),
        json!({"to": ["a@a.test"], "headers": [{"name": "X-A\r\nBcc", "value": "e"}]}),
        json!({"to": ["a@a.test"], "headers": [{"name": "Bcc", "value": "e"}]}),
        json!({"to": ["a@a.test"], "headers": [{"name": "X-A: b\nBcc", "value": "e"}]}),
        json!({"to": ["a@a.test"], "attachments": [
            {"name": "a", "content_base64": "YQ==", "content_id": "x>\r\nBcc: e", "inline": true}]}),
        json!({"to": ["a@a.test"], "attachments": [{"name": "a", "content_base64": "??"}]}),
        json!({"bcc": []}),
    ] {
        assert_eq!(refused(request.clone()).kind(), Kind::Misuse, "{request}");
    }
}

#[test]
fn no_line_is_too_long_whatever_comes_in() {
    let long = "x".repeat(5_000);
    let composed = made(json!({
        "to": (0..300).map(|i| json!({"name": long, "address": format!("someone.{i}@a.test")})).collect::<Vec<_>>(),
        "subject": long, "text": long, "html": format!("<p>{long}</p>"),
        "references": (0..300).map(|i| format!("<{}.{i}@a.test>", "r".repeat(800))).collect::<Vec<_>>(),
        "headers": [{"name": "X-Long", "value": long}],
        "attachments": [{"name": long, "content_base64": STANDARD.encode(&long)}],
    }));
    let parsed = MessageParser::default().parse(&composed.raw).unwrap();
    assert_eq!(parsed.subject(), Some(long.as_str()));
    assert_eq!(parsed.references().as_text_list().unwrap().len(), limits::REFERENCES_MAX);
    assert_eq!(composed.envelope.to.len(), 300);
}

/// A receiver takes `List-Unsubscribe` as it stands: encoded words in it are no URL (RFC 2047 section 5).
#[test]
fn headers_of_plain_ascii_are_folded_and_not_encoded() {
    let url = format!("<https://a.test/{}>", "u".repeat(800));
    let value = format!("{url}, <mailto:leave@a.test?subject=?utf-8?Q?x?=> {}", "and more ".repeat(20).trim_end());
    for name in ["List-Unsubscribe", "X-Link"] {
        let value = if name == "X-Link" { value.replace("=?", "==") } else { value.clone() };
        let composed = made(json!({"to": ["a@a.test"], "headers": [{"name": name, "value": value}]}));
        let text = text_of(&composed);
        let from = text.find(&format!("{name}: ")).unwrap() + name.len() + 2;
        let field =
            text[from..].split("\r\n").enumerate().take_while(|(line, text)| *line == 0 || text.starts_with(' '));
        let lines: Vec<&str> = field.map(|(_, line)| line).collect();
        assert_eq!(lines.concat(), value);
        assert!(lines[1..].iter().all(|line| line.len() <= 76), "{lines:?}");
    }
    for value in ["<https://a.test/\u{e9}>".to_owned(), format!("<https://a.test/{}>", "u".repeat(900))] {
        let header = json!([{"name": "List-Unsubscribe", "value": value}]);
        assert_eq!(refused(json!({"to": ["a@a.test"], "headers": header})).kind(), Kind::Misuse);
    }
}

#[test]
fn a_text_cannot_end_the_message_early() {
    for dots in ["\n.\n", "\r.\r", "\r\n.\r\n", "\n.\r\n", "\r\n.\n"] {
        let composed = made(json!({"to": ["a@a.test"], "text": format!("a{dots}MAIL FROM:<x@x.test>")}));
        assert!(
            text_of(&composed).contains("\r\n.\r\nMAIL"),
            "kept as a line of its own; the transport stuffs the dot"
        );
        let raw = format!("To: a@a.test\n\na{dots}MAIL FROM:<x@x.test>");
        let accepted = accept_raw(raw.as_bytes(), None, &sending(), NOW, ID).unwrap();
        assert!(text_of(&accepted).contains("\r\n.\r\nMAIL"));
    }
}

#[test]
fn a_subject_that_looks_encoded_is_shown_as_it_was_written() {
    let composed = made(json!({"to": ["a@a.test"], "subject": "=?utf-8?B?Qm9vDQpCY2M6IGU=?="}));
    let parsed = MessageParser::default().parse(&composed.raw).unwrap();
    assert_eq!(parsed.subject(), Some("=?utf-8?B?Qm9vDQpCY2M6IGU=?="));
}

#[test]
fn raw_mail_loses_only_its_bcc() {
    let raw = "To: Group: \"A, B\" <a@a.test>, b@b.test;\nCc: c@c.test (comment)\nBcc: secret@d.test,\n e@e.test\nSubject: x\n\nbody\n";
    let accepted = accept_raw(raw.as_bytes(), None, &sending(), NOW, ID).unwrap();
    let to: Vec<&str> = accepted.envelope.to.iter().map(|address| address.as_ref()).collect();
    assert_eq!(to, ["a@a.test", "b@b.test", "c@c.test", "secret@d.test", "e@e.test"]);
    assert_eq!(names(&accepted), ["from", "date", "message-id", "to", "cc", "subject"]);
    assert!(text_of(&accepted).ends_with("Subject: x\r\n\r\nbody\r\n"));

    let raw = "From: a@a.test\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <own@a.test>\r\n\r\n";
    let request = EnvelopeRequest { from: Some("".into()), to: vec!["z@z.test".into()] };
    let accepted = accept_raw(raw.as_bytes(), Some(&request), &sending(), NOW, ID).unwrap();
    assert_eq!(accepted.raw, raw.as_bytes());
    assert_eq!(accepted.message_id, "<own@a.test>");
    assert!(accepted.envelope.from.is_none());

    for bad in ["no header\n\nx", "To: a@a.test\n\n\0", "Subject: nobody\n\nx"] {
        assert_eq!(accept_raw(bad.as_bytes(), None, &sending(), NOW, ID).unwrap_err().kind(), Kind::Misuse, "{bad:?}");
    }
}

#[test]
fn a_sender_in_an_international_domain_needs_no_smtputf8() {
    let sending = Sending { from: "desk@b\u{fc}cher.test".parse().unwrap(), ..sending() };
    let signer = Signer::new(&Signer::fresh_key().unwrap()).unwrap();
    let id = signer.message_id(&sending.from, None).unwrap();
    assert_eq!(well_formed_id(&id).as_deref(), Some(&*id));
    let request = Compose { to: vec![Person::Text("a@a.test".into())], ..Compose::default() };
    let composed = compose(&request, &sending, NOW, &id).unwrap();
    assert!(composed.raw.is_ascii() && composed.message_id.ends_with("@xn--bcher-kva.test>"));
    assert_eq!(composed.envelope.from.unwrap().to_string(), "desk@xn--bcher-kva.test");
}

#[test]
fn unknown_fields_of_a_request_are_named() {
    let error = serde_json::from_value::<Compose>(json!({"bbc": ["a@a.test"]})).unwrap_err();
    assert!(error.to_string().contains("bbc"));
}

/// reliability.md 15, RFC 5322 section 3.6.
#[test]
fn reliability_15_a_field_that_may_stand_once_is_refused_when_it_stands_twice() {
    for name in ["From", "Sender", "Subject", "Date", "Message-ID"] {
        let raw = format!("{name}: <a@b.test>\nTo: b@b.test\n{}: <c@b.test>\n\nx\n", name.to_uppercase());
        let error = accept_raw(raw.as_bytes(), None, &sending(), NOW, ID).unwrap_err();
        assert!(error.kind() == Kind::Misuse && error.message().contains(name), "{error:?}");
    }
    let raw = b"To: b@b.test\nSubject: s\rBcc: carol@b.test\n\nx\n";
    let accepted = accept_raw(raw, None, &sending(), NOW, ID).unwrap();
    assert_eq!(accepted.envelope.to.len(), 1, "{:?}", accepted.envelope);
}

/// content.md 17: what the facts give out can be sent back.
#[test]
fn content_17_own_facts_can_be_sent_back() {
    let composed = made(json!({
        "to": ["foo..bar@docomo.test", "J\u{f6}rg <foo.@docomo.test>"], "subject": "Re: x",
        "html": "<img src=\"cid:image 1.png\">",
        "attachments": [
            {"name": "i.png", "type": "image/png", "content_base64": "aQ==", "content_id": "image 1.png", "inline": true},
            {"name": "=?utf-8?Q?x?=.pdf", "type": "application/pdf", "content_base64": "aQ=="},
            {"name": "invite.ics", "type": "text/calendar; method=REQUEST; charset=\"utf-8\"", "content_base64": "aQ=="},
            {"name": "evil", "type": "text/plain; boundary=x; name=\"a\\\"b\"; x=\r\nBcc: c@d.test", "content_base64": "aQ=="},
        ],
    }));
    let raw = text_of(&composed);
    assert!(raw.contains("Content-ID: <image 1.png>\r\n"), "{raw}");
    assert!(raw.contains("filename*=utf-8''%3D%3Futf-8%3FQ%3Fx%3F%3D.pdf"), "{raw}");
    assert!(!raw.contains("boundary=x") && !raw.contains("\nBcc:"), "{raw}");
    let unfolded = raw.replace("\r\n ", " ").replace("\r\n\t", " ");
    assert!(unfolded.contains("type=\"text/html\"") || unfolded.contains("type=text/html"), "{raw}");
    let parsed = mail_parser::MessageParser::default().parse(raw.as_bytes()).unwrap();
    let calendar = parsed.attachments().find(|part| part.attachment_name() == Some("invite.ics")).unwrap();
    let kind = calendar.content_type().unwrap();
    assert_eq!((kind.attribute("method"), kind.attribute("charset")), (Some("REQUEST"), Some("utf-8")));
    assert!(
        refused(json!({"to": ["a@b.test"], "attachments":
        [{"name": "i", "content_base64": "aQ==", "content_id": "", "inline": true}]}))
        .message()
        .contains("content_id")
    );
}

/// content.md 17, RFC 2047 section 2.
#[test]
fn content_17_lines_with_encoded_words_stay_within_76_columns() {
    let long = "\u{e4}\u{2603}".repeat(60);
    let name = format!("X-{}", "Long".repeat(18));
    let composed = made(json!({
        "to": [{"name": long, "address": "a@b.test"}, {"name": long, "address": "c@b.test"}],
        "reply_to": {"name": long, "address": "r@b.test"},
        "subject": long, "text": "x", "headers": [{"name": name, "value": long}, {"name": "X-A", "value": long}],
    }));
    let raw = text_of(&composed);
    let header = raw.split("\r\n\r\n").next().unwrap();
    let lines: Vec<&str> = header.split("\r\n").filter(|line| line.contains("=?")).collect();
    assert!(lines.len() > 20);
    assert!(lines.iter().all(|line| line.len() <= 76), "{header}");
    let parsed = mail_parser::MessageParser::default().parse(raw.as_bytes()).unwrap();
    assert_eq!(parsed.subject(), Some(long.as_str()));
    assert_eq!(parsed.to().unwrap().first().unwrap().name(), Some(long.as_str()));
}
