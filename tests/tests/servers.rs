//! The servers themselves: if one of these fails, a failure elsewhere says nothing about the library.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use oauth_mail_tests::{
    MailboxFormat, Options, Servers, idp,
    mailgen::Generator,
    process::ProcessId,
    relay::Relay,
    wire::{Mechanism, Wire},
};
use serde_json::json;

#[test]
fn they_come_up_quickly_and_nothing_is_left_after_drop() {
    let start = Instant::now();
    let servers = Servers::start(Options::default()).unwrap();
    let took = start.elapsed();
    let (processes, dir) = (servers.processes(), servers.dir().to_owned());
    assert!(processes.len() > 8, "{processes:?}");
    drop(servers);
    let left: Vec<_> = processes.iter().filter(|process| process.is_running()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!dir.exists());
    // Five seconds alone on the machine; the rest is for whoever shares it.
    assert!(took < Duration::from_secs(100), "{took:?}");
}

#[test]
fn a_token_opens_the_mailbox_of_its_owner_and_no_other() {
    let servers = Servers::start(Options::default()).unwrap();
    let token = servers.access_token("alice").unwrap();
    let (alice, bob) = (servers.address("alice"), servers.address("bob"));
    for mechanism in Mechanism::BOTH {
        assert!(imap_accepts(&servers, mechanism, &alice, &token), "{mechanism:?}");
        assert!(!imap_accepts(&servers, mechanism, &bob, &token), "{mechanism:?}");
        assert!(!imap_accepts(&servers, mechanism, &alice, "rubbish"), "{mechanism:?}");
    }
    servers.idp.revoke_access_tokens(&alice).unwrap();
    assert!(!imap_accepts(&servers, Mechanism::Xoauth2, &alice, &token));
}

#[test]
fn what_is_sent_on_either_port_arrives_once_and_unchanged() {
    let servers = Servers::start(Options::default()).unwrap();
    let (alice, bob) = (servers.address("alice"), servers.address("bob"));
    let token = servers.access_token("alice").unwrap();
    let mut smtps = Wire::tls(servers.ca_file(), servers.postfix.smtps_port).unwrap();
    assert_eq!(smtps.smtp_reply().unwrap().0, 220);
    let submission = Wire::smtp_starttls(servers.ca_file(), servers.postfix.submission_port).unwrap();
    for (number, (mut wire, mechanism)) in [smtps, submission].into_iter().zip(Mechanism::BOTH).enumerate() {
        assert!(wire.smtp("EHLO client.test").unwrap().1.contains("AUTH XOAUTH2 OAUTHBEARER"));
        assert_eq!(wire.smtp_login(mechanism, &alice, "rubbish").unwrap().0, 535);
        assert_eq!(wire.smtp_login(mechanism, &alice, &token).unwrap().0, 235);
        let raw = format!("Subject: number {number}\r\n\r\n.a line with a dot\r\n");
        assert_eq!(wire.smtp_message(&bob, &bob, raw.as_bytes()).unwrap().0, 553, "somebody else's sender");
        wire.smtp("RSET").unwrap();
        assert_eq!(wire.smtp_message(&alice, &bob, raw.as_bytes()).unwrap().0, 250);
        assert_eq!(wire.smtp_message(&alice, "sink@example.test", raw.as_bytes()).unwrap().0, 250);
        servers.wait_for("bob", "INBOX", number + 1).unwrap();
    }
    let text = servers.doveadm(&["fetch", "-u", &bob, "text", "mailbox", "INBOX", "all"]).unwrap();
    assert_eq!(text.matches("\n.a line with a dot").count(), 2, "{text}");
}

#[test]
fn filling_keeps_bytes_and_order_in_both_formats() {
    for format in [MailboxFormat::Maildir, MailboxFormat::Mdbox] {
        let servers = Servers::start(Options { format, ..Options::default() }).unwrap();
        servers.fill("alice", 100, 5).unwrap();
        servers.deliver("alice", &Generator::new(2, 5).message(0)).unwrap();
        assert_eq!(servers.count("alice", "INBOX").unwrap(), 101);
        let generator = Generator::new(1, 5);
        let alice = servers.address("alice");
        let mut wire = Wire::tls(servers.ca_file(), servers.dovecot.port).unwrap();
        wire.imap_login(Mechanism::Xoauth2, &alice, &servers.access_token("alice").unwrap()).unwrap().unwrap();
        wire.imap("EXAMINE INBOX").unwrap();
        for number in [0, 7, 99] {
            let lines = wire.imap(&format!("FETCH {} (RFC822.SIZE BODY.PEEK[])", number + 1)).unwrap();
            let raw = generator.message(number);
            assert!(lines[0].contains(&format!("RFC822.SIZE {} ", raw.len())), "{format:?} {}", lines[0]);
            let expected = String::from_utf8_lossy(&raw).into_owned();
            let body: Vec<_> = lines[1..].iter().map(String::as_str).take(expected.lines().count()).collect();
            assert_eq!(body.join("\r\n") + "\r\n", expected, "{format:?}");
        }
    }
}

#[test]
fn faults_of_the_authorization_server_are_the_ones_that_were_ordered() {
    let servers = Servers::start(Options::default()).unwrap();
    let first = servers.token("alice", idp::NATIVE).unwrap();
    let refresh = |token: &str, client: &str| {
        servers.idp.token_request(&[("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", client)])
    };
    let old = first["refresh_token"].as_str().unwrap();
    servers.idp.fault(json!({"times": 2, "status": 503, "headers": {"retry-after": "7"}})).unwrap();
    assert_eq!(refresh(old, idp::NATIVE).unwrap().0, 503);
    assert_eq!(refresh(old, idp::NATIVE).unwrap().0, 503);
    let (status, second) = refresh(old, idp::NATIVE).unwrap();
    assert_eq!((status, servers.idp.refreshes()), (200, 1));
    assert_ne!(second["refresh_token"], first["refresh_token"]);

    // The answer is lost: the server has rotated, and the token that we still have is spent.
    let current = second["refresh_token"].as_str().unwrap();
    servers.idp.fault(json!({"lose": true})).unwrap();
    assert!(refresh(current, idp::NATIVE).is_err());
    assert_eq!(servers.idp.refreshes(), 2);
    let (status, answer) = refresh(current, idp::NATIVE).unwrap();
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")));

    let omitting = servers.token("alice", idp::OMITS_REFRESH).unwrap();
    let old = omitting["refresh_token"].as_str().unwrap();
    for _ in 0..2 {
        let (status, answer) = refresh(old, idp::OMITS_REFRESH).unwrap();
        assert_eq!((status, answer.get("refresh_token")), (200, None));
    }
    servers.idp.revoke(&servers.address("alice")).unwrap();
    assert_eq!(refresh(old, idp::OMITS_REFRESH).unwrap().0, 400);
}

#[test]
fn a_person_who_denies_and_one_who_mistypes() {
    let servers = Servers::start(Options::default()).unwrap();
    let query = "client_id=mail-native&response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%3A5%2Fcallback\
                 &scope=openid&state=s&code_challenge=JJMrzNTBpfAc4ur5Fk0jw7y6gh_Txw0KfXRZ8xf7SVs&code_challenge_method=S256";
    let url = format!("{}?{query}", servers.idp.authorize_url());
    let redirect = servers.deny(&url, "alice").unwrap();
    assert!(redirect.as_str().starts_with("http://127.0.0.1:5/callback?error=access_denied"), "{redirect}");
    let nobody = servers.consent(&url, "nobody").unwrap_err();
    assert!(nobody.to_string().contains("Wrong login"), "{nobody}");
}

#[test]
fn servers_come_back_on_the_same_ports() {
    let mut servers = Servers::start(Options::default()).unwrap();
    let alice = servers.address("alice");
    servers.fill("alice", 3, 1).unwrap();
    servers.dovecot.kill();
    assert!(Wire::tls(servers.ca_file(), servers.dovecot.port).is_err());
    servers.dovecot.restart().unwrap();
    servers.postfix.kill();
    servers.postfix.restart().unwrap();
    servers.idp.restart().unwrap();
    let token = servers.access_token("alice").unwrap();
    assert!(imap_accepts(&servers, Mechanism::Xoauth2, &alice, &token));
    let mut wire = Wire::tls(servers.ca_file(), servers.postfix.smtps_port).unwrap();
    assert_eq!(wire.smtp_reply().unwrap().0, 220);
    assert_eq!(servers.count("alice", "INBOX").unwrap(), 3);
}

#[test]
fn capabilities_can_be_taken_away() {
    let list = "IMAP4rev1 LITERAL+ ID ENABLE IDLE AUTH=XOAUTH2";
    let servers = Servers::start(Options { imap_capability: Some(list.into()), ..Options::default() }).unwrap();
    let mut wire = Wire::tls(servers.ca_file(), servers.dovecot.port).unwrap();
    wire.read_line().unwrap();
    let before = wire.imap("CAPABILITY").unwrap().join("\n");
    assert!(before.contains("AUTH=XOAUTH2") && !before.contains("SASL-IR"), "{before}");
    drop(wire);
    let mut wire = Wire::tls(servers.ca_file(), servers.dovecot.port).unwrap();
    let token = servers.access_token("alice").unwrap();
    wire.imap_login(Mechanism::Xoauth2, &servers.address("alice"), &token).unwrap().unwrap();
    let after = wire.imap("CAPABILITY").unwrap().join("\n");
    assert!(!after.contains("MOVE") && !after.contains("UIDPLUS"), "{after}");
}

#[test]
fn a_relay_delays_and_cuts() {
    let servers = Servers::start(Options::default()).unwrap();
    let relay = Relay::start(servers.dovecot.port).unwrap();
    relay.set_one_way_delay(Duration::from_millis(20));
    let mut wire = Wire::tls(servers.ca_file(), relay.port()).unwrap();
    wire.read_line().unwrap();
    let start = Instant::now();
    wire.imap("NOOP").unwrap();
    assert!((40..10_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    relay.cut_after(0);
    assert!(wire.imap("NOOP").is_err());
    relay.heal();
    let mut wire = Wire::tls(servers.ca_file(), relay.port()).unwrap();
    assert!(wire.read_line().unwrap().starts_with("* OK"));
    assert_eq!(relay.connections(), 2);
}

#[test]
fn servers_end_when_whoever_started_them_is_killed() {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_oauth-mail-servers"))
        .args(["up", "--users", "alice"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(program.stdout.take().unwrap()), &mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let below = ProcessId::descendants(program.id());
    assert!(below.len() > 8, "{below:?}");
    program.kill().unwrap();
    program.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while below.iter().any(ProcessId::is_running) {
        assert!(Instant::now() < end, "{:?}", below.iter().filter(|process| process.is_running()).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nobody was left to remove the folder.
    let folder = std::path::Path::new(ready["ca_file"].as_str().unwrap()).parent().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

fn imap_accepts(servers: &Servers, mechanism: Mechanism, user: &str, token: &str) -> bool {
    let mut wire = Wire::tls(servers.ca_file(), servers.dovecot.port).unwrap();
    wire.imap_login(mechanism, user, token).unwrap().is_ok()
}
