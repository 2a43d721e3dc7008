//! The second opinion: ajv in strict mode, from npm.

mod npm;

#[test]
fn ajv_in_strict_mode_agrees_on_every_example() {
    npm::check("ajv");
}
