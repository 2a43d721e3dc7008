//! The pages of `host-sample serve` over HTTP, without a browser's script: login, form, consent, mail, reply. The provider
//! is the sandbox. Needs `host-sample` and the library built.
#![allow(clippy::unwrap_used)]

use std::{
    cell::RefCell,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use oauth_mail_sandbox::{
    Config, Sandbox,
    browser::{self, Person},
    client,
    config::Client,
};
use oauth_mail_tests::served::Served;
use reqwest::{
    StatusCode,
    blocking::{self, Response},
    header,
};
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "canary-admin-password";
const CLIENT_SECRET: &str = "canary-client-secret";
const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";

#[test]
fn from_the_login_to_the_reply() {
    let desk = Desk::start();
    desk.log_in();
    assert!(desk.get("/").text.contains("There is no mailbox yet"));

    // Three mistakes, each at its field; what was typed stays, secrets excepted.
    let opened = desk.get("/mailboxes/new");
    assert_eq!(opened.value("/redirect_url"), desk.at("/oauth/callback"));
    assert_eq!((opened.value("/port"), opened.value("/connection_protocol")), ("993", "POP/IMAP/POPS/IMAPS"));
    let wrong =
        desk.send(&opened, &desk.incoming(&[("/port", "99x"), ("/username", ""), ("/email_addresses", "alice\nbob@")]));
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.text.contains("data-testid=\"error-summary\""), "{}", wrong.text);
    for field in ["field-port", "field-username", "field-email_addresses"] {
        assert!(wrong.text.contains(&format!("data-testid=\"{field}-error\"")), "{field}: {}", wrong.text);
        assert!(wrong.text.contains(&format!("href=\"#{field}\"")), "{field} in the summary");
    }
    assert_eq!(wrong.text.matches("-error\" data-testid=\"field-").count(), 3, "no other field is wrong");
    assert_eq!((wrong.value("/port"), wrong.value("/email_addresses")), ("99x", "alice\nbob@"));
    assert_eq!(wrong.value("/client_secret"), "");

    let saved = desk.send(&wrong, &desk.incoming(&[]));
    assert_eq!(saved.location(), "/mailboxes/1/connect/incoming", "{}", saved.text);
    let connect = desk.get("/mailboxes/1/connect/incoming");
    assert!(connect.text.contains("data-consent=\"/mailboxes/1/consent/incoming\""));
    assert!(connect.text.contains(ALICE));
    let state = || {
        let answer: Value = serde_json::from_str(&desk.get("/mailboxes/1/connect/incoming/state").text).unwrap();
        (answer["state"].as_str().unwrap().to_owned(), answer["entry"].as_i64().unwrap())
    };
    assert_eq!(state(), ("waiting".to_owned(), 0));

    // Refused, the wrong account, an answer nobody waits for: each has its sentence and a way on.
    let mut ended = 0;
    for (login, deny, sentence) in [(ALICE, true, "declined"), (BOB, false, BOB)] {
        let failed = desk.consent("/mailboxes/1/consent/incoming", login, deny).1;
        assert!(
            failed.text.contains("The mailbox is not connected") && failed.text.contains(sentence),
            "{}",
            failed.text
        );
        assert!(failed.text.contains("data-testid=\"try-again\""));
        // The page knows this end, so that it does not take it for the end of the next window.
        let (word, entry) = state();
        assert!(word == "failed" && entry > ended, "{word} {entry}");
        ended = entry;
        let page = desk.get("/mailboxes/1/connect/incoming").text;
        assert!(page.contains(&format!("data-entry=\"{entry}\"")), "{page}");
        assert!(page.contains("data-testid=\"consent-failure\"") && page.contains("Try again"), "{page}");
    }
    let (redirect, done) = desk.consent("/mailboxes/1/consent/incoming", ALICE, false);
    assert!(done.text.contains("The mailbox is connected"), "{}", done.text);
    assert_eq!(state().0, "given");
    let success = desk.get("/mailboxes/1/connect/incoming").text;
    for part in ["data-testid=\"consent-success\"", ALICE, "IMAPS to localhost", "TLS 1.3", ">openid mail<"] {
        assert!(success.contains(part), "{part}: {success}");
    }
    let again = desk.get(&redirect);
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    assert!(again.text.contains("The consent has expired") && again.text.contains("Re-authorize"));

    assert!(success.contains("Set up outgoing mail"));

    // The second form begins with what it shares with the first, and the same consent serves it.
    let outgoing = desk.get("/mailboxes/1/outgoing");
    assert_eq!((outgoing.value("/username"), outgoing.value("/port")), (ALICE, "587"));
    assert!(outgoing.text.contains("data-testid=\"field-client_secret-stored\""));
    let changed = desk.send(&outgoing, &[("/protocol", "SMTPS"), ("_refresh", "1")]);
    assert_eq!((changed.status, changed.value("/port")), (StatusCode::OK, "465"), "the port follows the protocol");
    let port = desk.sandbox.submission_port.to_string();
    let saved =
        desk.send(&outgoing, &[("/server_name", "localhost"), ("/port", &port), ("/sender_name", "Example Helpdesk")]);
    assert_eq!(saved.location(), "/mailboxes/1?done=outgoing", "{}", saved.text);
    assert!(desk.get(saved.location()).text.contains("The outgoing settings are saved"));

    // Mail comes in and is answered.
    let raw = "From: Bob <bob@example.test>\r\nTo: alice@example.test\r\nSubject: The printer <b>burns</b>\r\n\
        Message-ID: <printer@example.test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n\
        --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
        --a\r\nContent-Type: text/plain\r\n\r\nIt <i>burns</i>.\r\n\
        --a\r\nContent-Type: text/html\r\n\r\n<p>It <b>burns</b>.<script>alert('canary-script')</script>\
        <img src=\"https://spy.test/canary-pixel\"></p>\r\n--a--\r\n\
        --m\r\nContent-Type: text/html; name=\"photo.html\"\r\nContent-Disposition: attachment; filename=\"photo.html\"\r\n\r\n\
        <script>x</script>\r\n--m--\r\n";
    assert!(desk.sandbox.state.mail.deliver(BOB, ALICE, raw.as_bytes()));
    // The scheduler may be at it, too: then it says so, or there is nothing left.
    let fetched = desk.until(|| Some(desk.act("fetch", &[])).filter(|page| page.text.contains("Fetched: ")));
    assert!(fetched.text.contains("data-testid=\"done\"") && fetched.text.contains("1 created"), "{}", fetched.text);
    let requests = desk.get("/requests");
    assert!(requests.text.contains("The printer &lt;b&gt;burns&lt;/b&gt;"), "{}", requests.text);
    let request = desk.get("/requests/1");
    assert!(request.text.contains("It &lt;i&gt;burns&lt;/i&gt;.") && !request.text.contains("canary-script"));
    let address = request.link("/html").to_owned();
    let html = desk.get(&address);
    assert!(html.text.contains("<p>It <b>burns</b>.</p>"), "{}", html.text);
    assert!(!html.text.contains("canary"), "{}", html.text);
    assert!(
        html.header("content-security-policy").contains("sandbox")
            && html.header("content-security-policy").contains("default-src 'none'")
    );
    let attachment = desk.get(&address.replace("/html", "/attachments/2"));
    assert!(attachment.header("content-disposition").starts_with("attachment; filename=\"photo.html\""));
    assert_eq!(
        (attachment.header("x-content-type-options"), attachment.header("content-type")),
        ("nosniff", "application/octet-stream")
    );
    assert!(attachment.text.starts_with("<script>x</script>"));
    assert!(desk.get(&address.replace("/html", "/raw")).text.contains("canary-pixel"), "the bytes as they came");

    let empty = desk.send_to("/requests/1/reply", &request, &[("text", "  "), ("mailbox", "1")]);
    assert!(empty.status == StatusCode::UNPROCESSABLE_ENTITY && empty.text.contains("The reply is empty."));
    let replied = desk.send_to("/requests/1/reply", &request, &[("text", "Put it out."), ("mailbox", "1")]);
    assert_eq!(replied.location(), "/requests/1?done=reply", "{}", replied.text);
    // As after an answer of the page that was lost: the same form again is the same reply.
    let again = desk.send_to("/requests/1/reply", &request, &[("text", "Put it out."), ("mailbox", "1")]);
    assert_eq!(again.location(), "/requests/1?done=reply", "{}", again.text);
    let request = desk.get(replied.location());
    assert!(
        request.text.contains("Sent to bob@example.test") && request.text.contains("Put it out."),
        "{}",
        request.text
    );
    let inbox = desk.inbox(BOB);
    assert!(
        inbox.len() == 1 && inbox[0].contains("Put it out.") && inbox[0].contains("printer@example.test"),
        "{inbox:?}"
    );
    assert!(inbox[0].contains("Example Helpdesk"));

    // The same text by another form is another reply; one that cannot be put into the audit trail is out all the same.
    let database = rusqlite::Connection::open(desk.folder.path().join("desk/helpdesk.db")).unwrap();
    database.execute_batch("ALTER TABLE audit RENAME TO away").unwrap();
    let replied = desk.send_to("/requests/1/reply", &request, &[("text", "Put it out."), ("mailbox", "1")]);
    database.execute_batch("ALTER TABLE away RENAME TO audit").unwrap();
    assert!(replied.status == StatusCode::OK && replied.text.contains("Sent to bob@example.test"), "{}", replied.text);
    assert_eq!(desk.inbox(BOB).len(), 2);

    // The other actions.
    let sample = desk.act("send", &[("to", BOB)]);
    assert!(sample.text.contains("Sent to bob@example.test"), "{}", sample.text);
    assert_eq!(desk.inbox(BOB).len(), 3);
    let diagnosis = desk.act("diagnose", &[]);
    assert!(
        diagnosis.text.contains("data-testid=\"diagnosis-incoming\"")
            && diagnosis.text.contains("data-testid=\"diagnosis-outgoing\"")
    );
    assert!(desk.act("pause", &[]).text.contains("Go on fetching"));
    assert!(desk.get("/").text.contains("data-state=\"paused\""));
    assert!(desk.act("pause", &[]).text.contains("Fetching goes on."));
    assert!(desk.get("/mailboxes/1/quarantine").text.contains("data-testid=\"quarantine-empty\""));
    assert!(desk.get("/mailboxes/1/transcript").text.contains("Email debug is off"));
    let debug = desk.get("/mailboxes/1/incoming");
    assert_eq!(desk.send(&debug, &[("/enable_email_debug", "true")]).location(), "/mailboxes/1?done=incoming");
    desk.until(|| Some(desk.act("fetch", &[])).filter(|page| page.text.contains("Fetched: ")));
    let transcript = desk.get("/mailboxes/1/transcript/download");
    assert!(
        transcript.header("content-disposition").starts_with("attachment") && transcript.text.contains("UID"),
        "{}",
        transcript.text
    );

    let audit = desk.get("/audit").text;
    for part in [
        "mailbox created",
        "/incoming/username",
        "/incoming/client_secret</code>: changed",
        "consent given",
        "consent failed",
        "login",
        "reply",
    ] {
        assert!(audit.contains(part), "{part}: {audit}");
    }

    // A stale form overwrites nothing.
    let stale = desk.send(&debug, &[("/fetch_interval_minutes", "7")]);
    assert!(stale.status == StatusCode::CONFLICT && stale.text.contains("data-testid=\"conflict\""), "{}", stale.text);
    assert_eq!(desk.send(&stale, &[]).location(), "/mailboxes/1?done=incoming");
    assert_eq!(desk.get("/mailboxes/1/incoming").value("/fetch_interval_minutes"), "7");

    let revoked = desk.act("revoke", &[("direction", "incoming")]);
    assert!(revoked.text.contains("The consent is revoked"), "{}", revoked.text);
    let asked = desk.act("reauthorize", &[("direction", "incoming")]);
    assert!(
        asked.text.contains("data-consent=\"/mailboxes/1/consent/incoming\" data-state")
            && !asked.text.contains("consent-success")
    );
    let kept = desk.act("remove", &[]);
    assert!(kept.status == StatusCode::FORBIDDEN && desk.get("/mailboxes/1").status == StatusCode::OK);
    assert!(desk.act("remove", &[("sure", "true")]).text.contains("The mailbox was removed"));
    assert_eq!(desk.get("/mailboxes/1").status, StatusCode::NOT_FOUND);
    assert_eq!(desk.get("/requests/1").status, StatusCode::OK, "its requests stay");
    desk.nothing_leaked();
}

#[test]
fn without_a_browser_a_code_and_without_a_person_the_application() {
    let desk = Desk::start();
    desk.log_in();
    let device = desk.sandbox.facts()["device_authorization_url"].as_str().unwrap().to_owned();
    let new = desk.get("/mailboxes/new");
    let saved = desk.send(
        &new,
        &desk.incoming(&[("/advanced/grant", "device_code"), ("/advanced/device_authorization_url", &device)]),
    );
    assert_eq!(saved.location(), "/mailboxes/1/device?direction=incoming", "{}", saved.text);
    let code = desk.get(saved.location());
    let (user_code, address) = (code.value("user_code").to_owned(), code.value("verification_uri").to_owned());
    assert!(code.text.contains(&format!(">{user_code}</output>")), "{}", code.text);
    let waiting = desk.send_to("/mailboxes/1/device", &code, &[]);
    assert!(waiting.status == StatusCode::OK && waiting.text.contains(&user_code), "{}", waiting.text);
    let alice = Person { login: ALICE, password: "alice-password", deny: false };
    browser::enter_device_code(&desk.sandbox.ca_file, &address, &user_code, &alice).unwrap();
    let done = desk.until(|| {
        let answer = desk.send_to("/mailboxes/1/device", &code, &[]);
        (answer.status == StatusCode::SEE_OTHER).then_some(answer)
    });
    let success = desk.get(done.location()).text;
    assert!(success.contains("data-testid=\"consent-success\"") && success.contains(ALICE), "{success}");

    let new = desk.get("/mailboxes/new");
    let scope = "https://outlook.office365.com/.default";
    let saved = desk.send(
        &new,
        &desk.incoming(&[
            ("/advanced/grant", "client_credentials"),
            ("/scope", scope),
            ("/client_id", "desk-app"),
            ("_name", "Application"),
        ]),
    );
    assert_eq!(saved.location(), "/mailboxes/2/consent/incoming", "{}", saved.text);
    let answer = desk.get(saved.location());
    assert!(answer.text.contains("The mailbox is connected"), "{}", answer.text);
    let page = desk.get("/mailboxes/2").text;
    assert!(page.contains("Application") && page.contains("data-testid=\"status-incoming\""), "{page}");
    desk.nothing_leaked();
}

#[test]
fn only_administrators_and_only_from_the_page_itself() {
    let desk = Desk::start();
    for target in
        ["/", "/mailboxes/new", "/mailboxes/1", "/requests", "/requests/1", "/audit", "/oauth/callback?code=x&state=y"]
    {
        let answer = desk.get(target);
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{target}");
        assert!(
            answer.location().starts_with("/login") && !answer.location().contains("code"),
            "{}",
            answer.location()
        );
    }
    assert!(desk.get("/login?ended=consent").text.contains("choose Re-authorize"));
    assert_eq!(desk.get("/healthz").status, StatusCode::OK);
    assert!(desk.get("/metrics").text.contains("host_mailboxes"));
    let posted = desk.post("/mailboxes/1/actions/remove", &[("sure".into(), "true".into())], &[]);
    assert_eq!((posted.status, posted.location()), (StatusCode::SEE_OTHER, "/login"));

    let login = desk.get("/login");
    for directive in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
    {
        assert!(login.header("content-security-policy").contains(directive), "{directive}");
    }
    assert!(!login.text.contains("<style") && !login.text.contains(" style=") && !login.text.contains("onclick"));
    let refused = desk.send_to("/login", &login, &[("name", "admin"), ("password", "wrong")]);
    assert!(refused.status == StatusCode::UNAUTHORIZED && refused.text.contains("Name or password is wrong."));
    let elsewhere = [("name".into(), "admin".into()), ("password".into(), PASSWORD.into())];
    let refused = desk.post("/login", &elsewhere, &[("origin", "https://evil.test")]);
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "the right password, from another page");

    let cookie = desk.log_in();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let form = desk.get("/mailboxes/new");
    let right = desk.incoming(&[]);
    for (name, fields, headers) in [
        ("no secret", vec![("_csrf", "")], vec![]),
        ("a wrong secret", vec![("_csrf", "AAAA")], vec![]),
        ("another origin", vec![], vec![("origin", "https://evil.test")]),
        ("another site", vec![], vec![("sec-fetch-site", "cross-site")]),
    ] {
        let fields = form.filled(&[&right[..], &fields[..]].concat());
        let answer = desk.post("/mailboxes/new", &fields, &headers);
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
    }
    assert!(desk.get("/").text.contains("There is no mailbox yet"), "nothing was saved");
    let huge = desk.post("/mailboxes/new", &[("x".into(), "x".repeat(1 << 20))], &[]);
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(desk.get("/nowhere").status, StatusCode::NOT_FOUND);
    assert_eq!(desk.get("/mailboxes/99/incoming").status, StatusCode::NOT_FOUND);

    let csrf = desk.get("/account").value("_csrf");
    let account = |fields: &[(&str, &str)]| {
        let fields = [&[("_csrf", csrf)], fields].concat();
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        desk.post("/account", &fields, &[])
    };
    let new = "another long password";
    let wrong = account(&[("current", "wrong"), ("new", new), ("again", new)]);
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("current password is wrong"));
    assert!(account(&[("current", PASSWORD), ("new", new), ("again", "other")]).text.contains("differ"));
    assert!(account(&[("current", PASSWORD), ("new", "short"), ("again", "short")]).text.contains("12 to 1024"));
    let nameless = account(&[("current", PASSWORD), ("new", new), ("again", new), ("name", "")]);
    assert_eq!(nameless.status, StatusCode::UNPROCESSABLE_ENTITY);
    let second = account(&[("current", PASSWORD), ("new", new), ("again", new), ("name", "second")]);
    assert_eq!(second.location(), "/account?done=administrator", "{}", second.text);
    let changed = account(&[("current", PASSWORD), ("new", new), ("again", new)]);
    assert_eq!(changed.location(), "/account?done=password", "{}", changed.text);
    assert!(desk.get(changed.location()).text.contains("<li>second</li>"));
    assert_eq!(account(&[]).status, StatusCode::FORBIDDEN, "the secret of the session before");

    let page = desk.get("/");
    assert_eq!(desk.send_to("/logout", &page, &[]).location(), "/login");
    assert_eq!(desk.get("/").location(), "/login", "the session has ended on the server, too");
    for _ in 0..10 {
        desk.send_to("/login", &login, &[("name", "admin"), ("password", "wrong")]);
    }
    let limited = desk.send_to("/login", &login, &[("name", "admin"), ("password", PASSWORD)]);
    assert!(
        limited.status == StatusCode::TOO_MANY_REQUESTS && limited.text.contains("Too many attempts"),
        "{}",
        limited.text
    );
    desk.nothing_leaked();
}

#[test]
fn an_administrator_of_the_provider_is_asked_and_comes_without_an_account() {
    let desk = Desk::start();
    desk.log_in();
    let page = format!("{}/adminconsent", desk.sandbox.facts()["issuer"].as_str().unwrap());
    let page: &'static str = page.leak();
    let changes = [("/client_id", "desk-tenant"), ("/advanced/admin_consent_url", page)];
    let saved = desk.send(&desk.get("/mailboxes/new"), &desk.incoming(&changes));
    assert_eq!(saved.location(), "/mailboxes/1/connect/incoming", "{}", saved.text);
    let failed = desk.consent("/mailboxes/1/consent/incoming", ALICE, false).1;
    assert!(failed.text.contains("AADSTS90094") && failed.text.contains("/adminconsent?"), "{}", failed.text);
    let connect = desk.get("/mailboxes/1/connect/incoming");
    assert!(connect.text.contains("data-testid=\"ask-administrator\""), "{}", connect.text);
    let ask = desk.get("/mailboxes/1/administrator/incoming");
    let field = ask.text.split('<').find(|tag| tag.contains("id=\"admin-consent-url\"")).unwrap();
    let link = attribute(field, "value").unwrap();
    assert!(link.starts_with(page), "{link}");

    // Somebody with another browser, who has no account at the helpdesk; first one who may not.
    let stranger = client::http_client(&desk.sandbox.ca_file).unwrap();
    for (login, word, action) in [(ALICE, "was not given", "consent failed"), (BOB, "has arrived", "consent allowed")] {
        let password = format!("{}-password", login.split('@').next().unwrap());
        let person = Person { login, password: &password, deny: false };
        let redirect = browser::walk(&desk.sandbox.ca_file, &link, &person).unwrap();
        let text = stranger.get(redirect).send().unwrap().text().unwrap();
        assert!(text.contains(word) && !text.contains("/mailboxes/1"), "{text}");
        assert!(desk.get("/audit").text.contains(action));
    }
    let connect = desk.get("/mailboxes/1/connect/incoming");
    assert!(connect.text.contains("data-testid=\"consent-allowed\"") && connect.text.contains(ALICE));
    let given = desk.consent("/mailboxes/1/consent/incoming", ALICE, false).1;
    assert!(given.text.contains("The mailbox is connected"), "{}", given.text);
    let connect = desk.get("/mailboxes/1/connect/incoming");
    assert!(!connect.text.contains("ask-administrator"), "nobody needs it any more");
    desk.nothing_leaked();
}

#[test]
fn page_14_a_marked_field_keeps_the_cure_and_the_code() {
    let desk = Desk::start();
    desk.log_in();
    let saved = desk.send(&desk.get("/mailboxes/new"), &desk.incoming(&[("/client_secret", "the-secret-id")]));
    assert_eq!(saved.location(), "/mailboxes/1/connect/incoming", "{}", saved.text);
    let window = desk.consent("/mailboxes/1/consent/incoming", ALICE, false).1;
    let connect = desk.get("/mailboxes/1/connect/incoming");
    for page in [&window, &connect] {
        for part in ["Client Secret", "not its Secret ID", "AADSTS7000215"] {
            assert!(page.text.contains(part), "{part}: {}", page.text);
        }
    }
    desk.nothing_leaked();
}

#[test]
fn half_a_request_is_not_waited_for() {
    let desk = Desk::start();
    let url = Url::parse(&desk.served.url).unwrap();
    let mut connection = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    assert_eq!(desk.get("/healthz").status, StatusCode::OK);
}

/// The sandbox, `host-sample serve` beside it, and an administrator's browser without script.
struct Desk {
    sandbox: Sandbox,
    served: Served,
    http: blocking::Client,
    /// All that the browser was ever sent.
    seen: RefCell<Vec<(String, String)>>,
    folder: TempDir,
}

/// An answer.
struct Page {
    status: StatusCode,
    headers: header::HeaderMap,
    text: String,
}

impl Desk {
    fn start() -> Self {
        let mut config = Config::default();
        let client = |id: &str, roles: Vec<String>| Client {
            id: id.into(),
            secret: Some(CLIENT_SECRET.into()),
            redirect_uris: Vec::new(),
            roles,
            token_lifetime: None,
            only_administrators_consent: id == "desk-tenant",
        };
        config.clients.push(client("desk", Vec::new()));
        config.clients.push(client("desk-tenant", Vec::new()));
        config.clients.push(client("desk-app", vec!["IMAP.AccessAsApp".into(), "SMTP.SendAsApp".into()]));
        let sandbox = Sandbox::start(config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start(folder.path(), PASSWORD).unwrap();
        let http = client::http_client(&sandbox.ca_file).unwrap();
        Self { sandbox, served, http, seen: RefCell::default(), folder }
    }

    fn at(&self, target: &str) -> String {
        Url::parse(&self.served.url).unwrap().join(target).unwrap().to_string()
    }

    fn get(&self, target: &str) -> Page {
        self.page(target, self.http.get(self.at(target)).send().unwrap())
    }

    fn post(&self, target: &str, fields: &[(String, String)], headers: &[(&str, &str)]) -> Page {
        let mut request = self.http.post(self.at(target)).form(fields);
        if !headers.iter().any(|(name, _)| *name == "origin") {
            request = request.header("origin", self.served.url.trim_end_matches('/'));
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.page(target, request.send().unwrap())
    }

    fn page(&self, target: &str, answer: Response) -> Page {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().unwrap();
        self.seen.borrow_mut().push((target.to_owned(), format!("{headers:?}\n{text}")));
        Page { status, headers, text }
    }

    /// The cookie as it was set.
    fn log_in(&self) -> String {
        let answer = self.send_to("/login", &self.get("/login"), &[("name", "admin"), ("password", PASSWORD)]);
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/"));
        answer.header("set-cookie").to_owned()
    }

    /// The settings form of `page` with some fields changed, sent to where it belongs.
    fn send(&self, page: &Page, changes: &[(&str, &str)]) -> Page {
        let form = page.text.split("id=\"settings\"").nth(1).unwrap();
        let action = form.split("action=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        self.post(&action, &page.filled(changes), &[])
    }

    fn send_to(&self, target: &str, page: &Page, changes: &[(&str, &str)]) -> Page {
        self.post(target, &page.filled(changes), &[])
    }

    /// An action of the first mailbox, and the page it ends on.
    fn act(&self, action: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.get("/mailboxes/1");
        let mut fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields.push(("_csrf".to_owned(), page.value("_csrf").to_owned()));
        let answer = self.post(&format!("/mailboxes/1/actions/{action}"), &fields, &[]);
        if answer.status == StatusCode::SEE_OTHER { self.get(answer.location()) } else { answer }
    }

    fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            match look() {
                Some(seen) => return seen,
                None => assert!(Instant::now() < end, "{:?}", self.seen.borrow().last()),
            }
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// A person in the consent window: where the provider led to, and the page there.
    fn consent(&self, window: &str, login: &str, deny: bool) -> (String, Page) {
        let started = self.get(window);
        assert_eq!(started.status, StatusCode::SEE_OTHER, "{}", started.text);
        let password = format!("{}-password", login.split('@').next().unwrap());
        let person = Person { login, password: &password, deny };
        let redirect = browser::walk(&self.sandbox.ca_file, started.location(), &person).unwrap();
        let target = format!("{}?{}", redirect.path(), redirect.query().unwrap());
        assert_eq!(self.at(&target), redirect.as_str());
        (target.clone(), self.get(&target))
    }

    fn incoming<'a>(&self, changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let facts = self.sandbox.facts();
        let kept = |name: &str| -> &'static str { facts[name].as_str().unwrap_or_default().to_owned().leak() };
        let port: &'static str = self.sandbox.imaps_port.to_string().leak();
        let mut fields = vec![
            ("/server_name", "localhost"),
            ("/port", port),
            ("/username", ALICE),
            ("/email_addresses", ALICE),
            ("/client_id", "desk"),
            ("/client_secret", CLIENT_SECRET),
            ("/authorize_url", kept("authorize_url")),
            ("/access_token_url", kept("token_url")),
            ("/scope", kept("scope")),
            ("/advanced/ca_file", kept("ca_file")),
            ("/advanced/issuer", kept("issuer")),
            ("/advanced/revocation_url", kept("revocation_url")),
            ("/advanced/userinfo_url", kept("userinfo_url")),
            ("/advanced/jwks_url", kept("jwks_url")),
            ("/advanced/fetch_since", "all"),
        ];
        for (name, value) in changes {
            fields.retain(|(own, _)| own != name);
            fields.push((name, value));
        }
        fields
    }

    fn inbox(&self, address: &str) -> Vec<String> {
        let messages = self.sandbox.state.mail.with(address, |mailbox| {
            let folder = mailbox.folder("INBOX").unwrap();
            folder.messages.iter().map(|message| String::from_utf8_lossy(&message.raw).into_owned()).collect()
        });
        messages.unwrap()
    }

    /// No secret in anything that was ever sent to the browser, nor in the log.
    fn nothing_leaked(&self) {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(log.contains("started"), "{log}");
        let mut seen = self.seen.borrow_mut();
        seen.push(("the log".to_owned(), log));
        for (target, text) in seen.iter() {
            for secret in [CLIENT_SECRET, PASSWORD, "access_token\":", "Bearer "] {
                assert!(!text.contains(secret), "{secret} in {target}: {text}");
            }
        }
    }
}

impl Page {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn location(&self) -> &str {
        self.header("location")
    }

    /// The address in the page that ends like this.
    fn link(&self, end: &str) -> &str {
        let mut values = self.text.split("=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        values.find(|value| value.starts_with('/') && value.ends_with(end)).unwrap()
    }

    fn value(&self, name: &str) -> &'static str {
        let found = self.controls().into_iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value.leak())
    }

    /// What a browser would send, with some fields changed; an empty value for a box leaves it out.
    fn filled(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut fields = self.controls();
        for (name, value) in changes {
            fields.retain(|(own, _)| own != name);
            fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        fields
    }

    /// Names and values of all controls in the content, as they stand.
    fn controls(&self) -> Vec<(String, String)> {
        let content = &self.text[self.text.find("<main").unwrap_or(0)..];
        let mut controls = Vec::new();
        let mut rest = if content.contains("name=\"_csrf\"") { content } else { &self.text };
        while let Some(at) = rest.find('<') {
            rest = &rest[at + 1..];
            let tag = &rest[..rest.find('>').unwrap()];
            let kind = tag.split(' ').next().unwrap();
            let Some(name) = attribute(tag, "name") else { continue };
            match kind {
                "input" if attribute(tag, "type").as_deref() == Some("checkbox") && !tag.contains(" checked") => {}
                "input" => controls.push((name, attribute(tag, "value").unwrap_or_default())),
                "textarea" => {
                    let text = &rest[tag.len() + 1..rest.find("</textarea>").unwrap()];
                    controls.push((name, unescaped(text)));
                }
                "select" => {
                    let options = &rest[..rest.find("</select>").unwrap()];
                    let options: Vec<_> =
                        options.split("<option").skip(1).map(|one| &one[..one.find('>').unwrap()]).collect();
                    let chosen = options.iter().find(|one| one.contains(" selected")).or(options.first());
                    controls.push((name, chosen.and_then(|one| attribute(one, "value")).unwrap_or_default()));
                }
                _ => {}
            }
        }
        controls
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let rest = &tag[tag.find(&format!(" {name}=\""))? + name.len() + 3..];
    Some(unescaped(&rest[..rest.find('"')?]))
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
