//! What arrives is what was meant, for a person and byte for byte.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use oauth_mail_core::{hooks::Handle, message};
use oauth_mail_tests::{Options, Servers, fixture::Fixture, process};
use serde_json::{Value, json};

use super::{inbox, send, send_raw, servers, through};

/// Fields of a message as Python's email package reads them.
const PYTHON: &str = r"
import base64, json, sys
from email import message_from_bytes, policy
m = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)
people = lambda name: [[a.display_name, a.addr_spec] for h in m.get_all(name, []) for a in h.addresses]
body = lambda kind: (lambda part: part and part.get_content())(m.get_body((kind,)))
json.dump({
    'from': people('from'), 'to': people('to'), 'cc': people('cc'), 'reply_to': people('reply-to'),
    'subject': m['subject'], 'in_reply_to': m['in-reply-to'], 'references': (m['references'] or '').split(),
    'message_id': m['message-id'], 'names': sorted(set(k.lower() for k in m.keys())),
    'text': body('plain'), 'html': body('html'), 'defects': [repr(d) for p in m.walk() for d in p.defects],
    'attachments': [[p.get_filename(), p.get_content_type(), base64.b64encode(p.get_payload(decode=True)).decode()]
                    for p in m.walk() if p.get_content_disposition() in ('attachment', 'inline')],
}, sys.stdout)
";

#[test]
fn a_composed_message_arrives_field_by_field() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |settings| {
        settings["outgoing"]["sender_name"] = json!("Häuser & Söhne, \"Hilfe\" <Ünit>");
        settings["outgoing"]["reply_to"] = json!("desk+replies@example.test");
    });
    let [bob, carol, dave] = ["bob", "carol", "dave"].map(|name| servers.address(name));
    let subject = "Größe 42 für Jürgen ✓ — and a tail that is long enough to be folded by whoever writes it out";
    let text = "Grüße,\n.\n..two dots\nFrom the first column\n\ttab and trailing space \nlong ".to_owned()
        + &"word ".repeat(300)
        + "\n";
    let html = "<p>Gr\u{fc}\u{df}e <img src=\"cid:logo@desk\"></p>";
    let every_byte: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let names = [
        "plain.txt",
        "Übersicht 2026 (final).pdf",
        "quote \" and ; and \\ and 'x'.csv",
        "../../etc/passwd",
        "日本語のとても長いファイル名がここにあります、折り返しを必要とするほど長いもの.dat",
    ];
    let mut attachments: Vec<_> = names
        .iter()
        .map(|name| json!({"name": name, "type": "application/x-test", "content_base64": STANDARD.encode(&every_byte)}))
        .collect();
    attachments
        .push(json!({"name": "logo.png", "type": "image/png", "content_base64": STANDARD.encode([137, 80, 78, 71]),
                            "content_id": "logo@desk", "inline": true}));
    let answer = send(
        &handle,
        &json!({
            "to": [format!("\"Bob, the \\\"Bübler\\\"\" <{bob}>")], "cc": [{"name": "Çarol", "address": carol}], "bcc": [dave],
            "subject": subject, "text": text, "html": html, "attachments": attachments,
            "in_reply_to": "<q2@outside.test>", "references": ["<q1@outside.test>", "<q2@outside.test>"],
        }),
    );
    assert_eq!((answer["outcome"].as_str(), &answer["refused"]), (Some("sent"), &json!([])), "{answer}");
    for name in ["bob", "carol", "dave"] {
        servers.wait_for(name, "INBOX", 1).unwrap();
    }
    let [raw] = inbox(&servers, "bob").try_into().unwrap();
    // The trace of dave's own copy names him; nothing in anybody else's may.
    assert!(!contains(&raw, &dave) && !contains(&raw.to_ascii_lowercase(), "\nbcc:"), "{}", show(&raw));
    assert_eq!(inbox(&servers, "dave").len(), 1);
    let message_id = answer["message_id"].as_str().unwrap();

    let facts = message::parse(&raw);
    let people = |list: &[message::facts::Mailbox]| -> Value {
        list.iter().map(|m| json!([m.name.clone().unwrap_or_default(), m.address])).collect()
    };
    let from = json!([["Häuser & Söhne, \"Hilfe\" <Ünit>", servers.address("alice")]]);
    let to = json!([["Bob, the \"Bübler\"", bob]]);
    let cc = json!([["Çarol", carol]]);
    assert_eq!((people(&facts.from), people(&facts.to), people(&facts.cc)), (from.clone(), to.clone(), cc.clone()));
    assert_eq!(people(&facts.reply_to), json!([["", "desk+replies@example.test"]]));
    assert_eq!(facts.subject.as_deref(), Some(subject));
    assert_eq!(facts.message_id.map(|id| format!("<{id}>")).as_deref(), Some(message_id));
    assert_eq!((facts.in_reply_to, facts.references.len()), (vec!["q2@outside.test".to_owned()], 2));
    assert_eq!(unix(facts.text.as_deref()), text);
    assert_eq!(unix(facts.html.as_deref()).trim_end(), html);
    let found: Vec<_> = facts.attachments.iter().filter(|a| !a.inline).map(|a| a.name.as_deref().unwrap()).collect();
    assert_eq!(found, names);
    for file in facts.attachments.iter().filter(|file| !file.inline) {
        assert_eq!((file.media_type.as_str(), file.size), ("application/x-test", 5_000));
    }

    let Some(read) = by_python(&raw) else { return };
    assert_eq!(read["defects"], json!([]));
    assert_eq!((&read["from"], &read["to"], &read["cc"]), (&from, &to, &cc));
    assert_eq!(read["reply_to"], json!([["", "desk+replies@example.test"]]));
    assert_eq!((&read["subject"], &read["message_id"]), (&json!(subject), &json!(message_id)));
    assert_eq!(read["in_reply_to"], "<q2@outside.test>");
    assert_eq!(read["references"], json!(["<q1@outside.test>", "<q2@outside.test>"]));
    assert_eq!((unix(read["text"].as_str()), unix(read["html"].as_str()).trim_end()), (text, html));
    let mut files: Vec<Value> = read["attachments"].as_array().unwrap().clone();
    files.sort_by_key(|file| names.iter().position(|name| file[0] == *name).unwrap_or(usize::MAX));
    for (file, name) in files.iter().zip(names) {
        assert_eq!(file, &json!([name, "application/x-test", STANDARD.encode(&every_byte)]));
    }
    assert_eq!(files[names.len()], json!(["logo.png", "image/png", "iVBORw=="]));
}

#[test]
fn raw_mime_arrives_byte_for_byte_on_both_ports() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let erin = servers.address("erin");
    let raw = [
        "Message-ID: <kept.1@desk.test>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0100\r\nfrom: Alice <alice@example.test>\r\n\
         X-Odd:   spaced   out\t\r\n \tand folded\r\nSUBJECT: kept as it is\r\nTo: erin@example.test\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            .as_bytes(),
        ".\r\n..\r\n.leading dot\r\n8 bit: Grüße ✓ \r\ntrailing blanks \t \r\n\r\n\r\n".as_bytes(),
        b"not UTF-8: \xff\xfe\x80\r\n",
        &vec![b'x'; 998],
        b"\r\nFrom the start of a line\r\n.\r\n",
    ]
    .concat();
    let smtps = fixture.outgoing("alice", |_| ());
    let starttls = fixture.outgoing("alice", |settings| *settings = servers.outgoing_settings_starttls("alice"));
    for (number, handle) in [smtps, starttls].iter().enumerate() {
        let answer = send_raw(handle, &[&erin], &raw);
        assert_eq!(
            (&answer["outcome"], &answer["message_id"]),
            (&json!("sent"), &json!("<kept.1@desk.test>")),
            "{answer}"
        );
        servers.wait_for("erin", "INBOX", number + 1).unwrap();
    }
    for arrived in inbox(&servers, "erin") {
        let trace = arrived.strip_suffix(raw.as_slice()).unwrap_or_else(|| panic!("{}", show(&arrived)));
        only_trace(trace);
    }
}

#[test]
fn proof_names_the_port_and_how_it_was_secured() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let prove = |settings: Value| {
        let handle = fixture.plugin.open(&settings.to_string()).unwrap();
        oauth_mail_tests::fixture::consent(&servers, &handle, "alice").unwrap()["proof"].clone()
    };
    let smtps = prove(servers.outgoing_settings("alice"));
    assert_eq!((&smtps["protocol"], &smtps["port"]), (&json!("SMTPS"), &json!(servers.postfix.smtps_port)), "{smtps}");
    let mut settings = servers.outgoing_settings_starttls("alice");
    settings["outgoing"]["advanced"]["sasl_mechanism"] = json!("OAUTHBEARER");
    let submission = prove(settings);
    assert_eq!(submission["protocol"], "SMTP + STARTTLS", "{submission}");
    assert_eq!(
        (&submission["mechanism"], &submission["port"]),
        (&json!("OAUTHBEARER"), &json!(servers.postfix.submission_port))
    );
}

#[test]
fn a_bare_line_end_never_ends_the_message_early() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let frank = servers.address("frank");
    let raw = b"Subject: smuggled\nDate: Mon, 23 Nov 2026 10:00:00 +0000\n\nbefore\n.\nMAIL FROM:<bob@example.test>\n\
                RCPT TO:<frank@example.test>\nDATA\n\rone\r.\rtwo\r\n.\n\r\n.\nafter";
    let answer = send_raw(&handle, &[&frank], raw);
    assert_eq!(answer["outcome"], "sent", "{answer}");
    servers.wait_for("frank", "INBOX", 1).unwrap();
    assert_eq!(super::settled(&servers, "frank"), ["smuggled"]);
    let [arrived] = inbox(&servers, "frank").try_into().unwrap();
    let body = b"\r\n\r\nbefore\r\n.\r\nMAIL FROM:<bob@example.test>\r\nRCPT TO:<frank@example.test>\r\nDATA\r\n\r\none\r\n.\r\n\
                 two\r\n.\r\n\r\n.\r\nafter\r\n";
    assert!(arrived.ends_with(body), "{}", show(&arrived));
}

#[test]
fn an_address_outside_ascii_is_sent_where_smtputf8_is_offered() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let answer = send(&handle, &json!({"to": ["Jürgen <jürgen@example.test>"], "subject": "UTF-8", "text": "x"}));
    assert_eq!(answer["outcome"], "sent", "{answer}");
    let queue_id = answer["reply"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    let sent = || servers.postfix.log().lines().any(|line| line.contains(&queue_id) && line.contains("status=sent"));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !sent() {
        assert!(std::time::Instant::now() < end, "{queue_id}: {}", servers.postfix.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A server without PIPELINING, 8BITMIME and SMTPUTF8 that takes 100 KB.
#[test]
fn a_server_that_offers_little_is_asked_for_nothing_it_does_not_offer() {
    let options = Options {
        users: vec!["alice".into(), "bob".into()],
        message_size_limit: 100_000,
        postfix_extra: "smtpd_discard_ehlo_keywords = pipelining, 8bitmime, smtputf8, chunking\n".into(),
        ..Options::default()
    };
    let servers = Servers::start(options).unwrap();
    let relay = oauth_mail_tests::relay::Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    let bob = servers.address("bob");
    let refused = |answer: &Value, kind: &str| {
        assert_eq!((&answer["outcome"], &answer["error"]["kind"]), (&json!("rejected"), &json!(kind)), "{answer}");
        assert!(answer["error"]["remedy"].is_string(), "{answer}");
    };

    let large = send(&handle, &json!({"to": [bob], "subject": "large", "text": "word ".repeat(40_000)}));
    refused(&large, "too_large");
    assert!(large["error"]["message"].as_str().unwrap().contains("100000"), "{large}");
    refused(&send(&handle, &json!({"to": ["jürgen@example.test"], "subject": "x", "text": "x"})), "unsupported");
    refused(&send_raw(&handle, &[&bob], "Subject: 8 bit\r\n\r\nGrüße\r\n".as_bytes()), "unsupported");
    // All of that was decided here: nothing was said to the server.
    assert!(!servers.postfix.log().contains("reject"), "{}", servers.postfix.log());

    let composed = send(&handle, &json!({"to": [bob, "nobody@example.test"], "subject": "Grüße", "text": "Grüße\n"}));
    assert_eq!(
        (&composed["outcome"], &composed["refused"][0]["address"]),
        (&json!("sent"), &json!("nobody@example.test")),
        "{composed}"
    );
    servers.wait_for("bob", "INBOX", 1).unwrap();
    assert_eq!(message::parse(&inbox(&servers, "bob")[0]).text.as_deref().map(str::trim_end), Some("Grüße"));
    assert_eq!(relay.connections(), 1, "one connection from the consent on");
}

#[test]
fn fifty_messages_travel_over_one_connection() {
    let servers = servers();
    let relay = oauth_mail_tests::relay::Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    for number in 0..50 {
        let answer = send(&handle, &super::text_to(&servers.address("grace"), &format!("number {number}")));
        assert_eq!(answer["outcome"], "sent", "{answer}");
    }
    servers.wait_for("grace", "INBOX", 50).unwrap();
    assert_eq!(relay.connections(), 1);
    let mut expected: Vec<_> = (0..50).map(|number| format!("number {number}")).collect();
    let mut arrived = super::settled(&servers, "grace");
    // A busy queue delivers in its own order.
    expected.sort();
    arrived.sort();
    assert_eq!(arrived, expected);
}

#[test]
fn twenty_megabytes_arrive_whole() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle: Handle = fixture.outgoing("alice", |_| ());
    let content: Vec<u8> = (0..20_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = send(
        &handle,
        &json!({"to": [servers.address("heidi")], "subject": "large", "text": "see attachment",
                "attachments": [{"name": "large.bin", "content_base64": STANDARD.encode(&content)}]}),
    );
    assert_eq!(answer["outcome"], "sent", "{answer}");
    servers.wait_for("heidi", "INBOX", 1).unwrap();
    let [raw] = inbox(&servers, "heidi").try_into().unwrap();
    let facts = message::parse(&raw);
    let arrived = message::attachment(&raw, facts.attachments[0].part_index).unwrap();
    assert!(AsRef::<[u8]>::as_ref(&arrived) == content.as_slice());
}

fn by_python(raw: &[u8]) -> Option<Value> {
    let Ok(python) = process::on_path("python3") else {
        eprintln!("SKIPPED: comparing with Python's email package, python3 is not installed");
        return None;
    };
    let mut command = Command::new(python);
    let mut child = command.args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(raw).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// What servers put in front, and nothing else.
fn only_trace(trace: &[u8]) {
    for line in String::from_utf8(trace.to_vec()).unwrap().lines() {
        let is_trace = ["Return-Path:", "Delivered-To:", "Received:"].iter().any(|name| line.starts_with(name));
        assert!(is_trace || line.starts_with([' ', '\t']), "{line}");
    }
}

fn unix(text: Option<&str>) -> String {
    text.unwrap_or_default().replace("\r\n", "\n")
}

fn contains(raw: &[u8], text: &str) -> bool {
    raw.windows(text.len()).any(|window| window == text.as_bytes())
}

fn show(raw: &[u8]) -> String {
    String::from_utf8_lossy(&raw[..raw.len().min(4_000)]).into_owned()
}
