//! Mail while the store's database is away: what is in hand goes on, nothing is lost, nothing is settled twice.
#![allow(clippy::unwrap_used)]

use oauth_mail_core::{
    Kind,
    clock::Clock,
    hooks::{Handle, Plugin},
};
use oauth_mail_tests::{
    Options, Servers,
    ca::Ca,
    fixture::{self, Log, STORE_KEY},
    mailgen::Generator,
    postgres::Postgres,
};
use serde_json::{Value, json};

/// The keys of all that is unsettled.
fn fetch(handle: &Handle) -> oauth_mail_core::Result<Vec<String>> {
    let batch = handle.fetch_batch("{}")?;
    Ok(batch.messages.iter().map(|message| message.key.clone()).collect())
}

fn settle(handle: &Handle, keys: &[String]) -> oauth_mail_core::Result<Value> {
    let results: Value =
        keys.iter().map(|key| (key.clone(), json!("imported"))).collect::<serde_json::Map<_, _>>().into();
    handle.settle_batch(&json!({"results": results}).to_string()).map(|text| fixture::parse(&text))
}

fn send(handle: &Handle) -> Value {
    let request = json!({"to": ["bob@example.test"], "subject": "While the database is away", "text": "It goes on."});
    fixture::parse(&handle.send_message(&request.to_string(), &[]).unwrap())
}

#[test]
fn mail_goes_on_while_postgres_is_away() {
    let mut servers = Servers::start(Options::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start(&Ca::create(dir.path()).unwrap()).unwrap();
    let (clock, log) = (Clock::default(), Log::default());
    let config = json!({"store": postgres.url(), "key": {"value": STORE_KEY}}).to_string();
    let plugin = Plugin::with_clock(&config, log.logger(), None, clock.clone()).unwrap();
    let inbox = plugin.open(&servers.incoming_settings("alice").to_string()).unwrap();
    fixture::consent(&servers, &inbox, "alice").unwrap();
    // The same grant serves both directions.
    let outbox = plugin.open(&servers.outgoing_settings("alice").to_string()).unwrap();
    let messages = Generator::new(7, 2);
    servers.deliver("alice", &messages.message(1)).unwrap();
    let first = fetch(&inbox).unwrap();
    assert_eq!(first.len(), 1);
    settle(&inbox, &first).unwrap();
    assert_eq!(send(&outbox)["outcome"], "sent");

    postgres.stop();
    // The next connection logs in anew, with a token.
    servers.dovecot.restart().unwrap();
    servers.deliver("alice", &messages.message(2)).unwrap();
    let second = fetch(&inbox).unwrap();
    assert_eq!(second.len(), 1, "what was settled before does not come again");
    assert_ne!(second, first);
    assert_eq!(send(&outbox)["outcome"], "sent");
    let status = fixture::authenticate(&inbox, json!({"action": "status"})).unwrap();
    assert_eq!(status["state"], "authorized", "{status}");
    assert_eq!(
        (&status["health"]["state"], &status["health"]["what"]),
        (&json!("degraded"), &json!("store")),
        "{status}"
    );
    // That it was imported cannot be noted now, and the host is told so.
    assert_eq!(settle(&inbox, &second).unwrap_err().kind(), Kind::Transient);
    assert_eq!(fetch(&inbox).unwrap(), second, "at least once");

    postgres.restart().unwrap();
    settle(&inbox, &second).unwrap();
    clock.advance(3_600);
    assert!(fetch(&inbox).unwrap().is_empty());
    assert_eq!(send(&outbox)["outcome"], "sent", "the expired token was renewed");
    let status = fixture::authenticate(&inbox, json!({"action": "status"})).unwrap();
    assert_eq!(status["health"]["state"], "ok", "{status}");
    servers.wait_for("bob", "INBOX", 3).unwrap();
    let log = log.text();
    assert!(log.contains("access token that is in memory"), "{log}");
    assert!(!log.contains("canary-database"), "the password of the database is in the log");
}

#[test]
fn of_two_nodes_on_postgres_one_fetches_a_mailbox_at_a_time() {
    let servers = Servers::start(Options::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(&Ca::create(dir.path()).unwrap()).unwrap();
    let config = json!({"store": postgres.url(), "key": {"value": STORE_KEY}}).to_string();
    let (clocks, log) = ([Clock::default(), Clock::default()], Log::default());
    let nodes = clocks.clone().map(|clock| Plugin::with_clock(&config, log.logger(), None, clock).unwrap());
    let settings = servers.incoming_settings("alice").to_string();
    let [one, two] = nodes.each_ref().map(|node| node.open(&settings).unwrap());
    fixture::consent(&servers, &one, "alice").unwrap();
    let messages = Generator::new(7, 2);
    (1..=2).for_each(|number| servers.deliver("alice", &messages.message(number)).unwrap());
    let keys = fetch(&one).unwrap();
    assert_eq!(keys.len(), 2);
    // The other gets nothing and hears for how long.
    let batch = two.fetch_batch("{}").unwrap();
    let seconds = fixture::parse(&batch.header)["elsewhere_seconds"].as_i64();
    assert!(batch.messages.is_empty() && seconds.is_some_and(|seconds| seconds > 0), "{}", batch.header);
    assert_eq!(settle(&two, &keys).unwrap_err().kind(), Kind::Transient);
    settle(&one, &keys[..1]).unwrap();
    // The first freezes; when its time is over the second goes on where it was, and the first is fenced off.
    clocks[1].advance(seconds.unwrap() + 60);
    assert_eq!(fetch(&two).unwrap(), keys[1..]);
    clocks[0].advance(seconds.unwrap() + 60);
    assert_eq!(settle(&one, &keys[1..]).unwrap_err().kind(), Kind::Transient);
    assert!(fetch(&one).unwrap().is_empty());
    settle(&two, &keys[1..]).unwrap();
    // Given back at the close.
    servers.deliver("alice", &messages.message(3)).unwrap();
    assert!(fetch(&one).unwrap().is_empty());
    two.close();
    assert_eq!(fetch(&one).unwrap().len(), 1);
}
