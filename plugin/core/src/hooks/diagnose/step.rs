//! One step after the other: its share of the time, what stops it, and how it is told.

use serde_json::{Value, json};

use crate::{
    clock::Deadline,
    error::{Error, Kind, Who},
    guard, limits,
    log::redact,
    seam,
    secret::Secret,
    session::Session,
    settings::Account,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// Works, but will not for long, or not as the settings mean it.
    Warning,
    Failed,
    /// A step before it failed.
    Blocked,
    /// Nobody asked for it, or there is nothing to do.
    Unneeded,
}

/// What a step found.
#[derive(Debug)]
pub struct Finding {
    pub status: Status,
    pub saw: String,
    pub means: String,
    /// Who must act; with `remedy`.
    pub who: Option<String>,
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(saw: impl Into<String>, means: impl Into<String>) -> Self {
        Self { status: Status::Ok, saw: saw.into(), means: means.into(), who: None, remedy: None }
    }

    pub fn unneeded(saw: impl Into<String>) -> Self {
        Self { status: Status::Unneeded, ..Self::ok(saw, "") }
    }

    pub fn warning(
        saw: impl Into<String>,
        means: impl Into<String>,
        who: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (who, remedy) = (Some(who.into()), Some(remedy.into()));
        Self { status: Status::Warning, who, remedy, ..Self::ok(saw, means) }
    }

    /// `saw` empty: the server's own words, or that there were none.
    pub fn failed(saw: impl Into<String>, error: &Error, account: &Account) -> Self {
        let mut saw = saw.into();
        if let Some(code) = error.provider_code_text() {
            let code = words(code);
            saw = if saw.is_empty() { code } else { format!("{saw}; {code}") };
        }
        if saw.is_empty() {
            saw = "no useful answer".to_owned();
        }
        let (who, remedy) = (actor(error, account), remedy(error));
        let remedy = remedy.unwrap_or_else(|| "Try again; if it stays so, report it with this transcript.".to_owned());
        let (who, remedy) = (Some(who), Some(remedy));
        Self { status: Status::Failed, who, remedy, ..Self::ok(saw, error.message()) }
    }

    pub fn by(mut self, who: &str) -> Self {
        self.who = Some(who.to_owned());
        self
    }

    pub fn remedied(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }

    /// Adds a warning to a step that is fine so far.
    pub fn but(mut self, means: &str, who: impl Into<String>, remedy: &str) -> Self {
        if self.status == Status::Ok {
            self.status = Status::Warning;
            (self.who, self.remedy) = (Some(who.into()), Some(remedy.to_owned()));
        } else if let Some(first) = &mut self.remedy {
            *first = format!("{first} {remedy}");
        }
        self.means = format!("{} {means}", self.means).trim().to_owned();
        self
    }
}

pub const KEEPER: &str = "whoever keeps these settings";
pub const NETWORK: &str = "the administrator of this machine's network";
pub const SERVER: &str = "the administrator of the mail server";
pub const PROVIDER: &str = "the administrator at the provider";

/// Who acts on a refusal stands in the error, with the remedy that names them.
fn actor(error: &Error, account: &Account) -> String {
    let is_refusal =
        matches!(error.kind(), Kind::Settings | Kind::ConsentRequired | Kind::AdminRequired | Kind::Refused);
    match error.who_acts() {
        Who::MailboxOwner if is_refusal => account.consenting_user.clone(),
        Who::TenantAdministrator if is_refusal => PROVIDER.to_owned(),
        Who::HelpdeskAdministrator if is_refusal => KEEPER.to_owned(),
        _ => who(error.kind(), account),
    }
}

fn who(kind: Kind, account: &Account) -> String {
    match kind {
        Kind::Settings | Kind::Misuse | Kind::Unsupported => KEEPER.to_owned(),
        Kind::ConsentRequired => account.consenting_user.clone(),
        Kind::AdminRequired | Kind::Refused => PROVIDER.to_owned(),
        Kind::Throttled | Kind::Transient => "nobody at first; if it stays so, ".to_owned() + SERVER,
        Kind::TooLarge | Kind::ServerMisbehaved => SERVER.to_owned(),
        Kind::Closed | Kind::Internal => "whoever maintains this library".to_owned(),
    }
}

/// What came from outside: one line, bounded, and nothing in it that looks like a credential.
pub fn words(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    redact(line.trim()).chars().take(limits::PROVIDER_TEXT_MAX).collect()
}

fn remedy(error: &Error) -> Option<String> {
    let labels: Vec<&str> = error.faults().iter().map(|fault| fault.label.as_str()).collect();
    if labels.is_empty() {
        return error.to_json()["remedy"].as_str().map(str::to_owned);
    }
    // The table knows the cure of many a refusal: the wrong one of two values, a date that has passed.
    let correct = format!("Correct {} in these settings.", labels.join(", "));
    Some(error.remedy_text().map_or_else(|| correct.clone(), |cure| format!("{correct} {cure}")))
}

struct Step {
    name: &'static str,
    finding: Finding,
    took_ms: u64,
    /// The step without which this one could not be.
    root: Option<&'static str>,
}

/// The steps so far.
pub struct Walk<'a> {
    pub session: &'a Session,
    deadline: Deadline,
    /// Steps that still want their share of the time.
    ahead: u32,
    steps: Vec<Step>,
    /// Wherever these came back to us, they are cut.
    secrets: Vec<Secret>,
}

impl<'a> Walk<'a> {
    pub fn new(session: &'a Session, deadline: Deadline, steps: u32) -> Self {
        let secrets = session.account.client.client_secret.iter().cloned().collect();
        Self { session, deadline, ahead: steps, steps: Vec::new(), secrets }
    }

    pub fn account(&self) -> &'a Account {
        &self.session.account
    }

    pub fn keep_secret(&mut self, secret: &Secret) {
        self.secrets.push(secret.clone());
    }

    /// Runs a step, unless one of `needs` has no good end. A panic in it is its finding. `None`: no value came of it.
    pub fn step<T>(
        &mut self,
        name: &'static str,
        needs: &[&'static str],
        work: impl FnOnce(Deadline) -> (Finding, Option<T>),
    ) -> Option<T> {
        // Three shares for each: most steps are done in no time and leave theirs to the later ones.
        let share = self.deadline.left() / self.ahead.div_ceil(3).max(1);
        self.ahead = self.ahead.saturating_sub(1);
        if let Some(root) = self.root_of(needs) {
            let finding =
                Finding { status: Status::Blocked, ..Finding::ok(format!("skipped because {root} failed"), "") };
            self.steps.push(Step { name, finding, took_ms: 0, root: Some(root) });
            return None;
        }
        let begun = seam::instant();
        let outcome = match self.deadline.check(&format!("the step {name}")) {
            Ok(_) => guard::guarded(name, || Ok(work(self.deadline.at_most(share)))),
            Err(late) => Err(late),
        };
        let (finding, value) = outcome.unwrap_or_else(|e| (Finding::failed("", &e, self.account()), None));
        let took_ms = begun.elapsed().as_millis() as u64;
        self.steps.push(Step { name, finding, took_ms, root: None });
        value
    }

    pub fn is_healthy(&self) -> bool {
        self.steps.iter().all(|step| !matches!(step.finding.status, Status::Failed | Status::Blocked))
    }

    /// What to do first, in one sentence.
    pub fn summary(&self) -> String {
        let first = |status| self.steps.iter().find(|step| step.finding.status == status);
        let Some(step) = first(Status::Failed).or_else(|| first(Status::Warning)) else {
            return "Everything works; nobody needs to do anything.".to_owned();
        };
        let (who, remedy) = (step.finding.who.as_deref(), step.finding.remedy.as_deref());
        let begin = if self.is_healthy() { "It works; to keep it so" } else { "To act now" };
        let text = format!("{begin}: {} — {}", who.unwrap_or(KEEPER), remedy.unwrap_or(&step.finding.means));
        self.clean(&text)
    }

    pub fn into_json(self) -> Value {
        let told = |text: &str| self.clean(text);
        let steps = self.steps.iter().map(|step| {
            let Finding { status, saw, means, who, remedy } = &step.finding;
            json!({
                "step": step.name,
                "status": match status {
                    Status::Ok => "ok",
                    Status::Warning => "warning",
                    Status::Failed => "failed",
                    Status::Blocked | Status::Unneeded => "skipped",
                },
                "saw": told(saw),
                "means": told(means),
                "who": who.as_deref().map(told),
                "remedy": remedy.as_deref().map(told),
                "took_ms": step.took_ms,
            })
        });
        steps.collect()
    }

    fn root_of(&self, needs: &[&'static str]) -> Option<&'static str> {
        needs.iter().find_map(|need| {
            let step = self.steps.iter().find(|step| step.name == *need)?;
            match step.finding.status {
                Status::Failed => Some(step.name),
                Status::Blocked => step.root,
                _ => None,
            }
        })
    }

    fn clean(&self, text: &str) -> String {
        let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Shorter ones are no secrets, and would cut innocent words.
        for secret in self.secrets.iter().filter(|secret| secret.expose().len() >= 4) {
            text = text.replace(secret.expose(), "[redacted]");
        }
        text
    }
}
