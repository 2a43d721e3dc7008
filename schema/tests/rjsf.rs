//! The schemas in a form library that nobody here wrote: react-jsonschema-form, from npm.

mod npm;

#[test]
fn react_jsonschema_form_shows_the_same_fields() {
    npm::check("rjsf");
}
