//! The mailboxes: how they stand, and what an administrator can do with one.

use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{
    consent,
    layout::{self, Frame, Tone, text, when},
    visit::{self, Answer, Call, Problem, download, see_other},
};
use crate::{
    failure::Failure,
    host::Direction,
    serve::storage::{Change, Mailbox},
};

const DIRECTIONS: [Direction; 2] = [Direction::Incoming, Direction::Outgoing];

pub fn list(call: &Call) -> Answer {
    let mailboxes = call.app().mailboxes.overview()?;
    Ok(Frame::new("Mailboxes").page(
        Some(call),
        html! {
            div.title {
                h1 { "Mailboxes" }
                a.button.main href="/mailboxes/new" data-testid="new-mailbox" { "New mailbox" }
            }
            @if call.query.get("done") == Some("remove") {
                (layout::notice(Tone::Good, "done", html! { p { "The mailbox was removed. Its requests stay." } }))
            }
            @if mailboxes.is_empty() {
                p.lead data-testid="no-mailboxes" { "There is no mailbox yet. Begin with “New mailbox”." }
            }
            ul.cards data-testid="mailboxes" {
                @for one in &mailboxes {
                    @let id = one["mailbox"]["id"].as_i64().unwrap_or_default();
                    li.card data-testid={ "mailbox-" (id) } {
                        div.title {
                            h2 { a href={ "/mailboxes/" (id) } { (text(&one["mailbox"], "name")) } }
                            (badge(text(one, "state")))
                        }
                        (run(&one["run"]))
                    }
                }
            }
        },
    ))
}

pub fn show(call: &Call) -> Answer {
    let mailbox = call.mailbox()?;
    let done = call.query.get("done").map(|action| done(call, &mailbox, action)).transpose()?;
    page(call, &mailbox, html! { @if let Some(done) = done { (done) } })
}

fn page(call: &Call, mailbox: &Mailbox, above: Markup) -> Answer {
    let id = mailbox.id;
    let state = call.app().mailboxes.state(id)?;
    Ok(Frame::new(&mailbox.name).below("/", "Mailboxes").page(
        Some(call),
        html! {
            div.title { h1 { (mailbox.name) } (badge(text(&state, "state"))) }
            (above)
            @if let Some(error) = state["run"]["error"].as_object() {
                div.notice.bad data-testid="last-error" {
                    p { (error.get("message").and_then(Value::as_str).unwrap_or_default()) }
                    @if let Some(remedy) = error.get("remedy").and_then(Value::as_str) { p { (remedy) } }
                }
            }
            section.card aria-labelledby="fetching" {
                h2 #fetching { "Fetching" }
                (run(&state["run"]))
            }
            @for direction in DIRECTIONS { (side(id, direction, &state)) }
            (actions(call, mailbox))
            section.card aria-labelledby="more" {
                h2 #more { "More" }
                ul {
                    li { a href={ "/requests?mailbox=" (id) } data-testid="link-requests" { "Requests" } }
                    li { a href={ "/mailboxes/" (id) "/quarantine" } data-testid="link-quarantine" { "Quarantine" } }
                    li { a href={ "/mailboxes/" (id) "/transcript" } data-testid="link-transcript" { "Email debug: transcript" } }
                    li { a href={ "/audit?mailbox=" (id) } data-testid="link-audit" { "Audit trail" } }
                }
            }
        },
    ))
}

pub fn badge(state: &str) -> Markup {
    let (class, words) = match state {
        "ok" => ("good", "OK"),
        "waiting" => ("plain", "Waiting for its first fetch"),
        "paused" => ("plain", "Paused"),
        "expiring" => ("warn", "Expiring soon"),
        "degraded" => ("warn", "Degraded"),
        "back_off" => ("warn", "Back-off"),
        "consent_needed" => ("bad", "Consent needed"),
        "admin_needed" => ("bad", "Administrator needed"),
        "misconfigured" => ("bad", "Misconfigured"),
        "failed" => ("bad", "Failed"),
        other => ("plain", other),
    };
    html! { span class={ "badge " (class) } data-testid="state" data-state=(state) { span.hidden { "State: " } (words) } }
}

fn run(run: &Value) -> Markup {
    html! {
        dl.facts {
            dt { "Last fetch" }
            dd data-testid="last-fetch" { (when(&run["last_run"])) @if run["counts"].is_object() { ": " (counts(&run["counts"])) } }
            dt { "Last success" } dd { (when(&run["last_success"])) }
            dt { "Since the beginning" } dd data-testid="totals" { (counts(&run["totals"])) }
            dt { "Next fetch" }
            dd data-testid="next-run" {
                @match run["running_on"].as_str() {
                    Some(node) => { "running now on " (node) },
                    None => (when(&run["next_run"])),
                }
            }
        }
    }
}

/// `2 created, 1 duplicate`
fn counts(counts: &Value) -> String {
    let some =
        counts.as_object().into_iter().flatten().filter(|(_, count)| count.as_i64().is_some_and(|count| count > 0));
    let words: Vec<_> = some.map(|(name, count)| format!("{count} {name}")).collect();
    if words.is_empty() { "nothing new".to_owned() } else { words.join(", ") }
}

fn side(id: i64, direction: Direction, state: &Value) -> Markup {
    let name = direction.name();
    let status = &state[name];
    let title = if direction == Direction::Incoming { "Incoming mail" } else { "Outgoing mail" };
    let health = &status["health"];
    html! {
        section.card aria-labelledby={ "side-" (name) } data-testid={ "side-" (name) } {
            div.title {
                h2 id={ "side-" (name) } { (title) }
                a.button href={ "/mailboxes/" (id) "/" (name) } data-testid={ "edit-" (name) } { "Settings" span.hidden { " of " (name) " mail" } }
            }
            @if status.is_null() {
                p { "Not set up yet." }
            } @else if status["error"].is_object() {
                p data-testid={ "status-" (name) } { (text(&status["error"], "message")) }
                @for fault in status["error"]["faults"].as_array().into_iter().flatten() {
                    p { (text(fault, "label")) ": " (text(fault, "message")) }
                }
                @if let Some(remedy) = status["error"]["remedy"].as_str() { p { (remedy) } }
            } @else {
                p data-testid={ "status-" (name) } {
                    @if status["state"] == "authorized" {
                        @match consent::identity(&status["identity"]) {
                            Some(name) => { "Signed in by the consent of " strong { (name) } "." }
                            None => "Signed in."
                        }
                    } @else {
                        @match status["reason"]["message"].as_str() {
                            Some(why) => (why),
                            None => "Nobody has consented yet.",
                        }
                    }
                }
                @if let Some(why) = health["why"].as_str() { p { (why) } }
                @if let Some(remedy) = health["remedy"].as_str() { p { (remedy) } }
                @for warning in status["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    @if health["why"] != warning { p { (warning) } }
                }
                dl.facts {
                    @if status["consented_at"].is_i64() { dt { "Consented" } dd { (when(&status["consented_at"])) } }
                    @if status["expires_at"].is_i64() { dt { "Access token until" } dd { (when(&status["expires_at"])) } }
                }
            }
        }
    }
}

fn actions(call: &Call, mailbox: &Mailbox) -> Markup {
    let form = |action: &str, content: Markup| {
        html! {
            form.action method="post" action={ "/mailboxes/" (mailbox.id) "/actions/" (action) } data-swap {
                (layout::secret(call))
                (content)
            }
        }
    };
    let has = |direction| mailbox.form(direction).is_some();
    let button =
        |action: &str, words: &str| html! { button type="submit" data-testid={ "action-" (action) } { (words) } };
    html! {
        section.card #actions aria-labelledby="actions-title" {
            h2 #actions-title { "Actions" }
            div.actions {
                @if has(Direction::Incoming) { (form("fetch", button("fetch", "Fetch now"))) }
                (form("diagnose", button("diagnose", "Diagnose")))
                @if has(Direction::Incoming) {
                    (form("pause", html! {
                        input type="hidden" name="paused" value=(!mailbox.paused);
                        (button("pause", if mailbox.paused { "Go on fetching" } else { "Pause" }))
                    }))
                }
            }
            @if has(Direction::Outgoing) {
                (form("send", html! {
                    div.field {
                        label for="sample-to" { "Send a sample mail to" }
                        div.line {
                            input type="email" #sample-to name="to" required autocomplete="email" data-testid="sample-to";
                            (button("send", "Send"))
                        }
                    }
                }))
            }
            @for direction in DIRECTIONS.into_iter().filter(|direction| has(*direction)) {
                div.actions role="group" aria-label={ "Consent for " (direction.name()) " mail" } {
                    span { (if direction == Direction::Incoming { "Incoming:" } else { "Outgoing:" }) }
                    @let name = direction.name();
                    (form("reauthorize", html! {
                        input type="hidden" name="direction" value=(name);
                        button type="submit" data-testid={ "action-reauthorize-" (name) } {
                            "Re-authorize" span.hidden { " " (name) " mail" }
                        }
                    }))
                    (form("revoke", html! {
                        input type="hidden" name="direction" value=(name);
                        button type="submit" data-testid={ "action-revoke-" (name) } {
                            "Revoke the consent" span.hidden { " for " (name) " mail" }
                        }
                    }))
                }
            }
            details data-testid="remove" {
                summary { "Remove this mailbox" }
                p { "Its settings go; its requests stay. The provider is not told: revoke the consent first if nothing else uses it." }
                (form("remove", html! {
                    div.field.flag {
                        input type="checkbox" #remove-sure name="sure" value="true" required;
                        label for="remove-sure" { "Yes, remove " (mailbox.name) }
                    }
                    button.danger type="submit" data-testid="action-remove" { "Remove" }
                }))
            }
        }
    }
}

pub fn act(call: &Call) -> Answer {
    let mailbox = call.mailbox()?;
    let (id, app, who) = (mailbox.id, call.app(), &call.session.admin);
    let direction = call.form.get("direction").and_then(visit::direction);
    let action = call.param("action");
    let detail = match (action, direction) {
        ("fetch", _) => app.mailboxes.fetch_now(id),
        ("send", _) => {
            let to = call.form.get("to").unwrap_or_default().trim();
            app.mailboxes.send_sample(id, to).map(|answer| json!({"to": to, "answer": outcome(&answer)}))
        }
        ("revoke", Some(direction)) => {
            let answer = app.mailboxes.authenticate(id, direction, &json!({"action": "revoke"}));
            answer.map(|answer| json!({"direction": direction.name(), "answer": answer}))
        }
        ("diagnose", _) => {
            let report = app.mailboxes.diagnose(id)?;
            app.storage.audit(who, Some(id), "diagnose", &json!({}))?;
            return page(call, &mailbox, diagnosis(&report));
        }
        ("reauthorize", Some(direction)) => {
            let form = mailbox.form(direction).ok_or(Problem::Unknown)?;
            app.storage.audit(who, Some(id), "consent asked", &json!({"direction": direction.name()}))?;
            return Ok(see_other(&consent::begin(id, direction, form)));
        }
        ("pause", _) => return pause(call, mailbox),
        ("remove", _) => return remove(call, &mailbox),
        _ => return Err(Problem::Unknown),
    };
    let detail = detail.unwrap_or_else(|failure| json!({"error": failure.sentences().join(" ")}));
    app.storage.audit(who, Some(id), action, &detail)?;
    Ok(see_other(&format!("/mailboxes/{id}?done={action}")))
}

fn pause(call: &Call, mailbox: Mailbox) -> Answer {
    let (id, version) = (mailbox.id, mailbox.version);
    let paused = call.form.get("paused").map_or(!mailbox.paused, |paused| paused == "true");
    let change = Change { name: mailbox.name, incoming: mailbox.incoming, outgoing: mailbox.outgoing, paused };
    if call.app().storage.update_mailbox(&call.session.admin, id, version, &change)?.is_none() {
        return Err(Failure::other("Somebody else has just changed this mailbox. Look again.").into());
    }
    Ok(see_other(&format!("/mailboxes/{id}?done=pause")))
}

fn remove(call: &Call, mailbox: &Mailbox) -> Answer {
    if call.form.get("sure").is_none() {
        return Err(Problem::Forbidden("Nothing was removed: the box “Yes, remove” was not ticked."));
    }
    call.app().storage.remove_mailbox(&call.session.admin, mailbox.id)?;
    call.app().mailboxes.close(mailbox.id);
    Ok(see_other("/?done=remove"))
}

/// What is worth keeping of an answer to `send_message`.
pub fn outcome(answer: &Value) -> Value {
    json!({"outcome": answer["outcome"], "server": answer["server"], "reply": answer["reply"],
           "message": answer["error"]["message"], "remedy": answer["error"]["remedy"]})
}

/// The newest entry about this action in the audit trail, as a sentence.
fn done(call: &Call, mailbox: &Mailbox, action: &str) -> Result<Markup, Problem> {
    let tell = |tone, content| layout::notice(tone, "done", content);
    if let Some(direction) = visit::direction(action) {
        let words =
            format!("The {} settings are saved. The consent that was given before serves them, too.", direction.name());
        return Ok(tell(Tone::Good, html! { p { (words) " Fetch or send a sample mail to see that they work." } }));
    }
    if action == "pause" {
        let words = if mailbox.paused {
            "Paused: nothing is fetched until you choose “Go on fetching”."
        } else {
            "Fetching goes on."
        };
        return Ok(tell(Tone::Good, html! { p { (words) } }));
    }
    let trail = call.app().storage.audit_trail(Some(mailbox.id), i64::MAX, 50)?;
    let Some(entry) = trail.iter().find(|entry| text(entry, "action") == action) else { return Ok(html! {}) };
    let detail = &entry["detail"];
    if let Some(error) = detail["error"].as_str() {
        return Ok(tell(Tone::Bad, html! { p { (error) } }));
    }
    Ok(match action {
        "fetch" => tell(Tone::Good, html! { p { "Fetched: " (counts(detail)) "." } }),
        "send" => sent(&detail["answer"], text(detail, "to")),
        "revoke" => tell(
            Tone::Good,
            html! {
                p {
                    @if detail["answer"]["at_provider"] == true { "The consent is revoked; the provider has confirmed it." }
                    @else { "The sign-in is forgotten here." }
                }
                @if let Some(note) = detail["answer"]["note"].as_str() { p { (note) } }
            },
        ),
        _ => html! {},
    })
}

/// What became of a mail, as `outcome` kept it.
pub fn sent(answer: &Value, to: &str) -> Markup {
    let (tone, words) = match answer["outcome"].as_str() {
        Some("sent") => (Tone::Good, "Sent to"),
        Some("rejected") => (Tone::Bad, "Not sent: refused for good. It was for"),
        Some("retry") => (Tone::Bad, "Not sent yet: nothing was accepted; try again later. It was for"),
        _ => (Tone::Bad, "Perhaps sent: the server's answer was lost. Look into the sent folder first. It was for"),
    };
    layout::notice(
        tone,
        "done",
        html! {
            p { (words) " " (to) "." }
            @for name in ["reply", "message", "remedy"] {
                @if let Some(words) = answer[name].as_str() { p { (words) } }
            }
        },
    )
}

fn diagnosis(report: &Value) -> Markup {
    html! {
        @for direction in DIRECTIONS {
            @let one = &report[direction.name()];
            @if one.is_object() {
                @let tone = if one["healthy"] == true { Tone::Good } else { Tone::Bad };
                (layout::notice(tone, &format!("diagnosis-{}", direction.name()), html! {
                    h2 { "Diagnosis of " (direction.name()) " mail" }
                    p { (text(one, "summary")) }
                    ol.steps {
                        @for step in one["steps"].as_array().into_iter().flatten() {
                            li {
                                strong { (text(step, "step")) } " – " (text(step, "status")) ": " (text(step, "saw"))
                                @if matches!(text(step, "status"), "warning" | "failed") {
                                    p { (text(step, "means")) }
                                    p { strong { (text(step, "who")) } ": " (text(step, "remedy")) }
                                }
                            }
                        }
                    }
                }))
            }
        }
    }
}

pub fn transcript(call: &Call) -> Answer {
    let mailbox = call.mailbox()?;
    let text = call.app().mailboxes.transcript(mailbox.id)?;
    let is_on = mailbox.incoming.as_ref().is_some_and(|form| form["enable_email_debug"] == true);
    Ok(Frame::new("Transcript").below("/", "Mailboxes").below(format!("/mailboxes/{}", mailbox.id), &mailbox.name).page(
        Some(call),
        html! {
            h1 { "Email debug: transcript" }
            p.lead { "What was said between helpdesk and mail server, without secrets. The newest 256 KiB are kept." }
            @if !is_on {
                p data-testid="debug-off" {
                    "Email debug is off. " a href={ "/mailboxes/" (mailbox.id) "/incoming" } { "Turn it on in the incoming settings" } "."
                }
            }
            @if text.is_empty() {
                p { "Nothing was recorded yet." }
            } @else {
                p { a.button href={ "/mailboxes/" (mailbox.id) "/transcript/download" } data-testid="download-transcript" { "Download" } }
                pre tabindex="0" role="region" aria-label="Transcript" data-testid="transcript" { (text) }
            }
        },
    ))
}

pub fn transcript_download(call: &Call) -> Result<Response, Problem> {
    let id = call.mailbox()?.id;
    let text = call.app().mailboxes.transcript(id)?;
    Ok(download(&format!("mailbox-{id}-transcript.txt"), "text/plain; charset=utf-8", text.into_bytes()))
}
