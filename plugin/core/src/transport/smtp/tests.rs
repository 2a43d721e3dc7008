use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    fake::{Act, Authority, Fake, Script},
    *,
};
use crate::{
    net::Egress,
    secret::Secret,
    settings::{Client, Direction, Sending},
};

pub(super) const ALL: [&str; 5] =
    ["PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "AUTH PLAIN XOAUTH2 OAUTHBEARER"];
pub(super) const NO_PIPELINING: [&str; 4] = ["SIZE 100000000", "8BITMIME", "SMTPUTF8", "AUTH XOAUTH2"];
pub(super) const RAW: &[u8] = b"From: a@a.test\r\n\r\nhello\r\n.\r\n..x\r\n.end\r\n";

pub(super) struct World {
    authority: Authority,
    net: Net,
    account: Account,
    token: Secret,
    /// The transcript of email debug.
    transcript: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(super) fn new() -> Self {
        let authority = Authority::new();
        let net = Net::new(Some(authority.path()), Egress::default()).unwrap();
        let url: url::Url = "https://idp.test/".parse().unwrap();
        let account = Account {
            label: None,
            direction: Direction::Outgoing,
            protocol: Protocol::Smtp { server: endpoint(1), alternate: None, tls: TlsMode::Implicit },
            username: "desk@desk.test".into(),
            consenting_user: "desk@desk.test".into(),
            client: Client {
                client_id: "id".into(),
                client_secret: None,
                authorize_url: url.clone(),
                token_url: url.clone(),
                scopes: Vec::new(),
                redirect_url: url,
                redirect_text: "https://desk.test/".into(),
                client_secret_place: None,
                client_authentication: crate::settings::ClientAuthentication::Automatic,
                issuer: None,
                revocation_url: None,
                userinfo_url: None,
                jwks_url: None,
                grant: crate::settings::GrantType::AuthorizationCode,
                client_secret_expires: None,
                certificate: None,
                service_account: None,
                device_authorization_url: None,
                admin_consent_url: None,
                authorize_parameters: Vec::new(),
            },
            email_debug: true,
            mechanism: None,
            ca_file: None,
            proxy: Default::default(),
            fetching: None,
            sending: Some(Sending {
                smtp_user: "desk@desk.test".into(),
                from: address("desk@desk.test"),
                sender_name: None,
                reply_to: None,
                automatic_mails_per_day: 2,
                messages_per_minute: None,
                app_messages_per_minute: None,
                sent_folder_server: None,
            }),
        };
        Self { authority, net, account, token: Secret::new("t0ken"), transcript: Arc::default() }
    }

    pub(super) fn fake(&self, extensions: &[&'static str], rules: &[(&'static str, Act)]) -> Fake {
        Fake::start(&self.authority, Script::new(extensions, rules))
    }

    pub(super) fn fake_starttls(&self, extensions: &[&'static str], rules: &[(&'static str, Act)]) -> Fake {
        Fake::start(&self.authority, Script { starttls: true, ..Script::new(extensions, rules) })
    }

    pub(super) fn open_with(
        &self,
        tls: TlsMode,
        port: u16,
        alternate: Option<u16>,
    ) -> Result<Box<dyn Outbox>, OpenError> {
        let mut account = self.account.clone();
        account.protocol = Protocol::Smtp { server: endpoint(port), alternate: alternate.map(endpoint), tls };
        let lines = self.transcript.clone();
        let logger = Logger::new(move |_, _, line| lines.lock().unwrap().push(line.to_owned()));
        let login = Login { username: &account.username, token: &self.token };
        open(&account, &self.net, &login, &Transcript::new(Some(logger)), &Logger::silent(), soon())
    }

    pub(super) fn open(&self, fake: &Fake) -> Box<dyn Outbox> {
        self.open_with(TlsMode::Implicit, fake.port, None).map_err(error_of).unwrap()
    }

    /// Opens, sends one message to `to`, and returns the outcome.
    pub(super) fn send(&self, fake: &Fake, to: &[&str], raw: &[u8]) -> Outcome {
        self.open(fake).send(&envelope(to), raw, soon(), &mut || Ok(()))
    }
}

pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint { host: "127.0.0.1".into(), port }
}

pub(super) fn address(text: &str) -> lettre::Address {
    text.parse().unwrap()
}

pub(super) fn envelope(to: &[&str]) -> Envelope {
    Envelope { from: Some(address("desk@desk.test")), to: to.iter().map(|text| address(text)).collect() }
}

pub(super) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

pub(super) fn say(text: &str) -> Act {
    Act::Say(text.into())
}

pub(super) fn error_of(error: OpenError) -> Error {
    match error {
        OpenError::LoginRefused(error) | OpenError::Other(error) => error,
    }
}

pub(super) fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Sent { .. } => "sent",
        Outcome::Rejected(_) => "rejected",
        Outcome::Retry { .. } => "retry",
        Outcome::Unknown(_) => "unknown",
    }
}

#[test]
fn a_message_arrives_byte_for_byte_with_and_without_pipelining() {
    let world = World::new();
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        let fake = world.fake(extensions, &[]);
        let mut outbox = world.open(&fake);
        for _ in 0..3 {
            let outcome = outbox.send(&envelope(&["b@b.test", "c@c.test"]), RAW, soon(), &mut || Ok(()));
            let Outcome::Sent { reply, server, refused } = outcome else { panic!("{outcome:?}") };
            assert_eq!((reply.as_str(), server.as_str()), ("250 2.0.0 Ok: queued as 4711", "127.0.0.1"));
            assert!(refused.is_empty() && outbox.is_fresh() && !outbox.lost());
        }
        assert_eq!(outbox.proof().protocol, "SMTPS");
        assert_eq!(outbox.proof().tls.version, "TLS 1.3");
        drop(outbox);
        assert_eq!(fake.contents(), vec!["From: a@a.test\r\n\r\nhello\r\n..\r\n...x\r\n..end\r\n"; 3]);
        assert_eq!(fake.count(&format!("MAIL FROM:<desk@desk.test> SIZE={}", RAW.len())), 3);
        assert_eq!((fake.count("EHLO"), fake.count("QUIT"), fake.count("RSET")), (1, 1, 0));
    }
}

#[test]
fn dots_survive_wherever_the_writes_are_cut() {
    let world = World::new();
    let fake = world.fake(&ALL, &[]);
    let mut outbox = world.open(&fake);
    for offset in 0..6 {
        let filler = "y".repeat(900);
        let mut raw = format!("{}: b\r\n\r\n{}\r\n", [".A", "A"][offset % 2], "z".repeat(offset));
        while raw.len() < limits::SMTP_WRITE_CHUNK * 2 {
            raw.push_str(&format!("{filler}\r\n.\r\n..\r\n"));
        }
        assert_eq!(name_of(&outbox.send(&envelope(&["b@b.test"]), raw.as_bytes(), soon(), &mut || Ok(()))), "sent");
        let got = fake.contents().pop().unwrap();
        let lines: Vec<&str> = got.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
        assert!(lines.join("\r\n") == raw, "offset {offset}");
    }
}

#[test]
fn each_refusal_before_the_dot_says_who_must_act() {
    let world = World::new();
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        for (word, reply, expected, kind) in [
            (
                "MAIL",
                "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                "rejected",
                Kind::Refused,
            ),
            ("MAIL", "530 5.7.57 Client not authenticated to send mail", "rejected", Kind::Refused),
            (
                "MAIL",
                "550 5.7.30 Basic authentication is not supported for Client Submission",
                "rejected",
                Kind::AdminRequired,
            ),
            ("MAIL", "552 5.3.4 Message size exceeds fixed limit", "rejected", Kind::TooLarge),
            ("MAIL", "432 4.3.2 Concurrent connections limit exceeded", "retry", Kind::Throttled),
            ("MAIL", "451 4.3.0 not now", "retry", Kind::Transient),
            ("RCPT", "550 5.1.1 unknown", "rejected", Kind::Refused),
            ("RCPT", "553 5.7.1 <x>: Sender address rejected: not owned by user y", "rejected", Kind::Refused),
            ("RCPT", "450 4.2.0 Greylisted, try again in 300 seconds", "retry", Kind::Transient),
            ("DATA", "554 5.5.1 no", "rejected", Kind::Refused),
            ("DATA", "451 4.3.0 disk full", "retry", Kind::Transient),
            ("DOT", "554 5.2.252 SendAsDenied; x not allowed to send as y", "rejected", Kind::Refused),
            ("DOT", "554 5.2.0 STOREDRV.ClientSubmit; sender thread limit exceeded", "retry", Kind::Throttled),
            ("DOT", "554 5.2.2 mailbox full; STOREDRV; QuotaExceeded", "rejected", Kind::AdminRequired),
            ("DOT", "451 4.7.1 later", "retry", Kind::Transient),
            ("DOT", "421 4.3.2 shutting down", "retry", Kind::Throttled),
        ] {
            let fake = world.fake(extensions, &[(word, say(reply))]);
            let mut outbox = world.open(&fake);
            let outcome = outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()));
            assert_eq!(name_of(&outcome), expected, "{reply}: {outcome:?}");
            let (Outcome::Rejected(error) | Outcome::Retry { error, .. }) = outcome else { panic!() };
            assert_eq!(error.kind(), kind, "{reply}");
            assert_eq!(error.provider_code_text(), Some(reply));
            // The connection is clean: the next message goes through on it.
            if !reply.starts_with("421") {
                assert!(outbox.is_fresh(), "{reply}");
                assert_eq!(
                    name_of(&outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()))),
                    "sent",
                    "after {reply}"
                );
                assert_eq!(fake.contents().last().unwrap().len(), RAW.len() + 3);
            }
        }
    }
}

#[test]
fn one_refused_recipient_does_not_stop_the_others() {
    let world = World::new();
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        let fake =
            world.fake(extensions, &[("RCPT TO:<c@", say("550 5.1.1 no c")), ("RCPT TO:<d@", say("451 4 no d"))]);
        let outcome = world.send(&fake, &["b@b.test", "c@c.test", "d@d.test"], RAW);
        let Outcome::Sent { refused, .. } = outcome else { panic!("{outcome:?}") };
        let refused: Vec<_> =
            refused.iter().map(|one| (one.address.as_str(), one.reply.as_str(), one.transient)).collect();
        assert_eq!(refused, [("c@c.test", "550 5.1.1 no c", false), ("d@d.test", "451 4 no d", true)]);
        let fake = world.fake(extensions, &[("RCPT TO:<b@", say("550 no b")), ("RCPT TO:<c@", say("451 4 no c"))]);
        let outcome = world.send(&fake, &["b@b.test", "c@c.test"], RAW);
        assert_eq!(name_of(&outcome), "retry", "one may be accepted later: {outcome:?}");
    }
}

#[test]
fn data_accepted_for_nobody_delivers_nothing() {
    let world = World::new();
    // RFC 2920: the fake answers DATA with 354 although it refused everybody.
    let fake = world.fake(&ALL, &[("RCPT", say("550 no")), ("RCPT", say("550 no"))]);
    assert_eq!(name_of(&world.send(&fake, &["b@b.test", "c@c.test"], RAW)), "rejected");
    assert_eq!(fake.contents(), [""], "a lone dot");
}

#[test]
fn many_recipients_are_sent_in_groups() {
    let world = World::new();
    let fake = world.fake(&ALL, &[("RCPT TO:<r150@", say("550 no"))]);
    let to: Vec<String> = (0..350).map(|i| format!("r{i}@b.test")).collect();
    let outcome = world.send(&fake, &to.iter().map(String::as_str).collect::<Vec<_>>(), RAW);
    let Outcome::Sent { refused, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((refused.len(), fake.count("RCPT"), fake.count("DATA")), (1, 350, 1));
}

#[test]
fn a_cut_connection_is_retry_before_the_dot_and_unknown_after_it() {
    let world = World::new();
    // More than both sockets' buffers hold: what they swallow counts as written.
    let large = [RAW, &b"x\r\n".repeat(5_000_000)].concat();
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        for (word, expected) in
            [("MAIL", "retry"), ("RCPT", "retry"), ("DATA", "retry"), ("CONTENT", "retry"), ("DOT", "unknown")]
        {
            let fake = world.fake(extensions, &[(word, Act::Close)]);
            let mut outbox = world.open(&fake);
            let raw = if word == "CONTENT" { &large } else { RAW };
            let outcome = outbox.send(&envelope(&["b@b.test"]), raw, soon(), &mut || Ok(()));
            assert_eq!(name_of(&outcome), expected, "{word}: {outcome:?}");
            assert_eq!((outbox.is_fresh(), outbox.lost()), (false, word == "MAIL"), "{word}");
            drop(outbox);
            assert_eq!(fake.count("QUIT"), 0, "{word}: nothing may be flushed any more");
        }
    }
}

#[test]
fn a_refusal_before_the_connection_ends_is_heard() {
    let world = World::new();
    let large = [RAW, &b"x\r\n".repeat(5_000_000)].concat();
    for extensions in [&ALL[..], &NO_PIPELINING[..]] {
        for (word, reply, to, expected, wait) in [
            ("MAIL", "554 5.7.1 not from you", &["b@b.test", "c@c.test"][..], "rejected", None),
            ("RCPT", "421 4.7.0 try again in 5 minutes", &["b@b.test", "c@c.test"], "retry", Some(300)),
            ("RCPT", "421 4.7.0 too many", &["b@b.test"], "retry", Some(60)),
            ("RCPT", "550 5.1.1 unknown", &["b@b.test"], "rejected", None),
            ("RCPT", "550 5.1.1 unknown", &["b@b.test", "c@c.test"], "retry", None),
            ("CONTENT", "552 5.3.4 too large", &["b@b.test"], "rejected", None),
            ("CONTENT", "250 2.0.0 thank you", &["b@b.test"], "retry", None),
        ] {
            let fake = world.fake(extensions, &[(word, Act::SayAndClose(reply))]);
            let mut outbox = world.open(&fake);
            let raw = if word == "CONTENT" { &large } else { RAW };
            let outcome = outbox.send(&envelope(to), raw, soon(), &mut || Ok(()));
            assert_eq!(name_of(&outcome), expected, "{reply}: {outcome:?}");
            if let Outcome::Retry { after, .. } = &outcome {
                assert_eq!(*after, wait.map(Duration::from_secs), "{reply}: {outcome:?}");
            }
            drop(outbox);
            assert_eq!(fake.count("QUIT"), 0, "{reply}");
        }
    }
}

#[test]
fn a_server_that_is_busy_before_the_message_gets_a_pause() {
    let world = World::new();
    for (word, reply, wait) in [
        ("GREETING", "421 4.3.2 busy", Some(60)),
        ("GREETING", "421 4.3.2 busy for 10 minutes", Some(600)),
        ("AUTH", "432 4.3.2 Concurrent connections limit exceeded.", Some(60)),
        ("AUTH", "454 4.7.0 Too many login attempts, please try again later.", Some(60)),
        ("AUTH", "454 4.7.0 Temporary authentication failure", None),
    ] {
        let fake = world.fake(&ALL, &[(word, say(reply))]);
        let error = world.open_with(TlsMode::Implicit, fake.port, None).map(drop).map_err(error_of).unwrap_err();
        assert_eq!(error.wait(), wait.map(Duration::from_secs), "{reply}: {error:?}");
    }
}

#[test]
fn silence_after_the_dot_ends_at_the_deadline_as_unknown() {
    let world = World::new();
    let fake = world.fake(&ALL, &[("DOT", Act::Silence)]);
    let mut outbox = world.open(&fake);
    let started = Instant::now();
    let outcome = outbox.send(&envelope(&["b@b.test"]), RAW, Deadline::after(Duration::from_secs(2)), &mut || Ok(()));
    assert_eq!(name_of(&outcome), "unknown");
    // Without it a server may take ten minutes (RFC 5321 section 4.5.3.2).
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    for broken in ["354 what", "hello"] {
        let fake = world.fake(&ALL, &[("DOT", say(broken))]);
        assert_eq!(name_of(&world.send(&fake, &["b@b.test"], RAW)), "unknown", "{broken}");
    }
}

#[test]
fn a_warm_connection_that_died_says_that_it_was_lost() {
    let world = World::new();
    for act in [Act::Close, Act::SayAndClose("421 4.4.2 idle for too long")] {
        let fake = world.fake(&ALL, &[]);
        let mut outbox = world.open(&fake);
        assert_eq!(name_of(&outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()))), "sent");
        fake.then("MAIL", act);
        let outcome = outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()));
        assert_eq!(name_of(&outcome), "retry", "{outcome:?}");
        assert!(outbox.lost() && !outbox.is_fresh());
        assert_eq!(
            name_of(&outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()))),
            "retry",
            "broken for good"
        );
        assert_eq!(name_of(&world.send(&fake, &["b@b.test"], RAW)), "sent", "over a new one");
    }
}

#[test]
fn what_the_server_cannot_take_is_not_sent() {
    let world = World::new();
    let utf8: &[u8] = "A: b\r\n\r\n\u{e9}\r\n".as_bytes();
    let headers: &[u8] = "A: \u{e9}\r\n\r\nx\r\n".as_bytes();
    for (extensions, to, raw, kind) in [
        (&["AUTH XOAUTH2", "SIZE 20"][..], "b@b.test", RAW, Kind::TooLarge),
        (&["AUTH XOAUTH2"], "b@b.test", utf8, Kind::Unsupported),
        (&["AUTH XOAUTH2", "8BITMIME"], "b@b.test", headers, Kind::Unsupported),
        (&["AUTH XOAUTH2", "8BITMIME"], "\u{e9}@b.test", RAW, Kind::Unsupported),
        (&["AUTH XOAUTH2"], "b@b.test", b"A: b\n\n.\n", Kind::Misuse),
        (&["AUTH XOAUTH2"], "b@b.test", b"A: b\r\n\r\nx\r.\r\r\n", Kind::Misuse),
    ] {
        let fake = world.fake(extensions, &[]);
        let outcome = world.send(&fake, &[to], raw);
        let Outcome::Rejected(error) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((error.kind(), fake.count("MAIL")), (kind, 0), "{error:?}");
    }
    let fake = world.fake(&ALL, &[]);
    assert_eq!(name_of(&world.send(&fake, &["\u{e9}@b.test"], utf8)), "sent");
    assert_eq!(fake.count("MAIL FROM:<desk@desk.test> SIZE=12 BODY=8BITMIME SMTPUTF8"), 1, "{:?}", fake.seen());

    let fake = world.fake(&ALL, &[]);
    let injected = lettre::Address::new_dangerous("x>\r\nRCPT TO:<evil", "b.test");
    let outcome = world.open(&fake).send(&Envelope { from: None, to: vec![injected] }, RAW, soon(), &mut || Ok(()));
    assert_eq!((name_of(&outcome), fake.count("RCPT")), ("rejected", 0));
    let null = Envelope { from: None, to: vec![address("b@b.test")] };
    assert_eq!(name_of(&world.open(&fake).send(&null, RAW, soon(), &mut || Ok(()))), "sent");
    assert_eq!(fake.count("MAIL FROM:<> "), 1);
}

#[test]
fn starttls_is_required_and_nothing_before_it_counts() {
    let world = World::new();
    let fake = world.fake_starttls(&["STARTTLS", "AUTH XOAUTH2"], &[]);
    let mut outbox = world.open_with(TlsMode::StartTls, fake.port, None).map_err(error_of).unwrap();
    assert_eq!(outbox.proof().protocol, "SMTP + STARTTLS");
    assert_eq!(name_of(&outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()))), "sent");
    assert_eq!(fake.count("EHLO"), 2, "asked again under TLS");

    for (extensions, rules, kind) in [
        (vec!["AUTH XOAUTH2"], vec![], Kind::Unsupported),
        (vec!["STARTTLS", "AUTH XOAUTH2"], vec![("STARTTLS", say("454 4.7.0 not now"))], Kind::Transient),
        // CVE-2021-38371: an answer put in front of the TLS handshake
        (vec!["STARTTLS"], vec![("STARTTLS", say("220 go\r\n250-x\r\n250 AUTH XOAUTH2"))], Kind::ServerMisbehaved),
    ] {
        let fake = world.fake_starttls(&extensions, &rules);
        let error = world.open_with(TlsMode::StartTls, fake.port, None).map(drop).map_err(error_of).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(fake.count("AUTH"), 0, "no token left");
    }
}

#[test]
fn only_a_judged_token_is_a_refused_login() {
    let mut world = World::new();
    let challenge = format!("334 {}", STANDARD.encode(r#"{"status":"401","schemes":"bearer","scope":"mail"}"#));
    let failed = "535 5.7.8 Error: authentication failed: (reason unavailable)";
    for (mechanism, answer) in [(Mechanism::Xoauth2, ""), (Mechanism::Oauthbearer, "AQ==")] {
        world.account.mechanism = Some(mechanism);
        let fake = world.fake(&ALL, &[("AUTH", say(&challenge)), (answer, say(failed))]);
        let Err(OpenError::LoginRefused(error)) = world.open_with(TlsMode::Implicit, fake.port, None) else { panic!() };
        assert!(error.provider_code_text().unwrap().contains(r#""status":"401""#), "{error:?}");
        assert_eq!(fake.seen().last().unwrap(), answer);
    }
    world.account.mechanism = None;
    for (reply, refused, kind) in [
        (failed, false, Kind::Transient),
        ("454 4.7.0 Temporary authentication failure", false, Kind::Transient),
        ("432 4.3.2 Concurrent connections limit exceeded.", false, Kind::Throttled),
        ("421 4.7.0 too many", false, Kind::Throttled),
        ("504 5.5.4 Unrecognized authentication type", false, Kind::Unsupported),
        ("535 5.7.3 Authentication unsuccessful [HOST]", true, Kind::Refused),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
            false,
            Kind::AdminRequired,
        ),
        (
            "535 5.7.139 Authentication unsuccessful, the user is locked by your organization's security defaults policy",
            true,
            Kind::AdminRequired,
        ),
        (
            "535-5.7.8 Username and Password not accepted.\r\n535 5.7.8  https://support.google.com/?p=BadCredentials",
            true,
            Kind::Refused,
        ),
    ] {
        let fake = world.fake(&ALL, &[("AUTH", say(reply))]);
        let Err(error) = world.open_with(TlsMode::Implicit, fake.port, None) else { panic!("{reply}") };
        assert_eq!(matches!(error, OpenError::LoginRefused(_)), refused, "{reply}");
        assert_eq!(error_of(error).kind(), kind, "{reply}");
    }
    let fake = world.fake(&["AUTH PLAIN LOGIN"], &[]);
    let error = world.open_with(TlsMode::Implicit, fake.port, None).map(drop).map_err(error_of).unwrap_err();
    assert_eq!((error.kind(), fake.count("AUTH")), (Kind::Unsupported, 0));
}

#[test]
fn a_long_token_goes_in_a_line_of_its_own_and_no_token_is_logged() {
    let mut world = World::new();
    for (token, two_steps) in [("t0ken".to_owned(), false), ("LongToken".repeat(250), true)] {
        world.token = Secret::new(token.clone());
        let rules: &[_] = if two_steps { &[("AUTH", say("334 ")), ("dXNl", say("235 ok"))] } else { &[] };
        let fake = world.fake(&ALL, rules);
        world.open(&fake);
        let expected = STANDARD.encode(format!("user=desk@desk.test\x01auth=Bearer {token}\x01\x01"));
        let seen = fake.seen();
        if two_steps {
            assert!(seen.contains(&"AUTH XOAUTH2".into()) && seen.contains(&expected));
        } else {
            assert!(seen.contains(&format!("AUTH XOAUTH2 {expected}")));
        }
        let log = world.transcript.lock().unwrap().join("\n");
        assert!(log.contains("C: AUTH XOAUTH2") && log.contains("S: 235"), "{log}");
        assert!(!log.contains(&expected) && !log.contains(&token), "{log}");
    }
}

#[test]
fn oauthbearer_escapes_the_user_name() {
    let mut world = World::new();
    world.account.mechanism = Some(Mechanism::Oauthbearer);
    world.account.username = "a,b=c@desk.test".into();
    let fake = world.fake(&ALL, &[]);
    world.open(&fake);
    let text = format!("n,a=a=2Cb=3Dc@desk.test,\x01host=127.0.0.1\x01port={}\x01auth=Bearer t0ken\x01\x01", fake.port);
    assert_eq!(fake.count(&format!("AUTH OAUTHBEARER {}", STANDARD.encode(text))), 1);
}

#[test]
fn an_endless_reply_ends() {
    let world = World::new();
    for endless in ["2".repeat(1 << 20), "250-x\r\n".repeat(10_000)] {
        let fake = world.fake(&ALL, &[("MAIL", Act::Say(endless.clone()))]);
        let outcome = world.send(&fake, &["b@b.test"], RAW);
        let Outcome::Retry { error, .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind(), Kind::ServerMisbehaved);
        let fake = world.fake(&ALL, &[("EHLO", Act::Say(endless))]);
        assert!(world.open_with(TlsMode::Implicit, fake.port, None).is_err());
    }
}

#[test]
fn the_alternate_server_is_used_until_somebody_judged_the_login() {
    let world = World::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let busy = world.fake(&ALL, &[("GREETING", say("421 4.3.2 busy"))]);
    let hangs_up = world.fake(&ALL, &[("AUTH", Act::Close)]);
    let untrusted = Fake::start(&Authority::new(), Script::new(&ALL, &[]));
    for first in [closed, busy.port, hangs_up.port, untrusted.port] {
        let second = world.fake(&ALL, &[]);
        let mut outbox = world.open_with(TlsMode::Implicit, first, Some(second.port)).map_err(error_of).unwrap();
        assert_eq!(name_of(&outbox.send(&envelope(&["b@b.test"]), RAW, soon(), &mut || Ok(()))), "sent");
        assert_eq!((outbox.proof().port, second.contents().len()), (second.port, 1));
    }
    for reply in ["535 5.7.3 Authentication unsuccessful", "454 4.7.0 later"] {
        let second = world.fake(&ALL, &[]);
        let refusing = world.fake(&ALL, &[("AUTH", say(reply))]);
        assert!(world.open_with(TlsMode::Implicit, refusing.port, Some(second.port)).is_err());
        assert_eq!(second.seen().len(), 0, "{reply}");
    }
    let error = world.open_with(TlsMode::Implicit, closed, Some(closed)).map(drop).map_err(error_of).unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
}

#[test]
fn a_silent_first_server_leaves_time_for_the_second() {
    let world = World::new();
    let silent = world.fake(&ALL, &[("GREETING", Act::Silence)]);
    let second = world.fake(&ALL, &[]);
    let mut account = world.account.clone();
    account.protocol = Protocol::Smtp {
        server: endpoint(silent.port),
        alternate: Some(endpoint(second.port)),
        tls: TlsMode::Implicit,
    };
    let login = Login { username: &account.username, token: &world.token };
    let deadline = Deadline::after(Duration::from_secs(8));
    let outbox = open(&account, &world.net, &login, &Transcript::default(), &Logger::silent(), deadline);
    assert_eq!(outbox.map_err(error_of).unwrap().proof().port, second.port);
}
