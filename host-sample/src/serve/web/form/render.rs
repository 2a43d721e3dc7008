//! The settings document as HTML.

use std::collections::BTreeSet;

use maud::{Markup, html};
use oauth_mail_abi::Fault;
use serde_json::Value;

use super::{
    Form, fill,
    kind::{self, Kind},
    pointer::{id, join},
    rules,
};

impl Form<'_> {
    /// Everything between the `form` tags but the buttons.
    pub fn fields(&self) -> Markup {
        html! {
            (self.preset())
            (self.group(self.schema, ""))
        }
    }

    /// What is wrong, with links to the fields; nothing when nothing is.
    pub fn summary(&self) -> Markup {
        if self.faults.is_empty() {
            return html! {};
        }
        let settings: BTreeSet<_> =
            self.faults.iter().map(|fault| self.place(fault).unwrap_or(&fault.pointer)).collect();
        let count = settings.len();
        html! {
            div.notice.bad #error-summary data-testid="error-summary" role="alert" tabindex="-1" autofocus
                aria-labelledby="error-summary-title" {
                h2 #error-summary-title {
                    @if count == 1 { "One setting needs attention" } @else { (count) " settings need attention" }
                }
                p { "Nothing was saved. What you typed is still here, except for secrets." }
                ul {
                    @for fault in &self.faults {
                        li {
                            @match self.place(fault) {
                                Some(field) => a href={ "#" (id(field)) } { (in_summary(fault)) },
                                None => (in_summary(fault)),
                            }
                        }
                    }
                }
            }
        }
    }

    /// A choice beside the schema: which provider's values to fill in.
    fn preset(&self) -> Markup {
        let known = self.schema.pointer("/properties/advanced/properties/provider/enum").and_then(Value::as_array);
        let Some(known) = known else { return html! {} };
        let chosen = self.values.pointer(fill::PROVIDER).and_then(Value::as_str).unwrap_or_default();
        html! {
            div.field {
                label for="preset" { "Provider" }
                p.help #preset-help { "Fills in servers, URLs, scope and ports of a known provider. What you typed stays." }
                select #preset name="_preset" aria-describedby="preset-help" data-refresh data-testid="preset" {
                    option value="" selected[chosen.is_empty()] { "Another one" }
                    @for (name, label) in fill::presets().filter(|(name, _)| known.iter().any(|one| one == name)) {
                        option value=(name) selected[name == chosen] { (label) }
                    }
                    @if !chosen.is_empty() && !fill::presets().any(|(name, _)| name == chosen) {
                        option value=(chosen) selected { (chosen) }
                    }
                }
                input type="hidden" name="_filled_preset" value=(chosen);
            }
        }
    }

    fn group(&self, group: &Value, at: &str) -> Markup {
        html! {
            @for (name, field) in group["properties"].as_object().into_iter().flatten() {
                (self.field(field, name, &join(at, name)))
            }
        }
    }

    fn field(&self, field: &Value, name: &str, here: &str) -> Markup {
        if self.rules.is_hidden(here) {
            return html! {};
        }
        let label = field["title"].as_str().unwrap_or(name);
        if kind::is_group(field) {
            return self.nested(field, label, here);
        }
        let faults: Vec<_> = self.faults.iter().filter(|fault| self.place(fault) == Some(here)).collect();
        let control = Control { form: self, field, here, is_wrong: !faults.is_empty() };
        let required = self.rules.is_required(here);
        let is_flag = Kind::of(field) == Kind::Flag;
        html! {
            div.field.wrong[!faults.is_empty()].flag[is_flag] data-field=(here) {
                input type="hidden" name="_shown" value=(here);
                @if let Some(fill) = self.filled(here) {
                    input type="hidden" name={ "_filled" (here) } value=(fill);
                }
                @if is_flag { (control.html()) }
                label for=(id(here)) {
                    (label)
                    @if required && !is_flag { " " span.required { "(required)" } }
                }
                @if let Some(help) = field["description"].as_str() {
                    p.help id={ (id(here)) "-help" } { (help) }
                }
                @if !faults.is_empty() {
                    p.error id={ (id(here)) "-error" } data-testid={ (id(here)) "-error" } {
                        @for fault in &faults {
                            span.hidden { "Error: " } (at_field(fault)) " "
                        }
                    }
                }
                @if !is_flag { (control.html()) }
            }
        }
    }

    fn nested(&self, field: &Value, label: &str, here: &str) -> Markup {
        let is_wrong = self.faults.iter().any(|fault| self.place(fault).is_some_and(|at| is_inside(at, here)));
        let faults = self.faults.iter().filter(|fault| self.place(fault) == Some(here));
        let intro = html! {
            @if let Some(help) = field["description"].as_str() { p.help { (help) } }
            @for fault in faults { p.error data-testid={ (id(here)) "-error" } { span.hidden { "Error: " } (at_field(fault)) } }
        };
        if here.matches('/').count() > 1 {
            return html! {
                fieldset data-field=(here) id=(id(here)) {
                    legend { (label) }
                    (intro)
                    (self.group(field, here))
                }
            };
        }
        html! {
            details.nested open[is_wrong] data-field=(here) data-testid=(id(here)) id=(id(here)) {
                summary { (label) }
                (intro)
                (self.group(field, here))
            }
        }
    }

    /// What stands in a field because the form filled it in.
    fn filled(&self, here: &str) -> Option<String> {
        let fills = fill::fills(self.schema, &self.rules, self.direction, &self.values);
        fills.get(here).map(kind::text)
    }

    /// The field on the page to which a fault belongs: its own, or the one around it.
    fn place<'f>(&self, fault: &'f Fault) -> Option<&'f str> {
        let mut here = fault.pointer.as_str();
        while !here.is_empty() {
            let field = here.split('/').skip(1).try_fold(self.schema, |part, name| part["properties"].get(name));
            if field.is_some() && !self.rules.is_hidden(here) {
                return Some(here);
            }
            here = here.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        None
    }
}

struct Control<'a> {
    form: &'a Form<'a>,
    field: &'a Value,
    here: &'a str,
    is_wrong: bool,
}

impl Control<'_> {
    fn html(&self) -> Markup {
        let (id, field) = (id(self.here), self.field);
        let value = self.form.values.pointer(self.here).unwrap_or(&Value::Null);
        let text = kind::text(value);
        let described = self.described();
        let invalid = self.is_wrong.then_some("true");
        let required = self.form.rules.is_required(self.here);
        let placeholder = field["examples"][0].as_str();
        let refresh = rules::controlling(self.form.schema).contains(self.here) || self.here == fill::PROVIDER;
        if field["writeOnly"] == true {
            return self.secret();
        }
        if field["readOnly"] == true {
            return html! {
                input type="text" id=(id) value=(text) readonly aria-describedby=[described] data-testid=(id);
            };
        }
        match Kind::of(field) {
            Kind::Choice => {
                let choices: Vec<_> = field["enum"].as_array().into_iter().flatten().map(kind::text).collect();
                html! {
                    select id=(id) name=(self.here) required[required] aria-describedby=[described]
                        aria-invalid=[invalid] data-refresh[refresh] data-testid=(id) {
                        @if field.get("default").is_none() || !choices.contains(&text) {
                            option value="" selected[text.is_empty()] { "—" }
                        }
                        @if !text.is_empty() && !choices.contains(&text) {
                            option value=(text) selected { (text) }
                        }
                        @for choice in &choices {
                            option value=(choice) selected[*choice == text] { (label(choice)) }
                        }
                    }
                }
            }
            Kind::Flag => html! {
                input type="checkbox" id=(id) name=(self.here) value="true" checked[value == true]
                    aria-describedby=[described] aria-invalid=[invalid] data-refresh[refresh] data-testid=(id);
            },
            Kind::Text | Kind::Number => {
                let mode = (Kind::of(field) == Kind::Number).then_some("numeric");
                html! {
                    input type="text" id=(id) name=(self.here) value=(text) required[required] inputmode=[mode]
                        placeholder=[placeholder] autocomplete="off" autocapitalize="none" spellcheck="false"
                        aria-describedby=[described] aria-invalid=[invalid] data-refresh[refresh] data-testid=(id);
                }
            }
            Kind::List | Kind::Map | Kind::Lines | Kind::Json | Kind::OneOf | Kind::Group => {
                let rows = text.lines().count().clamp(2, 8);
                let hint = self.hint();
                html! {
                    textarea id=(id) name=(self.here) rows=(rows) required[required] autocomplete="off"
                        spellcheck="false" aria-describedby=[described] aria-invalid=[invalid] data-testid=(id) { (text) }
                    @if let Some(hint) = hint { p.help id={ (id) "-hint" } { (hint) } }
                }
            }
        }
    }

    /// What is saved never comes back to the browser.
    fn secret(&self) -> Markup {
        let (id, here) = (id(self.here), self.here);
        let is_stored = self.form.stored.pointer(here).is_some_and(|value| !kind::text(value).is_empty());
        let required = self.form.rules.is_required(here) && !is_stored;
        let described = self.described();
        let invalid = self.is_wrong.then_some("true");
        let shapes: Vec<_> = self.field["anyOf"].as_array().into_iter().flatten().collect();
        html! {
            @if shapes.len() > 1 {
                select.shape name={ "_shape" (here) } id={ (id) "-shape" }
                    aria-label={ "Where it is: " (self.label()) } {
                    @for (number, shape) in shapes.iter().enumerate() {
                        option value=(number) {
                            (shape["title"].as_str().or_else(|| kind::inner(shape)).unwrap_or("Text"))
                        }
                    }
                }
            }
            @if kind::has_lines(self.field) {
                textarea.secret id=(id) name=(here) rows="3" required[required] autocomplete="off" spellcheck="false"
                    aria-describedby=[described] aria-invalid=[invalid] data-secret data-testid=(id) {}
            } @else {
                input type="password" id=(id) name=(here) value="" required[required] autocomplete="new-password"
                    aria-describedby=[described] aria-invalid=[invalid] data-secret data-testid=(id);
            }
            @if is_stored {
                p.help id={ (id) "-hint" } data-testid={ (id) "-stored" } { "Stored; leave empty to keep it." }
                div.clear {
                    input type="checkbox" id={ (id) "-clear" } name={ "_clear" (here) } value="true";
                    label for={ (id) "-clear" } { "Forget the stored one" span.hidden { ": " (self.label()) } }
                }
            }
        }
    }

    fn label(&self) -> &str {
        self.field["title"].as_str().unwrap_or(self.here)
    }

    fn hint(&self) -> Option<&'static str> {
        match Kind::of(self.field) {
            Kind::List => Some("One per line."),
            Kind::Map => Some("One name=value per line."),
            Kind::Json => Some("As JSON."),
            _ => None,
        }
    }

    fn described(&self) -> Option<String> {
        let id = id(self.here);
        let is_stored = self.field["writeOnly"] == true
            && self.form.stored.pointer(self.here).is_some_and(|value| !kind::text(value).is_empty());
        let parts = [
            (self.field["description"].is_string(), "help"),
            (self.is_wrong, "error"),
            (is_stored || self.hint().is_some() && self.field["writeOnly"] != true, "hint"),
        ];
        let ids: Vec<_> = parts.iter().filter(|(has, _)| *has).map(|(_, part)| format!("{id}-{part}")).collect();
        (!ids.is_empty()).then(|| ids.join(" "))
    }
}

/// Presets have names for people.
fn label(choice: &str) -> &str {
    fill::presets().find(|(name, _)| *name == choice).map_or(choice, |(_, label)| label)
}

/// Of a list, which line: `Line 2: …`
fn at_field(fault: &Fault) -> String {
    let line = fault.pointer.rsplit_once('/').and_then(|(_, name)| name.parse::<usize>().ok());
    line.map_or_else(|| fault.message.clone(), |line| format!("Line {}: {}", line + 1, fault.message))
}

fn in_summary(fault: &Fault) -> String {
    let sentence = at_field(fault);
    // Some sentences begin with the label already.
    if sentence.starts_with(&fault.label) { sentence } else { format!("{}: {sentence}", fault.label) }
}

fn is_inside(pointer: &str, group: &str) -> bool {
    pointer.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
