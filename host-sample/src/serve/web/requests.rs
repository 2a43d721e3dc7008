//! Requests and their conversations, as they were created from mail.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};
use serde_json::{Value, json};

use super::{
    access,
    headers::MAIL_POLICY,
    layout::{self, Frame, text, when},
    mail,
    mailboxes::{outcome, sent},
    visit::{Answer, Call, Problem, download, see_other},
};
use crate::{cli::requests::answer_to, failure::Failure};

const PAGE: i64 = 50;
const REPLY_MAX: usize = 100_000;

pub fn list(call: &Call) -> Answer {
    let mailbox = call.query.get("mailbox").and_then(|id| id.parse().ok());
    let before = call.query.get("before").and_then(|id| id.parse().ok()).unwrap_or(i64::MAX);
    let requests = call.app().storage.helpdesk.requests_page(mailbox, before, PAGE)?;
    let older = requests.last().filter(|_| requests.len() as i64 == PAGE).map(|last| {
        let mailbox = mailbox.map_or(String::new(), |mailbox: i64| format!("&mailbox={mailbox}"));
        format!("/requests?before={}{mailbox}", last["id"])
    });
    Ok(Frame::new("Requests").page(
        Some(call),
        html! {
            h1 { "Requests" }
            @if let Some(mailbox) = mailbox { p { "Of mailbox " (mailbox) ". " a href="/requests" { "All requests" } } }
            @if requests.is_empty() { p data-testid="no-requests" { "There are none." } }
            ul.cards data-testid="requests" {
                @for request in &requests {
                    li.card data-testid={ "request-" (request["id"]) } {
                        h2 { a href={ "/requests/" (request["id"]) } { "#" (request["id"]) " " (subject(request)) } }
                        p.help {
                            (text(request, "requester")) " · " (when(&request["created_at"])) " · "
                            (request["messages"]) @if request["messages"] == 1 { " message" } @else { " messages" }
                        }
                    }
                }
            }
            @if let Some(older) = older { p { a.button href=(older) data-testid="older" { "Older requests" } } }
        },
    ))
}

pub fn show(call: &Call) -> Answer {
    let request = request(call)?;
    page(call, &request, done(call, &request)?, "", StatusCode::OK)
}

fn page(call: &Call, request: &Value, above: Markup, typed: &str, status: StatusCode) -> Answer {
    let app = call.app();
    let id = request["id"].as_i64().unwrap_or_default();
    // As long as the same text is tried it is the same attempt, so that it is sent once.
    let attempt = match call.form.get("attempt").filter(|_| !typed.is_empty()) {
        Some(attempt) => attempt.to_owned(),
        None => access::random()?,
    };
    let senders: Vec<_> = app.storage.mailboxes()?.into_iter().filter(|mailbox| mailbox.outgoing.is_some()).collect();
    let own = request["mailbox"].as_i64();
    let title = format!("Request {id}");
    Ok(Frame::new(&title).status(status).below("/requests", "Requests").page(
        Some(call),
        html! {
            h1 { (subject(request)) }
            p.help { "Request " (id) " of " (text(request, "requester")) }
            (above)
            @for (number, message) in request["messages"].as_array().into_iter().flatten().enumerate() {
                (self::message(call, id, number, message)?)
            }
            section.card aria-labelledby="reply-title" {
                h2 #reply-title { "Reply" }
                @if senders.is_empty() {
                    p { "No mailbox can send yet: set up its outgoing mail first." }
                } @else {
                    form method="post" action={ "/requests/" (id) "/reply" } data-swap {
                        (layout::secret(call))
                        input type="hidden" name="attempt" value=(attempt);
                        div.field {
                            label for="reply-from" { "From mailbox" }
                            select #reply-from name="mailbox" data-testid="reply-from" {
                                @for mailbox in &senders {
                                    option value=(mailbox.id) selected[Some(mailbox.id) == own] { (mailbox.name) }
                                }
                            }
                        }
                        div.field {
                            label for="reply-text" data-testid="reply-to" { "To " (answer_to(request)) }
                            textarea #reply-text name="text" rows="8" required maxlength=(REPLY_MAX)
                                data-testid="reply-text" { (typed) }
                        }
                        div.buttons { button.main type="submit" data-testid="reply-button" { "Send the reply" } }
                    }
                }
            }
        },
    ))
}

fn message(call: &Call, request: i64, number: usize, message: &Value) -> Result<Markup, Problem> {
    let id = message["id"].as_i64().unwrap_or_default();
    let is_in = message["direction"] == "in";
    let address = format!("/requests/{request}/messages/{id}");
    let size = message["raw_bytes"].as_u64().unwrap_or_default();
    // What was sent has no bytes here.
    let raw = if size == 0 || size > mail::SIZE_MAX { None } else { call.app().storage.helpdesk.raw(id)? };
    let mail = raw.as_deref().map(|raw| mail::read(call.app().mailboxes.library(), raw));
    let title = format!("message-{number}-title");
    // What was imported by an older version may have been read worse.
    let read_again = mail.as_ref().and_then(|mail| mail.as_ref().ok()?.text.as_deref());
    let text_of_it = read_again.unwrap_or(text(message, "text")).trim_end();
    let has_html = matches!(&mail, Some(Ok(mail)) if mail.html.is_some());
    Ok(html! {
        article.card.sent[!is_in] aria-labelledby=(title) data-testid={ "message-" (number) } {
            h2 id=(title) { (if is_in { "From " } else { "Sent from " }) (text(message, "from")) }
            p.help { (when(&message["at"])) @if !text(message, "subject").is_empty() { " · " (text(message, "subject")) } }
            @if !text_of_it.is_empty() {
                pre.mail data-testid={ "message-" (number) "-text" } { (text_of_it) }
            } @else if !has_html {
                p.help data-testid={ "message-" (number) "-no-text" } { "It has no text." }
            }
            @match &mail {
                Some(Ok(mail)) => {
                    @if has_html {
                        details open[text_of_it.is_empty()] data-testid={ "message-" (number) "-html" } {
                            summary { "As HTML" }
                            iframe.mail title={ "HTML of message " (number + 1) } src={ (address) "/html" } sandbox="allow-popups allow-popups-to-escape-sandbox" loading="lazy" {}
                        }
                    }
                    @if !mail.attachments.is_empty() {
                        h3 { "Attachments" }
                        ul data-testid={ "message-" (number) "-attachments" } {
                            @for (at, attachment) in mail.attachments.iter().enumerate() {
                                li {
                                    a href={ (address) "/attachments/" (attachment.part_index) } download data-testid={ "attachment-" (number) "-" (at) } { (attachment.name) }
                                    " (" (attachment.media_type) ", " (layout::size(attachment.size)) ")"
                                }
                            }
                        }
                    }
                },
                Some(Err(why)) => p { (why.sentences().join(" ")) },
                None if size > mail::SIZE_MAX => p { "It is too large to be shown as a whole." },
                None => {},
            }
            @if size > 0 {
                p { a href={ (address) "/raw" } download data-testid={ "raw-" (number) } { "Download the message (" (layout::size(size)) ")" } }
            }
        }
    })
}

pub fn reply(call: &Call) -> Answer {
    let request = request(call)?;
    let id = request["id"].as_i64().unwrap_or_default();
    let typed = call.form.get("text").unwrap_or_default().replace("\r\n", "\n");
    let mailbox = call.form.get("mailbox").and_then(|mailbox| mailbox.parse::<i64>().ok());
    let wrong = |why: &str| {
        let above = layout::notice(layout::Tone::Bad, "reply-error", html! { p { (why) } });
        page(call, &request, above, &typed, StatusCode::UNPROCESSABLE_ENTITY)
    };
    let Some(mailbox) = mailbox else { return wrong("Choose the mailbox to reply from.") };
    if typed.trim().is_empty() {
        return wrong("The reply is empty.");
    }
    if typed.len() > REPLY_MAX {
        return wrong("The reply is too long.");
    }
    let attempt = call.form.get("attempt").unwrap_or_default();
    let answer = match call.app().mailboxes.reply(mailbox, id, &typed, attempt) {
        Ok(answer) => outcome(&answer),
        Err(failure) => return wrong(&failure.sentences().join(" ")),
    };
    let detail = json!({"request": id, "answer": answer});
    let audited = call.app().storage.audit(&call.session.admin, Some(mailbox), "reply", &detail);
    if let Err(failure) = &audited {
        // The message is out all the same.
        call.app().log.error("audit", Some(mailbox), json!({"error": failure.sentences()}));
    }
    let is_sent = answer["outcome"] == "sent";
    if is_sent && audited.is_ok() {
        return Ok(see_other(&format!("/requests/{id}?done=reply")));
    }
    let typed = if is_sent { "" } else { &typed };
    page(call, &self::request(call)?, sent(&answer, &answer_to(&request)), typed, StatusCode::OK)
}

fn done(call: &Call, request: &Value) -> Result<Markup, Problem> {
    if call.query.get("done") != Some("reply") {
        return Ok(html! {});
    }
    let trail = call.app().storage.audit_trail(None, i64::MAX, 50)?;
    let entry = trail.iter().find(|entry| entry["action"] == "reply" && entry["detail"]["request"] == request["id"]);
    Ok(entry.map_or_else(|| html! {}, |entry| sent(&entry["detail"]["answer"], &answer_to(request))))
}

/// In a frame without rights.
pub fn html(call: &Call) -> Answer {
    let mail = mail::read(call.app().mailboxes.library(), &bytes(call, mail::SIZE_MAX)?)?;
    let content = mail.html.ok_or(Problem::Unknown)?;
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Message" } link rel="stylesheet" href="/static/mail.css"; }
            body { main { (maud::PreEscaped(mail::sanitised(&content))) } }
        }
    };
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], document.into_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(MAIL_POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    Ok(response)
}

pub fn raw(call: &Call) -> Result<Response, Problem> {
    Ok(download(
        &format!("message-{}.eml", call.number("message")?),
        "application/octet-stream",
        bytes(call, u64::MAX)?,
    ))
}

pub fn attachment(call: &Call) -> Answer {
    let raw = bytes(call, mail::SIZE_MAX)?;
    let library = call.app().mailboxes.library();
    let part_index = u32::try_from(call.number("number")?).map_err(|_| Problem::Unknown)?;
    let listed = mail::read(library, &raw)?.attachments;
    let attachment = listed.into_iter().find(|one| one.part_index == part_index).ok_or(Problem::Unknown)?;
    let octets = library.attachment(&raw, part_index).map_err(Failure::from)?;
    // Never under the type that the sender says: nothing of it is to be shown by the browser.
    Ok(download(&attachment.name, "application/octet-stream", octets))
}

/// Of a message of this request, when it has at most so many.
fn bytes(call: &Call, most: u64) -> Result<Vec<u8>, Problem> {
    let (request, id) = (request(call)?, call.number("message")?);
    let messages = request["messages"].as_array();
    let message = messages.into_iter().flatten().find(|message| message["id"] == id).ok_or(Problem::Unknown)?;
    if message["raw_bytes"].as_u64().is_some_and(|size| size > most) {
        return Err(Failure::other("This message is too large to be taken apart here. Download it as a whole.").into());
    }
    call.app().storage.helpdesk.raw(id)?.ok_or(Problem::Unknown)
}

fn request(call: &Call) -> Result<Value, Problem> {
    call.app().storage.helpdesk.request(call.number("id")?)?.ok_or(Problem::Unknown)
}

fn subject(request: &Value) -> &str {
    match text(request, "subject").trim() {
        "" => "(no subject)",
        subject => subject,
    }
}
