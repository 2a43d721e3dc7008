//! `revoke`: takes back the consent at the provider and forgets the tokens.

use serde_json::json;

use super::state_line;
use crate::{failure::Result, host::Host, output::Output};

pub fn run(host: &Host, output: &Output) -> Result<()> {
    for direction in host.settings.directions() {
        let account = host.open(direction)?;
        let answer = account.authenticate(&json!({"action": "revoke"}))?;
        output.say(
            &state_line(direction, &answer),
            &json!({"event": "revoked", "direction": direction.name(), "status": answer}),
        );
        account.close();
    }
    Ok(())
}
