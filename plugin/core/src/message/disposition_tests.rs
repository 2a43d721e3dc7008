use super::*;
use crate::{message::parse, settings};

fn fetching() -> Fetching {
    Fetching {
        email_addresses: vec!["support@example.org".parse().unwrap()],
        interval_minutes: 5,
        disable_new_request_creation: false,
        new_requests_from: Vec::new(),
        folders: vec!["INBOX".into()],
        since: settings::Since::Now,
        moved_from: None,
        after_import: settings::Action::Leave,
        after_refusal: settings::Action::Leave,
        subject_tag: "[Request ID: ##{id}##]".into(),
        reply_delimiter: None,
        trusted_authserv_ids: Vec::new(),
    }
}

fn of(headers: &str) -> Disposition {
    of_with(headers, &fetching())
}

fn of_with(headers: &str, fetching: &Fetching) -> Disposition {
    let from = if headers.contains("From: ") { "" } else { "From: ann@example.com\n" };
    disposition(
        &parse(format!("{from}{headers}\n\nbody").as_bytes()),
        fetching,
        &["Reply@Example.org".parse().unwrap()],
        None,
    )
}

#[test]
fn new_mail_of_a_person_opens_a_request() {
    for headers in [
        "Subject: Printer",
        "Auto-Submitted: no",
        "Auto-Submitted: No (human)",
        "List-Id: <users.example.net>\nPrecedence: list",
        "X-Auto-Response-Suppress: All",
        "Return-Path: <ann@example.com>",
        "Precedence: normal",
        "Auto-Submitted: (human) no",
        "Auto-Submitted: \"no\"",
        "Sender: support@example.org",
    ] {
        let disposition = of(headers);
        assert_eq!(disposition.action, Action::CreateRequest, "{headers}");
        assert_eq!(disposition.request_reference, None);
    }
}

#[test]
fn what_could_start_a_loop_is_ignored_even_when_it_refers_to_a_request() {
    for (headers, field) in [
        ("From: SUPPORT@example.org", "From"),
        ("From: Us <reply@example.org>", "From"),
        ("From: \"support\"@example.org", "From"),
        ("From: Us <support @ example.org>", "From"),
        ("From: support@example.org\nReply-To: reply@example.org", "From"),
        ("From: support@example.org\nReply-To: ann@example.com\nX-Loop: support@example.org", "X-Loop"),
        ("Auto-Submitted: auto-replied (vacation)", "Auto-Submitted"),
        ("Auto-Submitted: auto-generated; owner=x", "Auto-Submitted"),
        ("Return-Path: <>", "Return-Path"),
        ("Precedence: bulk", "Precedence"),
        ("Precedence: Auto_Reply", "Precedence"),
        (
            "Content-Type: multipart/report; report-type=disposition-notification; boundary=b",
            "Content-Type: multipart/report",
        ),
    ] {
        let disposition = of(&format!("{headers}\nIn-Reply-To: <known@example.org>"));
        assert_eq!(disposition.action, Action::Ignore, "{headers}");
        assert_eq!(disposition.evidence[0].field, field, "{headers}");
        assert_eq!(disposition.request_reference.unwrap().message_ids, ["known@example.org"]);
    }
}

#[test]
fn replies_are_appended_with_the_nearest_message_first() {
    let disposition = of("In-Reply-To: <c@x>\nReferences: <a@x> <b@x> <c@x>");
    assert_eq!(disposition.action, Action::AppendToRequest);
    assert_eq!(disposition.request_reference.unwrap().message_ids, ["c@x", "b@x", "a@x"]);
    assert_eq!(disposition.evidence.len(), 2);
}

#[test]
fn subject_tags_are_found_however_mailers_bend_them() {
    let id = |subject: &str, tag: &str| tagged_id(subject, tag);
    let tag = "[Request ID: ##{id}##]";
    for (subject, expected) in [
        ("Re: [Request ID: ##4711##] Printer", Some("4711")),
        ("AW: FW: [request id:  ##A-7_b##]", Some("A-7_b")),
        ("[Request ID: ####]", None),
        ("[Request ID: ##47 11##]", None),
        ("[Request ID: ##4711", None),
        ("[Request ID: ##x y##] [Request ID: ##12##]", Some("12")),
        ("Grüße ÄÖ [Request ID: ##9##]", Some("9")),
        ("", None),
    ] {
        assert_eq!(id(subject, tag).as_deref(), expected, "{subject}");
    }
    assert_eq!(id("x #12 y", "#{id}").as_deref(), Some("12"));
    assert_eq!(id(&format!("#{}", "1".repeat(65)), "#{id}"), None);
    assert_eq!(id("anything", "no placeholder"), None);
    assert_eq!(id("anything", "{id}"), None);
    let found = of("Subject: Re: [Request ID: ##4711##]");
    assert_eq!(found.action, Action::AppendToRequest);
    assert_eq!(found.request_reference.unwrap().request_id.as_deref(), Some("4711"));
}

#[test]
fn with_new_requests_disabled_replies_still_come_in() {
    let fetching = Fetching { disable_new_request_creation: true, ..fetching() };
    let fresh = of_with("Subject: Printer", &fetching);
    assert_eq!((fresh.action, fresh.evidence[0].field), (Action::Ignore, "disable_new_request_creation"));
    assert_eq!(of_with("Subject: [Request ID: ##1##]", &fetching).action, Action::AppendToRequest);
    assert_eq!(of_with("References: <a@x>", &fetching).action, Action::AppendToRequest);
}

#[test]
fn the_proposal_crosses_as_json() {
    let json = serde_json::to_value(of("Return-Path: <>")).unwrap();
    assert_eq!(json["action"], "ignore");
    assert_eq!(json["evidence"], serde_json::json!([{"field": "Return-Path", "value": "<>"}]));
    assert_eq!(json["request_reference"], serde_json::Value::Null);
}

fn signer() -> Signer {
    Signer::new(&Signer::fresh_key().unwrap()).unwrap()
}

fn signed(headers: &str, signer: &Signer, fetching: &Fetching) -> Disposition {
    disposition(&parse(format!("From: ann@example.com\n{headers}\n\nbody").as_bytes()), fetching, &[], Some(signer))
}

#[test]
fn a_signed_message_id_proves_the_request_and_wins_over_the_subject() {
    let signer = signer();
    let id = signer.message_id(&"desk@example.org".parse().unwrap(), Some("42")).unwrap();
    let headers = format!("Subject: Re: [Request ID: ##7##] x\nIn-Reply-To: <a@x>\nReferences: {id} <a@x>");
    let disposition = signed(&headers, &signer, &fetching());
    let reference = disposition.request_reference.unwrap();
    assert_eq!((reference.request_id.as_deref(), reference.proof), (Some("42"), Proof::SignedMessageId));
    assert_eq!(disposition.evidence[0], Evidence { field: "signed Message-ID", value: "42".into() });
    assert_eq!(
        signed("Subject: [Request ID: ##7##]", &signer, &fetching()).request_reference.unwrap().proof,
        Proof::SubjectTag
    );
}

#[test]
fn a_forged_reference_counts_for_nothing_and_is_told() {
    let signer = signer();
    let id = signer.message_id(&"desk@example.org".parse().unwrap(), Some("42")).unwrap();
    let forged = id.replace(".42.", ".43.");
    let disposition = signed(&format!("In-Reply-To: {forged}"), &signer, &fetching());
    assert_eq!((disposition.action, &disposition.request_reference), (Action::CreateRequest, &None));
    assert_eq!(disposition.evidence[0].field, "forged Message-ID");
    let disposition = signed(&format!("References: <known@x>\nIn-Reply-To: {forged}"), &signer, &fetching());
    assert_eq!(disposition.request_reference.unwrap().message_ids, ["known@x"]);
}

#[test]
fn what_went_through_us_before_is_a_loop() {
    assert_eq!(of("X-Loop: support@example.org").evidence[0].field, "X-Loop");
    assert_eq!(of("X-Loop: somebody@example.com").action, Action::CreateRequest);
}

#[test]
fn who_may_open_requests_although_they_are_disabled() {
    let fetching = Fetching {
        disable_new_request_creation: true,
        new_requests_from: vec!["ceo@example.com".into(), "partner.example".into()],
        ..fetching()
    };
    for (from, action) in [
        ("CEO@example.com", Action::CreateRequest),
        ("anyone@Partner.example", Action::CreateRequest),
        ("anyone@sub.partner.example", Action::Ignore),
        ("ann@example.com", Action::Ignore),
        ("ceo@example.com, ann@example.com", Action::Ignore),
    ] {
        assert_eq!(of_with(&format!("From: {from}"), &fetching).action, action, "{from}");
    }
}

#[test]
fn fault_01_mail_through_groups_forms_and_scanners_opens_requests() {
    let scan = |to: &str, words: &str| {
        format!(
            "From: support@example.org\nTo: {to}\nMessage-ID: <s1@scanner.example>\n\
             Content-Type: multipart/mixed; boundary=b\n\n--b\n\n{words}\n\
             --b\nContent-Type: application/pdf; name=scan.pdf\n\nx\n--b--\n"
        )
    };
    let of_whole = |raw: &str| disposition(&parse(raw.as_bytes()), &fetching(), &[], None).action;
    for headers in [
        "From: \"'Ann Cust' via Support\" <support@example.org>\nReply-To: Ann <ann@cust.test>\n\
         X-Original-From: Ann <ann@cust.test>\nList-ID: <support.example.org>\nPrecedence: list",
        "From: Ann <support@example.org>\nX-Original-Sender: ann@cust.test",
        "From: Ann Cust <ann@cust.test>\nSender: support@example.org",
        "From: Shop <support@example.org>\nReply-To: ann@cust.test",
        "From: Ann <support@example.org>\nSender: bounces@list.test\nList-Id: <x.list.test>",
        "From: Ann <ann@cust.test>, support@example.org",
    ] {
        assert_eq!(of(headers).action, Action::CreateRequest, "{headers}");
    }
    assert_eq!(of_whole(&scan("support@example.org", "")), Action::CreateRequest);
    assert_eq!(of_whole(&scan("other@example.com", "")), Action::Ignore);
    assert_eq!(of_whole(&scan("support@example.org", &"A new request was opened. ".repeat(40))), Action::Ignore);
    for headers in ["From: support@example.org\nSender: ann@cust.test", "From: support@example.org\nReply-To: <>"] {
        assert_eq!(of(headers).action, Action::Ignore, "{headers}");
    }
    let signer = signer();
    let id = signer.message_id(&"desk@example.org".parse().unwrap(), Some("42")).unwrap();
    let relayed = signed(&format!("Reply-To: ann@cust.test\nMessage-ID: {id}"), &signer, &fetching());
    assert_eq!((relayed.action, relayed.evidence[0].field), (Action::Ignore, "Message-ID"));
}

#[test]
fn own_addresses_are_known_in_every_spelling_of_their_domain() {
    let fetching = Fetching { email_addresses: vec!["support@xn--bcher-kva.example".parse().unwrap()], ..fetching() };
    assert_eq!(of_with("From: support@b\u{fc}cher.example", &fetching).action, Action::Ignore);
}

#[test]
fn fault_05_ids_that_come_back_as_encoded_words_still_prove_the_request() {
    let signer = signer();
    let id = signer.message_id(&"desk@example.org".parse().unwrap(), Some("REQUEST-2026-0001")).unwrap();
    let encoded: String = id
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("={byte:02X}") })
        .collect();
    let (left, right) = encoded.split_at(encoded.find("=2ER").unwrap());
    for field in [
        format!("In-Reply-To: =?utf-8?q?{left}?=\n =?utf-8?q?{right}?="),
        format!("In-Reply-To: {}\n {}", &id[..30], &id[30..]),
        format!("References: <a@x>{id}"),
    ] {
        let reference = signed(&field, &signer, &fetching()).request_reference.unwrap();
        assert_eq!(reference.request_id.as_deref(), Some("REQUEST-2026-0001"), "{field}");
    }
    let facts = parse(b"References: a@x b@x\nIn-Reply-To: Your message of Monday <c@x>\n\n");
    assert_eq!((facts.references, facts.in_reply_to), (vec!["a@x".to_owned(), "b@x".into()], vec!["c@x".to_owned()]));
}
