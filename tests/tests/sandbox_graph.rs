//! The Microsoft Graph face of the sandbox: a client that nobody here wrote (msgraph-sdk), and what it does not ask.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command, thread};

use base64::{Engine, engine::general_purpose::STANDARD};
use oauth_mail_sandbox::{
    Config, Sandbox,
    browser::{self, Person},
    client,
    faults::{Face, Fault},
};
use oauth_mail_tests::process;
use reqwest::{Method, blocking::Client, header::HeaderMap};
use serde_json::{Value, json};

const SCOPES: [&str; 6] =
    ["Mail.ReadWrite", "Mail.Send", "Mail.ReadWrite.Shared", "Mail.Send.Shared", "User.Read", "offline_access"];

struct Graph {
    sandbox: Sandbox,
    http: Client,
}

impl Graph {
    fn start(config: Config) -> Self {
        let sandbox = Sandbox::start(config).unwrap();
        let http = client::http_client(&sandbox.ca_file).unwrap();
        Self { sandbox, http }
    }

    fn form(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let answer = self.http.post(format!("{}{path}", self.sandbox.base_url())).form(form).send().unwrap();
        serde_json::from_str(&answer.text().unwrap()).unwrap()
    }

    /// Of a person, by the device grant.
    fn delegated(&self, user: &str, scopes: &[&str]) -> String {
        let scopes: Vec<_> = scopes.iter().map(|scope| format!("https://graph.microsoft.com/{scope}")).collect();
        let device = self.form("/device_authorization", &[("client_id", "mail-native"), ("scope", &scopes.join(" "))]);
        let text = |name: &str| device[name].as_str().unwrap_or_else(|| panic!("{device}"));
        let (login, password) = (format!("{user}@example.test"), format!("{user}-password"));
        let person = Person { login: &login, password: &password, deny: false };
        let ca_file = &self.sandbox.ca_file;
        browser::enter_device_code(ca_file, text("verification_uri"), text("user_code"), &person).unwrap();
        let grant = "urn:ietf:params:oauth:grant-type:device_code";
        let form = [("client_id", "mail-native"), ("grant_type", grant), ("device_code", text("device_code"))];
        self.form("/token", &form)["access_token"].as_str().unwrap().to_owned()
    }

    /// Of the application itself.
    fn app_only(&self) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "mail-app"),
            ("client_secret", "mail-app-secret"),
            ("scope", "https://graph.microsoft.com/.default"),
        ];
        self.form("/token", &form)["access_token"].as_str().unwrap().to_owned()
    }

    fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, HeaderMap, Value) {
        let url =
            if url.starts_with("https:") { url.to_owned() } else { format!("{}/v1.0{url}", self.sandbox.base_url()) };
        let mut request = self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, serde_json::from_slice(&answer.bytes().unwrap()).unwrap_or_default())
    }

    fn ask(&self, token: &str, method: &str, url: &str, body: &Value) -> (u16, HeaderMap, Value) {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.send(method, url, &headers, if body.is_null() { Vec::new() } else { body.to_string().into_bytes() })
    }

    fn refused(&self, token: &str, method: &str, url: &str, body: &Value) -> (u16, String) {
        let (status, _, answer) = self.ask(token, method, url, body);
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    fn deliver(&self, to: &str, number: u32) {
        let raw = format!("Message-ID: <{number}@outside.test>\r\nSubject: {number}\r\n\r\nbody\r\n");
        assert!(self.sandbox.state.mail.deliver("", to, raw.as_bytes()));
    }

    fn fault(&self, fault: Value) {
        self.sandbox.state.faults.order(serde_json::from_value::<Fault>(fault).unwrap());
    }
}

fn is(expected: (u16, &str)) -> (u16, String) {
    (expected.0, expected.1.to_owned())
}

#[test]
fn msgraph_sdk_works() {
    let graph = Graph::start(Config::default());
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let facts = json!({
        "graph_url": graph.sandbox.base_url(),
        "admin_url": format!("{}/_sandbox", graph.sandbox.base_url()),
        "ca_file": graph.sandbox.ca_file,
        "alice": "alice@example.test", "bob": "bob@example.test", "support": "support@example.test",
        "tokens": {"alice": graph.delegated("alice", &SCOPES), "app": graph.app_only()},
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), facts.to_string()).unwrap();
    let interpreter = python.join(".venv/bin/python");
    let interpreter = process::installed(&[interpreter.to_str().unwrap()]).unwrap();
    let mut command = Command::new("timeout");
    command.arg("240").arg(interpreter).arg(python.join("graph_check.py")).arg(file.path());
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.contains("msgraph-sdk is content"), "{said}");
}

#[test]
fn who_may_not_is_refused() {
    let graph = Graph::start(Config { on_premises: vec!["bob@example.test".into()], ..Config::default() });
    let inbox = "/mailFolders/inbox/messages";
    let (reads, sends) = (graph.delegated("alice", &["Mail.Read"]), graph.delegated("alice", &["Mail.Send"]));
    let all = graph.delegated("alice", &["Mail.ReadWrite", "Mail.Send"]);
    let shared = graph.delegated("alice", &SCOPES);
    let app = graph.app_only();
    let nothing = Value::Null;
    assert_eq!(graph.ask(&reads, "GET", &format!("/me{inbox}"), &nothing).0, 200);
    let folder = json!({"displayName": "x"});
    let denied = is((403, "ErrorAccessDenied"));
    assert_eq!(graph.refused(&reads, "POST", "/me/mailFolders", &folder), denied);
    assert_eq!(graph.refused(&sends, "GET", &format!("/me{inbox}"), &nothing), denied);
    assert_eq!(graph.refused(&reads, "POST", "/me/sendMail", &json!({"message": {}})), denied);
    assert_eq!(graph.refused(&reads, "GET", "/me", &nothing), is((403, "Authorization_RequestDenied")));
    let support = format!("/users/support@example.test{inbox}");
    assert_eq!(graph.refused(&all, "GET", &support, &nothing), denied);
    assert_eq!(graph.ask(&shared, "GET", &support, &nothing).0, 200);
    assert_eq!(graph.refused(&shared, "GET", &format!("/users/bob@example.test{inbox}"), &nothing), denied);
    let away = is((404, "MailboxNotEnabledForRESTAPI"));
    assert_eq!(graph.refused(&app, "GET", &format!("/users/bob@example.test{inbox}"), &nothing), away);
    assert_eq!(graph.refused(&app, "GET", "/me/messages", &nothing), is((400, "BadRequest")));
    let (status, headers, _) = graph.send("GET", "/me/messages", &[("client-request-id", "my-own-1")], Vec::new());
    assert_eq!((status, &headers["client-request-id"]), (401, &"my-own-1".parse().unwrap()));
    assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Bearer ") && headers.contains_key("request-id"));
}

#[test]
fn a_fifth_request_at_once_is_one_too_many() {
    let graph = Graph::start(Config::default());
    let (alice, app) = (graph.delegated("alice", &SCOPES), graph.app_only());
    let slow = |times: u32| json!({"face": "graph", "match": "inbox", "times": times, "slow_ms": 6000});
    let statuses = |tokens: &[&str]| -> Vec<u16> {
        graph.fault(slow(tokens.len() as u32));
        let alice = "/users/alice@example.test/mailFolders/inbox";
        let running = |token| graph.refused(token, "GET", alice, &Value::Null);
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = tokens.iter().map(|token| scope.spawn(move || running(token))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|(status, code)| *status == 200 || code == "ApplicationThrottled"), "{answers:?}");
        let mut statuses: Vec<u16> = answers.into_iter().map(|(status, _)| status).collect();
        statuses.sort();
        statuses
    };
    assert_eq!(statuses(&[alice.as_str(); 4]), [200; 4]);
    assert_eq!(statuses(&[alice.as_str(); 5]), [200, 200, 200, 200, 429]);
    // Another application has its own four.
    assert_eq!(statuses(&[&alice, &alice, &alice, &app, &app]), [200; 5]);
    assert_eq!(graph.ask(&alice, "GET", "/me/mailFolders/inbox", &Value::Null).0, 200);
}

#[test]
fn an_upload_takes_its_bytes_in_order() {
    let graph = Graph::start(Config::default());
    let alice = graph.delegated("alice", &SCOPES);
    let (_, _, draft) = graph.ask(&alice, "POST", "/me/messages", &json!({"subject": "large"}));
    let url = format!("/me/messages/{}/attachments", draft["id"].as_str().unwrap());
    let create = |size: usize| {
        let item = json!({"AttachmentItem": {"attachmentType": "file", "name": "l.bin", "size": size}});
        graph.ask(&alice, "POST", &format!("{url}/createUploadSession"), &item)
    };
    let (status, _, small) = create(1000);
    assert_eq!((status, &small["error"]["code"]), (400, &json!("ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")));
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| number as u8).collect();
    let (status, _, session) = create(bytes.len());
    assert_eq!(status, 201, "{session}");
    let target = session["uploadUrl"].as_str().unwrap();
    let put = |first: usize, last: usize, total: usize, body: &[u8]| {
        let range = format!("bytes {first}-{last}/{total}");
        let (status, headers, answer) = graph.send("PUT", target, &[("Content-Range", &range)], body.to_vec());
        (status, answer, headers.get("location").map(|location| location.to_str().unwrap().to_owned()))
    };
    let half = 2_500_000;
    for (first, last, total, body) in [
        (half, bytes.len() - 1, bytes.len(), &bytes[half..]),
        (0, half - 1, bytes.len() + 1, &bytes[..half]),
        (0, half, bytes.len(), &bytes[..half]),
        (half - 1, 0, bytes.len(), &bytes[..half]),
    ] {
        assert_eq!(put(first, last, total, body).0, 416, "{first}-{last}/{total}");
    }
    assert_eq!(graph.send("PUT", target, &[], vec![0; 10]).0, 416);
    assert_eq!(put(0, bytes.len() - 1, bytes.len(), &bytes).0, 413);
    let (status, answer, _) = put(0, half - 1, bytes.len(), &bytes[..half]);
    assert_eq!((status, &answer["nextExpectedRanges"]), (200, &json!([half.to_string()])));
    assert_eq!(put(0, half - 1, bytes.len(), &bytes[..half]).0, 416);
    let (status, _, location) = put(half, bytes.len() - 1, bytes.len(), &bytes[half..]);
    assert_eq!(status, 201);
    let (_, _, file) = graph.ask(&alice, "GET", &location.unwrap(), &Value::Null);
    assert_eq!(file["contentBytes"], json!(STANDARD.encode(&bytes)));
    assert_eq!(put(0, half - 1, bytes.len(), &bytes[..half]).0, 404);
}

#[test]
fn four_megabytes_are_the_limit_of_a_request() {
    let graph = Graph::start(Config::default());
    let alice = graph.delegated("alice", &SCOPES);
    let message = |size: usize| json!({"subject": "x", "body": {"contentType": "text", "content": "a".repeat(size)}});
    assert_eq!(graph.ask(&alice, "POST", "/me/messages", &message(4_100_000)).0, 201);
    let (status, _, answer) = graph.ask(&alice, "POST", "/me/messages", &message(4 << 20));
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("BadRequest")));
    assert_eq!(answer["error"]["message"], "The maximum request length supported is 4MB.");
}

#[test]
fn a_batch_keeps_its_order_and_meets_faults_inside() {
    let graph = Graph::start(Config::default());
    let alice = graph.delegated("alice", &SCOPES);
    let batch = |requests: Value| graph.ask(&alice, "POST", "/$batch", &json!({"requests": requests}));
    let get = |id: &str, folder: &str, needs: &[&str]| json!({"id": id, "method": "GET", "url": format!("/me/mailFolders/{folder}"), "dependsOn": needs});
    let statuses = |requests: Value| -> Vec<(String, u64)> {
        let (status, _, answer) = batch(requests);
        assert_eq!(status, 200, "{answer}");
        let one = |one: &Value| (one["id"].as_str().unwrap().to_owned(), one["status"].as_u64().unwrap());
        answer["responses"].as_array().unwrap().iter().map(one).collect()
    };
    let found = statuses(json!([get("c", "inbox", &["b"]), get("b", "nothing", &["a"]), get("a", "inbox", &[])]));
    assert_eq!(found, [("a".into(), 200), ("b".into(), 400), ("c".into(), 424)]);
    graph.fault(json!({"face": "graph", "match": "GET /v1.0/me/mailFolders/drafts", "status": 429, "retry_after": 7}));
    let (_, _, answer) = batch(json!([get("1", "inbox", &[]), get("2", "drafts", &[])]));
    let second = &answer["responses"][1];
    assert_eq!((&answer["responses"][0]["status"], &second["status"]), (&json!(200), &json!(429)));
    assert_eq!(second["headers"]["Retry-After"], "7");
    for wrong in [
        json!([]),
        json!([get("1", "inbox", &["1"])]),
        json!([get("1", "inbox", &["2"])]),
        json!([get("1", "inbox", &[]), get("1", "inbox", &[])]),
        json!((0..21).map(|number| get(&number.to_string(), "inbox", &[])).collect::<Vec<_>>()),
        json!([{"id": "1", "method": "POST", "url": "/$batch"}]),
    ] {
        assert_eq!(batch(wrong.clone()).0, 400, "{wrong}");
    }
    assert_eq!(statuses(json!([{"id": "1", "method": "GET", "url": "/me/messages?$top=1&$select=id"}])).len(), 1);
    // A batch of MIME: its body comes in base64 once more, as everything that is no JSON.
    let mime = STANDARD.encode("To: bob@example.test\r\nSubject: x\r\nMessage-ID: <b@x>\r\n\r\nx\r\n");
    let send = json!({"id": "1", "method": "POST", "url": "/me/sendMail", "headers": {"Content-Type": "text/plain"},
        "body": STANDARD.encode(mime)});
    assert_eq!(statuses(json!([send])), [("1".into(), 202)]);
    let bob =
        graph.sandbox.state.mail.with("bob@example.test", |mailbox| mailbox.folder("INBOX").unwrap().messages.len());
    assert_eq!(bob, Some(1));
    assert!(graph.sandbox.state.faults.counted(Face::Graph).requests > 5);
}

#[test]
fn delta_tells_what_was_asked_for() {
    let graph = Graph::start(Config::default());
    let alice = graph.delegated("alice", &SCOPES);
    for number in 0..3 {
        graph.deliver("alice@example.test", number);
    }
    let ask = |url: &str| {
        let (status, _, answer) = graph.ask(&alice, "GET", url, &Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let link = |page: &Value| page["@odata.deltaLink"].as_str().unwrap_or_else(|| panic!("{page}")).to_owned();
    let ids = |page: &Value| -> Vec<String> {
        page["value"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let base = "/me/mailFolders/inbox/messages/delta?$select=id";
    let (created, deleted) = (ask(&format!("{base}&changeType=created")), ask(&format!("{base}&changeType=deleted")));
    let (everything, updated) = (ask(base), ask(&format!("{base}&changeType=updated")));
    assert_eq!((ids(&created).len(), ids(&deleted).len(), ids(&everything).len(), ids(&updated).len()), (3, 0, 3, 0));
    let first = &ids(&created)[0];
    assert_eq!(graph.ask(&alice, "PATCH", &format!("/me/messages/{first}"), &json!({"isRead": true})).0, 200);
    assert_eq!(graph.ask(&alice, "DELETE", &format!("/me/messages/{}", ids(&created)[1]), &Value::Null).0, 204);
    graph.deliver("alice@example.test", 9);
    let counts = [created, updated, deleted, everything.clone()].map(|page| ids(&ask(&link(&page))).len());
    assert_eq!(counts, [1, 1, 1, 3]);
    let other = link(&everything).replace("/inbox/", "/archive/");
    assert_eq!(graph.refused(&alice, "GET", &other, &Value::Null), is((410, "syncStateNotFound")));
    for wrong in ["&changeType=moved", "&$filter=isRead eq true", "&$orderby=subject"] {
        assert_eq!(graph.ask(&alice, "GET", &format!("{base}{wrong}"), &Value::Null).0, 400, "{wrong}");
    }
    assert_eq!(
        graph.refused(&alice, "GET", "/me/messages?$select=size", &Value::Null),
        is((400, "RequestBroker--ParseUri"))
    );
}

#[test]
fn a_draft_of_mime_is_found_after_sending_by_its_immutable_id() {
    let graph = Graph::start(Config::default());
    let bearer = format!("Bearer {}", graph.delegated("alice", &SCOPES));
    // Two headers of the same name count both.
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Prefer", "IdType=\"ImmutableId\""),
        ("Prefer", "odata.maxpagesize=2"),
        ("Content-Type", "text/plain"),
    ];
    let raw = "From: alice@example.test\r\nTo: bob@example.test\r\nBcc: support@example.test,\r\n hidden@outside.test\r\n\
               Message-ID: <o'ne@example.test>\r\nSubject: one\r\n\r\nä 8bit\r\n";
    let (status, _, draft) = graph.send("POST", "/me/messages", &headers, STANDARD.encode(raw).into_bytes());
    assert_eq!((status, &draft["isDraft"]), (201, &json!(true)), "{draft}");
    let id = draft["id"].as_str().unwrap();
    assert_eq!(graph.send("POST", &format!("/me/messages/{id}/send"), &headers, Vec::new()).0, 202);
    assert_eq!(graph.send("POST", &format!("/me/messages/{id}/send"), &headers, Vec::new()).0, 400);
    let filter = "internetMessageId%20eq%20%27%3Co%27%27ne%40example.test%3E%27";
    let url = format!("/me/mailFolders/sentitems/messages?$select=id&$top=1&$filter={filter}");
    let (_, _, found) = graph.send("GET", &url, &headers, Vec::new());
    assert_eq!(found["value"][0]["id"], json!(id), "{found}");
    let raws = |address: &str, folder: &str| -> Vec<String> {
        let raws = graph.sandbox.state.mail.with(address, |mailbox| {
            let messages = &mailbox.folder(folder).unwrap().messages;
            messages.iter().map(|message| String::from_utf8_lossy(&message.raw).into_owned()).collect()
        });
        raws.unwrap()
    };
    for address in ["bob@example.test", "support@example.test"] {
        let inbox = raws(address, "INBOX");
        assert!(inbox.len() == 1 && !inbox[0].contains("hidden@") && inbox[0].contains("\r\nDate: "), "{inbox:?}");
    }
    assert!(raws("alice@example.test", "Sent Items")[0].contains("hidden@"));
    for number in 0..3 {
        graph.deliver("alice@example.test", number);
    }
    let url = "/me/mailFolders/inbox/messages/delta?changeType=created&$select=id,receivedDateTime,isDraft";
    let (_, _, page) = graph.send("GET", url, &headers, Vec::new());
    assert_eq!(page["value"].as_array().unwrap().len(), 2, "{page}");
    let (_, _, last) = graph.send("GET", page["@odata.nextLink"].as_str().unwrap(), &headers, Vec::new());
    assert!(
        last["@odata.deltaLink"].is_string() && last["value"][0]["id"].as_str().unwrap().starts_with('M'),
        "{last}"
    );
}
