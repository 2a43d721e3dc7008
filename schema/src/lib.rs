//! The two JSON Schemas (2020-12) of the settings form.
//!
//! Order, descriptions and defaults come from the serde types, labels and rules from the tables in
//! `oauth_mail_core::settings::form`, which the parser reads too. What depends on the connection protocol is said by
//! `if`/`then`, in flat form: a tagged union would answer every fault with "not valid under any of the schemas".

pub mod header;

use std::path::{Path, PathBuf};

use oauth_mail_core::{
    limits::{SETTING_DOCUMENT_MAX, SETTING_LIST_MAX, SETTING_PARAMETERS_MAX, SETTING_SECRET_MAX},
    settings::{
        Direction, MANY_TENANTS, MICROSOFT_HOSTS,
        form::{Connection, Field, Rule, fields},
        incoming::Incoming,
        outgoing::{Outgoing, SUBMISSION_PORT, SUBMISSIONS_PORT},
        pattern::Pattern,
        preset,
    },
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub const FILES: [(Direction, &str); 2] =
    [(Direction::Incoming, "incoming.schema.json"), (Direction::Outgoing, "outgoing.schema.json")];

/// The folder `schema/` of the source tree.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The schema as it is committed.
pub fn printed(direction: Direction) -> String {
    format!("{:#}\n", schema(direction))
}

pub fn schema(direction: Direction) -> Value {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let (title, derived) = match direction {
        Direction::Incoming => ("Incoming Mail Server Settings", generator.into_root_schema_for::<Incoming>()),
        Direction::Outgoing => ("Outgoing Mail Server Settings", generator.into_root_schema_for::<Outgoing>()),
    };
    let derived = Value::from(derived);
    let form = fields(direction);
    let mut rules: Vec<Value> =
        Connection::ALL.into_iter().map(|connection| by_connection(direction, connection, form)).collect();
    rules.extend(match direction {
        Direction::Incoming => incoming_rules(),
        Direction::Outgoing => outgoing_rules(),
    });
    rules.extend(grant_rules());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": one_line(&derived["description"]),
        "type": "object",
        "properties": properties(form, &derived),
        "required": form.iter().filter(|field| field.always_required()).map(|field| field.name).collect::<Vec<_>>(),
        "additionalProperties": false,
        "allOf": rules,
    })
}

fn properties(fields: &[Field], derived: &Value) -> Map<String, Value> {
    fields.iter().map(|field| (field.name.to_owned(), property(field, &derived["properties"][field.name]))).collect()
}

fn property(field: &Field, derived: &Value) -> Value {
    let mut property = json!({"title": field.label, "description": one_line(&derived["description"])});
    let rule = match &field.rule {
        Rule::OneOf(choices) => json!({"type": "string", "enum": choices}),
        Rule::Text(pattern) => text(*pattern, !field.always_required()),
        Rule::List { item, min } => {
            json!({"type": "array", "minItems": min, "maxItems": SETTING_LIST_MAX, "items": text(*item, false)})
        }
        Rule::Whole { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Rule::Flag => json!({"type": "boolean"}),
        Rule::Secret => one_of(merged(text(Pattern::Line, true), json!({"maxLength": SETTING_SECRET_MAX}))),
        Rule::Document => one_of(json!({
            "type": "string", "minLength": u8::from(field.always_required()), "maxLength": SETTING_DOCUMENT_MAX,
        })),
        Rule::Parameters { reserved } => json!({
            "type": "object",
            "maxProperties": SETTING_PARAMETERS_MAX,
            "propertyNames": merged(text(Pattern::ParameterName, false), json!({"not": {"enum": reserved}})),
            "additionalProperties": text(Pattern::Line, false),
        }),
        Rule::Section(inner) => {
            let section =
                json!({"type": "object", "properties": properties(inner, derived), "additionalProperties": false});
            let required: Vec<&str> =
                inner.iter().filter(|field| field.always_required()).map(|field| field.name).collect();
            if required.is_empty() { section } else { merged(section, json!({"required": required})) }
        }
    };
    property = merged(property, rule);
    match &field.rule {
        // An empty object as default would hide the defaults inside it.
        Rule::Section(_) | Rule::Parameters { .. } => {}
        // The form pre-selects the first choice of what it cannot leave open.
        Rule::OneOf(choices) if field.always_required() => property["default"] = json!(choices[0]),
        _ if !derived["default"].is_null() => property["default"] = derived["default"].clone(),
        _ => {}
    }
    // The incoming form shows its protocol and does not let one edit it.
    if field.name == "protocol" && matches!(field.rule, Rule::OneOf([_])) {
        property["readOnly"] = json!(true);
    }
    if matches!(field.rule, Rule::Secret | Rule::Document) {
        property["writeOnly"] = json!(true);
    }
    if !field.examples.is_empty() {
        property["examples"] = json!(field.examples);
    }
    property
}

fn text(pattern: Pattern, or_empty: bool) -> Value {
    json!({"type": "string", "maxLength": pattern.max_chars(), "pattern": pattern.anchored(or_empty)})
}

/// A secret in three forms side by side; a generic form shows the first, a password field.
fn one_of(literal: Value) -> Value {
    let reference = |key: &str, title: &str, pattern| {
        json!({
            "title": title, "type": "object", "properties": {key: text(pattern, false)}, "required": [key],
            "additionalProperties": false,
        })
    };
    json!({"anyOf": [
        merged(json!({"title": "Text"}), literal),
        reference("env", "Environment variable", Pattern::EnvironmentName),
        reference("file", "File", Pattern::Path),
    ]})
}

/// What the form shows, and what must be filled in, with one connection protocol.
fn by_connection(direction: Direction, connection: Connection, form: &[Field]) -> Value {
    let mut shown_here = Map::new();
    for field in form {
        if !field.shown.contains(&connection) {
            shown_here.insert(field.name.to_owned(), json!(false));
        } else if let Rule::Section(inner) = field.rule {
            let hidden: Map<_, _> = inner
                .iter()
                .filter(|field| !field.shown.contains(&connection))
                .map(|field| (field.name.to_owned(), json!(false)))
                .collect();
            if !hidden.is_empty() {
                shown_here.insert(field.name.to_owned(), json!({"type": "object", "properties": hidden}));
            }
        }
    }
    // Fields that the same presets fill are required together, unless one of these presets is named.
    let mut groups: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for field in form.iter().filter(|field| field.required.contains(&connection) && !field.always_required()) {
        let fillers = preset::fillers(direction, connection, field.name);
        match groups.iter_mut().find(|(presets, _)| *presets == fillers) {
            Some((_, names)) => names.push(field.name),
            None => groups.push((fillers, vec![field.name])),
        }
    }
    let mut then = json!({"properties": shown_here});
    let required: Vec<Value> = groups.into_iter().map(|(presets, names)| unless_filled(&presets, &names)).collect();
    if !required.is_empty() {
        then["allOf"] = json!(required);
    }
    when("connection_protocol", json!(connection.name(direction)), then)
}

fn unless_filled(presets: &[&str], names: &[&str]) -> Value {
    let filled_in: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!({"type": "string", "minLength": 1}))).collect();
    let filled_in = json!({"required": names, "properties": filled_in});
    if presets.is_empty() {
        return filled_in;
    }
    let named = advanced(json!({"required": ["provider"], "properties": {"provider": {"enum": presets}}}));
    json!({"if": named, "else": filled_in})
}

fn incoming_rules() -> Vec<Value> {
    let folder = |action: &str, folder: &str| {
        json!({
            "if": advanced(json!({"required": [action], "properties": {action: {"const": "move"}}})),
            "then": advanced(needs(folder)),
        })
    };
    vec![folder("after_import", "processed_folder"), folder("after_refusal", "error_folder")]
}

/// What a grant needs beyond what all of them need.
fn grant_rules() -> Vec<Value> {
    let with = |grant: &str| advanced(json!({"required": ["grant"], "properties": {"grant": {"const": grant}}}));
    let reference = json!({"anyOf": [{"type": "string", "minLength": 1}, {"type": "object"}]});
    let hosts = MICROSOFT_HOSTS.map(|host| host.replace('.', "\\.")).join("|");
    let many_tenants = format!("^https://(?:{hosts})(?::443)?/(?:{})(?:/|$)", MANY_TENANTS.join("|"));
    let microsoft: Vec<&str> = preset::all()
        .iter()
        .filter(|preset| preset.token_hosts().any(|host| MICROSOFT_HOSTS.contains(&host)))
        .map(|preset| preset.id.as_str())
        .collect();
    let named = advanced(json!({"required": ["provider"], "properties": {"provider": {"enum": microsoft}}}));
    vec![
        json!({"if": with("client_credentials"), "then": {
            "anyOf": [
                {"required": ["client_secret"], "properties": {"client_secret": reference}},
                advanced(json!({"required": ["client_certificate"], "properties": {"client_certificate": {"type": "object"}}})),
            ],
            // An application signs in to one tenant.
            "properties": {"access_token_url": {"not": {"type": "string", "pattern": many_tenants}}},
            "if": named,
            "then": needs("access_token_url"),
        }}),
        json!({"if": with("jwt_bearer"), "then": advanced(json!({
            "required": ["service_account"], "properties": {"service_account": reference},
        }))}),
    ]
}

fn outgoing_rules() -> Vec<Value> {
    let port = |usual: u16, wrong: u16| json!({"properties": {"port": {"default": usual, "not": {"const": wrong}}}});
    let not_an_address = json!({"type": "string", "not": text(Pattern::Email, false)});
    vec![
        // A bearer token never crosses a plaintext link.
        json!({"properties": {"enable_tls": {"const": true}}}),
        merged(
            when("protocol", json!("SMTPS"), port(SUBMISSIONS_PORT, SUBMISSION_PORT)),
            json!({"else": {"properties": {"port": {"default": SUBMISSION_PORT}}}}),
        ),
        when("protocol", json!("SMTP"), port(SUBMISSION_PORT, SUBMISSIONS_PORT)),
        json!({
            "if": {"required": ["username"], "properties": {"username": not_an_address}},
            "then": advanced(needs("from_address")),
        }),
    ]
}

/// `if` is also true when the property is absent, so it needs its own `required`.
fn when(name: &str, value: Value, then: Value) -> Value {
    json!({"if": {"required": [name], "properties": {name: {"const": value}}}, "then": then})
}

fn needs(name: &str) -> Value {
    json!({"required": [name], "properties": {name: {"type": "string", "minLength": 1}}})
}

fn advanced(inner: Value) -> Value {
    json!({"required": ["advanced"], "properties": {"advanced": merged(json!({"type": "object"}), inner)}})
}

fn merged(mut left: Value, right: Value) -> Value {
    if let (Value::Object(left), Value::Object(right)) = (&mut left, right) {
        left.extend(right);
    }
    left
}

fn one_line(description: &Value) -> String {
    description.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
