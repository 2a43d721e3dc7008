//! `check`: the first half of Save. Every fault of both forms at once; no network.

use serde_json::json;

use crate::{
    failure::{Failure, Result},
    host::Host,
    output::Output,
};

pub fn run(host: &Host, output: &Output) -> Result<()> {
    let mut sentences = Vec::new();
    for direction in host.settings.directions() {
        let name = direction.name();
        match host.open(direction) {
            Ok(account) => {
                output.say(&format!("{name}: settings are fine"), &json!({"event": "checked", "direction": name}));
                account.close();
            }
            Err(failure) if failure.exit_code() == 2 => {
                sentences.extend(failure.sentences().into_iter().map(|sentence| format!("{name}: {sentence}")));
            }
            Err(failure) => return Err(failure),
        }
    }
    if sentences.is_empty() { Ok(()) } else { Err(Failure::Settings(sentences)) }
}
