use super::*;
use crate::message::parse;

fn of(message: &str) -> Option<&'static str> {
    finding(&parse(message.as_bytes())).map(|(_, evidence)| evidence.field)
}

#[test]
fn bounces_of_every_make_are_recognised() {
    for (make, message, field) in [
        (
            "Postfix, RFC 3464",
            "From: MAILER-DAEMON@mx.test\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b--\n",
            "Content-Type: multipart/report",
        ),
        (
            "Exim",
            "From: Mail Delivery System <Mailer-Daemon@mx.test>\nX-Failed-Recipients: gone@b.test\nSubject: Mail delivery failed\n\nThis message was created automatically by mail delivery software.\n",
            "X-Failed-Recipients",
        ),
        (
            "Gmail without a report",
            "From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>\nSubject: Delivery Status Notification (Failure)\n\nAddress not found\n",
            "From",
        ),
        (
            "qmail",
            "From: postmaster@mx.test\nSubject: failure notice\n\nHi. This is the qmail-send program at mx.test.\n",
            "text",
        ),
        (
            "Exchange",
            "From: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@corp.test>\nSubject: Undeliverable: x\n\nDelivery has failed\n",
            "From",
        ),
        (
            "Sendmail",
            "From: Mail Delivery Subsystem <MAILER-DAEMON>\nSubject: Returned mail\n\nThe original message\n",
            "From",
        ),
    ] {
        assert_eq!(of(message), Some(field), "{make}");
    }
}

#[test]
fn responders_are_recognised_and_people_are_not() {
    for (message, field) in [
        ("From: a@b.test\nX-Autoreply: yes\n\nAway", Some("X-Autoreply")),
        ("From: a@b.test\nPrecedence: (x) junk\n\nAway", Some("Precedence")),
        ("From: a@b.test\nPrecedence: (junk) normal\n\nHelp", None),
        ("From: a@b.test\nDelivered-To: autoresponder@b.test\n\nHelp", None),
        ("From: a@b.test\nX-Autorespond: Vacation\n\nAway", Some("X-Autoreply")),
        ("From: a@b.test\nX-Auto-Response-Suppress: All\nSubject: Automatic reply: Printer\n\nAway", Some("Subject")),
        ("From: a@b.test\nX-Auto-Response-Suppress: OOF\nSubject: Abwesenheitsnotiz: Drucker\n\nWeg", Some("Subject")),
        ("From: a@b.test\nX-Auto-Response-Suppress: All\nSubject: Printer\n\nHelp", None),
        ("From: a@b.test\nSubject: Out of office printer\n\nIt is out of order", None),
        ("From: postmaster@b.test\nSubject: Your open relay\n\nPlease close it", None),
        ("From: a@b.test\nSubject: failure notice\n\nThe machine shows a failure notice", None),
    ] {
        assert_eq!(of(message), field, "{message}");
    }
}

/// Content 9f: Exchange returns the mail in a plain multipart/mixed.
#[test]
fn the_mail_that_came_back_is_found_in_an_attached_message() {
    let of = |from: &str| {
        let message = format!(
            "From: {from}\nSubject: Returned mail\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nIt failed\n--b\n\
             Content-Type: message/rfc822\n\nMessage-ID: <om1.x@example.test>\nSubject: Re\n\nx\n--b--\n"
        );
        returned_message_id(&parse(message.as_bytes()))
    };
    assert_eq!(of("MAILER-DAEMON@x.test").as_deref(), Some("om1.x@example.test"));
    assert_eq!(of("ann@x.test"), None, "a person forwards a mail");
}

/// Subject and text together, at an address that sounds like a program: as gateways write that have no null sender.
#[test]
fn bounces_of_gateways_are_recognised_and_people_who_quote_them_are_not() {
    for (from, subject, text, is_bounce) in [
        ("SMTP_Mail_Service@x.test", "Returned Mail - Error", "---- Failed Recipients ----\n\n<a@b.test>: 550", true),
        ("AntiVirus_for_Gateways@x.test", "Delivery failure notification", "Your mail could not be delivered to", true),
        (
            "ndr@x.test",
            "Mail delivery failed: returning",
            "This message was created automatically by mail delivery software.",
            true,
        ),
        (
            "\"System Administrator\"@x.test",
            "Delivery Failure",
            "Could not deliver message to the following recipient(s):",
            true,
        ),
        (
            "ann@cust.test",
            "Undeliverable: why?",
            "I got: mail delivery failed. The message could not be delivered.",
            false,
        ),
        ("smtp-team@cust.test", "Undeliverable: our order", "Hello, we cannot reach you.", false),
        ("gateway-sales@cust.test", "An offer", "Your parcel could not be delivered.", false),
    ] {
        let found = of(&format!("Return-Path: <x@x.test>\nFrom: {from}\nSubject: {subject}\n\n{text}\n"));
        assert_eq!(found.is_some(), is_bounce, "{from} {found:?}");
    }
}

#[test]
fn the_mail_that_came_back_is_found_in_the_text() {
    let facts = parse(
        b"From: MAILER-DAEMON@mx.test\nSubject: failure notice\n\nHi. This is the qmail-send program at mx.test.\n\n--- Below this line is a copy of the message.\n\nReturn-Path: <desk@example.test>\nMessage-ID: <om1.x@example.test>\nSubject: Printer\n\nHello\n",
    );
    assert_eq!(returned_message_id(&facts).as_deref(), Some("om1.x@example.test"));
    let person = parse(b"From: a@b.test\n\nMessage-ID: <x@b.test>\n");
    assert_eq!(returned_message_id(&person), None);
}
