//! Messages that failed three times: why, their bytes, and a way back or out.

use maud::html;
use serde_json::json;

use super::{
    layout::{self, Frame, Tone, text, when},
    visit::{Answer, Call, Problem, download, see_other},
};

pub fn list(call: &Call) -> Answer {
    let mailbox = call.mailbox()?;
    let put_aside = call.app().mailboxes.quarantine(mailbox.id)?;
    let address = format!("/mailboxes/{}/quarantine", mailbox.id);
    let raw = |key: &str| {
        let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
        format!("{address}/raw?key={key}")
    };
    Ok(Frame::new("Quarantine").below("/", "Mailboxes").below(format!("/mailboxes/{}", mailbox.id), &mailbox.name).page(
        Some(call),
        html! {
            h1 { "Quarantine" }
            p.lead { "Messages that failed again and again. They hold up nothing else." }
            @match call.query.get("done") {
                Some("replay") => (layout::notice(Tone::Good, "done", html! { p { "It comes again with the next fetch." } })),
                Some("drop") => (layout::notice(Tone::Good, "done", html! { p { "Forgotten here; in the mailbox it stays as it is." } })),
                _ => {}
            }
            @if put_aside.is_empty() { p data-testid="quarantine-empty" { "It is empty." } }
            ul.cards data-testid="quarantine" {
                @for one in &put_aside {
                    @let key = text(one, "key");
                    li.card data-testid="quarantined" {
                        p data-testid="quarantine-reason" { strong { (text(one, "reason")) } }
                        dl.facts {
                            dt { "Key" } dd.code { (key) }
                            dt { "Tries" } dd { (one["tries"]) }
                            dt { "Size" } dd { (one["size"].as_u64().filter(|size| *size > 0).map_or("not told".to_owned(), layout::size)) }
                            dt { "First" } dd { (when(&one["first"])) }
                            dt { "Last" } dd { (when(&one["last"])) }
                        }
                        @if one["replay"] == true { p { "It comes again with the next fetch." } }
                        div.actions {
                            // Without a copy of its own the library reads them from the mailbox.
                            a.button href=(raw(key)) data-testid="quarantine-raw" { "Download its bytes" }
                            @for (verdict, words) in [("replay", "Fetch it again"), ("drop", "Forget it")] {
                                form.action method="post" action=(address) data-swap {
                                    (layout::secret(call))
                                    input type="hidden" name="key" value=(key);
                                    button type="submit" name="verdict" value=(verdict)
                                        data-testid={ "quarantine-" (verdict) } { (words) }
                                }
                            }
                        }
                    }
                }
            }
        },
    ))
}

pub fn raw(call: &Call) -> Answer {
    let id = call.mailbox()?.id;
    let key = call.query.get("key").ok_or(Problem::Unknown)?;
    Ok(download("message.eml", "application/octet-stream", call.app().mailboxes.quarantine_raw(id, key)?))
}

pub fn decide(call: &Call) -> Answer {
    let id = call.mailbox()?.id;
    let key = call.form.get("key").ok_or(Problem::Unknown)?;
    let verdict = call.form.get("verdict").unwrap_or_default();
    match verdict {
        "replay" => call.app().mailboxes.quarantine_replay(id, key)?,
        "drop" => call.app().mailboxes.quarantine_drop(id, key)?,
        _ => return Err(Problem::Unknown),
    }
    call.app().storage.audit(&call.session.admin, Some(id), &format!("quarantine {verdict}"), &json!({"key": key}))?;
    Ok(see_other(&format!("/mailboxes/{id}/quarantine?done={verdict}")))
}
