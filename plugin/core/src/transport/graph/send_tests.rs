//! Sending: as a draft, in one step, in parts.
#![allow(clippy::unwrap_used)]

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    super::{Envelope, Login, Outbox, Outcome, Transcript},
    client::Failure,
    open_outbox,
    send::is_no,
    tests::{graph, linked},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind},
    limits,
    net::{Egress, Net},
    oauth::tests_support::{Answer, Asked, Idp, json as answer, soon},
    secret::Secret,
    settings::{Account, parse},
};

fn outbox(server: &Idp, account: &Account) -> Box<dyn Outbox> {
    let token = Secret::new("token-1");
    let login = Login { username: &account.username, token: &token };
    open_outbox(account, &server.net(), &login, &Transcript::default(), soon()).unwrap_or_else(|_| panic!("not opened"))
}

fn envelope() -> Envelope {
    let address = |text: &str| text.parse().unwrap();
    Envelope { from: Some(address("helpdesk@corp.test")), to: vec![address("a@b.test"), address("hidden@b.test")] }
}

/// Of [`large`].
fn with_copy() -> Envelope {
    let mut envelope = envelope();
    envelope.to.push("c@b.test".parse().unwrap());
    envelope
}

fn asked(server: &Idp, method: &str) -> Vec<Asked> {
    server.all_asked().into_iter().filter(|asked| asked.method == method).collect()
}

/// The account of an outgoing form: with Mail.Send alone it may not look at folders.
fn outgoing(server: &Idp) -> Account {
    let form = json!({"outgoing": {
        "connection_protocol": "Microsoft Graph", "connect_url": format!("{}/v1.0", server.base),
        "username": "helpdesk@corp.test", "client_id": "c", "client_secret": "s", "scope": "Mail.Send",
        "redirect_url": "https://desk.test/cb", "authorize_url": format!("{}/authorize", server.base),
        "access_token_url": format!("{}/token", server.base),
    }});
    parse(&form.to_string()).unwrap_or_else(|e| panic!("{e} {:?}", e.faults()))
}

#[test]
fn a_message_goes_out_as_a_draft_that_is_sent() {
    let send = |status: u16, body: &'static str| {
        let (server, account) = linked(move |asked, _| match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/v1.0/me/messages") => answer(201, r#"{"id":"d1"}"#),
            ("POST", "/v1.0/me/messages/d1/send") => answer(status, body),
            _ => answer(204, ""),
        });
        let mut outbox = outbox(&server, &account);
        let outcome = outbox.send(&envelope(), b"To: a@b.test\r\n\r\nhello\r\n", soon(), &mut || Ok(()));
        let draft = BASE64_STANDARD.decode(&server.asked("/v1.0/me/messages")[0].body).unwrap();
        assert!(draft.starts_with(b"Bcc: hidden@b.test\r\nTo: a@b.test\r\n"));
        (outcome, server.asked("/v1.0/me/messages/d1").len(), outbox.lost())
    };
    assert!(matches!(send(202, ""), (Outcome::Sent { .. }, 0, false)));
    let (outcome, discarded, _) = send(403, r#"{"error":{"code":"ErrorSendAsDenied"}}"#);
    assert!(matches!(outcome, Outcome::Rejected(_)) && discarded == 1);
    assert!(matches!(send(429, r#"{"error":{"code":"ApplicationThrottled"}}"#), (Outcome::Retry { .. }, 1, false)));
    // The token ended: worth another connection at once.
    assert!(matches!(send(401, "{}"), (Outcome::Retry { .. }, 1, true)));
    // A gateway's answer says nothing about what stands behind it.
    assert!(matches!(send(504, ""), (Outcome::Unknown(_), 0, false)));
}

#[test]
fn an_accepted_message_is_sent_whatever_becomes_of_the_body() {
    // The connection ends in the middle of a chunk.
    let broken = (202, "Transfer-Encoding: chunked\r\n".to_owned(), "40\r\nnot the whole".to_owned());
    let (server, account) = linked(move |asked, _| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1.0/me/messages") => answer(201, r#"{"id":"d1"}"#),
        ("POST", "/v1.0/me/messages/d1/send" | "/v1.0/me/sendMail") => broken.clone(),
        _ => answer(403, r#"{"error":{"code":"ErrorAccessDenied"}}"#),
    });
    for account in [&account, &outgoing(&server)] {
        let outcome =
            outbox(&server, account).send(&envelope(), b"To: a@b.test\r\n\r\nhello\r\n", soon(), &mut || Ok(()));
        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    }
}

#[test]
fn a_request_that_never_left_is_told_from_one_whose_answer_was_lost() {
    let lost = Error::new(Kind::Transient, "lost");
    assert!(!is_no(&Failure::Other(lost)));
    assert!(is_no(&Failure::Other(Error::new(Kind::Transient, "unreachable").unwritten())));

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let net = Net::new(None, Egress::default()).unwrap();
    let nobody = format!("https://127.0.0.1:{port}/").parse().unwrap();
    assert!(net.http().get(&nobody, None, soon()).err().unwrap().is_unwritten());
    let late = Deadline::after(std::time::Duration::ZERO);
    assert!(net.http().get(&nobody, None, late).err().unwrap().is_unwritten());
    // TLS that is not trusted: nothing was said.
    let (server, _) = graph(|_| answer(200, "{}"));
    let error = net.http().get(&server.base.parse().unwrap(), None, soon()).err().unwrap();
    assert!(error.is_unwritten() && error.kind() == Kind::AdminRequired, "{error}");
    // Taken and never answered.
    server.set(|_| panic!("closes the connection"));
    let error = server.net().http().get(&server.base.parse().unwrap(), None, soon()).err().unwrap();
    assert!(!error.is_unwritten() && error.kind() == Kind::Transient, "{error}");
}

#[test]
fn with_mail_send_alone_a_message_goes_in_one_step() {
    let (server, _) = graph(|asked| match asked.path.as_str() {
        "/v1.0/me/sendMail" => answer(202, ""),
        _ => answer(403, r#"{"error":{"code":"ErrorAccessDenied"}}"#),
    });
    let account = outgoing(&server);
    let mut kept = outbox(&server, &account);
    let raw = b"To: a@b.test, hidden@b.test\r\n\r\nhello\r\n";
    assert!(matches!(kept.send(&envelope(), raw, soon(), &mut || Ok(())), Outcome::Sent { .. }));
    assert!(kept.is_fresh());
    assert_eq!(BASE64_STANDARD.decode(&server.asked("/v1.0/me/sendMail")[0].body).unwrap(), raw);
    assert!(server.asked("/v1.0/me/messages").is_empty());
    let large = [&raw[..], &vec![b'x'; limits::GRAPH_MIME_MAX]].concat();
    let Outcome::Rejected(error) = kept.send(&envelope(), &large, soon(), &mut || Ok(())) else {
        panic!("not rejected")
    };
    assert!(error.kind() == Kind::TooLarge && error.to_string().contains("Mail.ReadWrite"), "{error}");
    server.set(|asked| match asked.path.as_str() {
        "/v1.0/me/sendMail" => answer(504, ""),
        // May look, and may write nothing.
        "/v1.0/me/mailFolders/inbox?$select=id" => answer(200, "{}"),
        _ => answer(403, r#"{"error":{"code":"ErrorAccessDenied"}}"#),
    });
    let mut reading = outbox(&server, &account);
    for _ in 0..2 {
        assert!(matches!(reading.send(&envelope(), raw, soon(), &mut || Ok(())), Outcome::Unknown(_)));
    }
    assert_eq!(server.asked("/v1.0/me/messages").len(), 1, "once refused, a draft is not tried again");
    // A full mailbox is no want of a permission.
    server.set(|asked| match asked.path.as_str() {
        "/v1.0/me/mailFolders/inbox?$select=id" => answer(200, "{}"),
        "/v1.0/me/sendMail" => answer(202, ""),
        _ => answer(403, r#"{"error":{"code":"ErrorQuotaExceeded"}}"#),
    });
    assert!(matches!(outbox(&server, &account).send(&envelope(), raw, soon(), &mut || Ok(())), Outcome::Rejected(_)));
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// 5 MB: HTML with an image, a small file, a message, and a large file.
fn large(file: &[u8]) -> Vec<u8> {
    let lines = |bytes: &[u8]| {
        let text = BASE64_STANDARD.encode(bytes);
        text.as_bytes().chunks(76).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>().concat()
    };
    let mut raw =
        b"From: \"Help Desk\" <helpdesk@corp.test>\r\nTo: =?utf-8?Q?J=C3=BCrgen?= <a@b.test>\r\nCc: c@b.test\r\n\
        Reply-To: replies@corp.test\r\nSubject: =?utf-8?Q?caf=C3=A9?=\r\nDate: Fri, 27 Nov 2026 08:00:00 +0100\r\n\
        Message-ID: <1.sig@corp.test>\r\nReferences: <a@b.test>\r\n <b@b.test>\r\nIn-Reply-To: <b@b.test>\r\n\
        Auto-Submitted: auto-replied\r\nX-One: 1\r\nX-Folded: first\r\n second\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=m\r\n\r\n\
        --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
        --a\r\nContent-Type: text/plain\r\n\r\nplain\r\n\
        --a\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
        --r\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        <p>caf=C3=A9 <img src=3D\"cid:logo\"></p>\r\n\
        --r\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <logo>\r\nContent-Disposition: inline\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
            .to_vec();
    raw.extend(lines(PNG));
    raw.extend_from_slice(
        b"--r--\r\n--a--\r\n--m\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n\
        --m\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"big one.pdf\"\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n",
    );
    raw.extend(lines(file));
    raw.extend_from_slice(b"--m--\r\n");
    raw
}

fn in_parts(asked: &Asked, base: &str) -> Answer {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1.0/me/messages") => answer(201, r#"{"id":"d1"}"#),
        ("POST", "/v1.0/me/messages/d1/attachments") => answer(201, r#"{"id":"a"}"#),
        ("POST", "/v1.0/me/messages/d1/attachments/createUploadSession") => {
            answer(201, json!({"uploadUrl": format!("{base}/upload?authtoken=canary")}).to_string())
        }
        ("PUT", _) => answer(200, "{}"),
        ("POST", "/v1.0/me/messages/d1/send") => answer(202, ""),
        _ => answer(204, ""),
    }
}

#[test]
fn a_large_message_is_rebuilt_from_its_parts() {
    let file: Vec<u8> = (0..4_500_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let (server, account) = linked(in_parts);
    let outcome = outbox(&server, &account).send(&with_copy(), &large(&file), soon(), &mut || Ok(()));
    assert!(matches!(&outcome, Outcome::Sent { reply, .. } if reply.contains("d1")), "{outcome:?}");

    let parsed = |path: &str| -> Vec<Value> {
        server.asked(path).iter().map(|asked| serde_json::from_slice(&asked.body).unwrap()).collect()
    };
    let draft = parsed("/v1.0/me/messages").remove(0);
    let person = |name: &str, address: &str| json!([{"emailAddress": {"name": name, "address": address}}]);
    assert_eq!(draft["subject"], "café");
    assert_eq!(draft["from"], person("Help Desk", "helpdesk@corp.test")[0]);
    assert_eq!(draft["toRecipients"], person("Jürgen", "a@b.test"));
    assert_eq!(draft["ccRecipients"], json!([{"emailAddress": {"address": "c@b.test"}}]));
    assert_eq!(draft["bccRecipients"], json!([{"emailAddress": {"address": "hidden@b.test"}}]));
    assert_eq!(draft["replyTo"], json!([{"emailAddress": {"address": "replies@corp.test"}}]));
    assert_eq!(draft["body"], json!({"contentType": "html", "content": "<p>café <img src=\"cid:logo\"></p>"}));
    assert_eq!(draft["internetMessageId"], "<1.sig@corp.test>");
    assert_eq!(
        draft["internetMessageHeaders"],
        json!([{"name": "X-One", "value": "1"}, {"name": "X-Folded", "value": "first second"}])
    );
    assert_eq!(
        draft["singleValueExtendedProperties"],
        json!([
            {"id": "String {00020386-0000-0000-C000-000000000046} Name Auto-Submitted", "value": "auto-replied"},
            {"id": "String 0x1039", "value": "<a@b.test> <b@b.test>"},
            {"id": "String 0x1042", "value": "<b@b.test>"},
        ])
    );

    let small = parsed("/v1.0/me/messages/d1/attachments");
    assert_eq!(
        (&small[0]["name"], &small[0]["contentId"], &small[0]["isInline"]),
        (&json!("logo.png"), &json!("logo"), &json!(true))
    );
    assert_eq!(small[0]["contentBytes"], BASE64_STANDARD.encode(PNG));
    assert_eq!((&small[1]["name"], &small[1]["contentType"]), (&json!("attachment-2.eml"), &json!("message/rfc822")));
    assert_eq!(small[1]["contentBytes"], BASE64_STANDARD.encode("Subject: inner\r\n\r\nbody"));
    assert_eq!(small.len(), 2);
    let session = &parsed("/v1.0/me/messages/d1/attachments/createUploadSession")[0]["AttachmentItem"];
    assert_eq!((&session["name"], &session["size"]), (&json!("big one.pdf"), &json!(file.len())));
    let pieces = asked(&server, "PUT");
    assert_eq!(pieces.iter().map(|piece| piece.body.len()).collect::<Vec<_>>(), [3_276_800, 1_223_200]);
    assert!(pieces.iter().all(|piece| piece.authorization.is_none()), "the token went to the upload address");
    assert!(pieces.into_iter().flat_map(|piece| piece.body).eq(file), "the file is not the same");
}

#[test]
fn until_it_is_sent_nothing_of_a_large_message_stays_behind() {
    let file = vec![7; 4_000_000];
    for (status, link, retried) in
        [(503, "https", true), (401, "https", true), (404, "https", true), (413, "https", false), (200, "http", true)]
    {
        let (server, account) = linked(move |asked, base| match asked.method.as_str() {
            "PUT" => answer(status, "{}"),
            _ => in_parts(asked, &base.replace("https", link)),
        });
        let mut outbox = outbox(&server, &account);
        let outcome = outbox.send(&with_copy(), &large(&file), soon(), &mut || Ok(()));
        assert_eq!(matches!(outcome, Outcome::Retry { .. }), retried, "{status} {link}: {outcome:?}");
        assert!(matches!(outcome, Outcome::Retry { .. } | Outcome::Rejected(_)), "{outcome:?}");
        assert_eq!(asked(&server, "DELETE").len(), 1, "the draft stays behind");
        assert!(server.asked("/v1.0/me/messages/d1/send").is_empty());
        assert_eq!(asked(&server, "PUT").len(), usize::from(link == "https"));
    }
}

#[test]
fn what_parts_would_not_keep_is_refused_before_anything_is_said() {
    let (server, account) = linked(in_parts);
    let mut outbox = outbox(&server, &account);
    let filler = "x".repeat(70) + "\r\n";
    let filler = filler.repeat(limits::GRAPH_MIME_MAX / filler.len() + 1);
    let before = server.all_asked().len();
    for (kind, part) in [
        ("multipart/signed; protocol=\"application/pgp-signature\"; boundary=m", "text/plain"),
        ("multipart/encrypted; boundary=m", "application/octet-stream"),
        ("multipart/report; report-type=disposition-notification; boundary=m", "text/plain"),
        ("multipart/mixed; boundary=m", "application/pkcs7-mime"),
        ("multipart/alternative; boundary=m", "text/calendar; method=REQUEST"),
    ] {
        let raw = format!(
            "From: helpdesk@corp.test\r\nTo: a@b.test\r\nContent-Type: {kind}\r\n\r\n--m\r\nContent-Type: {part}\r\n\r\n\
             {filler}\r\n--m--\r\n"
        );
        let Outcome::Rejected(error) = outbox.send(&envelope(), raw.as_bytes(), soon(), &mut || Ok(())) else {
            panic!("{kind} was sent")
        };
        assert!(error.to_string().contains("SMTP"), "{error}");
    }
    assert_eq!(server.all_asked().len(), before);
}

/// exchange.md F9: 200 with ranges to the last piece means that bytes are missing.
#[test]
fn f9_an_attachment_is_whole_before_the_message_is_sent() {
    let file: Vec<u8> = (0..4_500_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let total = file.len();
    // The second of two pieces is lost on the way the first time, a part of it the second time, or always.
    for (answers, is_sent) in [
        (vec![r#"{"nextExpectedRanges":["3276800"]}"#, r#"{"nextExpectedRanges":["3276800-"]}"#, "{}"], true),
        (vec![r#"{"nextExpectedRanges":["3276800-"]}"#, r#"{"nextExpectedRanges":["4000000-4499999"]}"#, "{}"], true),
        (vec![r#"{"nextExpectedRanges":["0-"]}"#; 20], false),
        (vec![r#"{"nextExpectedRanges":["3276800-"]}"#; 20], false),
    ] {
        let mut answers = std::collections::VecDeque::from(answers);
        let answers = std::sync::Mutex::new(std::mem::take(&mut answers));
        let (server, account) = linked(move |asked, base| match asked.method.as_str() {
            "PUT" => match answers.lock().unwrap().pop_front() {
                Some("{}") => answer(201, "{}"),
                said => answer(200, said.unwrap_or("{}")),
            },
            _ => in_parts(asked, base),
        });
        let outcome = outbox(&server, &account).send(&with_copy(), &large(&file), soon(), &mut || Ok(()));
        let pieces = asked(&server, "PUT");
        let sends = server.asked("/v1.0/me/messages/d1/send").len();
        if is_sent {
            assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
            assert_eq!((pieces.len(), sends), (3, 1));
            assert_eq!(pieces[2].body, file[total - pieces[2].body.len()..], "the missing end");
        } else {
            assert!(matches!(outcome, Outcome::Retry { .. }) && sends == 0, "{outcome:?}");
            assert!(pieces.len() <= 4 && asked(&server, "DELETE").len() == 1, "the draft stays behind");
        }
    }
}

/// exchange.md F10: nothing was done, and another try may do.
#[test]
fn f10_conflicts_and_routing_answers_are_tried_again() {
    let coded = |code: &str| format!(r#"{{"error":{{"code":"{code}"}}}}"#);
    for (status, body) in [
        (412, coded("ErrorIrresolvableConflict")),
        (409, coded("ErrorIrresolvableConflict")),
        (404, "<html>".to_owned()),
        (404, coded("ResourceNotFound")),
        (404, coded("ErrorItemNotFound")),
        (421, coded("ErrorIncorrectRoutingHint")),
        (421, String::new()),
    ] {
        for at_create in [true, false] {
            let body = body.clone();
            let (server, account) = linked(move |asked, _| match (asked.method.as_str(), asked.path.as_str()) {
                ("POST", "/v1.0/me/messages") if at_create => answer(status, body.clone()),
                ("POST", "/v1.0/me/messages") => answer(201, r#"{"id":"d1"}"#),
                ("POST", "/v1.0/me/messages/d1/send") => answer(status, body.clone()),
                _ => answer(204, ""),
            });
            let raw = b"To: a@b.test\r\n\r\nhello\r\n";
            let outcome = outbox(&server, &account).send(&envelope(), raw, soon(), &mut || Ok(()));
            let Outcome::Retry { error, .. } = &outcome else { panic!("{status} {at_create}: {outcome:?}") };
            assert!(!error.to_string().contains("passed over"), "{error}");
            assert_eq!(asked(&server, "DELETE").len(), usize::from(!at_create), "the draft is discarded");
        }
    }
    // What a person must mend stays a refusal.
    let (server, account) = linked(|asked, _| match asked.path.as_str() {
        "/v1.0/me/messages" => answer(404, r#"{"error":{"code":"MailboxNotEnabledForRESTAPI"}}"#),
        _ => answer(204, ""),
    });
    let raw = b"To: a@b.test\r\n\r\nhello\r\n";
    let outcome = outbox(&server, &account).send(&envelope(), raw, soon(), &mut || Ok(()));
    assert!(matches!(&outcome, Outcome::Rejected(error) if error.kind() == Kind::AdminRequired), "{outcome:?}");
}

/// exchange.md F11: MB and MiB leave no size that goes neither way.
#[test]
fn f11_every_size_of_an_attachment_goes_one_way_or_the_other() {
    // As strict as a server can be: 4 MiB for a request, and sessions from here on.
    for least in [2 << 20, 3_000_000, 3_145_600] {
        let (server, account) = linked(move |asked, base| match asked.path.as_str() {
            path if path.ends_with("/attachments") && asked.body.len() > 4 << 20 => answer(413, "{}"),
            path if path.ends_with("/createUploadSession") => {
                let body: Value = serde_json::from_slice(&asked.body).unwrap();
                match body["AttachmentItem"]["size"].as_u64() {
                    Some(size) if size >= least => in_parts(asked, base),
                    _ => answer(400, r#"{"error":{"code":"ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"}}"#),
                }
            }
            _ => in_parts(asked, base),
        });
        for size in [2_900_000, 3_000_000, 3_000_001, 3_050_000, 3_145_500, 3_145_600, 3_145_727, 3_145_728] {
            let raw = large(&vec![7; size]);
            let outcome = outbox(&server, &account).send(&with_copy(), &raw, soon(), &mut || Ok(()));
            assert!(matches!(outcome, Outcome::Sent { .. }), "{least} {size}: {outcome:?}");
        }
    }
}

/// exchange.md F17.
#[test]
fn f17_a_size_that_the_organisation_refuses_is_told_as_its_limit() {
    let (server, account) = linked(|asked, _| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1.0/me/messages") => answer(201, r#"{"id":"d1"}"#),
        ("POST", _) => answer(400, r#"{"error":{"code":"ErrorMessageSizeExceeded"}}"#),
        _ => answer(204, ""),
    });
    let raw = b"To: a@b.test\r\n\r\nhello\r\n";
    let outcome = outbox(&server, &account).send(&envelope(), raw, soon(), &mut || Ok(()));
    let Outcome::Rejected(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.kind() == Kind::TooLarge && error.message().contains("organisation"), "{error}");
}
