//! `run`: fetches at the interval of the settings until Ctrl-C. What waiting cures is waited for.

use std::{path::Path, time::Duration};

use clap::Args;
use oauth_mail_abi::Account;
use serde_json::json;

use super::fetch::{self, Totals};
use crate::{
    deliver::{Delivery, To},
    failure::{Failure, Result},
    helpdesk::Helpdesk,
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
    desk: super::Desk,
    /// Hand each message to this command instead of the sample helpdesk: the raw message on standard input; exit code 0
    /// imported, 65–70 and 77 refused, 75 and anything else tried again.
    #[arg(long, value_name = "COMMAND", conflicts_with = "deliver_url")]
    deliver: Option<String>,
    /// POST each message (message/rfc822) to this URL instead: 2xx imported, 4xx refused, 5xx and 429 tried again.
    #[arg(long, value_name = "URL")]
    deliver_url: Option<String>,
    /// End after this many rounds.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.desk.settings
    }
}

/// Where the mail goes.
enum Destination {
    Here(Helpdesk),
    Elsewhere(Delivery),
}

impl Destination {
    fn round(&mut self, account: &Account, host: &Host, output: &Output) -> Result<()> {
        let mut totals = Totals::default();
        match self {
            Self::Elsewhere(delivery) => {
                if delivery.round(account, output)? == 0 {
                    fetch::nothing(output);
                }
                return Ok(());
            }
            Self::Here(helpdesk) => {
                let progress = output.progress();
                round::run(account, helpdesk, host.settings.new_requests(), progress, |batch, imported| {
                    totals.report(batch, imported, output);
                })?;
            }
        }
        if totals.any() {
            totals.say(output)
        } else {
            fetch::nothing(output)
        }
        Ok(())
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    let account = host.open(Direction::Incoming)?;
    let to = match (&arguments.deliver, &arguments.deliver_url) {
        (Some(command), _) => Some(To::Command(command.clone())),
        (None, Some(url)) => Some(To::url(url.clone())),
        (None, None) => None,
    };
    let mut destination = match to {
        Some(to) => Destination::Elsewhere(Delivery::new(to, &host.settings.deliveries())?),
        None => Destination::Here(arguments.desk.helpdesk(&host.settings)?),
    };
    let minutes = host.settings.field(Direction::Incoming, "fetch_interval_minutes").as_u64();
    let interval = Duration::from_secs(60 * minutes.unwrap_or(INTERVAL_MINUTES_DEFAULT).max(1));
    let mut rounds = 0;
    while !interrupt::requested() {
        let mut wait = interval;
        match destination.round(&account, host, output) {
            Ok(()) => {}
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
