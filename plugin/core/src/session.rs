//! Account and token become an open transport. The one place that re-authenticates: once, and then it says why not.

use crate::{
    clock::{Clock, Deadline},
    error::{Error, Kind, Result},
    log::Logger,
    net::Net,
    oauth::{AccessToken, Grants, Scopes},
    settings::{Account, Direction, GrantType, Protocol},
    transport::{Inbox, Login, OpenError, Outbox, Transcript, ews, graph, imap, smtp},
};

/// What a look into the sent folder for one Message-ID found.
#[derive(Debug)]
pub struct Found {
    pub folder: String,
    pub server: String,
    /// Messages with this Message-ID.
    pub copies: usize,
}

/// One mailbox in one direction, ready to connect.
pub struct Session {
    pub account: Account,
    pub net: Net,
    pub grants: Grants,
    pub clock: Clock,
    pub log: Logger,
    transcript: Transcript,
}

impl Session {
    pub fn new(account: Account, net: Net, grants: Grants, clock: Clock, log: Logger) -> Self {
        let transcript = Transcript::new(account.email_debug.then(|| log.clone()));
        Self { account, net, grants, clock, log, transcript }
    }

    /// Opens the mailbox for reading.
    ///
    /// # Errors
    /// `ConsentRequired` / `AdminRequired` from the token, `Refused` when the server denies a fresh token, `Transient` /
    /// `Throttled` when waiting cures it, `Unsupported` for a protocol that cannot be read with.
    pub fn open_inbox(&self, deadline: Deadline) -> Result<Box<dyn Inbox>> {
        self.authenticated(deadline, |login| self.inbox(login, deadline))
    }

    /// Opens the connection for sending. Errors as in [`Session::open_inbox`].
    pub fn open_outbox(&self, deadline: Deadline) -> Result<Box<dyn Outbox>> {
        self.authenticated(deadline, |login| self.outbox(login, deadline))
    }

    /// Looks for a Message-ID in the sent folder.
    ///
    /// # Errors
    /// `Unsupported` when nobody knows where the sent folder is; else as [`Session::open_inbox`].
    pub fn find_sent(&self, message_id: &str, deadline: Deadline) -> Result<Found> {
        if let Protocol::Ews { url } | Protocol::Graph { base_url: url } = &self.account.protocol {
            let found = self.open_inbox(deadline)?.find_sent(message_id, deadline)?;
            let (folder, copies) = found.unwrap_or_default();
            return Ok(Found { folder, server: url.host_str().unwrap_or_default().to_owned(), copies });
        }
        let server = self.account.sending.as_ref().and_then(|sending| sending.sent_folder_server.clone());
        let Some(server) = server else {
            return Err(Error::new(Kind::Unsupported, "It is not known where the sent folder is.")
                .remedy("Name the IMAP server under advanced › Sent Folder Server."));
        };
        let host = server.host.clone();
        let account = Account { protocol: Protocol::Imap { server }, ..self.account.clone() };
        let mut inbox = self.authenticated(deadline, |login| {
            // The mailbox, whoever signs in at the SMTP server.
            let login = Login { username: &account.username, token: login.token };
            imap::open(&account, &self.net, &login, &self.transcript, &self.log, deadline)
        })?;
        match inbox.find_sent(message_id, deadline)? {
            Some((folder, copies)) => Ok(Found { folder, server: host, copies }),
            None => Err(Error::new(Kind::Unsupported, format!("{} has no sent folder at {host}.", account.username))
                .remedy("Look for the Message-ID where the server keeps what was sent.")),
        }
    }

    /// Opens the inbox with a token that is not stored yet: the proof that ends a consent.
    pub fn try_inbox(&self, token: &AccessToken, deadline: Deadline) -> Result<Box<dyn Inbox>> {
        self.inbox(&self.login(token), deadline).map_err(|refusal| self.explain(refusal, token))
    }

    /// As [`Session::try_inbox`], for sending.
    pub fn try_outbox(&self, token: &AccessToken, deadline: Deadline) -> Result<Box<dyn Outbox>> {
        self.outbox(&self.login(token), deadline).map_err(|refusal| self.explain(refusal, token))
    }

    fn inbox(&self, login: &Login<'_>, deadline: Deadline) -> Result<Box<dyn Inbox>, OpenError> {
        match &self.account.protocol {
            Protocol::Imap { .. } => imap::open(&self.account, &self.net, login, &self.transcript, &self.log, deadline),
            Protocol::Ews { .. } => ews::open(&self.account, &self.net, login, &self.transcript, deadline),
            Protocol::Graph { .. } => graph::open(&self.account, &self.net, login, &self.transcript, deadline),
            other => Err(cannot("read", other).into()),
        }
    }

    fn outbox(&self, login: &Login<'_>, deadline: Deadline) -> Result<Box<dyn Outbox>, OpenError> {
        match &self.account.protocol {
            Protocol::Smtp { .. } => smtp::open(&self.account, &self.net, login, &self.transcript, &self.log, deadline),
            Protocol::Ews { .. } => ews::open_outbox(&self.account, &self.net, login, &self.transcript, deadline),
            Protocol::Graph { .. } => graph::open_outbox(&self.account, &self.net, login, &self.transcript, deadline),
            other => Err(cannot("sent", other).into()),
        }
    }

    fn login<'a>(&'a self, token: &'a AccessToken) -> Login<'a> {
        Login { username: self.account.login_user(), token: token.secret() }
    }

    /// A refused login is answered with one forced refresh and one new connection; a second refusal is final. How often
    /// a refresh may be forced is bounded by the grants.
    fn authenticated<T>(&self, deadline: Deadline, open: impl Fn(&Login<'_>) -> Result<T, OpenError>) -> Result<T> {
        let token = self.grants.access_token(&self.account, &self.net, deadline)?;
        let refusal = match open(&self.login(&token)) {
            Ok(transport) => return Ok(transport),
            Err(OpenError::LoginRefused(refusal)) => refusal,
            Err(other) => return Err(self.explain(other, &token)),
        };
        self.log.info(format_args!("The server refused the token ({refusal}); asking for a fresh one, once."));
        let fresh = self.grants.replace(&self.account, &self.net, &token, deadline)?;
        open(&self.login(&fresh)).map_err(|refusal| self.explain(refusal, &fresh))
    }

    fn explain(&self, refusal: OpenError, token: &AccessToken) -> Error {
        match refusal {
            OpenError::Other(error) => error,
            OpenError::LoginRefused(error) => {
                let scopes = Scopes::compare(&self.account, token.granted());
                let mut refused = scopes.explain(&self.account).unwrap_or_else(|| self.not_let_in());
                if let Some(code) = error.provider_code_text() {
                    refused = refused.provider_code(code);
                }
                if let Some(link) = error.link_text() {
                    refused = refused.link(link);
                }
                refused.source_error(error)
            }
        }
    }
}

impl Session {
    /// Token owner and login are two values: when they differ, the right of one on the other is what is missing.
    fn not_let_in(&self) -> Error {
        let (user, owner) = (self.account.login_user(), &self.account.consenting_user);
        if self.account.client.grant == GrantType::ClientCredentials {
            let message = format!("The mail server does not accept the token for {user}.");
            if matches!(self.account.protocol, Protocol::Ews { .. }) {
                return Error::new(Kind::Refused, message).remedy(format!(
                    "Have the administrator give the application full_access_as_app of Office 365 Exchange Online or, for \
                     {user} alone, the role Application EWS.AccessAsApp (RBAC for Applications)."
                ));
            }
            return Error::new(Kind::Refused, message).remedy(format!(
                "Have the administrator give the application the permission for this mail protocol and for the mailbox \
                 {user} (at Microsoft: New-ServicePrincipal with the object id of the enterprise application, then \
                 Add-MailboxPermission with FullAccess)."
            ));
        }
        if user.eq_ignore_ascii_case(owner) {
            return Error::new(Kind::Refused, format!("The mail server does not accept the token for {user}.")).remedy(
                format!(
                    "Check that {user} is the account that consented or one it may act for, that the scopes name this \
                     mail protocol, and that the protocol is switched on for the mailbox."
                ),
            );
        }
        let message = format!("The mail server does not accept the token of {owner} for {user}.");
        let protocol = name(&self.account.protocol);
        let speaks_smtp = matches!(self.account.protocol, Protocol::Smtp { .. });
        Error::new(Kind::Refused, message).remedy(match self.account.direction {
            Direction::Outgoing if !speaks_smtp => format!(
                "An administrator of the mail server lets {owner} open the mailbox {user} and send as it (Exchange: \
                 Add-MailboxPermission with FullAccess, Add-RecipientPermission with SendAs)."
            ),
            Direction::Incoming => format!(
                "An administrator of the mail server gives {owner} full access to the mailbox {user} (Exchange: \
                 Add-MailboxPermission with FullAccess) and checks that {protocol} is switched on for it."
            ),
            Direction::Outgoing => format!(
                "Check who signs in: some servers want {owner} as SMTP User under advanced and take {user} as sender \
                 only; else an administrator of the mail server lets {owner} act for {user}."
            ),
        })
    }
}

fn name(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Imap { .. } => "IMAP",
        Protocol::Smtp { .. } => "SMTP",
        Protocol::Ews { .. } => "EWS",
        Protocol::Graph { .. } => "Microsoft Graph",
        Protocol::Gmail { .. } => "the Gmail API",
    }
}

fn cannot(done: &str, protocol: &Protocol) -> Error {
    let instead = match protocol {
        Protocol::Imap { .. } => "SMTP/SMTPS",
        Protocol::Smtp { .. } => "IMAPS",
        Protocol::Ews { .. } | Protocol::Graph { .. } | Protocol::Gmail { .. } => "IMAPS and SMTP",
    };
    let name = name(protocol);
    Error::new(Kind::Unsupported, format!("Mail cannot be {done} over {name} with this version of the library."))
        .remedy(format!("Choose {instead} as the connection protocol."))
}
