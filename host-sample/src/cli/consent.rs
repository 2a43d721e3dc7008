//! `consent`: Save's second half. A person signs in at the provider, once for both forms when they share a client.

use std::{
    env,
    io::{self, BufRead as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use oauth_mail_abi::{Account, Kind};
use serde_json::{Value, json};
use url::Url;

use super::state_line;
use crate::{
    failure::{Failure, Result},
    host::{Direction, Host},
    interrupt,
    listener::{Listener, Redirected},
    output::Output,
    progress::Progress,
};

#[derive(Args)]
pub struct Arguments {
    /// Settings file: {"plugin":{…},"incoming":{…},"outgoing":{…}}.
    settings: PathBuf,
    /// Open the page in $BROWSER, else with xdg-open.
    #[arg(long)]
    open: bool,
    /// Ask for consent even where there is one.
    #[arg(long)]
    again: bool,
    /// How long to wait for the person.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    patience: u64,
}

impl Arguments {
    pub fn settings(&self) -> &Path {
        &self.settings
    }
}

pub fn run(host: &Host, arguments: &Arguments, output: &Output) -> Result<()> {
    // With --again, a consent given for the first form serves the second one too.
    let mut asked = false;
    for direction in host.settings.directions() {
        let account = host.open(direction)?;
        let status = account.authenticate(&json!({"action": "status"}))?;
        let answer = if is_complete(&status) && (asked || !arguments.again) {
            status
        } else {
            asked = true;
            let patience = Duration::from_secs(arguments.patience);
            match host.settings.field(direction, "advanced")["grant"].as_str() {
                None | Some("authorization_code") => {
                    let redirect = redirect_url(host, direction)?;
                    consent_with(&account, &other(host, direction), &redirect, patience, |url| {
                        announce(url, &redirect, arguments.open, output);
                        Ok(())
                    })?
                    .answer
                }
                Some(_) => connect(&account, patience, output)?,
            }
        };
        output.say_lines(
            &state_line(direction, &answer),
            &json!({"event": "consent", "direction": direction.name(), "status": answer}),
        );
        account.close();
    }
    Ok(())
}

/// Signed in, and nothing that is needed was left out of what was asked for.
pub fn is_complete(status: &Value) -> bool {
    status["state"] == "authorized" && status["scopes"]["missing"].as_array().is_none_or(Vec::is_empty)
}

/// The other form, whose scopes the same window asks for.
fn other(host: &Host, direction: Direction) -> Vec<Value> {
    let others = host.settings.directions().into_iter().filter(|other| *other != direction);
    others.filter_map(|other| host.settings.form(other).ok()).collect()
}

/// `start` for this form and `also`; older libraries know one form at a time.
pub fn start_consent(account: &Account, also: &[Value]) -> Result<Value, oauth_mail_abi::Error> {
    if also.is_empty() {
        return account.authenticate(&json!({"action": "start"}));
    }
    match account.authenticate(&json!({"action": "start", "also": also})) {
        Err(error) if matches!(error.kind(), Kind::Misuse | Kind::Settings) => start_consent(account, &[]),
        answer => answer,
    }
}

pub struct Consented {
    /// The redirect as it came.
    pub redirect: Url,
    /// What `complete` answered.
    pub answer: Value,
}

/// `start`, a person, `complete`. `also`: forms that the same window asks for. `visit` brings the person to the URL and returns at once.
pub fn consent_with(
    account: &Account,
    also: &[Value],
    redirect: &Url,
    patience: Duration,
    visit: impl FnOnce(&str) -> Result<()>,
) -> Result<Consented> {
    // Before the person is sent away: a port that is taken must be known now.
    let listener = Listener::bind(redirect)?;
    let started = start_consent(account, also)?;
    let url = started["authorize_url"].as_str().ok_or_else(|| {
        Failure::other(format!("The library offers no page to consent on; it says {}.", started["state"]))
    })?;
    visit(url)?;
    let (redirect, window) = match listener {
        Some(listener) => {
            let redirected = listener.wait(patience)?;
            (redirected.url.clone(), Some(redirected))
        }
        None => (pasted()?, None),
    };
    let result = account.authenticate(&json!({"action": "complete", "redirect": redirect.as_str()}));
    if let Some(window) = window {
        show(window, &result);
    }
    let answer = result?;
    if answer["state"] != "authorized" {
        return Err(Failure::Consent(format!("The consent was not enough; the library says {}.", answer["state"])));
    }
    Ok(Consented { redirect, answer })
}

/// Grants without a redirect: a code to be entered on any device, or nobody's consent at all.
fn connect(account: &Account, patience: Duration, output: &Output) -> Result<Value> {
    let mut answer = account.authenticate(&json!({"action": "start"}))?;
    if answer["state"] == "device_code" {
        let text = |name: &str| answer[name].as_str().unwrap_or_default();
        output.say_lines(
            &format!("Open {} on any device and enter the code\n\n  {}\n", text("verification_uri"), text("user_code")),
            &json!({"event": "device_code", "device": answer}),
        );
    }
    let end = Instant::now() + patience;
    while answer["state"] == "device_code" {
        let interval = Duration::from_secs(answer["interval_seconds"].as_u64().unwrap_or(5));
        if Instant::now() + interval > end {
            return Err(Failure::Consent("Nobody has entered the code in time. Run consent again.".into()));
        }
        pause(interval)?;
        answer = account.authenticate(&json!({"action": "poll"}))?;
    }
    Ok(answer)
}

/// Sleeps, and wakes for Ctrl-C.
fn pause(wait: Duration) -> Result<()> {
    let end = Instant::now() + wait;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        interrupt::check()?;
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}

pub fn redirect_url(host: &Host, direction: Direction) -> Result<Url> {
    let text = host.settings.field(direction, "redirect_url").as_str().unwrap_or_default();
    text.parse().map_err(|error| Failure::settings(format!("The Redirect URL \"{text}\" cannot be read: {error}.")))
}

fn show(window: Redirected, result: &Result<Value, oauth_mail_abi::Error>) {
    match result {
        Ok(_) => window.answer("The mailbox is connected", "You can close this window and go back to the helpdesk."),
        Err(error) => window.answer("The mailbox is not connected", &error.to_string()),
    }
}

fn announce(url: &str, redirect: &Url, open: bool, output: &Output) {
    output.say_lines(
        &format!("Open this page and sign in:\n\n  {url}\n\nWaiting at {redirect}"),
        &json!({"event": "consent_required", "authorize_url": url, "redirect_url": redirect.as_str()}),
    );
    if open && let Err(error) = browse(url) {
        Progress::above(&format!("No browser could be opened ({error}); please open the page yourself."));
    }
}

fn browse(url: &str) -> io::Result<()> {
    let program = env::var_os("BROWSER").filter(|name| !name.is_empty()).unwrap_or_else(|| "xdg-open".into());
    let mut child =
        Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    thread::spawn(move || child.wait());
    Ok(())
}

/// For a redirect URL that is a web page of the helpdesk, which this program is not.
fn pasted() -> Result<Url> {
    Progress::above("After signing in, paste the whole address of the page you end on, and press Enter:");
    let (sender, receiver) = std::sync::mpsc::channel();
    // Reading standard input cannot be interrupted; waiting for a thread that reads can.
    thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = loop {
        interrupt::check()?;
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => break line,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break String::new(),
        }
    };
    line.trim().parse().map_err(|_| {
        Failure::Consent("That is not an address. Run consent again and paste the whole address line.".into())
    })
}
