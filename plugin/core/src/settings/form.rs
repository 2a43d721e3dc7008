//! The form as data: which fields it has, in which order, under which labels, and what each may hold. The parser
//! ([`super::check`]) and the schema generator read the same tables.

use serde::Deserialize;

use super::{account::Direction, pattern::Pattern};

/// What the form calls "Connection Protocol". `Mail` is IMAP in the incoming form and SMTP in the outgoing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Connection {
    #[serde(rename = "POP/IMAP/POPS/IMAPS", alias = "SMTP/SMTPS")]
    Mail, // the derived schema has the incoming spelling only; the generator takes the choices from the tables
    #[serde(rename = "EWS")]
    Ews,
    #[serde(rename = "Microsoft Graph")]
    Graph,
    #[serde(rename = "Gmail API")]
    Gmail,
}

impl Connection {
    pub const ALL: [Self; 4] = [Self::Mail, Self::Ews, Self::Graph, Self::Gmail];

    /// The value as the settings write it.
    pub fn name(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::Mail, Direction::Incoming) => INCOMING_CONNECTIONS[0],
            (Self::Mail, Direction::Outgoing) => OUTGOING_CONNECTIONS[0],
            (Self::Ews, _) => INCOMING_CONNECTIONS[1],
            (Self::Graph, _) => INCOMING_CONNECTIONS[2],
            (Self::Gmail, _) => INCOMING_CONNECTIONS[3],
        }
    }

    pub fn from_name(direction: Direction, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|connection| connection.name(direction) == name)
    }
}

pub(super) const INCOMING_CONNECTIONS: &[&str] = &["POP/IMAP/POPS/IMAPS", "EWS", "Microsoft Graph", "Gmail API"];
pub(super) const OUTGOING_CONNECTIONS: &[&str] = &["SMTP/SMTPS", "EWS", "Microsoft Graph", "Gmail API"];

/// Shown whatever the connection protocol.
pub(super) const ANY: &[Connection] = &Connection::ALL;
pub(super) const MAIL: &[Connection] = &[Connection::Mail];
pub(super) const HTTP: &[Connection] = &[Connection::Ews, Connection::Graph, Connection::Gmail];
pub(super) const EWS: &[Connection] = &[Connection::Ews];
/// Those that can go on where another protocol stopped.
pub(super) const MOVABLE: &[Connection] = &[Connection::Ews, Connection::Graph];
pub(super) const NONE: &[Connection] = &[];

/// One field of the form.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// As the form shows it.
    pub label: &'static str,
    pub rule: Rule,
    /// With which connection protocols the form shows it. Elsewhere it is refused.
    pub shown: &'static [Connection],
    /// With which it must be filled in, by the person or by the preset named in `advanced.provider`.
    pub required: &'static [Connection],
    /// What would be right: the second half of every fault's sentence.
    pub right: &'static str,
    /// Values for the schema's `examples`.
    pub examples: &'static [&'static str],
}

/// What a field may hold.
#[derive(Debug)]
pub enum Rule {
    OneOf(&'static [&'static str]),
    Text(Pattern),
    /// Texts, between `min` and `SETTING_LIST_MAX` of them.
    List {
        item: Pattern,
        min: usize,
    },
    Whole {
        min: u64,
        max: u64,
    },
    Flag,
    /// A text, `{"env": "NAME"}` or `{"file": "path"}`.
    Secret,
    /// As [`Rule::Secret`], of many lines; looked up again at each use.
    Document,
    /// Names and texts; these names are ours and refused.
    Parameters {
        reserved: &'static [&'static str],
    },
    Section(&'static [Field]),
}

impl Field {
    /// Must it be filled in with every connection protocol, whatever the preset?
    pub fn always_required(&self) -> bool {
        self.required.len() == Connection::ALL.len() && !super::preset::may_fill(self.name)
    }
}

/// The fields of a form in their order.
pub fn fields(direction: Direction) -> &'static [Field] {
    match direction {
        Direction::Incoming => super::incoming::FIELDS,
        Direction::Outgoing => super::outgoing::FIELDS,
    }
}

/// The fields at a pointer into the form: `""`, or `"/advanced"`.
pub fn section(direction: Direction, pointer: &str) -> &'static [Field] {
    let form = fields(direction);
    let inside = form.iter().find_map(|field| match field.rule {
        Rule::Section(inner) if pointer.strip_prefix('/') == Some(field.name) => Some(inner),
        _ => None,
    });
    if pointer.is_empty() { form } else { inside.unwrap_or_default() }
}

pub(super) const PORT: Rule = Rule::Whole { min: 1, max: 65_535 };
