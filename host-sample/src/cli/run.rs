//! `run`: fetches at the interval of the settings until Ctrl-C. What waiting cures is waited for.

use std::{path::Path, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    Desk,
    fetch::{self, Totals},
};
use crate::{
    failure::{Failure, Result},
    host::{Direction, Host},
    interrupt,
    output::Output,
    round,
};

/// As the form pre-fills it.
const INTERVAL_MINUTES_DEFAULT: u64 = 5;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    desk: Desk,
    /// End after this many rounds.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.desk.settings
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let account = host.open(Direction::Incoming)?;
    let mut helpdesk = arguments.desk.helpdesk(&host.settings)?;
    let minutes = host.settings.field(Direction::Incoming, "fetch_interval_minutes").as_u64();
    let interval = Duration::from_secs(60 * minutes.unwrap_or(INTERVAL_MINUTES_DEFAULT).max(1));
    let mut rounds = 0;
    while !interrupt::requested() {
        let mut totals = Totals::default();
        let round =
            round::run(&account, &mut helpdesk, host.settings.new_requests(), output.progress(), |batch, imported| {
                totals.report(batch, imported, output);
            });
        let mut wait = interval;
        match round {
            Ok(()) if totals.any() => totals.say(output),
            Ok(()) => fetch::nothing(output),
            Err(Failure::Hook(error)) if error.is_transient() => {
                wait = wait.max(Duration::from_secs(error.retry_after_seconds().unwrap_or(0)));
                output.failure(&Failure::Hook(error));
            }
            Err(failure) => return Err(failure),
        }
        rounds += 1;
        if arguments.rounds.is_some_and(|most| rounds >= most) {
            break;
        }
        output.say(
            &format!("next fetch in {} minutes", wait.as_secs().div_ceil(60)),
            &json!({"event": "waiting", "seconds": wait.as_secs()}),
        );
        interrupt::sleep(wait);
    }
    account.close();
    Ok(())
}
