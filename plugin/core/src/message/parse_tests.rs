use std::time::{Duration, Instant};

use mail_parser::{MessageParser, MimeHeaders};

use super::*;
use crate::message::facts::Mailbox;

/// Turns bare LF, as the tests below are written, into CRLF.
fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn sent_as(media_type: &str, encoding: &str, body: &str) -> Facts {
    parse(&crlf(&format!("Content-Type: {media_type}\nContent-Transfer-Encoding: {encoding}\n\n{body}")))
}

const USUAL: &str = "Return-Path: <ann@example.com>
Delivered-To: support@example.org
Received: from a by b; Mon, 23 Nov 2026 10:00:01 +0000
Message-ID: <one@example.com>
In-Reply-To: <zero@example.org>
References: <a@example.org>
 <zero@example.org>
Date: Mon, 23 Nov 2026 11:00:00 +0100
From: \"Ann, the first\" <ann@example.com>
To: Support <support@example.org>, team: bob@example.org, cy@example.org;
Cc: dee@example.net
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-2022-jp?B?GyRCJDMkcxsoQg==?= [x]
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=\"mix\"

preamble
--mix
Content-Type: multipart/alternative; boundary=mix-alt

--mix-alt
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Hello =E2=82=AC=
!
--mix-alt
Content-Type: text/html; charset=utf-8

<p>Hello</p>
--mix-alt--

--mix
Content-Type: image/png
Content-ID: <logo@x>
Content-Transfer-Encoding: base64

aGVsbG8=

--mix
Content-Type: application/pdf; name*0*=utf-8''%e2%82%ac%20;
 name*1=rate.pdf
Content-Disposition: attachment; filename*0*=utf-8''%e2%82%ac%20; filename*1=rate.pdf
Content-Transfer-Encoding: base64

QUJDREVG
QUJDREVG
--mix--
epilogue
";

#[test]
fn a_usual_message_is_read_completely() {
    for raw in [crlf(USUAL), USUAL.as_bytes().to_vec()] {
        let facts = parse(&raw);
        assert_eq!(facts.message_id.as_deref(), Some("one@example.com"));
        assert_eq!(facts.in_reply_to, ["zero@example.org"]);
        assert_eq!(facts.references, ["a@example.org", "zero@example.org"]);
        assert_eq!(facts.subject.as_deref(), Some("Grüßeこん [x]"));
        assert_eq!(facts.date.as_deref(), Some("2026-11-23T11:00:00+01:00"));
        assert_eq!(facts.date_unix, Some(1_795_428_000));
        assert_eq!(facts.from, [Mailbox { name: Some("Ann, the first".into()), address: "ann@example.com".into() }]);
        let to: Vec<_> = facts.to.iter().map(|mailbox| mailbox.address.as_str()).collect();
        assert_eq!(to, ["support@example.org", "bob@example.org", "cy@example.org"]);
        assert_eq!(facts.text.as_deref(), Some("Hello €!"));
        assert_eq!(facts.html.as_deref(), Some("<p>Hello</p>"));
        assert_eq!(facts.headers.return_path.as_deref(), Some("ann@example.com"));
        assert_eq!(facts.headers.delivered_to, ["support@example.org"]);
        assert_eq!(facts.size, raw.len() as u64);
        assert!(facts.flags.is_empty() && facts.unparsed.is_none() && facts.report.is_none());

        let [png, pdf] = facts.attachments.as_slice() else { panic!("{:?}", facts.attachments) };
        assert_eq!((png.media_type.as_str(), png.size, png.inline), ("image/png", 5, true));
        assert_eq!(png.content_id.as_deref(), Some("logo@x"));
        assert_eq!((pdf.name.as_deref(), pdf.size, pdf.inline), (Some("€ rate.pdf"), 12, false));
        assert_eq!(attachment(&raw, png.part_index).unwrap(), b"hello");
        assert_eq!(attachment(&raw, pdf.part_index).unwrap(), b"ABCDEFABCDEF");
        assert_eq!(attachment(&raw, 99).unwrap_err().kind(), Kind::Misuse);
    }
}

#[test]
fn facts_cross_as_documented_json() {
    let json = serde_json::to_value(parse(&crlf(USUAL))).unwrap();
    assert_eq!(json["from"][0]["name"], "Ann, the first");
    assert_eq!(json["attachments"][1]["type"], "application/pdf");
    assert_eq!(json["headers"]["auto_submitted"], serde_json::Value::Null);
    assert_eq!(json["flags"], serde_json::json!([]));
    let flags = serde_json::to_value([Flag::TooDeep, Flag::TooManyParts]).unwrap();
    assert_eq!(flags, serde_json::json!(["too_deep", "too_many_parts"]));
}

#[test]
fn odd_headers_lose_nothing_else() {
    for (raw, subject) in [
        ("Subject: plain\n\nx", "plain"),
        ("subject  : spaced\n\nx", "spaced"),
        ("From mbox@line Mon Nov 23\nSubject: after mbox\n\nx", "after mbox"),
        ("no field here\nSubject: after junk\n\nx", "after junk"),
        ("Subject: first\nSubject: second\n\nx", "first"),
        ("Subject: folded\n over\n\tlines\n\nx", "folded over lines"),
        ("Subject: no body", "no body"),
        ("Subject: =?utf-8?q?broken=C3?=\n\nx", "broken\u{fffd}"),
        ("Subject: =?nope?q?x=41?= =?utf-8?b?!!!?=\n\nx", "xA =?utf-8?b?!!!?="),
        ("Subject: =?utf-8?q?never ends\n\nx", "=?utf-8?q?never ends"),
        ("Subject: a\0b\n\nx", "a\u{fffd}b"),
    ] {
        let facts = parse(raw.as_bytes());
        assert_eq!(facts.subject.as_deref(), Some(subject), "{raw:?}");
        assert!(facts.message_id.is_none() && facts.date.is_none());
    }
    assert_eq!(parse(b"Subject: caf\xe9\n\nx").subject.as_deref(), Some("café"));
    assert_eq!(parse("Subject: café\n\nx".as_bytes()).subject.as_deref(), Some("café"));
    assert_eq!(parse(b"Return-Path: <>\n\nx").headers.return_path.as_deref(), Some(""));
    assert_eq!(parse(b"Message-ID: no-brackets@x\n\n").message_id.as_deref(), Some("no-brackets@x"));
    assert_eq!(parse(b"Date: yesterday\n\n").date, None);
    assert_eq!(parse(b"To: a@x\nTo: b@x\n\n").to.len(), 2);
}

#[test]
fn what_is_no_message_is_named() {
    assert!(parse(b"").unparsed.is_some());
    for raw in [b"\n".as_slice(), b"\r\n\r\n", b"\0\0\0\0", b":", b"--", b"\n--\n--", &[0xff; 1000], b" \n", b"\t"] {
        let facts = parse(raw);
        assert_eq!((facts.size, facts.unparsed), (raw.len() as u64, None), "{raw:?}");
    }
}

#[test]
fn one_part_messages_are_read() {
    assert_eq!(parse(b"\r\nonly a body").text.as_deref(), Some("only a body"));
    let html = sent_as("text/html; charset=windows-1252", "8bit", "<b>x</b>");
    assert_eq!((html.text, html.html.as_deref(), html.attachments.len()), (None, Some("<b>x</b>"), 0));
    let encoded = sent_as("text/plain; charset=utf-8", "BASE64", "w6kg\n4oKs\n");
    assert_eq!(encoded.text.as_deref(), Some("é €"));
    let pdf = sent_as("application/pdf", "base64", "QUJD");
    assert_eq!((pdf.text, pdf.attachments.len(), pdf.attachments[0].size), (None, 1, 3));
    let nul = sent_as("text/plain", "8bit", "a\0b");
    assert_eq!(nul.text.as_deref(), Some("a\u{fffd}b"));
    let nonsense = sent_as("nonsense", "nonsense", "x");
    assert_eq!(nonsense.attachments[0].media_type, "application/octet-stream");
}

#[test]
fn broken_multiparts_still_show_their_text() {
    let mixed = |body: &str| sent_as("multipart/mixed; boundary=b", "7bit", body);
    assert_eq!(mixed("--b\n\nnever closed").text.as_deref(), Some("never closed"));
    assert_eq!(mixed("no delimiter at all").text.as_deref(), Some("no delimiter at all"));
    assert_eq!(mixed("--b\nContent-Type: text/plain\n--b\n\nx\n--b--").text.as_deref(), Some("x"));
    assert_eq!(mixed("--b \t\n\nx\n--b-- \n").text.as_deref(), Some("x"));
    assert_eq!(mixed("--bb\n\nno\n--b\n\nx\n--bc\ny\n--b--").text.as_deref(), Some("x\r\n--bc\r\ny"));
    assert_eq!(sent_as("multipart/mixed", "7bit", "no boundary").text.as_deref(), Some("no boundary"));
    // An outer delimiter ends what is open inside (RFC 2046 5.1.2).
    let cut = mixed("--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\ninner\n--b\n\nouter\n--b--\n");
    assert_eq!(cut.text.as_deref(), Some("inner\nouter"));
    let cut = mixed("--b\nContent-Type: multipart/mixed; boundary=c\n\nnever begun\n--b\n\nouter\n--b--\n");
    assert_eq!(cut.text.as_deref(), Some("never begun\nouter"));
    let digest = sent_as("multipart/digest; boundary=b", "7bit", "--b\n\nSubject: x\n\ny\n--b--");
    assert_eq!(digest.attachments[0].media_type, "message/rfc822");
}

#[test]
fn what_people_attach_is_not_taken_for_the_body() {
    let facts = sent_as(
        "multipart/mixed; boundary=b",
        "7bit",
        "--b\n\nbody\n--b\nContent-Disposition: attachment\n\nnote\n--b\nContent-Type: text/plain; name=log.txt\n\nlog\n\
         --b\nContent-Type: text/calendar\n\nBEGIN\n--b\nContent-Type: message/rfc822\n\nSubject: inner\n\ninner\n\
         --b\nContent-Type: TEXT/PLAIN\n\nfooter\n--b--",
    );
    assert_eq!(facts.text.as_deref(), Some("body\nfooter"));
    assert_eq!(facts.subject, None);
    let listed: Vec<_> = facts.attachments.iter().map(|one| (one.media_type.as_str(), one.name.as_deref())).collect();
    assert_eq!(
        listed,
        [("text/plain", None), ("text/plain", Some("log.txt")), ("text/calendar", None), ("message/rfc822", None)]
    );
}

#[test]
fn attachment_names_are_decoded_however_they_were_written() {
    for (parameter, expected) in [
        ("filename=\"a b.pdf\"", "a b.pdf"),
        ("filename=plain.pdf", "plain.pdf"),
        ("filename*=utf-8''na%C3%AFve.pdf", "naïve.pdf"),
        ("filename*=iso-8859-1'en'na%EFve.pdf", "naïve.pdf"),
        ("filename*0=\"long \"; filename*1=\"name.pdf\"", "long name.pdf"),
        ("filename=\"=?utf-8?B?bmHDr3ZlLnBkZg==?=\"", "naïve.pdf"),
        ("filename=\"quo\\\"te.pdf\"", "quo\"te.pdf"),
        ("filename=\"../../etc/passwd\"", "../../etc/passwd"),
    ] {
        let raw = format!("Content-Type: application/pdf\nContent-Disposition: attachment; {parameter}\n\nx");
        assert_eq!(parse(raw.as_bytes()).attachments[0].name.as_deref(), Some(expected), "{parameter}");
    }
}

#[test]
fn a_bounce_tells_whom_and_what_it_is_about() {
    let facts = parse(&crlf(
        "Return-Path: <>
Auto-Submitted: auto-replied
Subject: Undelivered Mail
Content-Type: multipart/report; report-type=Delivery-Status; boundary=r

--r

It failed.
--r
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org

Final-Recipient: rfc822; nobody@example.com
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1
 no such user

--r
Content-Type: text/rfc822-headers

Message-ID: <our-reply@example.org>
Subject: Re: x
--r--
",
    ));
    let report = facts.report.unwrap();
    assert_eq!(report.report_type.as_deref(), Some("delivery-status"));
    assert_eq!(report.final_recipient.as_deref(), Some("nobody@example.com"));
    assert_eq!(report.action.as_deref(), Some("failed"));
    assert_eq!(report.status.as_deref(), Some("5.1.1"));
    assert_eq!(report.diagnostic.as_deref(), Some("550 5.1.1 no such user"));
    assert_eq!(report.original_message_id.as_deref(), Some("our-reply@example.org"));
    assert_eq!(facts.text.as_deref(), Some("It failed."));
    assert_eq!(facts.message_id, None);
}

#[test]
fn long_texts_are_cut_at_a_character_and_said_to_be() {
    for (encoding, body) in [("8bit", "é".repeat(3 << 20)), ("base64", "w6nDqcOp\n".repeat(1 << 20))] {
        let facts = sent_as("text/plain; charset=utf-8", encoding, &body);
        assert!(facts.text_truncated && !facts.html_truncated);
        let text = facts.text.unwrap();
        assert!(text.len() <= limits::FACT_TEXT_MAX && text.len() > limits::FACT_TEXT_MAX - 4, "{}", text.len());
        assert!(text.chars().all(|c| c == 'é'));
    }
    let fits = "x".repeat(limits::FACT_TEXT_MAX);
    let facts = sent_as("text/plain", "7bit", &fits);
    assert_eq!((facts.text_truncated, facts.text.as_deref()), (false, Some(fits.as_str())));
}

/// Everything here is what one hostile sender can mail. On the smallest stack a host's thread may have.
#[test]
fn hostile_mail_neither_overflows_the_stack_nor_stalls() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nested messages", "Content-Type: message/rfc822\r\n\r\n".repeat(40_000).into_bytes()),
        (
            "nested multiparts",
            (0..40_000)
                .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
                .collect::<String>()
                .into_bytes(),
        ),
        (
            "nested, one boundary",
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(40_000).into_bytes(),
        ),
        ("many parts", many_parts(5_000).into_bytes()),
        ("too many parts", many_parts(100_000).into_bytes()),
        ("long line", [b"Subject: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n\r\nbody".to_vec()].concat()),
        ("long references", format!("References: {}\r\n\r\nx", "<a@b> ".repeat(200_000)).into_bytes()),
        ("many addresses", format!("To: {}\r\n\r\nx", "a@b.c, ".repeat(200_000)).into_bytes()),
        ("many fields", "To: a@b\r\n".repeat(200_000).into_bytes()),
        ("many parameters", format!("Content-Type: text/plain{}\r\n\r\nx", "; a=b".repeat(200_000)).into_bytes()),
        ("comments", format!("From: {}\r\n\r\nx", "(".repeat(1 << 20)).into_bytes()),
        ("groups", format!("From: {}\r\n\r\nx", "a:".repeat(1 << 20)).into_bytes()),
        ("words q", format!("Subject: {}\r\n\r\nx", "=?utf-8?q?x".repeat(100_000)).into_bytes()),
        ("words b", format!("From: {}\r\n\r\nx", "=?utf-8?b?x".repeat(100_000)).into_bytes()),
        ("words open", format!("Subject: {}\r\n\r\nx", "=?a".repeat(300_000)).into_bytes()),
        ("quoted words", format!("From: \"{}\r\n\r\nx", "=?a?q?".repeat(300_000)).into_bytes()),
        ("continuations", continuations().into_bytes()),
        ("almost delimiters", almost_delimiters().into_bytes()),
        ("parts with evil fields", evil_parts().into_bytes()),
    ];
    let work = move || {
        for (name, raw) in &cases {
            let begun = Instant::now();
            let facts = parse(raw);
            let took = begun.elapsed();
            assert_eq!(facts.unparsed, None, "{name}");
            assert!(took < Duration::from_secs(20), "{name} took {took:?} (unoptimised)");
            if std::env::var_os("SHOW_TIMES").is_some() {
                std::io::Write::write_all(&mut std::io::stderr(), format!("{name}: {took:?}\n").as_bytes()).unwrap();
            }
            match *name {
                "nested multiparts" => assert_eq!(facts.flags, [Flag::TooDeep]),
                "many parts" => assert_eq!((facts.attachments.len(), facts.flags.len()), (5_000, 0)),
                "too many parts" => assert!(facts.flags.contains(&Flag::TooManyParts)),
                "long line" => assert_eq!((facts.text.as_deref(), facts.flags.len()), (Some("body"), 1)),
                "many fields" => assert_eq!((facts.to.len(), facts.flags.len()), (limits::MIME_FIELDS_MAX, 1)),
                "nested messages" => assert_eq!(facts.attachments[0].size, raw.len() as u64 - 32),
                _ => {}
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}

fn many_parts(count: usize) -> String {
    let part = "--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n";
    format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--", part.repeat(count))
}

fn continuations() -> String {
    let parameters: String = (0..100_000).map(|n| format!("; name*{n}=x")).collect();
    format!("Content-Type: application/pdf{parameters}\r\n\r\nx")
}

fn almost_delimiters() -> String {
    let mut mail = String::new();
    for n in 0..90 {
        mail += &format!("Content-Type: multipart/mixed; boundary={:0>60}\r\n\r\n--{:0>60}\r\n", n, n);
    }
    mail += "\r\n";
    mail + &format!("--{:0>60}\r\n", 999).repeat(50_000)
}

fn evil_parts() -> String {
    let evil = "=?utf-8?q?x".repeat(700);
    let part =
        format!("--b\r\nContent-Type: a/b; name=\"{evil}\"\r\nContent-Disposition: x; filename=\"{evil}\"\r\n\r\n\r\n");
    format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--", part.repeat(1_000))
}

/// mail-parser reads the same parts, texts and sizes out of well-formed mail.
#[test]
fn well_formed_mail_reads_as_the_crate_reads_it() {
    for raw in [crlf(USUAL), typical(20_000), many_parts(50).into_bytes(), crlf(&many_parts(50))] {
        let ours = parse(&raw);
        let theirs = MessageParser::default().parse(&raw).unwrap();
        assert_eq!(ours.subject.as_deref(), theirs.subject());
        assert_eq!(ours.text.as_deref(), theirs.body_text(0).as_deref());
        assert_eq!(ours.html.as_deref(), theirs.body_html(0).filter(|_| ours.html.is_some()).as_deref());
        let sizes: Vec<_> = theirs.attachments().map(|part| part.contents().to_vec()).collect();
        assert_eq!(ours.attachments.len(), sizes.len());
        for (our, their) in ours.attachments.iter().zip(&sizes) {
            assert_eq!(our.size, their.len() as u64);
            assert_eq!(attachment(&raw, our.part_index).unwrap(), *their);
        }
        for (our, their) in ours.attachments.iter().zip(theirs.attachments()) {
            assert_eq!(our.name.as_deref(), their.attachment_name());
        }
    }
}

#[test]
fn noise_never_panics() {
    let seed = crlf(USUAL);
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..3_000 {
        let mut raw = seed.clone();
        for _ in 0..1 + random(20) {
            let at = random(raw.len());
            match random(4) {
                0 => raw[at] = random(256) as u8,
                1 => raw.truncate(at.max(1)),
                2 => drop(raw.splice(at..(at + random(40)).min(raw.len()), [])),
                _ => {
                    let from = random(raw.len());
                    let piece = raw[from..(from + 30).min(raw.len())].to_vec();
                    raw.splice(at..at, piece);
                }
            }
            if raw.is_empty() {
                raw.push(b'\n');
            }
        }
        let facts = parse(&raw);
        assert_eq!(facts.unparsed, None, "{}", String::from_utf8_lossy(&raw));
        for one in &facts.attachments {
            assert_eq!(attachment(&raw, one.part_index).unwrap().len() as u64, one.size);
        }
    }
}

/// About `size` bytes: short text and HTML, the rest a base64 attachment.
fn typical(size: usize) -> Vec<u8> {
    let line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\n";
    let attachment = line.repeat(size.saturating_sub(4_000) / line.len());
    let text = "Some words that a person wrote, =E2=82=AC 20.\n".repeat(20);
    let html = "<p style=3D\"x\">Some words that a person wrote.</p>\n".repeat(30);
    crlf(&format!(
        "Received: from mx.example.net (mx.example.net [192.0.2.1]) by mail.example.org; Mon, 23 Nov 2026 10:00:01 +0000\n\
         DKIM-Signature: v=1; a=rsa-sha256; b={line} bh=x\n\
         Message-ID: <one@example.com>\nDate: Mon, 23 Nov 2026 11:00:00 +0100\nFrom: Ann <ann@example.com>\n\
         To: Support <support@example.org>\nSubject: Printer\nContent-Type: multipart/mixed; boundary=\"=_mix\"\n\n\
         --=_mix\nContent-Type: multipart/alternative; boundary=\"=_alt\"\n\n\
         --=_alt\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n{text}\n\
         --=_alt\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n{html}\n--=_alt--\n\
         --=_mix\nContent-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=a.pdf\n\n{attachment}\n--=_mix--\n"
    ))
}

/// CPU time of this thread, so that what else runs does not count; wall time where the system does not tell.
fn cpu_seconds() -> f64 {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.as_deref().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGUN.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

/// `cargo test --release -p oauth-mail-core --lib -- --ignored --nocapture parse_speed`
#[test]
#[ignore = "prints figures; wants --release"]
#[allow(clippy::print_stdout)]
fn parse_speed() {
    let text_only = crlf(&format!("Subject: x\n\n{}", "A line that a person wrote.\n".repeat(700)));
    for (name, raw) in [("20 KB multipart", typical(20_000)), ("20 KB text", text_only), ("50 MB", typical(50 << 20))] {
        let rounds = (200_000_000 / raw.len()).max(1);
        let time = |work: &dyn Fn() -> u64| {
            let begun = cpu_seconds();
            let sum: u64 = (0..rounds).map(|_| work()).sum();
            assert!(sum > 0);
            cpu_seconds() - begun
        };
        let ours = time(&|| parse(std::hint::black_box(&raw)).size);
        let json = time(&|| serde_json::to_string(&parse(std::hint::black_box(&raw))).unwrap().len() as u64);
        let theirs = time(&|| MessageParser::default().parse(std::hint::black_box(&raw)).unwrap().parts.len() as u64);
        let bytes = (raw.len() * rounds) as f64 / 1e6;
        println!(
            "{name}: {rounds} x {} bytes: facts {ours:.3} s CPU ({:.0} MB/s), with JSON {json:.3} s, mail-parser alone {theirs:.3} s ({:.0} MB/s)",
            raw.len(),
            bytes / ours,
            bytes / theirs
        );
    }
}

/// One message per kind of fault, beside its facts. `UPDATE_GOLDEN=1` writes the facts anew.
#[test]
fn the_corpus_is_read_as_it_was() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let facts = serde_json::to_string_pretty(&parse(&std::fs::read(&path).unwrap())).unwrap() + "\n";
        let golden = path.with_extension("json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &facts).unwrap();
        }
        assert_eq!(facts, std::fs::read_to_string(&golden).unwrap_or_default(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 19, "{seen} messages");
}
