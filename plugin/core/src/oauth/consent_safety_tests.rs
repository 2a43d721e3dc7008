//! Everything that must not become a grant, in one table: who tampers with a redirect, a token endpoint that lies, an
//! identity made for somebody else, settings that would send a code over a plain line.

use std::io::Write;

use serde_json::{Value, json as value};

use super::{
    consent_tests::{TOKENS, id_token, tokens},
    tests_support::{Answer, Asked, Bench, Idp, REDIRECT_URL, json, soon},
};
use crate::{
    clock::Clock,
    error::{Error, Kind, Result},
    settings,
    store::Table,
};

/// How an attempt ended, and how often a code was shown to anybody.
struct Outcome {
    result: Result<()>,
    codes_shown: usize,
}

struct Case {
    name: &'static str,
    attempt: Box<dyn Fn() -> Outcome>,
    kind: Kind,
    /// Of the sentence.
    words: &'static str,
    /// May the configured token endpoint have seen the code?
    asked: usize,
}

#[test]
fn consent_safety() {
    let cases: Vec<_> = [redirects(), pending(), mixed_up(), token_endpoint(), identities(), settings_refused()]
        .into_iter()
        .flatten()
        .collect();
    let mut failures = Vec::new();
    for case in &cases {
        let Outcome { result, codes_shown } = (case.attempt)();
        let found = match result {
            Ok(()) => "accepted".to_owned(),
            Err(e) if e.kind() != case.kind => format!("{:?}: {e}", e.kind()),
            Err(e) if !e.message().contains(case.words) => format!("other words: {e}"),
            Err(_) if codes_shown != case.asked => format!("the code was shown {codes_shown} times"),
            Err(_) => continue,
        };
        failures.push(format!("{}: {found}", case.name));
    }
    let (all, good) = (cases.len(), cases.len() - failures.len());
    let _ = writeln!(std::io::stdout(), "consent safety: {good}/{all}");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(all >= 40);
}

/// With an issuer that announces `iss` (RFC 9207).
fn bench(token: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Bench {
    let mut bench = Bench::new(tokens);
    let base = bench.idp.base.clone();
    let metadata = format!(r#"{{"issuer":"{base}","authorization_response_iss_parameter_supported":true}}"#);
    bench.account.client.issuer = Some(base);
    bench.idp.set(move |asked| match asked.path.as_str() {
        "/token" => token(asked),
        path if path.starts_with("/.well-known") => json(200, metadata.clone()),
        _ => json(404, ""),
    });
    bench
}

fn attempt(bench: &Bench, redirect: &str) -> Result<()> {
    bench.grants.redeem(&bench.account, &bench.net, redirect, soon()).map(drop)
}

fn outcome(bench: &Bench, result: Result<()>) -> Outcome {
    let shown = bench.idp.asked("/token").len();
    assert_eq!(bench.store.count(Table::Grant), 0);
    Outcome { result, codes_shown: shown }
}

/// A redirect of a consent that is waiting, changed: `{s}` is its state, `{iss}` the issuer, `{good}` all that a good
/// answer has.
fn redirects() -> Vec<Case> {
    let here = "https://desk.test/oauth/callback?tenant=7";
    let refused: &[(&str, String, &str)] = &[
        ("no state", format!("{here}&code=c&iss={{iss}}"), "lacks the parameter state"),
        ("empty state", format!("{here}&state=&code=c&iss={{iss}}"), "lacks the parameter state"),
        ("foreign state", format!("{here}&state=guess&code=c&iss={{iss}}"), "not known"),
        ("state with a tail", format!("{here}&state={{s}}x&code=c&iss={{iss}}"), "not known"),
        ("state in the other case", format!("{here}&state={{S}}&code=c&iss={{iss}}"), "not known"),
        ("state with a zero byte", format!("{here}&state={{s}}%00&code=c&iss={{iss}}"), "not known"),
        ("two states", format!("{here}&state={{s}}&{{good}}"), "twice"),
        ("two states, one percent-encoded", format!("{here}&%73tate={{s}}&{{good}}"), "twice"),
        ("two codes", format!("{here}&{{good}}&code=b"), "twice"),
        ("two codes, one percent-encoded", format!("{here}&{{good}}&c%6Fde=b"), "twice"),
        ("two iss", format!("{here}&{{good}}&iss={{iss}}"), "twice"),
        ("two of something else", format!("{here}&{{good}}&session_state=1&session_state=2"), "twice"),
        ("own parameter again", format!("{here}&{{good}}&tenant=8"), "twice"),
        ("missing iss", format!("{here}&state={{s}}&code=c"), "does not say"),
        ("empty iss", format!("{here}&state={{s}}&code=c&iss="), "another authorization server"),
        ("foreign iss", format!("{here}&state={{s}}&code=c&iss=https://evil.test"), "another authorization server"),
        ("iss with a trailing slash", format!("{here}&state={{s}}&code=c&iss={{iss}}/"), "another authorization"),
        ("iss in the other case", format!("{here}&state={{s}}&code=c&iss={{ISS}}"), "another authorization server"),
        ("iss with a tail", format!("{here}&state={{s}}&code=c&iss={{iss}}.evil.test"), "another authorization"),
        ("iss with a user", format!("{here}&state={{s}}&code=c&iss=https://x@localhost"), "another authorization"),
        ("foreign iss on an error", format!("{here}&state={{s}}&error=access_denied&iss=https://e"), "another auth"),
        ("no code", format!("{here}&state={{s}}&iss={{iss}}"), "lacks the parameter code"),
        ("empty code", format!("{here}&state={{s}}&code=&iss={{iss}}"), "lacks the parameter code"),
        ("code with a line break", format!("{here}&state={{s}}&code=a%0D%0Ab&iss={{iss}}"), "no code has"),
        ("code with a zero byte", format!("{here}&state={{s}}&code=a%00b&iss={{iss}}"), "no code has"),
        ("code of broken UTF-8", format!("{here}&state={{s}}&code=a%FF&iss={{iss}}"), "no code has"),
        ("code beyond ASCII", format!("{here}&state={{s}}&code=%C3%A9&iss={{iss}}"), "no code has"),
        ("code too long", format!("{here}&state={{s}}&code={}&iss={{iss}}", "x".repeat(20_000)), "too long"),
        ("code and error", format!("{here}&{{good}}&error=server_error"), "both"),
        ("answer in the fragment", format!("{here}#{{good}}"), "fragment"),
        ("answer in both", format!("{here}&{{good}}#{{good}}"), "fragment"),
        ("signed response (JARM)", format!("{here}&response=e30.e30.x"), "JARM"),
        ("JARM beside a code", format!("{here}&{{good}}&response=e30.e30.x"), "JARM"),
        ("tokens instead of a code", format!("{here}&state={{s}}&access_token=t&iss={{iss}}"), "nobody asked for"),
        ("identity token beside the code", format!("{here}&{{good}}&id_token=a.b.c"), "nobody asked for"),
        ("http instead of https", format!("{}&{{good}}", here.replace("https", "http")), "did not arrive"),
        ("other host", "https://evil.test/oauth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("host with a tail", "https://desk.test.evil.test/oauth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("host with a dot", "https://desk.test./oauth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("other port", "https://desk.test:444/oauth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("longer path", "https://desk.test/oauth/callback/x?tenant=7&{good}".into(), "did not arrive"),
        ("path in the other case", "https://desk.test/OAuth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("path percent-encoded", "https://desk.test/oauth%2Fcallback?tenant=7&{good}".into(), "did not arrive"),
        ("path climbing out", "https://desk.test/oauth/callback/..?tenant=7&{good}".into(), "did not arrive"),
        ("own parameter changed", "https://desk.test/oauth/callback?tenant=8&{good}".into(), "did not arrive"),
        ("own parameter missing", "https://desk.test/oauth/callback?{good}".into(), "did not arrive"),
        ("user in the URL", "https://me@desk.test/oauth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("host as user", "https://desk.test@evil.test/oauth/callback?tenant=7&{good}".into(), "did not arrive"),
        ("line break in the URL", "https://desk.test/oauth/call\nback?tenant=7&{good}".into(), "control character"),
        ("another scheme", "javascript:location='https://desk.test/oauth/callback?{good}'".into(), "did not arrive"),
    ];
    let other: &[(&str, String, Kind, &str)] = &[
        ("no URL", "hello".into(), Kind::Misuse, "not a URL"),
        ("nothing", String::new(), Kind::Misuse, "not a URL"),
        ("only the query", "?{good}".into(), Kind::Misuse, "not a URL"),
        ("declined", format!("{here}&state={{s}}&error=access_denied&iss={{iss}}"), Kind::ConsentRequired, "declined"),
        ("wrong scope", format!("{here}&state={{s}}&error=invalid_scope&iss={{iss}}"), Kind::Settings, "cope"),
        (
            "client not allowed",
            format!("{here}&state={{s}}&error=unauthorized_client&iss={{iss}}"),
            Kind::AdminRequired,
            "",
        ),
        ("server down", format!("{here}&state={{s}}&error=server_error&iss={{iss}}"), Kind::Transient, ""),
        ("server busy", format!("{here}&state={{s}}&error=temporarily_unavailable&iss={{iss}}"), Kind::Transient, ""),
        ("unheard of", format!("{here}&state={{s}}&error=n%00w&iss={{iss}}"), Kind::AdminRequired, ""),
    ];
    let refused = refused.iter().map(|(name, template, words)| (*name, template.clone(), Kind::Refused, *words));
    refused
        .chain(other.iter().cloned())
        .map(|(name, template, kind, words)| {
            let attempt = move || {
                let bench = bench(tokens);
                let state = bench.state();
                let good = format!("state={state}&code=c&iss={}", bench.idp.base);
                let url = template
                    .replace("{good}", &good)
                    .replace("{iss}", &bench.idp.base)
                    .replace("{ISS}", &bench.idp.base.replace("localhost", "LOCALHOST"))
                    .replace("{S}", &swapped_case(&state))
                    .replace("{s}", &state);
                outcome(&bench, attempt(&bench, &url))
            };
            Case { name, attempt: Box::new(attempt), kind, words, asked: 0 }
        })
        .collect()
}

fn swapped_case(text: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().map(swap).collect()
}

fn refused(name: &'static str, words: &'static str, asked: usize, attempt: impl Fn() -> Outcome + 'static) -> Case {
    Case { name, attempt: Box::new(attempt), kind: Kind::Refused, words, asked }
}

/// The consent that waits is another's, over, or was opened for other settings.
fn pending() -> Vec<Case> {
    fn good(bench: &Bench, state: &str) -> String {
        bench.redirect(&format!("state={state}&code=c&iss={}", bench.idp.base))
    }
    /// A consent is opened, the settings change, and its redirect comes back.
    fn changed(change: fn(&mut Bench)) -> Outcome {
        let mut bench = bench(tokens);
        let state = bench.state();
        let redirect = good(&bench, &state);
        change(&mut bench);
        outcome(&bench, attempt(&bench, &redirect))
    }
    vec![
        refused("expired", "ten minutes", 0, || changed(|bench| bench.clock.advance(601))),
        refused("reused after success", "completed already", 1, || {
            let bench = bench(tokens);
            let state = bench.state();
            attempt(&bench, &good(&bench, &state)).unwrap();
            outcome(&bench, attempt(&bench, &good(&bench, &state)))
        }),
        refused("reused after a decline", "completed already", 0, || {
            let bench = bench(tokens);
            let state = bench.state();
            let declined = good(&bench, &state).replace("code=c", "error=access_denied");
            attempt(&bench, &declined).unwrap_err();
            outcome(&bench, attempt(&bench, &good(&bench, &state)))
        }),
        refused("reused after tampering", "completed already", 0, || {
            let bench = bench(tokens);
            let state = bench.state();
            attempt(&bench, &good(&bench, &state).replace("localhost", "evil.test")).unwrap_err();
            outcome(&bench, attempt(&bench, &good(&bench, &state)))
        }),
        refused("another mailbox", "another mailbox", 0, || {
            changed(|bench| bench.account.consenting_user = "other@corp.test".into())
        }),
        refused("another client", "another mailbox, client or provider", 0, || {
            changed(|bench| bench.account.client.client_id = "client-2".into())
        }),
        refused("another Authorize URL", "settings were changed", 0, || {
            changed(|bench| bench.account.client.authorize_url.set_path("/elsewhere"))
        }),
        refused("another Redirect URL of the same place", "settings were changed", 0, || {
            changed(|bench| bench.account.client.redirect_url.set_query(None))
        }),
        refused("another process's store", "not known", 0, || {
            let (first, second) = (bench(tokens), bench(tokens));
            let redirect = good(&second, &first.state());
            outcome(&second, attempt(&second, &redirect))
        }),
        refused("the hash instead of the state", "not known", 0, || {
            let bench = bench(tokens);
            // What a reader of the store could see.
            let id = super::hex_sha256(&[&bench.state()]);
            outcome(&bench, attempt(&bench, &good(&bench, &id)))
        }),
    ]
}

/// Two servers, one of them not asked: its answers are not taken, and it never sees the other's code.
fn mixed_up() -> Vec<Case> {
    fn both(act: impl Fn(&mut Bench, &Idp, &str) -> Result<()>) -> Outcome {
        let (mut honest, other) = (bench(tokens), Idp::new(tokens));
        let state = honest.state();
        let result = act(&mut honest, &other, &state);
        assert!(other.asked("/token").is_empty(), "the other server was shown the code");
        outcome(&honest, result)
    }
    vec![
        refused("answer of the other server", "another authorization server", 0, || {
            both(|honest, other, state| {
                attempt(honest, &honest.redirect(&format!("state={state}&code=c&iss={}", other.base)))
            })
        }),
        refused("Access Token URL of the other server", "settings were changed", 0, || {
            both(|honest, other, state| {
                let redirect = honest.redirect(&format!("state={state}&code=c&iss={}", honest.idp.base));
                honest.account.client.token_url = format!("{}/token", other.base).parse().unwrap();
                attempt(honest, &redirect)
            })
        }),
        refused("issuer of the other server", "another mailbox, client or provider", 0, || {
            both(|honest, other, state| {
                let redirect = honest.redirect(&format!("state={state}&code=c&iss={}", other.base));
                honest.account.client.issuer = Some(other.base.clone());
                attempt(honest, &redirect)
            })
        }),
        refused("all of the other server", "another mailbox, client or provider", 0, || {
            both(|honest, other, state| {
                let redirect = honest.redirect(&format!("state={state}&code=c&iss={}", other.base));
                let client = &mut honest.account.client;
                client.issuer = Some(other.base.clone());
                client.authorize_url = format!("{}/authorize", other.base).parse().unwrap();
                client.token_url = format!("{}/token", other.base).parse().unwrap();
                attempt(honest, &redirect)
            })
        }),
        Case {
            name: "metadata that name the other server",
            kind: Kind::Refused,
            words: "another authorization server",
            asked: 0,
            attempt: Box::new(|| {
                both(|honest, other, state| {
                    // RFC 8414 3.3: metadata of another issuer are not used, so that its name does not become right.
                    let metadata = format!(r#"{{"issuer":"{}"}}"#, other.base);
                    honest.idp.set(move |_| json(200, metadata.clone()));
                    attempt(honest, &honest.redirect(&format!("state={state}&code=c&iss={}", other.base)))
                })
            }),
        },
    ]
}

/// The code was sent to the right place, and no good answer came.
fn token_endpoint() -> Vec<Case> {
    type Row = (&'static str, fn() -> Answer, Kind, &'static str);
    let cases: [Row; 12] = [
        ("302 elsewhere", || redirect_to("https://evil.test/token"), Kind::Settings, "redirect"),
        (
            "307 elsewhere",
            || (307, redirect_to("https://evil.test/token").1, String::new()),
            Kind::Settings,
            "redirect",
        ),
        ("200 without token", || json(200, "{}"), Kind::ServerMisbehaved, "no token answer"),
        ("200 with an empty token", || json(200, r#"{"access_token":""}"#), Kind::ServerMisbehaved, ""),
        ("200 with null", || json(200, r#"{"access_token":null}"#), Kind::ServerMisbehaved, "no token answer"),
        ("200 with a page", || json(200, "<html>portal"), Kind::ServerMisbehaved, "no token answer"),
        ("200 with an error", || json(200, r#"{"error":"invalid_grant"}"#), Kind::ConsentRequired, ""),
        (
            "a token with a line break",
            || json(200, r#"{"access_token":"a\r\nb"}"#),
            Kind::ServerMisbehaved,
            "plain text",
        ),
        (
            "a token of another kind",
            || json(200, r#"{"access_token":"a","token_type":"DPoP"}"#),
            Kind::Unsupported,
            "of a kind",
        ),
        ("refused", || json(400, r#"{"error":"invalid_grant"}"#), Kind::ConsentRequired, ""),
        ("client refused", || json(401, r#"{"error":"invalid_client"}"#), Kind::Settings, ""),
        ("down", || json(503, ""), Kind::Transient, ""),
    ];
    cases
        .into_iter()
        .map(|(name, answer, kind, words)| {
            let attempt = move || {
                let bench = bench(move |_| answer());
                let redirect = bench.redirect(&format!("state={}&code=c&iss={}", bench.state(), bench.idp.base));
                outcome(&bench, attempt(&bench, &redirect))
            };
            // Once in the Authorization header, once in the body.
            let asked = if name == "client refused" { 2 } else { 1 };
            Case { name, attempt: Box::new(attempt), kind, words, asked }
        })
        .collect()
}

fn redirect_to(url: &str) -> Answer {
    (302, format!("Location: {url}\r\n"), TOKENS.into())
}

/// Tokens came, with an ID token that was not made for this consent.
fn identities() -> Vec<Case> {
    type Row = (&'static str, fn(&mut Value), &'static str);
    let cases: [Row; 13] = [
        ("iss of another server", |claims| claims["iss"] = value!("https://evil.test"), "another authorization server"),
        ("no iss", |claims| claims["iss"] = Value::Null, "another authorization server"),
        ("aud of another client", |claims| claims["aud"] = value!("client-2"), "another client"),
        ("no aud", |claims| claims["aud"] = Value::Null, "another client"),
        ("two audiences, nobody's", |claims| claims["aud"] = value!(["client-1", "x"]), "another client"),
        ("azp of another client", |claims| claims["azp"] = value!("client-2"), "another client"),
        ("expired", |claims| claims["exp"] = value!(1_000_000), "expired"),
        ("no exp", |claims| claims["exp"] = Value::Null, "expired"),
        ("exp as text", |claims| claims["exp"] = value!("4000000000"), "expired"),
        ("nonce of another consent", |claims| claims["nonce"] = value!("replayed"), "another consent"),
        ("no nonce", |claims| claims["nonce"] = Value::Null, "left the nonce out"),
        ("alg none", |claims| claims["alg"] = value!("none"), "not signed"),
        ("another person", |claims| claims["email"] = value!("ceo@corp.test"), "ceo@corp.test"),
    ];
    cases
        .into_iter()
        .map(|(name, change, words)| {
            let attempt = move || {
                let bench = bench(tokens);
                let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
                let get = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
                let mut claims = value!({
                    "iss": bench.idp.base, "aud": "client-1", "exp": Clock::default().now() + 600,
                    "nonce": get("nonce"), "email": "helpdesk@corp.test", "alg": "RS256",
                });
                change(&mut claims);
                bench.idp.set(move |_| id_token(claims.clone()));
                let redirect = bench.redirect(&format!("state={}&code=c&iss={}", get("state"), bench.idp.base));
                outcome(&bench, attempt(&bench, &redirect))
            };
            Case { name, attempt: Box::new(attempt), kind: Kind::Refused, words, asked: 1 }
        })
        .collect()
}

/// Settings under which a code could be read on its way: refused before anything is opened.
fn settings_refused() -> Vec<Case> {
    let cases: [(&str, &str, Value); 11] = [
        ("http redirect to a host", "redirect_url", value!("http://desk.test/callback")),
        ("http redirect to a host named like this one", "redirect_url", value!("http://localhost.evil.test/callback")),
        ("http redirect to an address nearby", "redirect_url", value!("http://192.168.1.2/callback")),
        ("http redirect to 128.0.0.1", "redirect_url", value!("http://128.0.0.1/callback")),
        ("redirect with a user", "redirect_url", value!("https://me:pw@desk.test/callback")),
        ("redirect with a fragment", "redirect_url", value!("https://desk.test/callback#x")),
        ("redirect of an app's own scheme", "redirect_url", value!("helpdesk://callback")),
        ("plain Access Token URL", "access_token_url", value!("http://idp.test/token")),
        ("plain Authorize URL", "authorize_url", value!("http://127.0.0.1/authorize")),
        ("response_mode among the parameters", "advanced", value!({"authorize_parameters": {"response_mode": "jwt"}})),
        ("a request object among the parameters", "advanced", value!({"authorize_parameters": {"request": "e30"}})),
    ];
    cases
        .into_iter()
        .map(|(name, field, entry)| {
            let attempt = move || {
                let mut form = form();
                assert!(settings::parse(&value!({ "incoming": form }).to_string()).is_ok());
                form[field] = entry.clone();
                let result = settings::parse(&value!({ "incoming": form }).to_string()).map(drop);
                let named = |e: &Error| e.faults().iter().all(|fault| fault.pointer.contains(field));
                assert!(result.as_ref().err().is_none_or(named), "{name}: {result:?}");
                Outcome { result, codes_shown: 0 }
            };
            Case { name, attempt: Box::new(attempt), kind: Kind::Settings, words: "", asked: 0 }
        })
        .collect()
}

fn form() -> Value {
    value!({
        "connection_protocol": "POP/IMAP/POPS/IMAPS",
        "authentication_type": "OAuth",
        "server_name": "imap.test",
        "username": "helpdesk@corp.test",
        "email_addresses": ["helpdesk@corp.test"],
        "protocol": "IMAPS",
        "port": 993,
        "fetch_interval_minutes": 1,
        "enable_email_debug": false,
        "disable_new_request_creation": false,
        "client_id": "client-1",
        "authorize_url": "https://idp.test/authorize",
        "access_token_url": "https://idp.test/token",
        "scope": "mail",
        "redirect_url": REDIRECT_URL,
    })
}

#[test]
fn what_stands_in_authorize_url_cannot_take_the_place_of_what_protects_the_exchange() {
    let mut bench = Bench::new(tokens);
    let evil = "response_mode=fragment&state=known&code_challenge=known&request=e30&tenant=7";
    bench.account.client.authorize_url.set_query(Some(evil));
    let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
    let all =
        |name: &str| url.query_pairs().filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect::<Vec<_>>();
    assert_eq!(all("tenant"), ["7"]);
    assert!(all("response_mode").is_empty() && all("request").is_empty(), "{url}");
    assert!(all("state").len() == 1 && all("state")[0] != "known", "{url}");
    assert!(all("code_challenge").len() == 1 && all("code_challenge")[0] != "known", "{url}");
}

#[test]
fn a_fragment_that_browsers_keep_and_parameters_nobody_knows_do_no_harm() {
    let bench = bench(tokens);
    let redirect =
        bench.redirect(&format!("state={}&code=c&iss={}&session_state=1#_=_", bench.state(), bench.idp.base));
    attempt(&bench, &redirect).unwrap();
}
