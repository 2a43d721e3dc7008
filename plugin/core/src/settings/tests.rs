use serde_json::{Value, json};

use super::*;
use crate::error::Kind;

fn incoming() -> Value {
    json!({
        "connection_protocol": "POP/IMAP/POPS/IMAPS", "authentication_type": "OAuth",
        "server_name": "imap.example.com", "username": "helpdesk@example.com",
        "email_addresses": ["helpdesk@example.com", "support@example.com"], "protocol": "IMAPS", "port": 993,
        "client_id": "helpdesk", "client_secret": "canary-s3cret",
        "authorize_url": "https://idp.example.com/authorize", "access_token_url": "https://idp.example.com/token",
        "scope": "mail  offline_access", "redirect_url": "http://127.0.0.1:8080/callback",
    })
}

fn outgoing() -> Value {
    json!({
        "connection_protocol": "SMTP/SMTPS", "server_name": "smtp.example.com", "username": "helpdesk@example.com",
        "client_id": "helpdesk", "authorize_url": "https://idp.example.com/authorize",
        "access_token_url": "https://idp.example.com/token", "scope": "mail", "redirect_url": "https://desk.example.com/cb",
    })
}

#[test]
fn an_incoming_form_becomes_an_account() {
    let account = parse_incoming(&incoming()).unwrap();
    assert_eq!(account.protocol, Protocol::Imap { server: Endpoint { host: "imap.example.com".into(), port: 993 } });
    assert_eq!(account.client.scopes, ["mail", "offline_access"]);
    assert_eq!(account.consenting_user, "helpdesk@example.com");
    let fetching = account.fetching.unwrap();
    assert_eq!((fetching.interval_minutes, fetching.email_addresses.len()), (5, 2));
    assert_eq!((fetching.since, fetching.folders), (Since::Now, vec!["INBOX".to_owned()]));
    assert_eq!((fetching.after_import, fetching.after_refusal), (Action::Leave, Action::Leave));
}

#[test]
fn tls_mode_and_port_follow_each_other() {
    let smtp = |change: Value| {
        let mut form = outgoing();
        form.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let Protocol::Smtp { server, alternate, tls } = parse_outgoing(&form).unwrap().protocol else { panic!() };
        (server.port, tls, alternate.map(|alternate| alternate.port))
    };
    assert_eq!(smtp(json!({})), (587, TlsMode::StartTls, None));
    assert_eq!(smtp(json!({"protocol": "SMTPS"})), (465, TlsMode::Implicit, None));
    assert_eq!(smtp(json!({"port": 465})), (465, TlsMode::Implicit, None));
    assert_eq!(smtp(json!({"protocol": "SMTP", "port": 2525.0})), (2525, TlsMode::StartTls, None));
    let alternate = json!({"protocol": "SMTPS", "alternate_server_name": "b.example.com"});
    assert_eq!(smtp(alternate), (465, TlsMode::Implicit, Some(465)));
    let alternate = json!({"alternate_server_name": "b.example.com", "advanced": {"alternate_port": 2526}});
    assert_eq!(smtp(alternate), (587, TlsMode::StartTls, Some(2526)));
}

#[test]
fn a_date_or_moment_is_read_in_its_own_zone() {
    let since = |text: &str| {
        let mut form = incoming();
        form["advanced"] = json!({"fetch_since": text});
        parse_incoming(&form).unwrap().fetching.unwrap().since
    };
    assert_eq!(since("all"), Since::Everything);
    assert_eq!(since("1970-01-02"), Since::Moment(86_400));
    assert_eq!(since("1970-01-02T00:00:00+01:00"), Since::Moment(82_800));
}

#[test]
fn an_empty_optional_field_is_an_absent_one() {
    let mut form = outgoing();
    for name in ["client_secret", "sender_name", "reply_to", "alternate_server_name"] {
        form[name] = json!("");
    }
    let account = parse_outgoing(&form).unwrap();
    assert!(account.client.client_secret.is_none());
    assert!(matches!(account.protocol, Protocol::Smtp { alternate: None, .. }));
    assert_eq!(account.sending.unwrap().reply_to, None);
}

#[test]
fn no_fault_and_no_error_repeats_what_was_typed() {
    let mut form = incoming();
    for name in ["server_name", "port", "client_id", "authorize_url", "scope", "fetch_interval_minutes", "advanced"] {
        form[name] = json!("canary\u{1}");
    }
    form["client_secret"] = json!("canary\nx");
    let error = parse(&json!({"incoming": form}).to_string()).err().unwrap();
    assert_eq!(error.faults().len(), 8, "{:?}", error.faults());
    assert!(!error.to_json().to_string().contains("canary"));
    let broken = parse(r#"{"incoming": {"client_secret": "canary", canary}}"#).err().unwrap();
    assert_eq!((broken.kind(), broken.faults()[0].pointer.as_str()), (Kind::Settings, ""));
    assert!(!broken.to_json().to_string().contains("canary"));
}

#[test]
fn pointers_of_a_document_begin_at_the_document() {
    let error = parse(r#"{"outgoing": {"a/b~": 1}}"#).err().unwrap();
    let pointers: Vec<&str> = error.faults().iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers[0], "/outgoing/connection_protocol");
    assert_eq!(*pointers.last().unwrap(), "/outgoing/a~1b~0");
    for wrong in ["", "[]", "{}", "{\"incoming\": {}, \"outgoing\": {}}", "{\"inbound\": {}}"] {
        assert_eq!(parse(wrong).err().unwrap().faults().len(), 1, "{wrong}");
    }
    assert_eq!(parse(&" ".repeat(SETTINGS_MAX + 1)).err().unwrap().faults().len(), 1);
}

/// HOUSE: what is moved into a fetched folder comes again in every round.
#[test]
fn a_target_folder_is_no_fetched_folder() {
    let wrong = |folders: Option<&[&str]>, action: &str, field: &str, target: &str| {
        let mut settings = incoming();
        let advanced = &mut settings["advanced"];
        advanced[action] = json!("move");
        advanced[field] = json!(target);
        if let Some(folders) = folders {
            advanced["folders"] = json!(folders);
        }
        parse_incoming(&settings).err().map(|faults| format!("{faults:?}"))
    };
    for (folders, action, field, target) in [
        (None, "after_import", "processed_folder", "inbox"),
        (Some(&["INBOX", "Desk"][..]), "after_refusal", "error_folder", "Desk"),
        (Some(&["\\Junk"][..]), "after_import", "processed_folder", "\\junk"),
    ] {
        let faults = wrong(folders, action, field, target).unwrap();
        assert!(faults.contains(field) && faults.contains("comes again"), "{faults}");
    }
    assert_eq!(wrong(None, "after_import", "processed_folder", "Done"), None);
    assert_eq!(wrong(Some(&["Desk"]), "after_import", "processed_folder", "INBOX"), None);
}
