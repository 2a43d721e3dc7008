//! Walks a document along the tables of [`super::form`] and collects every fault.

use serde_json::{Map, Value};
use url::Url;

use super::{
    account::{Direction, GrantType},
    form::{Connection, Field, Rule, fields},
    pattern::Pattern,
    secret_ref::{Lookup, SecretRef, pasted},
};
use crate::{
    error::Fault,
    limits::{SETTING_DOCUMENT_MAX, SETTING_LIST_MAX, SETTING_PARAMETERS_MAX, SETTING_SECRET_MAX},
    secret::Secret,
};

/// Where Microsoft's clouds issue tokens, and what their URLs name in place of a tenant.
pub const MICROSOFT_HOSTS: [&str; 3] =
    ["login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn"];
pub const MANY_TENANTS: [&str; 3] = ["common", "organizations", "consumers"];

/// A form in which each field holds what it may hold; empty optional texts are gone, `advanced` is there.
pub(super) struct Checked {
    pub form: Map<String, Value>,
    pub client_secret: Option<Secret>,
}

/// # Errors
/// Every fault, in the order of the form; then those that concern two fields together.
pub(super) fn check(direction: Direction, document: &Value, lookup: &dyn Lookup) -> Result<Checked, Vec<Fault>> {
    let Value::Object(given) = document else {
        let message = format!("It is {}; hand in an object with the fields of the form.", kind_of(document));
        return Err(vec![Fault { pointer: String::new(), label: "Settings".to_owned(), message }]);
    };
    let mut form = given.clone();
    let connection = given
        .get("connection_protocol")
        .and_then(Value::as_str)
        .and_then(|name| Connection::from_name(direction, name));
    let mut checker = Checker { direction, connection, lookup, faults: Vec::new(), client_secret: None };
    checker.section("", fields(direction), &mut form);
    match direction {
        Direction::Incoming => checker.incoming(&form),
        Direction::Outgoing => checker.outgoing(&form),
    }
    checker.grant(&form);
    form.entry("advanced").or_insert_with(|| Value::Object(Map::new()));
    if checker.faults.is_empty() {
        Ok(Checked { form, client_secret: checker.client_secret })
    } else {
        Err(checker.faults)
    }
}

struct Checker<'a> {
    direction: Direction,
    /// `None` when the document does not name a known one; then only what holds for all of them is required.
    connection: Option<Connection>,
    lookup: &'a dyn Lookup,
    faults: Vec<Fault>,
    client_secret: Option<Secret>,
}

impl Checker<'_> {
    fn section(&mut self, pointer: &str, fields: &[Field], map: &mut Map<String, Value>) {
        for field in fields {
            let here = format!("{pointer}/{}", field.name);
            let shown = self.connection.is_none_or(|connection| field.shown.contains(&connection));
            let required = match self.connection {
                Some(connection) => field.required.contains(&connection),
                None => field.required.len() == Connection::ALL.len(),
            };
            match map.get_mut(field.name) {
                Some(_) if !shown => {
                    let name = self.connection.map_or("", |connection| connection.name(self.direction));
                    let wrong = format!("It does not belong to the connection protocol {name}");
                    self.say(here, field, &wrong, "leave it out");
                }
                Some(value) if is_unset(field, value) && !required => {
                    map.remove(field.name);
                }
                Some(value) if !is_unset(field, value) => self.value(here, field, value),
                None if !required => {}
                _ => self.fault(here, field, "Nothing is entered"),
            }
        }
        for name in map.keys().filter(|name| !fields.iter().any(|field| field.name == *name)) {
            self.unknown(pointer, name);
        }
    }

    fn unknown(&mut self, pointer: &str, name: &str) {
        let advanced = || {
            fields(self.direction).iter().find_map(|field| match field.rule {
                Rule::Section(inner) => inner.iter().find(|field| field.name == name),
                _ => None,
            })
        };
        let (label, message) = match advanced().filter(|_| pointer.is_empty()) {
            Some(field) => (field.label, "It stands in the wrong place; move it into \"advanced\"."),
            None => (name, "There is no such field; correct its name, or leave it out."),
        };
        let pointer = format!("{pointer}/{}", escaped(name));
        self.faults.push(Fault { pointer, label: label.to_owned(), message: message.to_owned() });
    }

    fn value(&mut self, here: String, field: &Field, value: &mut Value) {
        match (&field.rule, value) {
            (Rule::OneOf(choices), Value::String(text)) => {
                if !choices.contains(&text.as_str()) {
                    self.fault(here, field, "It is none of the choices");
                }
            }
            (Rule::Text(pattern), Value::String(text)) => {
                // Copied from the provider's page like the secret.
                if field.name == "client_id" && (1..text.len()).contains(&pasted(text).len()) {
                    *text = pasted(text).to_owned();
                }
                self.text(here, field, *pattern, text);
            }
            (Rule::List { item, min }, Value::Array(items)) => self.list(here, field, *item, *min, items),
            (Rule::Whole { min, max }, value @ Value::Number(_)) => match whole(value) {
                Some(number) if (*min..=*max).contains(&number) => *value = number.into(),
                Some(_) => self.fault(here, field, "It is out of range"),
                None => self.fault(here, field, "It is not a positive whole number"),
            },
            (Rule::Flag, Value::Bool(_)) => {}
            (Rule::Secret, value) => self.secret(here, field, value),
            (Rule::Document, value) => self.document(here, field, value),
            (Rule::Parameters { reserved }, Value::Object(map)) => self.parameters(here, field, reserved, map),
            (Rule::Section(inner), Value::Object(map)) => self.section(&here, inner, map),
            (_, value) => {
                let wrong = format!("It is {}, not {}", kind_of(value), expected(&field.rule));
                self.fault(here, field, &wrong);
            }
        }
    }

    fn text(&mut self, here: String, field: &Field, pattern: Pattern, text: &str) {
        if let Some(wrong) = pattern.wrong(text) {
            self.fault(here, field, &wrong);
        }
    }

    fn list(&mut self, here: String, field: &Field, item: Pattern, min: usize, items: &[Value]) {
        if items.len() < min {
            return self.fault(here, field, "The list is empty");
        }
        if items.len() > SETTING_LIST_MAX {
            return self.fault(here, field, &format!("The list has more than {SETTING_LIST_MAX} entries"));
        }
        for (index, value) in items.iter().enumerate() {
            let here = format!("{here}/{index}");
            match value {
                Value::String(text) => self.text(here, field, item, text),
                other => self.fault(here, field, &format!("It is {}, not a text", kind_of(other))),
            }
        }
    }

    fn secret(&mut self, here: String, field: &Field, value: &Value) {
        let resolved = match value {
            Value::String(text) if text.chars().count() > SETTING_SECRET_MAX => {
                Err(format!("It is longer than {SETTING_SECRET_MAX} characters"))
            }
            Value::String(text) if pasted(text).chars().any(char::is_control) => {
                Err("It holds a line break or another control character".to_owned())
            }
            Value::String(_) => Ok(()),
            Value::Object(map) => reference(map),
            other => Err(format!("It is {}, not {}", kind_of(other), expected(&field.rule))),
        }
        .and_then(|()| serde_json::from_value(value.clone()).map_err(|_| "It cannot be understood".to_owned()));
        match resolved.map(|reference: SecretRef| reference.resolve(self.lookup)) {
            Ok(Ok(secret)) if field.name == "client_secret" => self.client_secret = secret,
            Ok(Ok(_)) => {}
            Ok(Err(wrong)) => {
                self.say(here, field, &wrong, "make it hold the secret in one line, readable for the helpdesk")
            }
            Err(wrong) => self.fault(here, field, &wrong),
        }
    }

    /// Only whether it is there: what it holds may be replaced before it is used.
    fn document(&mut self, here: String, field: &Field, value: &Value) {
        let found = match value {
            Value::String(text) if text.chars().count() > SETTING_DOCUMENT_MAX => {
                Err(format!("It is longer than {SETTING_DOCUMENT_MAX} characters"))
            }
            Value::String(_) => Ok(()),
            Value::Object(map) => reference(map),
            other => Err(format!("It is {}, not {}", kind_of(other), expected(&field.rule))),
        }
        .and_then(|()| serde_json::from_value(value.clone()).map_err(|_| "It cannot be understood".to_owned()));
        match found.map(|reference: SecretRef| reference.resolve_document(self.lookup).map(drop)) {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) => self.say(here, field, &wrong, "make it readable for the helpdesk"),
            Err(wrong) => self.fault(here, field, &wrong),
        }
    }

    fn parameters(&mut self, here: String, field: &Field, reserved: &[&str], map: &Map<String, Value>) {
        if map.len() > SETTING_PARAMETERS_MAX {
            self.fault(here.clone(), field, &format!("There are more than {SETTING_PARAMETERS_MAX} parameters"));
        }
        for (name, value) in map {
            let here = format!("{here}/{}", escaped(name));
            if reserved.contains(&name.as_str()) {
                self.say(here, field, "This parameter is set by the authorization request itself", "leave it out");
            } else if let Some(wrong) = Pattern::ParameterName.wrong(name) {
                self.fault(here, field, &wrong);
            } else {
                match value {
                    Value::String(text) => self.text(here, field, Pattern::Line, text),
                    other => self.fault(here, field, &format!("It is {}, not a text", kind_of(other))),
                }
            }
        }
    }

    /// Rules of the incoming form that concern two fields.
    fn incoming(&mut self, form: &Map<String, Value>) {
        let Some(advanced) = form.get("advanced").and_then(Value::as_object) else { return };
        let is_fetched = |target: &str| match advanced.get("folders").and_then(Value::as_array) {
            Some(folders) => folders.iter().filter_map(Value::as_str).any(|folder| is_same_folder(folder, target)),
            None => is_same_folder("INBOX", target),
        };
        for (action, folder) in [("after_import", "processed_folder"), ("after_refusal", "error_folder")] {
            if advanced.get(action).and_then(Value::as_str) != Some("move") {
                continue;
            }
            match advanced.get(folder).and_then(Value::as_str) {
                None if !advanced.contains_key(folder) => {
                    self.nested(folder, "Messages are to be moved, but no folder is named");
                }
                Some(target) if is_fetched(target) => {
                    self.nested(folder, "It is one of the folders that are fetched: what is moved there comes again");
                }
                _ => {}
            }
        }
    }

    /// Rules of the outgoing form that concern two fields.
    fn outgoing(&mut self, form: &Map<String, Value>) {
        let text = |name: &str| form.get(name).and_then(Value::as_str);
        let advanced = form.get("advanced").and_then(Value::as_object);
        let mail = self.connection == Some(Connection::Mail);
        if mail && form.get("enable_tls") == Some(&Value::Bool(false)) {
            self.top("enable_tls", "A bearer token never crosses a plaintext link, so TLS cannot be off with OAuth");
        }
        let port = form.get("port").and_then(Value::as_u64);
        match (text("protocol"), port) {
            (Some("SMTP"), Some(465)) if mail => {
                self.top("port", "Port 465 speaks TLS from the first byte, which is the protocol SMTPS");
            }
            (Some("SMTPS"), Some(587)) if mail => {
                self.top("port", "Port 587 begins without TLS, which is the protocol SMTP");
            }
            _ => {}
        }
        let has_from = advanced.is_some_and(|advanced| advanced.contains_key("from_address"));
        let from_may_be_missing = form.get("advanced").is_none_or(Value::is_object) && !has_from;
        if let Some(username) = text("username").filter(|name| Pattern::Line.wrong(name).is_none())
            && Pattern::Email.wrong(username).is_some()
            && from_may_be_missing
        {
            self.nested("from_address", "The username is not an email address, so it cannot be the sender");
        }
    }

    /// What a grant needs beyond what all of them need.
    fn grant(&mut self, form: &Map<String, Value>) {
        let advanced = form.get("advanced");
        if advanced.is_some_and(|advanced| !advanced.is_object()) {
            return;
        }
        let grant = advanced.and_then(|advanced| advanced.get("grant")).and_then(Value::as_str);
        let has = |name: &str| advanced.is_some_and(|advanced| advanced.get(name).is_some());
        match grant.and_then(GrantType::from_name) {
            Some(GrantType::ClientCredentials) => {
                if !form.contains_key("client_secret") && !has("client_certificate") {
                    self.top("client_secret", "Client credentials are asked for, and there are none");
                }
                let url = form.get("access_token_url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
                if url.is_some_and(|url| is_for_many_tenants(&url)) {
                    let label = "access_token_url";
                    self.top(label, "An application signs in to one tenant, and this address names none");
                }
            }
            Some(GrantType::JwtBearer) if !has("service_account") => {
                self.nested("service_account", "A service account is to sign in, but its key is not named");
            }
            _ => {}
        }
    }

    fn top(&mut self, name: &str, wrong: &str) {
        if let Some(field) = fields(self.direction).iter().find(|field| field.name == name) {
            self.fault(format!("/{name}"), field, wrong);
        }
    }

    fn nested(&mut self, name: &str, wrong: &str) {
        for field in fields(self.direction) {
            if let Rule::Section(inner) = field.rule
                && let Some(field) = inner.iter().find(|field| field.name == name)
            {
                self.fault(format!("/advanced/{name}"), field, wrong);
            }
        }
    }

    fn fault(&mut self, pointer: String, field: &Field, wrong: &str) {
        self.say(pointer, field, wrong, field.right);
    }

    fn say(&mut self, pointer: String, field: &Field, wrong: &str, right: &str) {
        self.faults.push(Fault { pointer, label: field.label.to_owned(), message: format!("{wrong}; {right}.") });
    }
}

/// Microsoft's endpoints for whoever comes: good for persons, without meaning for an application (AADSTS50194).
fn is_for_many_tenants(token_url: &Url) -> bool {
    let tenant = token_url.path_segments().and_then(|mut segments| segments.next());
    token_url.host_str().is_some_and(|host| MICROSOFT_HOSTS.contains(&host))
        && tenant.is_some_and(|tenant| MANY_TENANTS.contains(&tenant))
}

/// Is this object `{"env": "NAME"}` or `{"file": "/path"}`?
fn reference(map: &Map<String, Value>) -> Result<(), String> {
    let mut entries = map.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err("It does not name exactly one of \"env\" and \"file\"".to_owned());
    };
    let pattern = match key.as_str() {
        "env" => Pattern::EnvironmentName,
        "file" => Pattern::Path,
        _ => return Err("It names neither \"env\" nor \"file\"".to_owned()),
    };
    match value {
        Value::String(text) => pattern.wrong(text).map_or(Ok(()), Err),
        other => Err(format!("It is {}, not a text", kind_of(other))),
    }
}

/// The empty text of a text field means that nothing was entered.
fn is_unset(field: &Field, value: &Value) -> bool {
    matches!(field.rule, Rule::Text(_) | Rule::Secret | Rule::Document) && value.as_str() == Some("")
}

/// A whole number; JSON Schema counts 5.0 as one.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(&number)).then_some(number as u64)
    })
}

fn expected(rule: &Rule) -> &'static str {
    match rule {
        Rule::OneOf(_) | Rule::Text(_) => "a text",
        Rule::List { .. } => "a list",
        Rule::Whole { .. } => "a number",
        Rule::Flag => "true or false",
        Rule::Secret | Rule::Document => "a text or an object",
        Rule::Parameters { .. } | Rule::Section(_) => "an object",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A key inside a JSON pointer (RFC 6901 section 3).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// INBOX has one name in any case (RFC 3501 section 5.1), and so has a special use.
fn is_same_folder(one: &str, other: &str) -> bool {
    let is_caseless = one.starts_with('\\') || one.eq_ignore_ascii_case("INBOX");
    if is_caseless { one.eq_ignore_ascii_case(other) } else { one == other }
}
