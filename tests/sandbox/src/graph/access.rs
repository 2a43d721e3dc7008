//! Who asks, what the token allows, and which mailbox, folder or message is meant.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Answer, Refusal, as_guid, ok, query::Query, refuse};
use crate::{
    http::Request,
    mailbox::{
        Folder, Mailbox, Message, Special,
        ids::{self, Root},
    },
    state::{Bearer, State, Subject},
};

const WELL_KNOWN: [(&str, Special); 6] = [
    ("inbox", Special::Inbox),
    ("drafts", Special::Drafts),
    ("sentitems", Special::Sent),
    ("deleteditems", Special::Trash),
    ("archive", Special::Archive),
    ("junkemail", Special::Junk),
];

/// One request to one mailbox.
pub struct Caller<'a> {
    pub state: &'a State,
    pub request: &'a Request,
    /// Address of the mailbox that is meant.
    pub mailbox: String,
    /// `Prefer: IdType="ImmutableId"`.
    pub is_immutable: bool,
    /// `me` or `users('…')`, for `@odata.context`.
    pub root: String,
    bearer: Bearer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Read,
    Write,
    Send,
}

/// A folder, or what lies above all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Top,
    /// [`Folder::name`].
    Folder(String),
}

/// The mailbox that a request is for; `user` is what stands behind `/users/`.
pub fn mailbox_of(state: &State, bearer: &Bearer, user: Option<&str>) -> Option<String> {
    match (user, &bearer.subject) {
        (None, Subject::User(own)) => Some(own.to_lowercase()),
        (None, Subject::App(_)) => None,
        (Some(user), _) => {
            let is_meant = |address: &str| address.eq_ignore_ascii_case(user) || user_id(address) == user;
            state.config.mailboxes().find(|(address, _)| is_meant(address)).map(|(address, _)| address.to_lowercase())
        }
    }
}

impl<'a> Caller<'a> {
    pub fn new(state: &'a State, request: &'a Request, bearer: Bearer, user: Option<&str>) -> Result<Self, Refusal> {
        let mailbox = mailbox_of(state, &bearer, user).ok_or_else(|| match user {
            None => refuse(400, "BadRequest", "/me request is only valid with delegated authentication flow."),
            Some(user) => refuse(404, "ErrorInvalidUser", format!("The requested user '{user}' is invalid.")),
        })?;
        let root = user.map_or_else(|| "me".to_owned(), |user| format!("users('{user}')"));
        let is_immutable = prefers(request, "idtype").is_some_and(|kind| kind.eq_ignore_ascii_case("ImmutableId"));
        Ok(Self { state, request, mailbox, is_immutable, root, bearer })
    }

    /// <https://learn.microsoft.com/graph/api/user-get>
    pub fn profile(&self) -> Answer {
        let is_own = matches!(&self.bearer.subject, Subject::User(user) if user.eq_ignore_ascii_case(&self.mailbox));
        let wanted: &[&str] = match is_own {
            true => &["User.Read", "User.ReadWrite", "User.ReadBasic.All", "User.Read.All"],
            false => &["User.ReadBasic.All", "User.Read.All"],
        };
        if !self.bearer.may(wanted) {
            let text = "Insufficient privileges to complete the operation.";
            return Err(refuse(403, "Authorization_RequestDenied", text));
        }
        let mailboxes = self.state.config.mailboxes();
        let name = mailboxes.filter(|(address, _)| address.eq_ignore_ascii_case(&self.mailbox)).map(|(_, name)| name);
        let all = json!({
            "businessPhones": [], "displayName": name.last(), "givenName": null, "jobTitle": null,
            "mail": self.mailbox, "mobilePhone": null, "officeLocation": null, "preferredLanguage": null,
            "surname": null, "userPrincipalName": self.mailbox, "id": user_id(&self.mailbox),
        });
        let query = Query::parse(self.request, &["$select"])?;
        let names: Vec<&str> = all.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        query.check_select(&names)?;
        let mut body = json!({"@odata.context": self.context("users/$entity")});
        for name in names.iter().filter(|name| query.wants(name)) {
            body[*name] = all[*name].clone();
        }
        Ok(ok(200, &body))
    }

    /// Do token and mailbox allow it?
    pub fn may(&self, right: Right) -> Result<(), Refusal> {
        let denied = || refuse(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.");
        let scopes: &[&str] = match right {
            Right::Read => &["Mail.Read", "Mail.ReadWrite"],
            Right::Write => &["Mail.ReadWrite"],
            Right::Send => &["Mail.Send"],
        };
        let shared: Vec<String> = scopes.iter().map(|scope| format!("{scope}.Shared")).collect();
        let shared: Vec<&str> = shared.iter().map(String::as_str).collect();
        let token_allows = match &self.bearer.subject {
            Subject::App(_) => self.bearer.may(scopes),
            Subject::User(user) if user.eq_ignore_ascii_case(&self.mailbox) => {
                self.bearer.may(scopes) || self.bearer.may(&shared)
            }
            Subject::User(_) => self.bearer.may(&shared),
        };
        if !token_allows || !self.state.may_open(&self.bearer.subject, &self.mailbox) {
            return Err(denied());
        }
        if self.state.config.on_premises.iter().any(|address| address.eq_ignore_ascii_case(&self.mailbox)) {
            let text = "The mailbox is either inactive, soft-deleted, or is hosted on-premise.";
            return Err(refuse(404, "MailboxNotEnabledForRESTAPI", text));
        }
        Ok(())
    }

    /// May mail from this mailbox say that it is from there?
    pub fn may_send_as(&self, from: &str) -> bool {
        let is_own = matches!(&self.bearer.subject, Subject::User(user) if user.eq_ignore_ascii_case(from));
        is_own || from.eq_ignore_ascii_case(&self.mailbox) || self.state.config.is_delegate(&self.mailbox, from)
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut Mailbox) -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.state.mail.with(&self.mailbox, work).ok_or_else(no_item)?
    }

    pub fn context(&self, of: &str) -> String {
        format!("{}/v1.0/$metadata#{of}", self.state.base_url())
    }

    pub fn message_id(&self, folder: &Folder, message: &Message) -> String {
        if self.is_immutable { message.id.clone() } else { rest_id(&ids::ews_id_of(folder, message)) }
    }

    /// The preference of this name, of any of the headers.
    pub fn prefers(&self, name: &str) -> Option<&str> {
        prefers(self.request, name)
    }
}

/// `Prefer: a="b", c=d` (RFC 7240), in one header or several; the name in lower case.
fn prefers<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let headers = request.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case("prefer"));
    let mut all = headers.flat_map(|(_, value)| value.split([',', ';'])).filter_map(|one| one.split_once('='));
    all.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().trim_matches('"'))
}

/// By id or well-known name.
pub fn place(mailbox: &Mailbox, id: &str) -> Result<Place, Refusal> {
    let lower = id.to_lowercase();
    if lower == "msgfolderroot" {
        return Ok(Place::Top);
    }
    let missing = || refuse(404, "ErrorItemNotFound", "The specified folder could not be found in the store.");
    let named = |found: Option<&Folder>| found.map(|folder| Place::Folder(folder.name.clone())).ok_or_else(missing);
    if let Some((_, special)) = WELL_KNOWN.iter().find(|(name, _)| *name == lower) {
        return named(mailbox.folders.iter().find(|folder| folder.special == Some(*special)));
    }
    let inner = ids::parse_ews_folder_id(&ews_id(id)).ok_or_else(malformed)?;
    match Root::parse(&inner) {
        Some((Root::Folders, of)) if of.eq_ignore_ascii_case(&mailbox.address) => Ok(Place::Top),
        Some(_) => Err(missing()),
        None => named(mailbox.folders.iter().find(|folder| folder.id == inner)),
    }
}

/// By id or well-known name, one that can hold messages: [`Folder::name`].
pub fn folder_name(mailbox: &Mailbox, id: &str) -> Result<String, Refusal> {
    match place(mailbox, id)? {
        Place::Folder(name) => Ok(name),
        Place::Top => Err(refuse(400, "ErrorInvalidOperation", "This folder holds folders only.")),
    }
}

/// [`Folder::name`] and UID, by either kind of id.
pub fn locate(mailbox: &Mailbox, id: &str) -> Result<(String, u32), Refusal> {
    let is_immutable = |message: &&Message| message.id == id;
    for folder in &mailbox.folders {
        if let Some(message) = folder.messages.iter().find(is_immutable) {
            return Ok((folder.name.clone(), message.uid));
        }
    }
    if id.len() == "M00000000000".len() && id.starts_with('M') {
        return Err(no_item());
    }
    let (folder, uid) = ids::parse_ews_id(&ews_id(id)).ok_or_else(malformed)?;
    let folder = mailbox.folders.iter().find(|known| known.id == folder).ok_or_else(no_item)?;
    folder.messages.binary_search_by_key(&uid, |message| message.uid).map_err(|_| no_item())?;
    Ok((folder.name.clone(), uid))
}

/// What [`locate`] found.
pub fn get<'m>(mailbox: &'m Mailbox, folder: &str, uid: u32) -> Result<(&'m Folder, &'m Message), Refusal> {
    let folder = mailbox.folders.iter().find(|known| known.name == folder).ok_or_else(no_item)?;
    let at = folder.messages.binary_search_by_key(&uid, |message| message.uid).map_err(|_| no_item())?;
    Ok((folder, &folder.messages[at]))
}

pub fn no_item() -> Refusal {
    refuse(404, "ErrorItemNotFound", "The specified object was not found in the store.")
}

pub fn malformed() -> Refusal {
    refuse(400, "ErrorInvalidIdMalformed", "Id is malformed.")
}

/// EWS's id in the alphabet of URLs (<https://learn.microsoft.com/graph/api/user-translateexchangeids>).
pub fn rest_id(ews: &str) -> String {
    ews.replace('+', "_").replace('/', "-")
}

pub fn ews_id(rest: &str) -> String {
    rest.replace('_', "+").replace('-', "/")
}

pub fn user_id(address: &str) -> String {
    let digest = Sha256::digest(address.to_lowercase());
    as_guid(&std::array::from_fn(|place| digest[place]))
}

/// `{"id": …}` of a list, with links.
pub fn collection(context: String, value: Vec<Value>) -> Value {
    json!({"@odata.context": context, "value": value})
}
