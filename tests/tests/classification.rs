//! Every way a token endpoint is known to misbehave, and what is made of it: who must act, whether it is remembered, which
//! refresh token is presented next, and that a healed server is enough where nobody has to act.
#![allow(clippy::print_stdout)] // the table of misread rows is what the run is for
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use oauth_mail_core::{
    Error, Kind,
    clock::{Clock, Deadline},
    limits,
    log::Logger,
    net::{Egress, Net},
    oauth::{AccessToken, Grants, State},
    settings::{self, Account},
    store::{self, SealingKey, Store},
};
use oauth_mail_tests::{
    ca::Ca,
    fixture::STORE_KEY,
    strict_idp::{LIFETIME, REDIRECT_URL},
    wayward_idp::{CONSENTED, HangUp, Reply, WaywardIdp, answer},
};
use serde_json::json;

const ROTATED: &str = "canary-refresh-rotated";
const JSON: &str = "Content-Type: application/json";
const HTML: &str = "Content-Type: text/html";
/// A call that gets no answer is given up after this.
const IMPATIENT: Duration = Duration::from_secs(4);

struct Row {
    name: &'static str,
    reply: Reply,
    expected: Expected,
}

enum Expected {
    /// The access token `canary-access-odd`.
    Token {
        /// Seconds; `None`: used until it is refused.
        lifetime: Option<i64>,
        presented_next: &'static str,
    },
    Error {
        kind: Kind,
        /// Stands in the document that the host gets.
        says: &'static str,
        /// Seconds that the server asked for; 0: our own pause.
        wait: i64,
    },
}

fn rows() -> Vec<Row> {
    use Kind::*;
    let token = |name, body: &str, lifetime, presented_next| Row {
        name,
        reply: Reply::Bytes(answer(200, &[JSON], body)),
        expected: Expected::Token { lifetime, presented_next },
    };
    let failing = |name, reply, kind, says| Row { name, reply, expected: Expected::Error { kind, says, wait: 0 } };
    let error = |name, status, headers: &[&str], body: &str, kind, says| {
        failing(name, Reply::Bytes(answer(status, headers, body)), kind, says)
    };
    let waiting = |name, status, headers: &[&str], kind, wait| Row {
        name,
        reply: Reply::Bytes(answer(status, headers, "")),
        expected: Expected::Error { kind, says: "", wait },
    };
    let hour = Some(3_600);
    let good = r#"{"access_token":"canary-access-odd","token_type":"Bearer","expires_in":3600}"#;
    let rotating = r#"{"access_token":"canary-access-odd","token_type":"Bearer","expires_in":3600,
        "refresh_token":"canary-refresh-rotated"}"#;
    let same = rotating.replace(ROTATED, CONSENTED);
    let endless = |begin: Vec<u8>| [begin, vec![b' '; 1_000]].concat();
    let half = &rotating[..rotating.len() / 2];
    vec![
        token("rotates the refresh token", rotating, hour, ROTATED),
        token("keeps the refresh token", &same, hour, CONSENTED),
        token("omits the refresh token", good, hour, CONSENTED),
        token("empty refresh token", &rotating.replace(ROTATED, ""), hour, CONSENTED),
        token("expires_in is a string", &rotating.replace("3600", r#""3600""#), hour, ROTATED),
        token("expires_in is missing", &rotating.replace(r#","expires_in":3600"#, ""), None, ROTATED),
        token("expires_in is negative", &rotating.replace("3600", "-5"), None, ROTATED),
        token("expires_in is 0", &rotating.replace("3600", "0"), None, ROTATED),
        token("expires_in is a word", &rotating.replace("3600", r#""soon""#), None, ROTATED),
        token("token_type is missing", &rotating.replace(r#""token_type":"Bearer","#, ""), hour, ROTATED),
        token("token_type in capitals", &rotating.replace("Bearer", "BEARER"), hour, ROTATED),
        token("error: null beside tokens", &rotating.replacen('{', r#"{"error":null,"#, 1), hour, ROTATED),
        token("an empty error beside tokens", &rotating.replacen('{', r#"{"error":"","#, 1), hour, ROTATED),
        Row {
            name: "good JSON called HTML",
            reply: Reply::Bytes(answer(200, &[HTML], rotating)),
            expected: Expected::Token { lifetime: hour, presented_next: ROTATED },
        },
        Row {
            name: "201 with tokens",
            reply: Reply::Bytes(answer(201, &[JSON], rotating)),
            expected: Expected::Token { lifetime: hour, presented_next: ROTATED },
        },
        error("token_type MAC", 200, &[JSON], &good.replace("Bearer", "MAC"), Unsupported, "bearer"),
        error("400 invalid_grant", 400, &[JSON], r#"{"error":"invalid_grant"}"#, ConsentRequired, "invalid_grant"),
        error("400 invalid_grant called HTML", 400, &[HTML], r#"{"error":"invalid_grant"}"#, ConsentRequired, ""),
        error("401 invalid_grant", 401, &[JSON], r#"{"error":"invalid_grant"}"#, ConsentRequired, "invalid_grant"),
        error("invalid_grant inside 200", 200, &[JSON], r#"{"error":"invalid_grant"}"#, ConsentRequired, ""),
        error(
            "invalid_grant with odd numbers",
            400,
            &[JSON],
            r#"{"error":"invalid_grant","error_codes":["70008"],"error_description":7}"#,
            ConsentRequired,
            "invalid_grant",
        ),
        error(
            "invalid_grant with numbers that are no list",
            400,
            &[JSON],
            r#"{"error":"invalid_grant","error_codes":70008}"#,
            ConsentRequired,
            "invalid_grant",
        ),
        error(
            "invalid_grant that echoes the token",
            400,
            &[JSON],
            r#"{"error":"invalid_grant","error_description":"canary-refresh-consented is spent"}"#,
            ConsentRequired,
            "is spent",
        ),
        error(
            "400 interaction_required",
            400,
            &[JSON],
            r#"{"error":"interaction_required","error_codes":[50076]}"#,
            ConsentRequired,
            "AADSTS50076",
        ),
        error("400 invalid_client", 400, &[JSON], r#"{"error":"invalid_client"}"#, Settings, "/client_secret"),
        error("401 invalid_client", 401, &[JSON], r#"{"error":"invalid_client"}"#, Settings, "/client_secret"),
        error("400 invalid_scope", 400, &[JSON], r#"{"error":"invalid_scope"}"#, Settings, "/scope"),
        error("400 unauthorized_client", 400, &[JSON], r#"{"error":"unauthorized_client"}"#, AdminRequired, ""),
        error("400 with an unknown code", 400, &[JSON], r#"{"error":"x_new_rule"}"#, AdminRequired, "x_new_rule"),
        error("temporarily_unavailable", 400, &[JSON], r#"{"error":"temporarily_unavailable"}"#, Transient, "temp"),
        error("400 server_error", 400, &[JSON], r#"{"error":"server_error"}"#, Transient, "server_error"),
        error(
            "temporarily_unavailable inside 200",
            200,
            &[JSON],
            r#"{"error":"temporarily_unavailable"}"#,
            Transient,
            "",
        ),
        error(SILENT, 400, &[], "", ConsentRequired, "HTTP 400"),
        error("401 without a reason", 401, &[], "", ServerMisbehaved, "HTTP 401"),
        error("403 of a firewall", 403, &[HTML], "<html>Forbidden</html>", ServerMisbehaved, "HTTP 403"),
        error("404", 404, &[HTML], "<html>", Settings, "/access_token_url"),
        error("408", 408, &[], "", Transient, "HTTP 408"),
        error("429", 429, &[], "", Throttled, "HTTP 429"),
        error("429 that says invalid_grant", 429, &[JSON], r#"{"error":"invalid_grant"}"#, Throttled, ""),
        waiting("429 with Retry-After", 429, &["Retry-After: 120"], Throttled, 120),
        waiting(
            "429 with Retry-After as a date",
            429,
            &["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sun, 06 Nov 1994 08:51:37 GMT"],
            Throttled,
            120,
        ),
        waiting("429 with Retry-After of a year", 429, &["Retry-After: 31536000"], Throttled, 3_600),
        waiting("503 with Retry-After", 503, &["Retry-After: 90"], Transient, 90),
        error("500", 500, &[], "", Transient, "HTTP 500"),
        error("500 that says invalid_grant", 500, &[JSON], r#"{"error":"invalid_grant"}"#, Transient, ""),
        error("502 in HTML", 502, &[HTML], "<html>Bad Gateway</html>", Transient, "HTTP 502"),
        error("503", 503, &[], "", Transient, "HTTP 503"),
        error("504", 504, &[HTML], "<html>", Transient, "HTTP 504"),
        error("200 in HTML", 200, &[HTML], "<html>Please log in</html>", ServerMisbehaved, "proxy"),
        error("200 with an empty body", 200, &[JSON], "", ServerMisbehaved, ""),
        error("204", 204, &[], "", ServerMisbehaved, ""),
        error("200 without a token", 200, &[JSON], "{}", ServerMisbehaved, ""),
        error("a list", 200, &[JSON], r#"["canary-access-odd"]"#, ServerMisbehaved, ""),
        error("an empty token", 200, &[JSON], r#"{"access_token":""}"#, ServerMisbehaved, ""),
        error("a token of two lines", 200, &[JSON], r#"{"access_token":"canary\r\nX"}"#, ServerMisbehaved, ""),
        error("truncated JSON", 200, &[JSON], half, ServerMisbehaved, ""),
        error("302 to elsewhere", 302, &["Location: /elsewhere"], "", Settings, "/access_token_url"),
        error("307 to elsewhere", 307, &["Location: /elsewhere"], "", Settings, "/access_token_url"),
        failing("a huge body", Reply::Bytes(answer(200, &[JSON], &huge(rotating))), TooLarge, ""),
        failing("slow", Reply::Silence, Transient, "in time"),
        failing("dripping headers", Reply::Dripping(endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec())), Transient, ""),
        failing("a dripping body", Reply::Dripping(answer(200, &[JSON], &"{".repeat(1_000))), Transient, ""),
        failing("cut off in the headers", Reply::CutOff(b"HTTP/1.1 200 OK\r\nConte".to_vec()), Transient, ""),
        failing("cut off in the body", Reply::CutOff(cut(answer(200, &[JSON], rotating))), Transient, ""),
        failing("not HTTP", Reply::Bytes(b"220 mail.example.test ESMTP\r\n".to_vec()), Transient, ""),
        failing("hangs up before the handshake", Reply::HangUp(HangUp::BeforeHandshake), Transient, ""),
        failing("hangs up before the request was read", Reply::HangUp(HangUp::BeforeReading), Transient, ""),
        failing("hangs up after the request was read", Reply::HangUp(HangUp::AfterReading), Transient, ""),
    ]
}

fn huge(body: &str) -> String {
    body.replacen('{', &format!("{{{}", " ".repeat(limits::HTTP_BODY_MAX)), 1)
}

fn cut(mut answer: Vec<u8>) -> Vec<u8> {
    answer.truncate(answer.len() - 20);
    answer
}

#[test]
fn no_misbehaviour_of_a_token_endpoint_is_misread() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::create(dir.path()).unwrap();
    let idp = WaywardIdp::start(&ca).unwrap();
    let rows = rows();
    assert!(rows.len() >= 24);
    let mut misread = Vec::new();
    for row in &rows {
        if let Err(why) = judge(&idp, &ca, row) {
            println!("MISREAD {}: {why}", row.name);
            misread.push(row.name);
        }
    }
    println!("classification: {}/{}", rows.len() - misread.len(), rows.len());
    assert!(misread.is_empty(), "{misread:?}");
}

type Verdict = Result<(), String>;

/// What may mean that the server does not take the client's method.
const REFUSED_CLIENT: [&str; 4] =
    ["400 invalid_client", "401 invalid_client", "400 unauthorized_client", "401 without a reason"];
/// glewlwyd says nothing more of a refresh token that it does not know. What follows is in oauth/dead_sign_in_tests.rs.
const SILENT: &str = "400 without a reason";

fn judge(idp: &WaywardIdp, ca: &Ca, row: &Row) -> Verdict {
    idp.heal();
    let store = open_store();
    let clock = Clock::default();
    let [node, other] = [(); 2].map(|()| Node::new(idp, ca, store.clone(), clock.clone()));
    node.consent();
    clock.advance(LIFETIME);
    idp.misbehave(row.reply.clone());
    let before = idp.connections();
    let patience = match row.reply {
        Reply::Silence | Reply::Dripping(_) => IMPATIENT,
        _ => Duration::from_secs(20),
    };
    let first = node.token_within(patience);
    // A refused Basic is asked once more with client_secret_post.
    let asked = if REFUSED_CLIENT.contains(&row.name) { 2 } else { 1 };
    check(idp.connections() == before + asked, || format!("{} connections", idp.connections() - before))?;
    let again = node.token();
    check(idp.connections() == before + asked, || "the next use asked again at once".into())?;
    match row.expected {
        Expected::Token { lifetime, presented_next } => {
            for token in [&first, &again] {
                let token = token.as_ref().map_err(|e| format!("no token: {e:?}"))?;
                check(token.secret().expose() == "canary-access-odd", || "another access token".into())?;
                let left = token.expires_at().map(|end| end - clock.now());
                let is_near =
                    left.zip(lifetime).is_some_and(|(left, lifetime)| (lifetime - 10..=lifetime).contains(&left));
                check(is_near || left == lifetime, || format!("{left:?} s left"))?;
            }
            idp.heal();
            let refused = first.map_err(|e| e.to_string())?;
            let next = other.grants.replace(&other.account, &other.net, &refused, soon());
            let next = next.map_err(|e| format!("no next token: {e:?}"))?;
            check(next.secret() != refused.secret(), || "the refused token once more".into())?;
            check(idp.presented().as_deref() == Some(presented_next), || {
                format!("then presented {:?}", idp.presented())
            })
        }
        Expected::Error { kind, says, wait } => {
            for answer in [&first, &again] {
                let error = answer.as_ref().err().ok_or("a token came")?;
                check_error(error, kind, says, wait)?;
            }
            idp.heal();
            if row.name == SILENT {
                return Ok(());
            }
            if kind == Kind::ConsentRequired {
                stays_ended(idp, &node, &other, &clock)
            } else {
                heals(idp, &node, &other, &clock, wait)
            }
        }
    }
}

fn check_error(error: &Error, kind: Kind, says: &str, wait: i64) -> Verdict {
    let document = error.to_json();
    let text = document.to_string();
    check(error.kind() == kind, || format!("{error:?}"))?;
    check(text.contains(says), || format!("nothing of {says} in {text}"))?;
    check(!text.contains("canary"), || format!("a secret in {text}"))?;
    let said = document["retry_after_seconds"].as_i64();
    check(wait == 0 || said.is_some_and(|said| (wait - 10..=wait).contains(&said)), || format!("wait {said:?}"))
}

/// Only a person helps, whoever asks and however late; nothing is asked of the provider meanwhile.
fn stays_ended(idp: &WaywardIdp, node: &Node, other: &Node, clock: &Clock) -> Verdict {
    let before = idp.connections();
    clock.advance(86_400);
    for node in [node, other] {
        check(node.state() == State::ConsentRequired, || "the refusal was not remembered".into())?;
        let answer = node.token();
        check(answer.is_err_and(|e| e.kind() == Kind::ConsentRequired), || "then another answer".into())?;
    }
    check(idp.connections() == before, || "an ended grant was asked for again".into())?;
    node.consent();
    other.token().map(|_| ()).map_err(|e| format!("after a new consent: {e:?}"))
}

/// Nobody was sent to the consent window, and the refresh token of the consent is presented again after the pause.
fn heals(idp: &WaywardIdp, node: &Node, other: &Node, clock: &Clock, wait: i64) -> Verdict {
    for node in [node, other] {
        check(node.state() == State::Authorized, || "remembered as ended".into())?;
    }
    if wait > 0 {
        let before = idp.connections();
        clock.advance(wait - 10);
        check(node.token().is_err() && idp.connections() == before, || "did not wait as long as asked".into())?;
        clock.advance(11);
    } else {
        clock.advance(limits::REFRESH_PAUSE_FIRST.as_secs() as i64 + 1);
    }
    let healed = node.token().map_err(|e| format!("after healing: {e:?}"))?;
    check(idp.presented().as_deref() == Some(CONSENTED), || format!("presented {:?}", idp.presented()))?;
    clock.advance(LIFETIME);
    other.token().map_err(|e| format!("the refresh after that: {e:?}"))?;
    let rotated = healed.secret().expose().replace("access", "refresh");
    check(idp.presented() == Some(rotated), || format!("then presented {:?}", idp.presented()))
}

fn check(is_so: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if is_so { Ok(()) } else { Err(otherwise()) }
}

/// One process of the host.
struct Node {
    account: Account,
    net: Net,
    grants: Grants,
}

impl Node {
    fn new(idp: &WaywardIdp, ca: &Ca, store: Arc<dyn Store>, clock: Clock) -> Self {
        let settings = json!({"incoming": {
            "connection_protocol": "POP/IMAP/POPS/IMAPS",
            "authentication_type": "OAuth",
            "server_name": "localhost",
            "username": "alice@example.test",
            "email_addresses": ["alice@example.test"],
            "protocol": "IMAPS",
            "port": 993,
            "fetch_interval_minutes": 1,
            "client_id": "desk",
            "client_secret": "canary-client-secret",
            "authorize_url": format!("{}/authorize", idp.base),
            "access_token_url": format!("{}/token", idp.base),
            "scope": "mail offline_access",
            "redirect_url": REDIRECT_URL,
            "advanced": {"ca_file": ca.ca_file},
        }});
        let account = settings::parse(&settings.to_string()).unwrap();
        let net = Net::new(account.ca_file.as_deref(), Egress::default()).unwrap();
        Self { account, net, grants: Grants::new(store, clock, Logger::silent()) }
    }

    fn consent(&self) {
        let started = self.grants.start(&self.account, &self.net, soon()).unwrap();
        let (_, state) = started.authorize_url.query_pairs().find(|(name, _)| name == "state").unwrap();
        let redirect = format!("{REDIRECT_URL}?state={state}&code=canary-code");
        let redeemed = self.grants.redeem(&self.account, &self.net, &redirect, soon()).unwrap();
        self.grants.keep(&self.account, redeemed).unwrap();
    }

    fn token(&self) -> oauth_mail_core::Result<AccessToken> {
        self.token_within(Duration::from_secs(20))
    }

    fn token_within(&self, patience: Duration) -> oauth_mail_core::Result<AccessToken> {
        self.grants.access_token(&self.account, &self.net, Deadline::after(patience))
    }

    fn state(&self) -> State {
        self.grants.status(&self.account).unwrap().state
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn open_store() -> Arc<dyn Store> {
    store::open("sqlite::memory:", SealingKey::from_config(&json!({"value": STORE_KEY})).unwrap()).unwrap()
}
