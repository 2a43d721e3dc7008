//! Connections that break at every moment of a transaction. Whatever happens: never twice, and never a wrong word about
//! it.

use std::time::{Duration, Instant};

use oauth_mail_tests::{fixture::Fixture, relay::Relay};
use serde_json::json;

use super::{send, send_raw, servers, settled, text_to, through, times};

#[test]
fn cut_before_the_final_dot_is_retry_and_nothing_arrives() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    let judy = servers.address("judy");
    // More than the buffers of both sockets hold: what they swallow counts as written.
    let large = [b"Subject: large\r\n\r\n", b"word word word word word word\r\n".repeat(700_000).as_slice()].concat();
    let size = large.len() as u64;
    for upstream_bytes in [0, 1, 60, 5_000, size / 2, size] {
        assert_eq!(send(&handle, &text_to("sink@example.test", "warm"))["outcome"], "sent");
        relay.cut_after_upstream(upstream_bytes);
        let answer = if upstream_bytes < 1_000 {
            send(&handle, &text_to(&judy, "small"))
        } else {
            send_raw(&handle, &[&judy], &large)
        };
        // Further on, the rest may stand in buffers already, and then nobody can know.
        let may_be = if upstream_bytes > 5_000 { ["retry", "unknown"] } else { ["retry"; 2] };
        assert!(may_be.contains(&answer["outcome"].as_str().unwrap()), "{upstream_bytes} of {size}: {answer}");
        assert_eq!(answer["error"]["kind"], "transient", "{upstream_bytes} of {size}: {answer}");
        relay.heal();
    }
    assert_eq!(send(&handle, &text_to(&judy, "whole"))["outcome"], "sent");
    servers.wait_for("judy", "INBOX", 1).unwrap();
    assert_eq!(settled(&servers, "judy"), ["whole"]);
}

#[test]
fn cut_anywhere_in_the_answers_is_never_twice_and_never_a_lie() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    let ken = servers.address("ken");
    let mut outcomes = Vec::new();
    for downstream_bytes in (0..=280).step_by(20) {
        let subject = format!("cut after {downstream_bytes}");
        assert_eq!(send(&handle, &text_to("sink@example.test", "warm"))["outcome"], "sent");
        relay.cut_after(downstream_bytes);
        let answer = send(&handle, &text_to(&ken, &subject));
        relay.heal();
        outcomes.push((subject, answer));
    }
    let arrived = settled(&servers, "ken");
    let mut seen = [0, 0, 0];
    for (subject, answer) in &outcomes {
        let count = times(&arrived, subject);
        match answer["outcome"].as_str().unwrap() {
            "retry" => assert_eq!((count, { seen[0] += 1 }), (0, ()), "{subject}: {answer}"),
            "unknown" => {
                assert_eq!((count <= 1, { seen[1] += 1 }), (true, ()), "{subject} came {count} times: {answer}")
            }
            "sent" => assert_eq!((count, { seen[2] += 1 }), (1, ()), "{subject}: {answer}"),
            other => panic!("{subject}: {other}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "retry, unknown, sent: {seen:?}");
}

#[test]
fn silence_after_the_final_dot_is_unknown_at_the_deadline() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    let liam = servers.address("liam");
    // All answers up to DATA's, and not the last one.
    let mut found = None;
    for downstream_bytes in (60..=280).step_by(20) {
        assert_eq!(send(&handle, &text_to("sink@example.test", "warm"))["outcome"], "sent");
        relay.stall_after(downstream_bytes);
        let begun = Instant::now();
        let subject = format!("silence {downstream_bytes}");
        let mut request = text_to(&liam, &subject);
        request["deadline_ms"] = json!(4_000);
        let answer = send(&handle, &request);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let is_unknown = answer["outcome"] == "unknown";
        assert!(is_unknown || answer["outcome"] == "retry", "{answer}");
        // What was written is on its way to the server. A busy machine may not say in time that nothing was.
        let arrived = || times(&settled(&servers, "liam"), &subject);
        let end = Instant::now() + Duration::from_secs(5);
        while is_unknown && arrived() == 0 && Instant::now() < end {}
        relay.heal();
        relay.break_all();
        if is_unknown && arrived() > 0 {
            found = Some((answer, subject));
            break;
        }
    }
    let (answer, subject) = found.unwrap();
    assert!(answer["message_id"].as_str().unwrap().ends_with("@example.test>"), "{answer}");
    assert!(answer["error"]["remedy"].as_str().unwrap().contains("Message-ID"), "{answer}");
    assert_eq!(times(&settled(&servers, "liam"), &subject), 1);
    assert_eq!(send(&handle, &text_to("sink@example.test", "next"))["outcome"], "sent");
}
