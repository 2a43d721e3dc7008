//! `/account`: one's own password, and who else may come in.

use axum::http::StatusCode;
use maud::{Markup, html};

use super::{
    access,
    layout::{self, Frame, Tone, when},
    visit::{Answer, Call, see_other},
};
use crate::serve::password;

const NAME_MAX: usize = 64;

pub fn show(call: &Call) -> Answer {
    let done = match call.query.get("done") {
        Some("password") => "The password is changed. Your other sessions have ended.",
        Some("administrator") => "The administrator may come in now.",
        _ => return page(call, html! {}, StatusCode::OK),
    };
    page(call, layout::notice(Tone::Good, "done", html! { p { (done) } }), StatusCode::OK)
}

pub fn change(call: &Call) -> Answer {
    let typed = |name: &str| call.form.get(name).unwrap_or_default();
    let app = call.app();
    let who = &call.session.admin;
    let wrong = |why: String| {
        let above = layout::notice(Tone::Bad, "account-error", html! { p { (why) } });
        page(call, above, StatusCode::UNPROCESSABLE_ENTITY)
    };
    // Whoever finds a browser that is logged in does not know it.
    if !access::is_password(call, who, typed("current"))? {
        return wrong("Your current password is wrong, or was tried too often.".to_owned());
    }
    if typed("new") != typed("again") {
        return wrong("The two new passwords differ.".to_owned());
    }
    let hash = match password::hash(typed("new")) {
        Ok(hash) => hash,
        Err(failure) => return wrong(failure.sentences().join(" ")),
    };
    // Only the form of another administrator has it.
    let Some(name) = call.form.get("name").map(str::trim) else {
        app.storage.set_password(who, who, &hash)?;
        return access::begin(call, who, "/account?done=password");
    };
    let is_fine = |c: char| c.is_alphanumeric() || "._@-".contains(c);
    if !(1..=NAME_MAX).contains(&name.chars().count()) || !name.chars().all(is_fine) {
        return wrong(format!("A name has 1 to {NAME_MAX} letters, digits and . _ @ -"));
    }
    if !app.storage.insert_admin(who, name, &hash)? {
        return wrong("There is an administrator of this name already.".to_owned());
    }
    Ok(see_other("/account?done=administrator"))
}

fn page(call: &Call, above: Markup, status: StatusCode) -> Answer {
    let names = call.app().storage.admin_names()?;
    let password = |id: &str, name: &str, label: &str, kind: &str| {
        html! {
            div.field {
                label for=(id) { (label) }
                input type="password" id=(id) name=(name) required autocomplete=(kind) data-testid=(id);
            }
        }
    };
    Ok(Frame::new("Account").status(status).page(
        Some(call),
        html! {
            h1 { "Account" }
            p.lead { "You are " strong { (call.session.admin) } ". This session ends at " (when(&call.session.expires.into())) "." }
            (above)
            section.card aria-labelledby="password-title" {
                h2 #password-title { "Change your password" }
                form method="post" action="/account" data-swap {
                    (layout::secret(call))
                    (password("password-current", "current", "Current password", "current-password"))
                    (password("password-new", "new", "New password", "new-password"))
                    (password("password-again", "again", "New password again", "new-password"))
                    div.buttons { button.main type="submit" data-testid="password-button" { "Change it" } }
                }
            }
            section.card aria-labelledby="administrators-title" {
                h2 #administrators-title { "Administrators" }
                ul data-testid="administrators" { @for name in &names { li { (name) } } }
                details data-testid="add-administrator" {
                    summary { "Add an administrator" }
                    form method="post" action="/account" data-swap {
                        (layout::secret(call))
                        div.field {
                            label for="administrator-name" { "Name" }
                            input type="text" #administrator-name name="name" required maxlength=(NAME_MAX)
                                autocomplete="off" autocapitalize="none" spellcheck="false" data-testid="administrator-name";
                        }
                        (password("administrator-current", "current", "Your own password", "current-password"))
                        (password("administrator-new", "new", "Password of the new one", "new-password"))
                        (password("administrator-again", "again", "The same again", "new-password"))
                        div.buttons { button.main type="submit" data-testid="administrator-button" { "Add" } }
                    }
                }
            }
        },
    ))
}
