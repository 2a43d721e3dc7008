//! `status`: in which state the accounts are; exit code 3 when one of them needs a person.

use serde_json::json;

use super::state_line;
use crate::{
    failure::{Failure, Result},
    host::Host,
    output::Output,
};

pub fn run(host: &Host, output: &Output) -> Result<()> {
    let mut needed = Vec::new();
    for direction in host.settings.directions() {
        let account = host.open(direction)?;
        let answer = account.authenticate(&json!({"action": "status"}))?;
        output.say(
            &state_line(direction, &answer),
            &json!({"event": "status", "direction": direction.name(), "status": answer}),
        );
        if answer["state"] != "authorized" {
            needed.push(direction.name());
        }
        account.close();
    }
    if needed.is_empty() {
        return Ok(());
    }
    Err(Failure::Consent(format!(
        "Nobody has consented for {} mail yet, or the consent ended. Run `host-sample consent` with the same settings.",
        needed.join(" and ")
    )))
}
