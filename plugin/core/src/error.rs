//! What went wrong, said so that the person who must act knows what to do.
//!
//! A [`Kind`] is named by what the host should do. Every error carries one sentence, the remedy, the provider's own
//! words verbatim, and the source chain for the log. No secret is ever put into any of them.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the host should do about it. The numbers cross the ABI and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum Kind {
    /// A field of the settings is wrong; `faults` says which.
    Settings = 1,
    /// A person must open the consent window (again).
    ConsentRequired = 2,
    /// An administrator of the provider must change something.
    AdminRequired = 3,
    /// The mailbox or the protocol was denied to this identity.
    Refused = 4,
    /// The provider asks to slow down; wait `retry_after_seconds`, or back off.
    Throttled = 5,
    /// Nothing is wrong that waiting does not cure: DNS, reset, timeout, 5xx.
    Transient = 6,
    /// A message or an answer is larger than the limit that protects the host.
    TooLarge = 7,
    /// The server broke its protocol.
    ServerMisbehaved = 8,
    /// The server, or this library, does not have what was asked for.
    Unsupported = 9,
    /// The host called a hook with something that cannot be meant.
    Misuse = 10,
    /// The handle was closed.
    Closed = 11,
    /// A bug of this library. The handle is closed; others live on.
    Internal = 12,
}

impl Kind {
    /// Stable name, used in JSON documents and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::ConsentRequired => "consent_required",
            Self::AdminRequired => "admin_required",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::TooLarge => "too_large",
            Self::ServerMisbehaved => "server_misbehaved",
            Self::Unsupported => "unsupported",
            Self::Misuse => "misuse",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Who {
    /// Who signs in for the mailbox, or owns it.
    #[serde(rename = "mailbox owner")]
    MailboxOwner,
    /// Who administers the organisation at the provider, or its mail server.
    #[serde(rename = "tenant administrator")]
    TenantAdministrator,
    /// Who fills in the "Mail Server Settings".
    #[serde(rename = "helpdesk administrator")]
    HelpdeskAdministrator,
    /// Waiting is enough.
    #[serde(rename = "nobody")]
    Nobody,
}

impl Who {
    /// As the sentences call them.
    pub fn name(self) -> &'static str {
        match self {
            Self::MailboxOwner => "mailbox owner",
            Self::TenantAdministrator => "tenant administrator",
            Self::HelpdeskAdministrator => "helpdesk administrator",
            Self::Nobody => "nobody",
        }
    }

    /// Who usually acts on errors of this kind.
    fn usually(kind: Kind) -> Self {
        match kind {
            Kind::ConsentRequired => Self::MailboxOwner,
            Kind::AdminRequired | Kind::Refused => Self::TenantAdministrator,
            Kind::Throttled | Kind::Transient => Self::Nobody,
            Kind::Settings
            | Kind::TooLarge
            | Kind::ServerMisbehaved
            | Kind::Unsupported
            | Kind::Misuse
            | Kind::Closed
            | Kind::Internal => Self::HelpdeskAdministrator,
        }
    }
}

/// What a failure speaks of. It is set where the error is made; nothing guesses it from display text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// One message: others of the same folder are not concerned.
    Item,
    /// One folder: others of the same mailbox are not concerned.
    Folder,
    /// The mailbox, its owner's rights or its quota.
    Mailbox,
    /// The way to the server: name, TCP, TLS, a connection that ended.
    Connection,
    /// The server itself: it is busy, down or throttles.
    Server,
    /// This machine: memory, temporary files, file descriptors, threads, the store.
    Host,
    /// The evidence does not tell.
    #[default]
    Unknown,
}

/// One wrong field of a settings document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// The label that the form shows for it.
    pub label: String,
    /// One sentence: what is wrong and what would be right.
    pub message: String,
}

#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    about: About,
    status: Option<u16>,
    code: Option<String>,
    message: String,
    remedy: Option<String>,
    who: Option<Who>,
    link: Option<String>,
    needs_admin_consent: bool,
    provider_code: Option<String>,
    correlation: Option<String>,
    retry_after: Option<Duration>,
    unwritten: bool,
    faults: Vec<Fault>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// `message` is one sentence for the person who must act. Never put a secret or a body into it.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            about: About::Unknown,
            status: None,
            code: None,
            message: message.into(),
            remedy: None,
            who: None,
            link: None,
            needs_admin_consent: false,
            provider_code: None,
            correlation: None,
            retry_after: None,
            unwritten: false,
            faults: Vec::new(),
            source: None,
        }))
    }

    /// All faults of a settings document at once.
    pub fn settings(faults: Vec<Fault>) -> Self {
        let message = match faults.as_slice() {
            [one] => format!("{}: {}", one.label, one.message),
            many => format!("{} settings need attention.", many.len()),
        };
        let mut error = Self::new(Kind::Settings, message);
        error.0.faults = faults;
        error
    }

    /// Another sentence in place of the first.
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// What the person should do, in one sentence.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Who should do it, where it is not who usually acts on this kind.
    pub fn who(mut self, who: Who) -> Self {
        self.0.who = Some(who);
        self
    }

    /// Where the vendor says more.
    pub fn link(mut self, link: impl Into<String>) -> Self {
        self.0.link = Some(link.into());
        self
    }

    /// An administrator must consent for the organisation before anybody else can.
    pub(crate) fn admin_consent(mut self) -> Self {
        self.0.needs_admin_consent = true;
        self
    }

    pub(crate) fn needs_admin_consent(&self) -> bool {
        self.0.needs_admin_consent
    }

    /// The provider's own code or answer line, verbatim (no secrets: never a request, a URL query or a body).
    pub fn provider_code(mut self, code: impl Into<String>) -> Self {
        self.0.provider_code = Some(code.into());
        self
    }

    /// What the failure speaks of.
    pub fn with_about(mut self, about: About) -> Self {
        self.0.about = about;
        self
    }

    /// The same, unless whoever made the error knew better.
    pub fn or_about(self, about: About) -> Self {
        if self.0.about == About::Unknown { self.with_about(about) } else { self }
    }

    /// The numeric status that the protocol gave: of HTTP, of one part of a batch, or of SMTP.
    pub fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// The protocol's machine-readable code alone: an IMAP response code without brackets, an EWS ResponseCode, the `code` of
    /// a Graph error, an enhanced status code of SMTP. [`Error::provider_code`] is for people.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Trace or correlation ids as the provider gave them.
    pub fn correlation(mut self, ids: impl Into<String>) -> Self {
        self.0.correlation = Some(ids.into());
        self
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    pub fn source_error(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The request that failed was certainly not written: nothing can have come of it.
    pub fn unwritten(mut self) -> Self {
        self.0.unwritten = true;
        self
    }

    /// Puts `prefix` before each fault's pointer: from a pointer into a form to one into the document around it.
    pub fn under(mut self, prefix: &str) -> Self {
        for fault in &mut self.0.faults {
            fault.pointer.insert_str(0, prefix);
        }
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn about(&self) -> About {
        self.0.about
    }

    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Is the protocol's code one of these? Compared without regard to case.
    pub fn has_code(&self, codes: &[&str]) -> bool {
        self.code().is_some_and(|code| codes.iter().any(|one| one.eq_ignore_ascii_case(code)))
    }

    pub fn faults(&self) -> &[Fault] {
        &self.0.faults
    }

    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    pub fn who_acts(&self) -> Who {
        self.0.who.unwrap_or_else(|| Who::usually(self.0.kind))
    }

    pub fn link_text(&self) -> Option<&str> {
        self.0.link.as_deref()
    }

    pub fn correlation_text(&self) -> Option<&str> {
        self.0.correlation.as_deref()
    }

    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub fn provider_code_text(&self) -> Option<&str> {
        self.0.provider_code.as_deref()
    }

    pub fn is_unwritten(&self) -> bool {
        self.0.unwritten
    }

    /// Is one message at fault, and no other?
    pub fn is_of_item(&self) -> bool {
        self.0.about == About::Item
    }

    /// Is one folder at fault, and no other?
    pub fn is_of_folder(&self) -> bool {
        self.0.about == About::Folder
    }

    /// Is this machine at fault?
    pub fn is_of_host(&self) -> bool {
        self.0.about == About::Host
    }

    /// Will the same call succeed later without anybody doing anything?
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, Kind::Transient | Kind::Throttled)
    }

    /// The document that crosses the ABI.
    pub fn to_json(&self) -> Value {
        let inner = &*self.0;
        let mut chain = Vec::new();
        let mut source = StdError::source(self);
        while let Some(error) = source.take() {
            chain.push(error.to_string());
            source = error.source();
        }
        json!({
            "kind": inner.kind.name(),
            "message": inner.message,
            "remedy": inner.remedy,
            "who": self.who_acts().name(),
            "link": inner.link,
            "provider_code": inner.provider_code,
            "about": inner.about,
            "status": inner.status,
            "code": inner.code,
            "correlation": inner.correlation,
            "retry_after_seconds": inner.retry_after.map(|wait| wait.as_secs()),
            "faults": inner.faults.iter()
                .map(|fault| json!({"pointer": fault.pointer, "label": fault.label, "message": fault.message}))
                .collect::<Vec<_>>(),
            "chain": chain,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(code) = &self.0.provider_code {
            write!(f, " [{code}]")?;
        }
        if let Some(remedy) = &self.0.remedy {
            write!(f, " {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind.name())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
