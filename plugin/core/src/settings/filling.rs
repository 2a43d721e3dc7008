//! What a preset fills into one form: the same data for the parser and, by `describe`, for the host's form. A rule is
//! data here and nowhere else, so that both sides cannot drift apart.

use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

/// Fields by JSON pointer, and what changes them.
#[derive(Clone, Debug, Serialize)]
pub struct Filling {
    pub(super) fields: Map<String, Value>,
    /// All that apply count; of two that fill one field, the later.
    pub(super) cases: Vec<Case>,
    /// Filled together or not at all: none of them when one holds something else.
    pub(super) together: Vec<&'static str>,
}

/// Fields that belong into a form while another field says something.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    when: When,
    fields: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize)]
struct When {
    pointer: &'static str,
    #[serde(flatten)]
    test: Test,
}

/// What the field at the pointer must hold. A field that is empty or left out meets none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Test {
    /// This text.
    Is(String),
    /// A URL with one of these hosts.
    HostIn(Vec<String>),
    /// Another text than this other field, which is filled in, too. ASCII case does not count.
    DiffersFrom(&'static str),
}

impl Case {
    pub(super) fn new(pointer: &'static str, test: Test, fields: Map<String, Value>) -> Self {
        Self { when: When { pointer, test }, fields }
    }
}

impl Filling {
    /// By pointer, what belongs into empty fields of this form.
    pub(super) fn known(&self, form: &Value) -> Map<String, Value> {
        let mut known = self.fields.clone();
        for case in self.cases.iter().filter(|case| case.when.applies(form)) {
            known.extend(case.fields.clone());
        }
        let is_other = |pointer: &&str| form.pointer(pointer).is_some_and(|value| Some(value) != known.get(*pointer));
        if self.together.iter().any(is_other) {
            known.retain(|pointer, _| !self.together.contains(&pointer.as_str()));
        }
        known
    }
}

impl When {
    fn applies(&self, form: &Value) -> bool {
        let text = |pointer: &str| form.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(here) = text(self.pointer) else { return false };
        match &self.test {
            Test::Is(wanted) => here == wanted,
            Test::HostIn(hosts) => {
                Url::parse(here).is_ok_and(|url| url.host_str().is_some_and(|host| hosts.iter().any(|one| one == host)))
            }
            Test::DiffersFrom(other) => text(other).is_some_and(|other| !here.eq_ignore_ascii_case(other)),
        }
    }
}
