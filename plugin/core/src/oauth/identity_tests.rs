use serde_json::{Value, json};

use super::*;
use crate::oauth::{
    consent_tests::TOKENS,
    tests_support::{Bench, account, json as answer, soon},
};

const USER: &str = "alice@example.test";

fn encode(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}

fn jwt(header: &Value, claims: &Value) -> String {
    format!("{}.{}.c2ln", encode(header), encode(claims))
}

fn rs256() -> Value {
    json!({"alg": "RS256"})
}

/// What the provider returns in one consent.
#[derive(Default)]
struct Said {
    id_token: Option<Value>,
    userinfo: Option<(&'static str, String)>,
}

/// A person consents for [`USER`] at a server that says this. `claims`: what a good ID token holds.
fn consents(bench: &mut Bench, say: impl Fn(Value) -> Said) -> Result<Option<String>> {
    let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
    let get = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    let claims = json!({
        "iss": bench.idp.base, "sub": "1", "aud": "client-1", "exp": bench.clock.now() + 600, "nonce": get("nonce"),
        "email": USER,
    });
    let said = say(claims);
    let mut tokens: Value = serde_json::from_str(TOKENS).unwrap();
    if let Some(token) = said.id_token {
        tokens["id_token"] = token;
    }
    bench.idp.set(move |asked| match (asked.path.as_str(), &said.userinfo) {
        ("/token", _) => answer(200, tokens.to_string()),
        ("/me", Some((kind, body))) => (200, format!("Content-Type: {kind}\r\n"), body.clone()),
        _ => answer(404, ""),
    });
    let redirect = bench.redirect(&format!("state={}&code=c", get("state")));
    bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).map(|redeemed| redeemed.grant.identity)
}

fn bench() -> Bench {
    let mut bench = Bench::new(|_| answer(404, ""));
    bench.account.client.issuer = Some(bench.idp.base.clone());
    bench.account.client.userinfo_url = Some(format!("{}/me", bench.idp.base).parse().unwrap());
    bench.account.consenting_user = USER.into();
    bench
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    match name {
        "" => return value,
        _ => claims[name] = value,
    }
    claims
}

/// Each refusal of faults 2, 19 and 22: a claim of any type that is not right is a refusal, never "nothing known".
#[test]
fn fault_2_each_claim_is_checked_whatever_its_type() {
    let mut bench = bench();
    let evil = "https://evil.example.test";
    let bad: Vec<(&str, Value)> = vec![
        ("iss", json!(evil)),
        ("iss", json!([evil])),
        ("iss", json!([bench.idp.base])),
        ("iss", json!({"value": bench.idp.base})),
        ("iss", json!(5)),
        ("iss", json!(true)),
        ("iss", json!("")),
        ("iss", Value::Null),
        ("iss", json!(format!("{}.evil.test", bench.idp.base))),
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("aud", json!([])),
        ("aud", json!(["client-1", "other"])),
        ("aud", json!(["client-1", 5])),
        ("aud", json!([["client-1"]])),
        ("aud", json!({"client-1": true})),
        ("aud", json!(1)),
        ("aud", json!(true)),
        ("aud", json!("CLIENT-1")),
        ("aud", json!("client-1 other")),
        ("aud", Value::Null),
        ("azp", json!("other")),
        ("azp", json!(["client-1"])),
        ("azp", json!(1)),
        ("azp", json!({})),
        ("exp", json!(1)),
        ("exp", json!("1")),
        ("exp", json!("4000000000")),
        ("exp", json!([4_000_000_000_u64])),
        ("exp", json!({"at": 4_000_000_000_u64})),
        ("exp", json!(true)),
        ("exp", json!(-1)),
        ("exp", json!(0)),
        ("exp", json!(1.5)),
        ("exp", Value::Null),
        ("nonce", json!("zz")),
        ("nonce", json!("")),
        ("nonce", json!(5)),
        ("nonce", json!(["zz"])),
        ("nonce", json!({})),
        ("nonce", json!(false)),
        ("nonce", Value::Null),
        ("email", json!("mallory@example.test")),
        ("email", json!(["mallory@example.test"])),
        ("email", json!(["mallory@example.test", 5, null])),
        ("email", json!([{"value": "mallory@example.test", "primary": true}])),
        ("email", json!({"address": "mallory@example.test"})),
        ("email", json!("mallory@example.test; other@example.test")),
        ("email", json!("alice@example.test.evil.test")),
        ("email", json!("alice@xn--exmple-cua.test")),
        ("email", json!(" mallory@example.test ")),
        // Payloads that are no set of claims.
        ("", json!([])),
        ("", json!("text")),
        ("", json!(5)),
        ("", Value::Null),
        ("", json!({})),
        ("", json!([{"iss": bench.idp.base}])),
    ];
    for (name, value) in &bad {
        // The trick of fault 2: one odd claim beside the wrong one.
        for sub in [json!("1"), json!(12345), json!({"odd": [1]})] {
            let outcome = consents(&mut bench, |claims| {
                let claims = with(with(claims, "sub", sub.clone()), name, value.clone());
                Said { id_token: Some(jwt(&rs256(), &claims).into()), ..Said::default() }
            });
            let error = outcome.err().unwrap_or_else(|| panic!("{name} {value} beside sub {sub} was taken"));
            assert_eq!(error.kind(), Kind::Refused, "{name} {value}: {error}");
        }
    }
    assert!(bad.len() >= 55);
}

#[test]
fn fault_2_what_is_neither_a_jwt_nor_a_jwe_is_refused() {
    let mut bench = bench();
    type Shape = Box<dyn Fn(&Value) -> Value>;
    let shapes: Vec<(&str, Shape)> = vec![
        ("a number", Box::new(|_| json!(5))),
        ("an object", Box::new(|claims| claims.clone())),
        ("a list", Box::new(|claims| json!([jwt(&rs256(), claims)]))),
        ("a word", Box::new(|_| json!("token"))),
        ("one part", Box::new(|claims| json!(encode(claims)))),
        ("two parts", Box::new(|claims| json!(format!("{}.{}", encode(&rs256()), encode(claims))))),
        ("four parts", Box::new(|claims| json!(format!("{}.x", jwt(&rs256(), claims))))),
        ("six parts", Box::new(|claims| json!(format!("{}.x.y.z", jwt(&rs256(), claims))))),
        ("five parts that are no JWE", Box::new(|_| json!("a.b.c.d.e"))),
        ("five parts without enc", Box::new(|claims| json!(format!("{}.y.z", jwt(&rs256(), claims))))),
        ("plain JSON", Box::new(|claims| json!(claims.to_string()))),
        ("not base64url", Box::new(|_| json!(format!("{}.%%%.c2ln", encode(&rs256()))))),
        ("not JSON", Box::new(|_| json!(format!("{}.bm90IGpzb24.c2ln", encode(&rs256()))))),
        ("alg none", Box::new(|claims| json!(jwt(&json!({"alg": "none"}), claims)))),
        ("alg NONE", Box::new(|claims| json!(jwt(&json!({"alg": "NONE"}), claims)))),
        ("no alg", Box::new(|claims| json!(jwt(&json!({}), claims)))),
        ("alg of another type", Box::new(|claims| json!(jwt(&json!({"alg": ["RS256"]}), claims)))),
        ("a header that is a list", Box::new(|claims| json!(jwt(&json!([]), claims)))),
        ("no signature", Box::new(|claims| json!(format!("{}.{}.", encode(&rs256()), encode(claims))))),
    ];
    for (name, shape) in &shapes {
        let outcome = consents(&mut bench, |claims| Said { id_token: Some(shape(&claims)), ..Said::default() });
        let error = outcome.err().unwrap_or_else(|| panic!("{name} was taken"));
        assert_eq!(error.kind(), Kind::Refused, "{name}: {error}");
        assert_eq!(error.who_acts(), Who::HelpdeskAdministrator, "{name}");
    }
}

/// The positive twins: odd, and right.
#[test]
fn fault_2_odd_but_right_claims_are_read() {
    let mut bench = bench();
    let rows: Vec<(&str, Value)> = vec![
        ("sub", json!(12345)),
        ("sub", json!([1])),
        ("aud", json!(["client-1"])),
        ("exp", json!(4e9)),
        ("azp", json!("client-1")),
        ("azp", Value::Null),
        ("email", json!(["alias@example.test", USER])),
        ("email", json!([USER, 7, null, {}])),
        ("email", json!([{"value": USER}])),
        ("email", json!(format!("alias@example.test; {USER}"))),
        ("email", json!(" Alice@EXAMPLE.test ")),
        ("preferred_username", json!(1001)),
        ("preferred_username", json!({"x": 1})),
        ("upn", json!(false)),
        ("tid", json!(5)),
        ("email_verified", json!("true")),
        ("email_verified", json!(1)),
    ];
    for (name, value) in rows {
        let identity = consents(&mut bench, |claims| Said {
            id_token: Some(jwt(&rs256(), &with(claims, name, value.clone())).into()),
            ..Said::default()
        });
        let identity = identity.unwrap_or_else(|error| panic!("{name} {value}: {error}"));
        assert_eq!(identity.map(|name| canonical(&name)).as_deref(), Some(USER), "{name} {value}");
    }
    // Nothing is known of an encrypted one, nor where none came; the mail server decides.
    for token in [json!(format!("{}.a.b.c.d", encode(&json!({"alg": "RSA-OAEP", "enc": "A256GCM"})))), json!(null)] {
        let identity = consents(&mut bench, |_| Said { id_token: Some(token.clone()), ..Said::default() });
        assert_eq!(identity.unwrap(), None, "{token}");
    }
    // An address that is not verified counts for nothing.
    for verified in [json!(false), json!("false"), json!(0), json!([true]), json!("no")] {
        let identity = consents(&mut bench, |claims| Said {
            id_token: Some(jwt(&rs256(), &with(claims, "email_verified", verified.clone())).into()),
            ..Said::default()
        });
        assert_eq!(identity.unwrap(), None, "{verified}");
    }
}

#[test]
fn fault_22_userinfo_is_read_as_json_and_as_jwt() {
    let mut bench = bench();
    let base = bench.idp.base.clone();
    let (plain, signed) = ("application/json", "application/jwt");
    let token = |claims: Value| jwt(&rs256(), &claims);
    type Row = (&'static str, String, Result<Option<&'static str>, &'static str>);
    let rows: Vec<Row> = vec![
        (plain, json!({"sub": 12345, "email": "mallory@example.test"}).to_string(), Err("mallory")),
        (plain, json!({"sub": 12345, "email": USER}).to_string(), Ok(Some(USER))),
        (plain, json!({"email": ["mallory@example.test"]}).to_string(), Err("mallory")),
        (plain, json!({"email": {"value": "mallory@example.test"}}).to_string(), Err("mallory")),
        (plain, json!({"preferred_username": 7, "email": USER}).to_string(), Ok(Some(USER))),
        (plain, "[]".into(), Ok(None)),
        (plain, "<html>".into(), Ok(None)),
        (signed, token(json!({"email": USER})), Ok(Some(USER))),
        (signed, token(json!({"email": [USER]})), Ok(Some(USER))),
        (
            "application/jwt; charset=utf-8",
            token(json!({"iss": base, "aud": "client-1", "email": USER})),
            Ok(Some(USER)),
        ),
        (plain, format!("\"{}\"", token(json!({"email": USER}))), Ok(Some(USER))),
        (signed, token(json!({"sub": 7, "email": "mallory@example.test"})), Err("mallory")),
        (signed, token(json!({"iss": "https://evil.test", "email": USER})), Err("another authorization server")),
        (signed, token(json!({"iss": 5, "email": USER})), Err("another authorization server")),
        (signed, token(json!({"aud": ["other"], "email": USER})), Err("another client")),
        (signed, token(json!({"exp": 1, "email": USER})), Err("expired")),
        (signed, token(json!({"exp": "later", "email": USER})), Err("expired")),
        (signed, token(json!([USER])), Err("cannot be read")),
        (signed, "rubbish".into(), Err("cannot be read")),
        (signed, format!("{}.a.b.c.d", encode(&json!({"alg": "dir", "enc": "A128GCM"}))), Ok(None)),
    ];
    for (kind, body, wanted) in rows {
        let identity = consents(&mut bench, |_| Said { userinfo: Some((kind, body.clone())), ..Said::default() });
        match (identity, wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found.as_deref(), wanted, "{kind} {body}"),
            (Err(error), Err(words)) => {
                assert_eq!(error.kind(), Kind::Refused, "{body}");
                assert!(error.message().contains(words), "{body}: {error}");
            }
            (found, _) => panic!("{kind} {body}: {found:?}"),
        }
    }
    // A login name in the ID token does not stop the question whose address it is.
    let outcome = consents(&mut bench, |mut claims| {
        claims["email"] = Value::Null;
        claims["preferred_username"] = json!("mallory");
        Said {
            id_token: Some(jwt(&rs256(), &claims).into()),
            userinfo: Some((plain, json!({"sub": "1", "email": "mallory@example.test"}).to_string())),
        }
    });
    assert!(outcome.unwrap_err().message().contains("mallory@"));
}

#[test]
fn fault_19_a_missing_nonce_has_its_own_sentence() {
    let mut bench = bench();
    let error = consents(&mut bench, |mut claims| {
        claims.as_object_mut().unwrap().remove("nonce");
        Said { id_token: Some(jwt(&rs256(), &claims).into()), ..Said::default() }
    })
    .unwrap_err();
    assert!(error.message().contains("left the nonce out"), "{error}");
    assert!(error.remedy_text().unwrap().contains("remove openid from Scope"), "{error}");
}

#[test]
fn fault_20_one_address_in_two_spellings_is_one_person() {
    let mut account = account("https://idp.test");
    for (wanted, said, is_same) in [
        ("alice@googlemail.com", "alice@gmail.com", true),
        ("alice@gmail.com", "Alice@GoogleMail.com", true),
        ("alice@gmail.com", "al.ice@gmail.com", true),
        ("alice@gmail.com", "alice+x@gmail.com", false),
        ("alice@example.com", "al.ice@example.com", false),
        ("alice@bücher.example", "alice@xn--bcher-kva.example", true),
        ("alice@xn--bcher-kva.example", "alice@bücher.example", true),
        ("alice@BÜCHER.example", "alice@bu\u{308}cher.example", true),
        ("jos\u{e9}@example.com", "jose\u{301}@example.com", true),
        ("jose@example.com", "jos\u{e9}@example.com", false),
        ("alice@example.com", "alice@example.com.", true),
        ("alice@example.com", "alice@exa%6Dple.com", false),
        ("alice@example.com", "\u{430}lice@example.com", false),
        ("alice@gmail.com", "alice@gmail.com.evil.test", false),
    ] {
        account.consenting_user = wanted.into();
        assert_eq!(matching(&[said.to_owned()], &account).is_ok(), is_same, "{wanted} {said}");
    }
    assert!(wrong_person("b@x.test", &account).remedy_text().unwrap().contains("under another name"));
}

#[test]
fn names_that_cannot_be_compared_say_nothing() {
    let account = account("https://idp.test");
    let matching = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        matching(&names, &account)
    };
    assert_eq!(matching(&["guid", "helpdesk@corp.test"]).unwrap().as_deref(), Some("helpdesk@corp.test"));
    assert_eq!(matching(&[]).unwrap(), None);
    assert_eq!(matching(&["helpdesk"]).unwrap(), None);
    assert_eq!(matching(&["ceo@corp.test"]).unwrap_err(), "ceo@corp.test");
}
