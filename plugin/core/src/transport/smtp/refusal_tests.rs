//! What servers say, and what becomes of the message.

use std::time::Duration;

use super::{
    fake::{Act, Fake},
    tests::*,
    *,
};

/// One try over a new connection: its outcome, its error, and the wait.
fn said(world: &World, word: &'static str, reply: &str) -> (&'static str, Error, Option<u64>) {
    let fake = world.fake(&ALL, &[(word, say(reply))]);
    let outcome = world.send(&fake, &["b@b.test"], RAW);
    let name = name_of(&outcome);
    match outcome {
        Outcome::Rejected(error) => (name, error, None),
        Outcome::Retry { error, after } => (name, error, after.map(|wait| wait.as_secs())),
        other => panic!("{reply}: {other:?}"),
    }
}

/// wire.md F9: limits that pass are no refusals, whatever the code, and say how long they last.
#[test]
fn f9_limits_of_a_day_and_an_hour_are_retry_with_the_wait() {
    let world = World::new();
    let (day, hour) = (Some(86_400), Some(3_600));
    for (word, reply, wait) in [
        ("DOT", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process", day),
        (
            "MAIL",
            "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
            day,
        ),
        (
            "DOT",
            "550 5.7.232 Your trial tenant has exceeded its daily limit for sending email to external recipients",
            day,
        ),
        ("RCPT", "550 5.7.233 Your tenant has exceeded its daily limit for sending email to external recipients", day),
        ("MAIL", "550-5.4.5 Daily user sending limit exceeded. For more information go to\r\n550 5.4.5 https://x", day),
        ("DOT", "554 Transaction failed: limit of 500 mails per day", day),
        ("RCPT", "550 User desk@desk.test has exceeded its 24-hour sending limit", day),
        (
            "RCPT",
            "550 Domain desk.test has exceeded the max emails per hour (101/100 (101%)) allowed.  Message discarded.",
            hour,
        ),
        ("DOT", "554 5.7.1 Policy rejection; Message quota per hour exceeded", hour),
        (
            "RCPT",
            "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour",
            hour,
        ),
        ("DOT", "454 Throttling failure: Daily message quota exceeded.", day),
        ("DOT", "454 Throttling failure: Maximum sending rate exceeded.", Some(60)),
        ("MAIL", "550 5.7.0 You may send 30 messages per minute, limit reached", Some(60)),
        ("DOT", "550 5.7.1 limit of messages per day reached, try again in 2 hours", Some(7_200)),
        ("RCPT", "452 4.5.3 Too many recipients", None),
        ("RCPT", "552 too many recipients", None),
        ("DOT", "452 4.2.2 mailbox full", None),
    ] {
        let (outcome, error, after) = said(&world, word, reply);
        assert_eq!((outcome, after), ("retry", wait), "{reply}: {error:?}");
        assert_eq!(error.kind() == Kind::Throttled, wait.is_some(), "{reply}: {error:?}");
    }
}

/// wire.md F9: the enhanced code says what is wrong, and is believed before the basic one.
#[test]
fn f9_the_enhanced_code_goes_before_the_basic_code() {
    let world = World::new();
    for (word, reply, kind, words) in [
        ("RCPT", "552 5.2.2 mailbox full", Kind::Refused, "recipient's mailbox is full"),
        ("DOT", "552 5.2.2 over quota", Kind::AdminRequired, "mailbox is full"),
        ("DOT", "554 5.2.2 mailbox full; STOREDRV; QuotaExceeded", Kind::AdminRequired, "mailbox is full"),
        (
            "RCPT",
            "550-5.2.1 The email account that you tried to reach is\r\n550 5.2.1 disabled",
            Kind::Refused,
            "disabled",
        ),
        ("RCPT", "552 5.1.1 nobody of that name", Kind::Refused, "does not know"),
        ("DOT", "554 5.3.4 too big", Kind::TooLarge, "too large"),
        ("DOT", "552 5.2.3 exceeded Google's message size limits", Kind::TooLarge, "too large"),
        ("DOT", "552 too big", Kind::TooLarge, "too large"),
        ("MAIL", "525 5.7.13 User account disabled", Kind::AdminRequired, "disabled"),
        ("MAIL", "525 no", Kind::AdminRequired, "disabled"),
        ("RCPT", "550 5.5.3 too many recipients", Kind::Refused, "so many recipients"),
        ("RCPT", "550 5.1.1 over the limit of what we know per day", Kind::Refused, "does not know"),
    ] {
        let (outcome, error, _) = said(&world, word, reply.trim());
        assert_eq!((outcome, error.kind()), ("rejected", kind), "{reply}: {error:?}");
        assert!(error.message().contains(words), "{reply}: {error:?}");
    }
}

#[test]
fn f9_who_was_refused_is_named() {
    let world = World::new();
    for reply in ["550 5.1.1 unknown", "450 4.2.0 later", "550 5.7.233 daily limit", "550 5.7.60 SendAsDenied"] {
        let rules = [("RCPT TO:<b@", say(reply)), ("RCPT TO:<c@", say(reply))];
        let fake = world.fake(&ALL, &rules);
        let outcome = world.send(&fake, &["b@b.test", "c@c.test"], RAW);
        let (Outcome::Rejected(error) | Outcome::Retry { error, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(error.message().contains("b@b.test, c@c.test"), "{error:?}");
    }
    // Of those who are only put off, whatever the code, the host is told so.
    let limit = "550 5.7.233 your tenant exceeded its daily limit";
    let fake = world.fake(&ALL, &[("RCPT TO:<c@", say(limit)), ("RCPT TO:<d@", say("552 too many recipients"))]);
    let Outcome::Sent { refused, .. } = world.send(&fake, &["b@b.test", "c@c.test", "d@d.test"], RAW) else { panic!() };
    assert_eq!(refused.iter().map(|one| one.transient).collect::<Vec<_>>(), [true, true]);
}

/// wire.md F10: a line that nobody asked for shifts every later answer by one.
#[test]
fn f10_an_unread_line_makes_the_connection_unfit_and_costs_no_message() {
    let world = World::new();
    let sent = |outbox: &mut dyn Outbox| outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()));
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        let fake = world.fake(extensions, &[("DOT", say("250 \r\n250 Ok queued"))]);
        let mut outbox = world.open(&fake);
        assert_eq!(name_of(&sent(&mut *outbox)), "sent");
        let outcome = sent(&mut *outbox);
        assert_eq!((name_of(&outcome), outbox.lost(), outbox.is_fresh()), ("retry", true, false), "{outcome:?}");
        assert_eq!((fake.count("MAIL"), fake.contents().len()), (1, 1), "the second was not begun");

        // The line comes later than the next message begins: 250, 250, 250 for MAIL, RCPT and DATA.
        let fake = world.fake(extensions, &[("MAIL", say("250 late\r\n250 2.1.0 ok"))]);
        let mut outbox = world.open(&fake);
        let outcome = sent(&mut *outbox);
        assert_eq!((name_of(&outcome), outbox.lost(), fake.contents().len()), ("retry", true, 0), "{outcome:?}");

        // Beside 354: it would be taken for the answer to the final dot.
        let fake = world.fake(extensions, &[("DATA", say("354 go\r\n250 ok"))]);
        let mut outbox = world.open(&fake);
        let outcome = sent(&mut *outbox);
        assert_eq!((name_of(&outcome), fake.contents().len()), ("retry", 0), "{outcome:?}");

        let fake = world.fake(extensions, &[("AUTH", say("235 ok\r\n250 and more"))]);
        let mut outbox = world.open(&fake);
        let outcome = sent(&mut *outbox);
        assert_eq!((name_of(&outcome), fake.count("MAIL")), ("retry", 0), "{outcome:?}");
    }
}

/// wire.md F10: what fits no command is not said about the message.
#[test]
fn f10_a_positive_answer_out_of_step_is_retry_over_a_new_connection() {
    let world = World::new();
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        for (word, reply) in [
            ("MAIL", "354 go"),
            ("MAIL", "221 2.0.0 bye"),
            ("MAIL", "220 fake"),
            ("RCPT", "354 go"),
            ("RCPT", "235 in"),
            ("DATA", "250 2.1.5 ok"),
            ("DATA", "334 "),
            ("DATA", "220 hello"),
        ] {
            let fake = world.fake(extensions, &[(word, say(reply))]);
            let mut outbox = world.open(&fake);
            let outcome = outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()));
            assert_eq!((name_of(&outcome), outbox.lost(), outbox.is_fresh()), ("retry", true, false), "{word} {reply}");
            let content: String = fake.contents().concat();
            assert!(!content.contains("hello"), "{word} {reply}: {content}");
        }
    }
}

/// wire.md F15 and RFC 3207 section 4.
#[test]
fn f15_a_temporary_answer_to_starttls_is_transient() {
    let world = World::new();
    for (reply, kind) in [
        ("454 4.7.0 TLS not available due to local problem", Kind::Transient),
        ("421 4.3.2 closing", Kind::Throttled),
        ("502 5.5.1 what", Kind::Unsupported),
        ("501 5.5.4 what", Kind::Unsupported),
    ] {
        let fake = world.fake_starttls(&["STARTTLS"], &[("STARTTLS", say(reply))]);
        let error = world.open_with(TlsMode::StartTls, fake.port, None).map(drop).map_err(error_of).unwrap_err();
        assert_eq!((error.kind(), fake.count("AUTH")), (kind, 0), "{reply}: {error:?}");
    }
}

/// wire.md F16: 235 lets us in, whatever was asked before it.
#[test]
fn f16_an_empty_challenge_before_235_is_a_sign_in() {
    let world = World::new();
    let fake = world.fake(&ALL, &[("AUTH", say("334 ")), ("", say("235 2.7.0 in"))]);
    let mut outbox = world.open(&fake);
    let outcome = outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()));
    assert_eq!(name_of(&outcome), "sent");
}

#[test]
fn f16_a_disabled_account_is_not_a_refused_token() {
    let world = World::new();
    for (reply, kind) in [
        ("525 5.7.13 account disabled", Kind::AdminRequired),
        ("525 disabled", Kind::AdminRequired),
        ("454 4.7.0 Too many login attempts, please try again later", Kind::Throttled),
        ("454 4.7.0 Temporary authentication failure", Kind::Transient),
        ("534 5.7.9 mechanism is too weak", Kind::Unsupported),
        ("500 5.5.6 line too long", Kind::Unsupported),
    ] {
        let fake = world.fake(&ALL, &[("AUTH", say(reply))]);
        let Err(OpenError::Other(error)) = world.open_with(TlsMode::Implicit, fake.port, None) else {
            panic!("{reply}")
        };
        assert_eq!(error.kind(), kind, "{reply}: {error:?}");
    }
}

/// wire.md F5: what falls silent before the end of the content has not been offered.
#[test]
fn f5_a_message_is_offered_when_its_end_is_about_to_be_written() {
    let world = World::new();
    let large = [RAW, &b"x\r\n".repeat(100_000)].concat();
    let offered_after = |fake: &Fake, raw: &[u8], refuse: bool| {
        let mut seen = None;
        let mut offer = || {
            seen = Some(fake.count("DATA"));
            if refuse { Err(Error::new(Kind::Transient, "gone")) } else { Ok(()) }
        };
        let deadline = Deadline::after(Duration::from_secs(2));
        let outcome = world.open(fake).send(&envelope(&["b@b.test"]), raw, deadline, &mut offer);
        (name_of(&outcome), seen)
    };
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        for word in ["MAIL", "RCPT", "DATA"] {
            let fake = world.fake(extensions, &[(word, Act::Silence)]);
            assert_eq!(offered_after(&fake, RAW, false), ("retry", None), "{word}");
        }
        let fake = world.fake(extensions, &[("DOT", Act::Silence)]);
        assert_eq!(offered_after(&fake, &large, false), ("unknown", Some(1)));
        let fake = world.fake(extensions, &[]);
        assert_eq!(offered_after(&fake, &large, true), ("retry", Some(1)), "whoever waits was told so");
        assert_eq!(fake.contents().len(), 0);
    }
}
