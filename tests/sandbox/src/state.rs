//! What all faces share: the description of the provider, the mailboxes, the tokens, the faults.

use std::sync::{
    OnceLock,
    atomic::{AtomicI64, Ordering},
};

use time::{Duration, OffsetDateTime};

use crate::{config::Config, ews::Exchanges, faults::Faults, graph::Graph, mailbox::Mail, oauth::OAuth};

pub struct State {
    pub config: Config,
    pub mail: Mail,
    pub oauth: OAuth,
    pub faults: Faults,
    /// What EWS was asked and answered.
    pub ews: Exchanges,
    /// Uploads, delta links and running requests of Graph.
    pub graph: Graph,
    /// `https://localhost:PORT`, without a slash at the end; known when the socket is bound.
    pub base_url: OnceLock<String>,
    /// Seconds that this provider's clock is ahead.
    pub clock_skew: AtomicI64,
}

impl State {
    pub fn new(config: Config) -> Self {
        Self {
            mail: Mail::new(&config),
            oauth: OAuth::new(),
            faults: Faults::default(),
            ews: Exchanges::default(),
            graph: Graph::new(),
            base_url: OnceLock::new(),
            clock_skew: AtomicI64::new(0),
            config,
        }
    }

    pub fn base_url(&self) -> &str {
        self.base_url.get().map_or("", String::as_str)
    }

    /// This provider's clock.
    pub fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + Duration::seconds(self.clock_skew.load(Ordering::Relaxed))
    }

    /// May `who` read and change the mailbox of `address`? Owners, their delegates, and applications.
    pub fn may_open(&self, who: &Subject, address: &str) -> bool {
        match who {
            Subject::User(user) => user.eq_ignore_ascii_case(address) || self.config.is_delegate(user, address),
            Subject::App(_) => self.config.mailbox_exists(address),
        }
    }
}

/// Who a valid access token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Address of a person who consented.
    User(String),
    /// `client_id` of an application that came with its own credentials.
    App(String),
}

/// What a valid access token allows; [`OAuth::bearer`](crate::oauth::OAuth::bearer) finds it.
#[derive(Clone, Debug)]
pub struct Bearer {
    pub subject: Subject,
    pub client_id: String,
    /// Without the resource before them: `Mail.Read`, `EWS.AccessAsUser.All`, `IMAP.AccessAsUser.All`, or `mail`. Roles of
    /// an application stand here, too.
    pub scopes: Vec<String>,
    pub audience: Audience,
}

impl Bearer {
    /// Is one of these among the scopes? The scope `mail` stands for all.
    pub fn may(&self, scopes: &[&str]) -> bool {
        self.scopes.iter().any(|has| has == "mail" || scopes.iter().any(|wanted| has.eq_ignore_ascii_case(wanted)))
    }
}

/// Which resource a token is for. As at Microsoft, one token is never for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// `https://outlook.office365.com/…` scopes: IMAP, SMTP and EWS.
    Outlook,
    /// `https://graph.microsoft.com/…` scopes.
    Graph,
    /// The plain scope `mail`: every face takes it.
    Any,
}

impl Audience {
    pub fn serves(self, face: Self) -> bool {
        self == face || self == Self::Any
    }
}
