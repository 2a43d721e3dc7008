//! The EWS face of the sandbox: a client that nobody here wrote (exchangelib), Microsoft's schema, what neither asks.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use oauth_mail_sandbox::{
    Config, Sandbox,
    browser::{self, Person},
    client,
};
use oauth_mail_tests::{ews_schema::Schema, process};
use serde_json::{Value, json};

const SCOPE: &str = "https://outlook.office365.com/EWS.AccessAsUser.All";

/// Of a person, by the device grant.
fn delegated(sandbox: &Sandbox, user: &str, scope: &str) -> String {
    let http = client::http_client(&sandbox.ca_file).unwrap();
    let post = |path: &str, form: &[(&str, &str)]| -> Value {
        let answer = http.post(format!("{}{path}", sandbox.base_url())).form(form).send().unwrap();
        serde_json::from_str(&answer.text().unwrap()).unwrap()
    };
    let device = post("/device_authorization", &[("client_id", "mail-native"), ("scope", scope)]);
    let text = |name: &str| device[name].as_str().unwrap_or_else(|| panic!("{device}"));
    let (login, password) = (format!("{user}@example.test"), format!("{user}-password"));
    let person = Person { login: &login, password: &password, deny: false };
    browser::enter_device_code(&sandbox.ca_file, text("verification_uri"), text("user_code"), &person).unwrap();
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let form = [("client_id", "mail-native"), ("grant_type", grant), ("device_code", text("device_code"))];
    let token = post("/token", &form);
    token["access_token"].as_str().unwrap_or_else(|| panic!("{token}")).to_owned()
}

/// Of the application itself.
fn app_only(sandbox: &Sandbox) -> String {
    let http = client::http_client(&sandbox.ca_file).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "mail-app"),
        ("client_secret", "mail-app-secret"),
        ("scope", "https://outlook.office365.com/.default"),
    ];
    let answer = http.post(format!("{}/token", sandbox.base_url())).form(&form).send().unwrap();
    let token: Value = serde_json::from_str(&answer.text().unwrap()).unwrap();
    token["access_token"].as_str().unwrap_or_else(|| panic!("{token}")).to_owned()
}

/// Status and body.
fn ask(sandbox: &Sandbox, token: &str, header: &str, body: &str) -> (u16, String) {
    let http = client::http_client(&sandbox.ca_file).unwrap();
    let envelope = format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:t=\"http://schemas.microsoft.com/exchange/services/2006/types\" \
         xmlns:m=\"http://schemas.microsoft.com/exchange/services/2006/messages\">\
         <s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    );
    let request = http.post(format!("{}/EWS/Exchange.asmx", sandbox.base_url())).body(envelope);
    let answer = request.header("Authorization", format!("Bearer {token}")).send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

const GET_INBOX: &str = "<m:GetFolder><m:FolderShape><t:BaseShape>Default</t:BaseShape></m:FolderShape>\
     <m:FolderIds><t:DistinguishedFolderId Id=\"inbox\"/></m:FolderIds></m:GetFolder>";

/// Every answer that was given; requests of foreign clients need not fit.
fn answers_fit_the_schema(sandbox: &Sandbox) {
    let Some(schema) = Schema::find().unwrap() else { return };
    let exchanges = sandbox.state.ews.all();
    assert!(!exchanges.is_empty());
    schema
        .validate_all(exchanges.iter().map(|exchange| exchange.response.as_str()))
        .unwrap_or_else(|error| panic!("{error}"));
}

fn exchangelib(sandbox: &Sandbox, version: &str) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let facts = json!({
        "ews_url": format!("{}/EWS/Exchange.asmx", sandbox.base_url()),
        "admin_url": format!("{}/_sandbox", sandbox.base_url()),
        "ca_file": sandbox.ca_file,
        "version": version,
        "alice": "alice@example.test", "bob": "bob@example.test", "support": "support@example.test",
        "tokens": {"alice": delegated(sandbox, "alice", SCOPE), "app": app_only(sandbox)},
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), facts.to_string()).unwrap();
    let interpreter = python.join(".venv/bin/python");
    let interpreter = process::installed(&[interpreter.to_str().unwrap()]).unwrap();
    let mut command = Command::new("timeout");
    command.arg("240").arg(interpreter).arg(python.join("exchangelib_check.py")).arg(file.path());
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.contains("exchangelib is content"), "{said}");
}

#[test]
fn exchangelib_works_and_every_answer_fits_the_schema() {
    let sandbox = Sandbox::start(Config::default()).unwrap();
    exchangelib(&sandbox, "Exchange2016");
    answers_fit_the_schema(&sandbox);
}

#[test]
fn exchangelib_falls_back_to_an_older_version() {
    let config = Config { ews_version: "Exchange2013_SP1".into(), ..Config::default() };
    let sandbox = Sandbox::start(config).unwrap();
    exchangelib(&sandbox, "Exchange2013_SP1");
    answers_fit_the_schema(&sandbox);
}

#[test]
fn who_may_not_is_refused() {
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let (alice, app) = (delegated(&sandbox, "alice", SCOPE), app_only(&sandbox));
    let imap = delegated(&sandbox, "alice", "https://outlook.office365.com/IMAP.AccessAsUser.All");
    let graph = delegated(&sandbox, "alice", "https://graph.microsoft.com/Mail.ReadWrite");
    for wrong in ["", "rubbish", &imap, &graph] {
        assert_eq!(ask(&sandbox, wrong, "", GET_INBOX).0, 401);
    }
    assert_eq!(ask(&sandbox, &alice, "", GET_INBOX).0, 200);
    let (status, said) = ask(&sandbox, &app, "", GET_INBOX);
    assert!(status == 500 && said.contains("ErrorImpersonationRequired"), "{said}");
    let version = "<t:RequestServerVersion Version=\"V2017_07_11\"/>";
    let (status, said) = ask(&sandbox, &alice, version, GET_INBOX);
    assert!(status == 500 && said.contains("ErrorInvalidServerVersion"), "{said}");
    for name in ["PrimarySmtpAddress", "SmtpAddress", "PrincipalName"] {
        let header = format!(
            "<t:ExchangeImpersonation><t:ConnectingSID><t:{name}>bob@example.test</t:{name}></t:ConnectingSID>\
             </t:ExchangeImpersonation>"
        );
        assert_eq!(ask(&sandbox, &app, &header, GET_INBOX).0, 200, "{name}");
    }
    answers_fit_the_schema(&sandbox);
    let config = Config { ews_enabled: false, ..Config::default() };
    assert_eq!(ask(&Sandbox::start(config).unwrap(), &alice, "", GET_INBOX).0, 403);
}

#[test]
fn hostile_requests_are_refused() {
    let sandbox = Sandbox::start(Config { message_size_max: 4000, ..Config::default() }).unwrap();
    let alice = delegated(&sandbox, "alice", SCOPE);
    let sync = |max: u32| {
        format!(
            "<m:SyncFolderItems><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape></m:ItemShape><m:SyncFolderId>\
             <t:DistinguishedFolderId Id=\"inbox\"/></m:SyncFolderId><m:MaxChangesReturned>{max}</m:MaxChangesReturned>\
             </m:SyncFolderItems>"
        )
    };
    for (body, code) in [
        ("<m:GetFolder>".to_owned(), "ErrorSchemaValidation"),
        (String::new(), "ErrorSchemaValidation"),
        ("<m:GetFolder/>".to_owned(), "ErrorSchemaValidation"),
        ("<m:ExpandDL/>".to_owned(), "ErrorInvalidRequest"),
        (sync(0), "ErrorSchemaValidation"),
        (sync(513), "ErrorSchemaValidation"),
        ("<a>".repeat(900) + &"</a>".repeat(900), "ErrorInvalidRequest"),
    ] {
        let (status, said) = ask(&sandbox, &alice, "", &body);
        assert!(status == 500 && said.contains(code), "{body}: {said}");
    }
    let (_, said) = ask(&sandbox, &alice, "", &sync(512));
    assert!(said.contains("<m:IncludesLastItemInRange>true<"), "{said}");
    let create = format!(
        "<m:CreateItem MessageDisposition=\"SendOnly\"><m:Items><t:Message><t:MimeContent>{}</t:MimeContent>\
         </t:Message></m:Items></m:CreateItem>",
        "QUFB".repeat(1500)
    );
    let (status, said) = ask(&sandbox, &alice, "", &create);
    assert!(status == 200 && said.contains("ErrorMessageSizeExceeded"), "{said}");
    answers_fit_the_schema(&sandbox);
}

#[test]
fn a_draft_is_sent_with_its_change_key_only() {
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let alice = delegated(&sandbox, "alice", SCOPE);
    let mime = "VG86IGJvYkBleGFtcGxlLnRlc3QNClN1YmplY3Q6IHgNCg0KeA0K"; // To: bob@example.test, Subject: x
    let create = format!(
        "<m:CreateItem MessageDisposition=\"SaveOnly\"><m:Items><t:Message><t:MimeContent>{mime}</t:MimeContent>\
         </t:Message></m:Items></m:CreateItem>"
    );
    let (_, said) = ask(&sandbox, &alice, "", &create);
    let attribute = |name: &str| {
        let rest = said.split(&format!(" {name}=\"")).nth(1).unwrap_or_else(|| panic!("{said}"));
        format!("{name}=\"{}\"", rest.split('"').next().unwrap())
    };
    let (id, key) = (attribute("Id"), attribute("ChangeKey"));
    let get = |id: &str| {
        format!(
            "<m:GetItem><m:ItemShape><t:BaseShape>AllProperties</t:BaseShape></m:ItemShape><m:ItemIds><t:ItemId {id}/>\
             </m:ItemIds></m:GetItem>"
        )
    };
    let send = |rest: &str| {
        format!("<m:SendItem SaveItemToFolder=\"true\"><m:ItemIds><t:ItemId {id} {rest}/></m:ItemIds></m:SendItem>")
    };
    let (_, said) = ask(&sandbox, &alice, "", &get(&id));
    assert!(said.contains("<t:IsDraft>true<") && said.contains("<t:EmailAddress>alice@example.test<"), "{said}");
    for (rest, code) in [("", "ErrorChangeKeyRequired"), ("ChangeKey=\"CQAA\"", "ErrorStaleObject")] {
        let (_, said) = ask(&sandbox, &alice, "", &send(rest));
        assert!(said.contains(&format!(">{code}<")), "{said}");
    }
    assert!(ask(&sandbox, &alice, "", &send(&key)).1.contains(">NoError<"));
    assert!(ask(&sandbox, &alice, "", &get(&id)).1.contains(">ErrorItemNotFound<"));
    assert!(ask(&sandbox, &alice, "", &send(&key)).1.contains(">ErrorItemNotFound<"));
    let count = |address: &str, folder: &str| {
        sandbox.state.mail.with(address, |mailbox| mailbox.folder(folder).unwrap().messages.len()).unwrap()
    };
    assert_eq!([count("bob@example.test", "INBOX"), count("alice@example.test", "Sent Items")], [1, 1]);
    answers_fit_the_schema(&sandbox);
}

#[test]
fn the_schema_check_finds_what_is_wrong() {
    let Some(schema) = Schema::find().unwrap() else { return };
    let envelope = |body: &str| {
        format!(
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:t=\"http://schemas.microsoft.com/exchange/services/2006/types\" \
             xmlns:m=\"http://schemas.microsoft.com/exchange/services/2006/messages\"><s:Body>{body}</s:Body>\
             </s:Envelope>"
        )
    };
    schema.validate(&envelope(GET_INBOX)).unwrap();
    let wrong = GET_INBOX.replace("Default<", "Everything<");
    assert!(schema.validate(&envelope(&wrong)).unwrap_err().to_string().contains("Everything"));
    assert!(schema.validate(&envelope("<m:Nothing/>")).is_err());
}
