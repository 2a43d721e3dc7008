//! "Mail Server Settings": the two forms of a mailbox, from the schemas of the library.

use axum::{http::StatusCode, response::Response};
use maud::{Markup, html};
use oauth_mail_abi::Fault;
use serde_json::{Value, json};

use super::{
    consent,
    form::{self, Form},
    layout::{self, Frame, Tone},
    visit::{self, Answer, Call, Problem, see_other},
};
use crate::{
    cli,
    failure::Failure,
    host::Direction,
    serve::storage::{Change, Mailbox},
};

const NAME_MAX: usize = 200;

pub fn new(call: &Call) -> Answer {
    let desk = Desk::of(call, None, direction_of_new(call.query.get("direction")))?;
    Ok(desk.page(&desk.opened(), StatusCode::OK, html! {}))
}

pub fn create(call: &Call) -> Answer {
    Desk::of(call, None, direction_of_new(call.form.get("_direction")))?.save()
}

pub fn edit(call: &Call) -> Answer {
    let (mailbox, direction) = (call.mailbox()?, call.direction()?);
    let desk = Desk::of(call, Some(mailbox), direction)?;
    Ok(desk.page(&desk.opened(), StatusCode::OK, html! {}))
}

pub fn save(call: &Call) -> Answer {
    let (mailbox, direction) = (call.mailbox()?, call.direction()?);
    Desk::of(call, Some(mailbox), direction)?.save()
}

fn direction_of_new(name: Option<&str>) -> Direction {
    name.and_then(visit::direction).unwrap_or(Direction::Incoming)
}

/// One form of one mailbox, which may be a new one.
struct Desk<'a> {
    call: &'a Call,
    mailbox: Option<Mailbox>,
    direction: Direction,
    schema: Value,
    /// As saved; of a form that was never saved, what it has in common with the other one.
    stored: Value,
}

impl<'a> Desk<'a> {
    fn of(call: &'a Call, mailbox: Option<Mailbox>, direction: Direction) -> Result<Self, Problem> {
        let description = call.app().mailboxes.describe();
        let schemas = &description["schemas"];
        let schema = schemas[direction.name()].clone();
        if !schema.is_object() {
            return Err(Failure::other("The library describes no form. Install one that fits this helpdesk.").into());
        }
        let other = match direction {
            Direction::Incoming => Direction::Outgoing,
            Direction::Outgoing => Direction::Incoming,
        };
        let stored = match mailbox.as_ref().map(|mailbox| (mailbox.form(direction), mailbox.form(other))) {
            Some((Some(own), _)) => own.clone(),
            Some((None, Some(twin))) => form::shared(&schema, &schemas[other.name()], twin),
            _ => Value::Null,
        };
        Ok(Self { call, mailbox, direction, schema, stored })
    }

    fn opened(&self) -> Form<'_> {
        Form::opened(self.direction, &self.schema, &self.stored, &consent::redirect_url(self.call.app()))
    }

    fn save(self) -> Answer {
        let posted = &self.call.form;
        let values = form::read(&self.schema, self.direction, posted, &self.stored);
        let form = |faults| Form::with(self.direction, &self.schema, values.clone(), &self.stored, faults);
        if posted.get("_refresh").is_some() {
            return Ok(self.page(&form(Vec::new()), StatusCode::OK, html! {}));
        }
        let app = self.call.app();
        let mut faults = match app.mailboxes.validate(&json!({self.direction.name(): values})) {
            Ok(()) => Vec::new(),
            Err(error) if !error.faults().is_empty() => error.faults().to_vec(),
            Err(error) => vec![whole(error.to_string())],
        };
        let name = posted.get("_name").unwrap_or_default().trim();
        if name.chars().count() > NAME_MAX {
            faults.push(whole(format!("The name of the mailbox has more than {NAME_MAX} characters.")));
        }
        if !faults.is_empty() {
            return Ok(self.page(&form(faults), StatusCode::UNPROCESSABLE_ENTITY, html! {}));
        }
        let old = self.mailbox.as_ref();
        let mut change = Change {
            name: old.map(|old| old.name.clone()).unwrap_or_default(),
            incoming: old.and_then(|old| old.incoming.clone()),
            outgoing: old.and_then(|old| old.outgoing.clone()),
            paused: old.is_some_and(|old| old.paused),
        };
        if !name.is_empty() || change.name.is_empty() {
            let username = values["username"].as_str().unwrap_or("Mailbox");
            change.name = if name.is_empty() { username.to_owned() } else { name.to_owned() };
        }
        match self.direction {
            Direction::Incoming => change.incoming = Some(values.clone()),
            Direction::Outgoing => change.outgoing = Some(values.clone()),
        }
        let who = &self.call.session.admin;
        let id = match old {
            None => app.storage.insert_mailbox(who, &change)?,
            Some(old) => {
                let seen = posted.get("_version").and_then(|version| version.parse().ok()).unwrap_or(old.version);
                if app.storage.update_mailbox(who, old.id, seen, &change)?.is_none() {
                    let conflict = layout::notice(
                        Tone::Bad,
                        "conflict",
                        html! {
                            p { "Somebody else has changed this mailbox since you opened the form, so nothing was saved. "
                                "What you typed is still here; Save again to keep it." }
                        },
                    );
                    return Ok(self.page(&form(Vec::new()), StatusCode::CONFLICT, conflict));
                }
                old.id
            }
        };
        app.mailboxes.close(id);
        let status = app.mailboxes.authenticate(id, self.direction, &json!({"action": "status"}));
        // A scope that was never granted is asked for now, not found out when mail stops.
        let is_signed_in = status.is_ok_and(|status| cli::is_complete(&status));
        if is_signed_in {
            return Ok(see_other(&format!("/mailboxes/{id}?done={}", self.direction.name())));
        }
        Ok(see_other(&consent::begin(id, self.direction, &values)))
    }

    fn page(&self, form: &Form<'_>, status: StatusCode, above: Markup) -> Response {
        let title = match self.direction {
            Direction::Incoming => "Incoming",
            Direction::Outgoing => "Outgoing",
        };
        let id = self.mailbox.as_ref().map(|mailbox| mailbox.id);
        let name = self.mailbox.as_ref().map_or("", |mailbox| &mailbox.name);
        let address = |direction: Direction| match id {
            Some(id) => format!("/mailboxes/{id}/{}", direction.name()),
            None => format!("/mailboxes/new?direction={}", direction.name()),
        };
        let action = id.map_or("/mailboxes/new".to_owned(), |_| address(self.direction));
        let mut frame = Frame::new(title).status(status).below("/", "Admin").below("", "Mail Server Settings");
        if let Some(id) = id {
            frame = frame.below(format!("/mailboxes/{id}"), name);
        }
        frame.page(
            Some(self.call),
            html! {
                h1 { (layout::text(&self.schema, "title")) }
                p.lead { (layout::text(&self.schema, "description")) }
                nav.tabs aria-label="Direction" {
                    @for (direction, name) in [(Direction::Incoming, "Incoming"), (Direction::Outgoing, "Outgoing")] {
                        a href=(address(direction)) data-testid={ "tab-" (direction.name()) }
                            aria-current=[(direction == self.direction).then_some("page")] { (name) }
                    }
                }
                (form.summary())
                (above)
                form.settings #settings method="post" action=(action) novalidate data-swap data-settings {
                    (layout::secret(self.call))
                    input type="hidden" name="_direction" value=(self.direction.name());
                    @if let Some(mailbox) = &self.mailbox {
                        input type="hidden" name="_version" value=(mailbox.version);
                    }
                    div.field {
                        label for="mailbox-name" { "Name of the mailbox" }
                        p.help #mailbox-name-help { "As this helpdesk calls it. Left empty, it is the username." }
                        input type="text" #mailbox-name name="_name" maxlength=(NAME_MAX) autocomplete="off"
                            aria-describedby="mailbox-name-help" data-testid="mailbox-name"
                            value=(self.call.form.get("_name").unwrap_or(name));
                    }
                    (form.fields())
                    div.buttons {
                        button.main type="submit" data-testid="save-button" { "Save" }
                        button.no-script type="submit" name="_refresh" value="1" data-testid="refresh-button"
                            aria-describedby="refresh-help" { "Update the form" }
                        a href=(id.map_or("/".to_owned(), |id| format!("/mailboxes/{id}"))) { "Cancel" }
                    }
                    p.help.no-script #refresh-help {
                        "“Update the form” shows the fields that belong to another protocol or provider, and saves nothing."
                    }
                }
            },
        )
    }
}

/// Of no single field.
fn whole(message: String) -> Fault {
    Fault { pointer: String::new(), label: "Settings".to_owned(), message }
}
