//! Not too much: the brake on automatic mail, and the rate of a mailbox.

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{
    fixture::{Fixture, parse},
    mailbox,
};
use serde_json::{Value, json};

use super::{send, servers, settled, text_to, times};

/// A helpdesk that answers each new mail automatically and takes no notice of what others mark.
struct Careless<'a> {
    inbox: Handle,
    outbox: Handle,
    other: &'a str,
    answered: usize,
}

impl Careless<'_> {
    /// How many automatic answers went out.
    fn turn(&mut self) -> usize {
        let mail = mailbox::round(&self.inbox, &json!({})).unwrap();
        let mut sent = 0;
        for message in &mail.messages {
            self.answered += 1;
            let mut answer = text_to(self.other, &format!("We got your mail, number {}", self.answered));
            answer["auto_submitted"] = json!(true);
            answer["in_reply_to"] = message.facts["message_id"].clone();
            let outcome = send(&self.outbox, &answer);
            match outcome["outcome"].as_str().unwrap() {
                "sent" => sent += 1,
                "rejected" => assert!(outcome["error"]["message"].as_str().unwrap().contains("loop"), "{outcome}"),
                other => panic!("{other}: {outcome}"),
            }
        }
        mailbox::settle(&self.inbox, mail.keys(), "imported").unwrap();
        sent
    }
}

#[test]
fn two_careless_helpdesks_send_each_other_two_automatic_mails_at_most() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let (grace, heidi) = (servers.address("grace"), servers.address("heidi"));
    let desk = |name: &str, other| Careless {
        inbox: fixture.incoming(name, |_| ()),
        outbox: fixture.outgoing(name, |_| ()),
        other,
        answered: 0,
    };
    let mut desks = [desk("grace", &heidi), desk("heidi", &grace)];
    // A person's mail from one to the other begins it.
    assert_eq!(send(&desks[0].outbox, &text_to(&heidi, "Hello"))["outcome"], "sent");
    let mut sent = [0, 0];
    let mut quiet = 0;
    while quiet < 2 {
        let mut any = 0;
        for (desk, sent) in desks.iter_mut().zip(&mut sent) {
            let now = desk.turn();
            *sent += now;
            any += now;
        }
        settled(&servers, "grace");
        settled(&servers, "heidi");
        quiet = if any == 0 { quiet + 1 } else { 0 };
        assert!(sent.iter().sum::<usize>() <= 4, "{sent:?}");
    }
    assert_eq!(sent, [2, 2], "the loop ended by the brake, not by itself");
    // A person may always write, and after a day a machine, too.
    assert_eq!(send(&desks[0].outbox, &text_to(&heidi, "A person"))["outcome"], "sent");
    let mut automatic = text_to(&heidi, "Automatic");
    automatic["auto_submitted"] = json!(true);
    assert_eq!(send(&desks[0].outbox, &automatic)["outcome"], "rejected");
    fixture.clock.advance(86_400);
    assert_eq!(send(&desks[0].outbox, &automatic)["outcome"], "sent");
}

#[test]
fn what_was_not_sent_does_not_count_for_the_brake() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let automatic = |to: &str| {
        let mut request = text_to(to, "brake");
        request["auto_submitted"] = json!(true);
        send(&handle, &request)
    };
    for _ in 0..3 {
        assert_eq!(automatic("nobody-here@example.test")["outcome"], "rejected", "the server does not know it");
    }
    let raw = format!("From: <{}>\r\nAuto-Submitted: auto-replied\r\n\r\nRaw.\r\n", servers.address("alice"));
    let ivan = servers.address("ivan");
    for expected in ["sent", "sent", "rejected"] {
        let request = json!({"envelope": {"to": [ivan]}}).to_string();
        let answer = parse(&handle.send_message(&request, raw.as_bytes()).unwrap());
        assert_eq!(answer["outcome"], expected, "raw mail is looked at, too: {answer}");
    }
}

#[test]
fn a_mailbox_that_has_sent_enough_in_a_minute_waits() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |settings| {
        settings["outgoing"]["advanced"]["messages_per_minute"] = json!(3);
        settings["outgoing"]["advanced"]["app_messages_per_minute"] = json!(4);
    });
    let other =
        fixture.outgoing("bob", |settings| settings["outgoing"]["advanced"]["app_messages_per_minute"] = json!(4));
    let judy = servers.address("judy");
    let go = |handle: &Handle| send(handle, &text_to(&judy, "rate"));
    let outcomes: Vec<Value> = (0..4).map(|_| go(&handle)).collect();
    let [.., last] = &outcomes[..] else { unreachable!() };
    assert!(outcomes[..3].iter().all(|answer| answer["outcome"] == "sent"), "{outcomes:#?}");
    assert_eq!((&last["outcome"], &last["error"]["kind"]), (&json!("retry"), &json!("throttled")), "{last}");
    let wait = last["retry_after_seconds"].as_i64().unwrap();
    assert!((1..=60).contains(&wait), "{last}");
    // The app as a whole has one left, for whichever mailbox.
    assert_eq!(go(&other)["outcome"], "sent");
    assert_eq!(go(&other)["outcome"], "retry");
    fixture.clock.advance(wait);
    assert_eq!(go(&handle)["outcome"], "sent");
    assert_eq!(times(&settled(&servers, "judy"), "rate"), 5);
}
