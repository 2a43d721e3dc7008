//! The steps, in order. Each returns what it saw; an error ends the demo.

use std::time::{Duration, Instant};

use oauth_mail_abi::Kind;
use serde_json::{Value, json};

use super::{
    Protocol,
    world::{CUSTOMER, DESK, World, ensure},
};
use crate::{
    cli::{requests, state_line},
    facts::{Facts, bare_id},
    failure::{Failure, Result},
    helpdesk::{Helpdesk, Imported, Outcome},
    host::{
        self,
        Direction::{Incoming, Outgoing},
    },
    interrupt, round,
    servers::Servers,
};

pub struct Step {
    pub title: &'static str,
    pub proves: &'static str,
    pub work: fn(&mut World) -> Result<String>,
}

pub const ALL: &[Step] = &[
    Step {
        title: "Start the provider",
        proves: "what follows meets other processes, over TLS with a private CA, on this machine only",
        work: start_servers,
    },
    Step {
        title: "Load the library",
        proves: "the host knows it through the frozen ABI alone, and the layout was checked",
        work: load_library,
    },
    Step {
        title: "Save a form with three mistakes",
        proves: "all faults are named at once, each with its label and place",
        work: save_mistakes,
    },
    Step {
        title: "Save both forms",
        proves: "right settings are accepted, and before the consent no hook waits for a person",
        work: save,
    },
    Step {
        title: "Let the wrong person consent",
        proves: "the mailbox that consented must be the configured one",
        work: wrong_person,
    },
    Step {
        title: "Let the right person consent",
        proves: "code + PKCE, redirect to loopback, redemption, and a secure connection before success is said",
        work: consent,
    },
    Step {
        title: "Hand in the same redirect again",
        proves: "a state is good for one use, and a replay harms nothing",
        work: replay,
    },
    Step {
        title: "Ask the outgoing form",
        proves: "incoming and outgoing share one grant: the person is asked once",
        work: shared_grant,
    },
    Step {
        title: "A customer writes to the helpdesk",
        proves: "mail is sent over a verified connection with the customer's own token",
        work: customer_writes,
    },
    Step {
        title: "Fetch, commit, and crash before settling",
        proves: "the request and the message's key are committed in one transaction",
        work: fetch_and_crash,
    },
    Step {
        title: "Start again and fetch",
        proves: "tokens survive a restart; the message comes again, is known by its key, and makes no second request",
        work: fetch_after_crash,
    },
    Step { title: "Fetch once more", proves: "what is settled does not come back", work: fetch_nothing },
    Step {
        title: "The helpdesk replies",
        proves: "a reply goes out with sender name, threading and tag",
        work: helpdesk_replies,
    },
    Step {
        title: "The customer fetches the reply",
        proves: "the reply arrived, and In-Reply-To names the customer's message",
        work: customer_reads,
    },
    Step { title: "The customer answers", proves: "the answer goes into the same request", work: customer_answers },
    Step {
        title: "Outlive an access token",
        proves: "a token of six seconds is refreshed by itself, and mail goes on",
        work: refresh,
    },
    Step {
        title: "Two resources on one grant",
        proves: "mail is fetched over IMAP and sent over Graph after one consent; each has its own token, none evicts the other",
        work: two_resources,
    },
    Step {
        title: "An administrator consents",
        proves: "where a mailbox owner may not consent, the refusal names the administrator and the link; after that the owner consents",
        work: administrator,
    },
    Step {
        title: "Revoke",
        proves: "the consent is taken back, and the state says that a person is needed",
        work: revoke,
    },
];

/// Of the provider's clients, the one whose access tokens live six seconds.
const SHORT_CLIENT: &str = "mail-short";
const SHORT_LIFETIME: Duration = Duration::from_secs(7);
const DELIVERY_PATIENCE: Duration = Duration::from_secs(60);
const QUESTION: &str = "The printer on the third floor is on fire";

fn start_servers(world: &mut World) -> Result<String> {
    let servers = Servers::start(world.servers_path.as_deref(), &["alice", "bob"], world.folder())?;
    let mail = match world.protocol {
        Protocol::Imap => {
            format!("IMAPS on {}, submission on {}", servers.facts["imaps_port"], servers.facts["submission_port"])
        }
        Protocol::Ews => format!("EWS at {}", servers.text("ews_url")),
        Protocol::Graph => format!("Microsoft Graph at {}", servers.text("graph_url")),
    };
    let seen = format!(
        "{} at {}, {mail}, users {} and {}",
        servers.name(),
        servers.text("issuer"),
        servers.user(DESK).0,
        servers.user(CUSTOMER).0
    );
    world.servers = Some(servers);
    Ok(seen)
}

fn load_library(world: &mut World) -> Result<String> {
    let started = Instant::now();
    let library = host::load(world.library_path.as_deref())?;
    let took = started.elapsed();
    let description = library.describe();
    world.library = Some(library);
    let word = |name: &str| description[name].as_str().unwrap_or("?").to_owned();
    Ok(format!(
        "{} {}, interface {}, in {:.1} ms",
        word("name"),
        word("version"),
        library.abi_version(),
        took.as_secs_f64() * 1e3
    ))
}

fn save_mistakes(world: &mut World) -> Result<String> {
    let mut settings = world.settings(DESK, None)?;
    settings["incoming"]["port"] = json!(0);
    settings["incoming"]["authorize_url"] = json!("http://provider.example/authorize");
    settings["incoming"]["email_addresses"] = json!(["not an address"]);
    let path = world.folder().join("mistakes.json");
    let library = world.library.as_ref().ok_or_else(|| Failure::other("The library is not loaded."))?;
    let host = host::Host::start(library, host::Settings::new(path, settings)?, &world.output)?;
    match host.open(Incoming) {
        Err(Failure::Hook(error)) if error.kind() == Kind::Settings => {
            let named = |part: &str| error.faults().iter().any(|fault| fault.pointer.contains(part));
            let all = ["port", "authorize_url", "email_addresses"].into_iter().all(named);
            ensure(all && error.faults().len() == 3, || format!("{} faults: {error:?}", error.faults().len()))?;
            let labels: Vec<&str> = error.faults().iter().map(|fault| fault.label.as_str()).collect();
            Ok(labels.join("; "))
        }
        Err(other) => Err(other),
        Ok(_) => Err(Failure::other("Wrong settings were accepted.")),
    }
}

fn save(world: &mut World) -> Result<String> {
    let host = world.host("desk", DESK, None)?;
    world.open(&host, Outgoing)?.close();
    let account = world.open(&host, Incoming)?;
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "consent_required", || format!("state {}", status["state"]))?;
    let started = Instant::now();
    let error = match account.fetch_batch(&round::request()) {
        Ok(_) => return Err(Failure::other("Mail was fetched without a consent.")),
        Err(error) => error,
    };
    ensure(error.kind() == Kind::ConsentRequired, || format!("{error:?}"))?;
    let seen = format!("after {} ms: {error}", started.elapsed().as_millis());
    world.desk = Some(host);
    Ok(seen)
}

fn wrong_person(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Incoming)?;
    let error = match world.consent(world.desk()?, &account, CUSTOMER) {
        Ok(_) => return Err(Failure::other("The consent of another mailbox was accepted.")),
        Err(Failure::Hook(error)) => error,
        Err(other) => return Err(other),
    };
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] != "authorized", || format!("state {} after: {error}", status["state"]))?;
    Ok(error.to_string())
}

fn consent(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Incoming)?;
    let consented = world.consent(world.desk()?, &account, DESK)?;
    world.redirect = Some(consented.redirect);
    Ok(state_line(Incoming, &consented.answer))
}

fn replay(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Incoming)?;
    let redirect = world.redirect.as_ref().map(|url| url.as_str()).unwrap_or_default();
    let error = match account.authenticate(&json!({"action": "complete", "redirect": redirect})) {
        Ok(answer) => return Err(Failure::other(format!("The redirect was accepted twice: {}.", answer["state"]))),
        Err(error) => error,
    };
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "authorized", || format!("state {} after the replay", status["state"]))?;
    Ok(error.to_string())
}

fn shared_grant(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Outgoing)?;
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "authorized", || format!("state {}", status["state"]))?;
    Ok(state_line(Outgoing, &status))
}

fn customer_writes(world: &mut World) -> Result<String> {
    let host = world.host("customer", CUSTOMER, None)?;
    let incoming = world.open(&host, Incoming)?;
    world.consent(&host, &incoming, CUSTOMER)?;
    let account = world.open(&host, Outgoing)?;
    let answer = account.send_message(
        &json!({
            "to": [world.servers()?.user(DESK).0],
            "subject": QUESTION,
            "text": "Hello,\n\nplease have a look. It smells of toner and of smoke.\n\nBob\n",
            "attachments": [{"name": "smoke.txt", "type": "text/plain", "content_base64": "fn5+fg=="}],
            "idempotency_key": "demo-question",
        }),
        &[],
    )?;
    world.question_id = sent(&answer)?;
    world.customer = Some(host);
    Ok(format!("sent as {}", world.question_id))
}

fn fetch_and_crash(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Incoming)?;
    let mut helpdesk = world.helpdesk()?;
    let end = Instant::now() + DELIVERY_PATIENCE;
    let imported = loop {
        interrupt::check()?;
        let batch = account.fetch_batch(&round::request())?;
        if !batch.is_empty() {
            break round::import(&mut helpdesk, &batch, true)?;
        }
        ensure(Instant::now() < end, || "the customer's mail never arrived".into())?;
        interrupt::sleep(Duration::from_millis(300));
    };
    ensure(imported.len() == 1 && imported[0].outcome == Outcome::Created(1), || format!("{imported:?}"))?;
    ensure(imported[0].subject == QUESTION, || format!("subject {:?}", imported[0].subject))?;
    let request = request(&helpdesk)?;
    let message = &request["messages"][0];
    ensure(message["attachments"] == 1 && message["key"] == imported[0].key, || message.to_string())?;
    // Nothing of this process's plugin is used again: as if it had died here.
    account.close();
    world.desk = None;
    Ok(format!("request 1 with key {}, {} raw bytes", imported[0].key, message["raw_bytes"]))
}

fn fetch_after_crash(world: &mut World) -> Result<String> {
    let host = world.host("desk", DESK, None)?;
    let account = world.open(&host, Incoming)?;
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "authorized", || format!("state {} after the restart", status["state"]))?;
    let mut helpdesk = world.helpdesk()?;
    let outcomes = one_round(world, &account, &mut helpdesk)?;
    let known = outcomes.len() == 1 && outcomes[0].outcome == Outcome::Duplicate;
    ensure(known && helpdesk.requests()?.len() == 1, || format!("{outcomes:?}"))?;
    account.close();
    world.desk = Some(host);
    Ok(format!("{} settled as duplicate, 1 request", outcomes[0].key))
}

fn fetch_nothing(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Incoming)?;
    let mut helpdesk = world.helpdesk()?;
    let outcomes = one_round(world, &account, &mut helpdesk)?;
    ensure(outcomes.is_empty(), || format!("{outcomes:?}"))?;
    Ok(format!("0 messages, {} request, {} key", helpdesk.requests()?.len(), helpdesk.known_keys()?))
}

fn helpdesk_replies(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Outgoing)?;
    let from = world.servers()?.user(DESK).0.to_owned();
    let helpdesk = world.helpdesk()?;
    let answer = requests::reply(&account, &helpdesk, 1, &from, "Thank you. Somebody is on the way.\n", None)?;
    world.reply_id = sent(&answer)?;
    Ok(format!("sent as {}", world.reply_id))
}

fn customer_reads(world: &mut World) -> Result<String> {
    let account = world.open(world.customer()?, Incoming)?;
    let (facts, raw) = world.await_mail(&account, |facts, raw| {
        let read = Facts::read(facts);
        (read.message_id.as_deref() == Some(&world.reply_id)).then(|| (read, raw.to_owned()))
    })?;
    ensure(facts.answers.contains(&world.question_id), || format!("it answers {:?}", facts.answers))?;
    let head = String::from_utf8_lossy(&raw[..raw.len().min(8192)]).into_owned();
    ensure(head.contains("Example Helpdesk"), || "the sender name is missing".into())?;
    Ok(format!("\"{}\" answers {}", facts.subject, world.question_id))
}

fn customer_answers(world: &mut World) -> Result<String> {
    let outgoing = world.open(world.customer()?, Outgoing)?;
    let answer = outgoing.send_message(
        &json!({
            "to": [world.servers()?.user(DESK).0],
            "subject": format!("Re: {QUESTION}"),
            "text": "The fire is out. Thank you!\n",
            "in_reply_to": format!("<{}>", world.reply_id),
            "references": [format!("<{}>", world.question_id), format!("<{}>", world.reply_id)],
        }),
        &[],
    )?;
    sent(&answer)?;
    let account = world.open(world.desk()?, Incoming)?;
    let mut helpdesk = world.helpdesk()?;
    let end = Instant::now() + DELIVERY_PATIENCE;
    let outcomes = loop {
        let outcomes = one_round(world, &account, &mut helpdesk)?;
        if !outcomes.is_empty() {
            break outcomes;
        }
        ensure(Instant::now() < end, || "the customer's answer never arrived".into())?;
        interrupt::sleep(Duration::from_millis(300));
    };
    ensure(outcomes[0].outcome == Outcome::Appended(1), || format!("{outcomes:?}"))?;
    let messages = request(&helpdesk)?["messages"].as_array().map_or(0, Vec::len);
    ensure(messages == 3, || format!("{messages} messages in the request"))?;
    Ok("request 1 holds question, reply and answer".into())
}

fn refresh(world: &mut World) -> Result<String> {
    let client = world.servers()?.facts["short_client_id"].as_str().unwrap_or(SHORT_CLIENT).to_owned();
    let host = world.host("short", CUSTOMER, Some(&client))?;
    let account = world.open(&host, Incoming)?;
    let first = world.consent(&host, &account, CUSTOMER)?.answer["expires_at"].as_i64();
    interrupt::sleep(SHORT_LIFETIME);
    // A new connection needs a token, and the first one is dead by now.
    account.close();
    let account = world.open(&host, Incoming)?;
    account.fetch_batch(&round::request())?;
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "authorized", || format!("state {}", status["state"]))?;
    let second = status["expires_at"].as_i64();
    ensure(second > first, || format!("the token ended at {first:?} and still ends at {second:?}"))?;
    account.authenticate(&json!({"action": "revoke"}))?;
    let later = second.zip(first).map_or(0, |(second, first)| second - first);
    Ok(format!("mail was fetched with a token that ends {later} seconds after the first one; nobody was asked"))
}

fn two_resources(world: &mut World) -> Result<String> {
    let servers = world.servers()?;
    if servers.facts["graph_url"].is_null() {
        return Ok("not shown here: these servers know one resource only; the sandbox knows two".to_owned());
    }
    let client = servers.facts["short_client_id"].as_str().unwrap_or(SHORT_CLIENT).to_owned();
    let host = world.mixed_host("mixed", DESK, &client)?;
    let incoming = world.open(&host, Incoming)?;
    let also = [host.settings.form(Outgoing)?];
    let granted = world.consent_to(&host, &incoming, &also, DESK)?.answer["scopes"]["granted"].clone();
    let outgoing = world.open(&host, Outgoing)?;
    let status = outgoing.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "authorized", || format!("the outgoing form says {}", status["reason"]["message"]))?;
    let second = status["scopes"]["granted"].clone();
    for turn in ["before", "after"] {
        let text = format!("Sent over Graph {turn} the tokens ended.");
        let to = world.servers()?.user(CUSTOMER).0;
        let request =
            json!({"to": [to], "subject": text, "text": text, "idempotency_key": format!("demo-mixed-{turn}")});
        sent(&outgoing.send_message(&request, &[])?)?;
        incoming.fetch_batch(&round::request())?;
        if turn == "before" {
            interrupt::sleep(SHORT_LIFETIME);
        }
    }
    let status = incoming.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "authorized", || format!("the incoming form says {}", status["reason"]["message"]))?;
    incoming.authenticate(&json!({"action": "revoke"}))?;
    Ok(format!("one window; the first token is for {granted}, the second for {second}"))
}

fn administrator(world: &mut World) -> Result<String> {
    let servers = world.servers()?;
    let (Some(client), Some(page)) =
        (servers.facts["tenant_client_id"].as_str(), servers.facts["admin_consent_url"].as_str())
    else {
        return Ok("not shown here: at these servers every person may consent; the sandbox can refuse".to_owned());
    };
    let (client, page) = (client.to_owned(), page.to_owned());
    let host = world.tenant_host("tenant", DESK, &client, &page)?;
    let account = world.open(&host, Incoming)?;
    let refused = match world.consent(&host, &account, DESK) {
        Ok(_) => return Err(Failure::other("A mailbox owner consented to what only an administrator may.")),
        Err(Failure::Hook(error)) => error,
        Err(other) => return Err(other),
    };
    let document = refused.document();
    ensure(document["who"] == "tenant administrator", || format!("{document}"))?;
    let started = account.authenticate(&json!({"action": "start"}))?;
    let link = started["admin_consent_url"].as_str().unwrap_or_default();
    ensure(link.starts_with(&page), || format!("no admin_consent_url in {started}"))?;
    ensure(refused.to_string().contains(link), || format!("the refusal lacks the link: {refused}"))?;
    // The customer of this walk is the administrator of the sandbox's organisation.
    let redirect = world.redirect_of(&host, link, CUSTOMER)?;
    let answer = account.authenticate(&json!({"action": "complete", "redirect": redirect.as_str()}))?;
    ensure(answer["admin_consent"].is_object(), || answer.to_string())?;
    ensure(answer["state"] == "consent_required", || answer.to_string())?;
    world.consent(&host, &account, DESK)?;
    account.authenticate(&json!({"action": "revoke"}))?;
    Ok(format!("before: {refused} After: {}", answer["message"].as_str().unwrap_or_default()))
}

fn revoke(world: &mut World) -> Result<String> {
    let account = world.open(world.desk()?, Incoming)?;
    let answer = account.authenticate(&json!({"action": "revoke"}))?;
    ensure(answer["state"] == "revoked", || format!("state {}", answer["state"]))?;
    let status = account.authenticate(&json!({"action": "status"}))?;
    ensure(status["state"] == "consent_required", || format!("state {}", status["state"]))?;
    match account.fetch_batch(&round::request()) {
        Err(error) if error.kind() == Kind::ConsentRequired => Ok(error.to_string()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Failure::other("Mail was fetched without a consent.")),
    }
}

fn one_round(world: &World, account: &oauth_mail_abi::Account, helpdesk: &mut Helpdesk) -> Result<Vec<Imported>> {
    let mut all = Vec::new();
    round::run(account, helpdesk, true, world.output.progress(), |_, imported| all.extend_from_slice(imported))?;
    Ok(all)
}

fn sent(answer: &Value) -> Result<String> {
    ensure(answer["outcome"] == "sent", || answer.to_string())?;
    let id = bare_id(answer["message_id"].as_str().unwrap_or_default());
    ensure(!id.is_empty(), || format!("no message_id in {answer}"))?;
    Ok(id)
}

fn request(helpdesk: &Helpdesk) -> Result<Value> {
    helpdesk.request(1)?.ok_or_else(|| Failure::other("There is no request 1."))
}
