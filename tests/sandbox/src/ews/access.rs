//! Who asks, and which mailbox, folder or item is meant.

use roxmltree::Node;

use super::{
    Refusal, invalid, refuse,
    xml::{child, child_text, elements},
};
use crate::{
    mailbox::{
        Folder, Mailbox, Message, Special,
        ids::{self, Root},
    },
    state::{Bearer, State, Subject},
};

const DISTINGUISHED: [(&str, Special); 5] = [
    ("inbox", Special::Inbox),
    ("drafts", Special::Drafts),
    ("sentitems", Special::Sent),
    ("junkemail", Special::Junk),
    ("deleteditems", Special::Trash),
];

/// Whose rights count, after ExchangeImpersonation.
pub struct Caller<'a> {
    pub state: &'a State,
    /// Address of the mailbox that is meant when none is named.
    pub own: String,
    /// An ordered fault: a ResponseCode, for the items whose message holds the text.
    pub refused: Option<(String, String)>,
    subject: Subject,
}

/// A folder, or one of the two above all folders.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub mailbox: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Root(Root),
    /// [`Folder::name`].
    Folder(String),
}

pub struct Item {
    pub mailbox: String,
    /// [`Folder::name`].
    pub folder: String,
    pub uid: u32,
    pub change_key: Option<String>,
}

impl<'a> Caller<'a> {
    /// An application comes with ExchangeImpersonation and then has the rights of that person; a person without it.
    pub fn new(state: &'a State, bearer: &Bearer, header: Option<Node<'_, '_>>) -> Result<Self, Refusal> {
        let sid = header
            .and_then(|header| child(header, "ExchangeImpersonation"))
            .and_then(|impersonation| child(impersonation, "ConnectingSID"));
        let wanted = sid.and_then(|sid| {
            ["PrincipalName", "PrimarySmtpAddress", "SmtpAddress"].into_iter().find_map(|name| child_text(sid, name))
        });
        match (&bearer.subject, wanted) {
            (Subject::User(user), wanted) if wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(user)) => {
                Ok(Self { state, own: user.clone(), refused: None, subject: bearer.subject.clone() })
            }
            (Subject::User(_), _) => Err(refuse(
                "ErrorImpersonateUserDenied",
                "The account does not have permission to impersonate the requested user.",
            )),
            (Subject::App(_), None) => Err(refuse(
                "ErrorImpersonationRequired",
                "ExchangeImpersonation SOAP header must be present for this type of OAuth token.",
            )),
            (Subject::App(_), Some(wanted)) if state.config.mailbox_exists(wanted) => {
                Ok(Self { state, own: wanted.to_owned(), refused: None, subject: Subject::User(wanted.to_owned()) })
            }
            (Subject::App(_), Some(wanted)) => Err(no_mailbox(wanted)),
        }
    }

    pub fn may_open(&self, mailbox: &str) -> bool {
        self.state.may_open(&self.subject, mailbox)
    }

    /// Works on a mailbox that was found before.
    pub fn with<T>(&self, mailbox: &str, work: impl FnOnce(&mut Mailbox) -> T) -> Result<T, Refusal> {
        self.state.mail.with(mailbox, work).ok_or_else(|| no_mailbox(mailbox))
    }

    /// Of an element that holds one FolderId or DistinguishedFolderId.
    pub fn place_in(&self, parent: Option<Node<'_, '_>>) -> Result<Place, Refusal> {
        let node = parent.and_then(|parent| elements(parent).next());
        self.place(node.ok_or_else(|| invalid("a folder id is missing"))?)
    }

    pub fn place(&self, node: Node<'_, '_>) -> Result<Place, Refusal> {
        let id = node.attribute("Id").ok_or_else(|| invalid("the attribute Id is missing"))?;
        if node.tag_name().name() == "DistinguishedFolderId" {
            let address = child(node, "Mailbox").and_then(|mailbox| child_text(mailbox, "EmailAddress"));
            return self.distinguished(id, address.unwrap_or(&self.own));
        }
        let inner = ids::parse_ews_folder_id(id).ok_or_else(malformed)?;
        if let Some((root, mailbox)) = Root::parse(&inner) {
            return self.opened(mailbox).map(|()| Place { mailbox: mailbox.to_owned(), what: What::Root(root) });
        }
        let mailbox = self.state.mail.owner_of_folder(&inner).filter(|mailbox| self.may_open(mailbox));
        let mailbox = mailbox.ok_or_else(no_folder)?;
        let name = self.with(&mailbox, |mailbox| name_of(mailbox, &inner))?.ok_or_else(no_folder)?;
        Ok(Place { mailbox, what: What::Folder(name) })
    }

    fn distinguished(&self, name: &str, address: &str) -> Result<Place, Refusal> {
        self.opened(address)?;
        let special = match name {
            "root" => return Ok(Place { mailbox: address.to_owned(), what: What::Root(Root::Store) }),
            "msgfolderroot" => return Ok(Place { mailbox: address.to_owned(), what: What::Root(Root::Folders) }),
            _ => DISTINGUISHED.iter().find(|(known, _)| *known == name).ok_or_else(no_folder)?.1,
        };
        let found = |mailbox: &mut Mailbox| {
            mailbox.folders.iter().find(|folder| folder.special == Some(special)).map(|folder| folder.name.clone())
        };
        let name = self.with(address, found)?.ok_or_else(no_folder)?;
        Ok(Place { mailbox: address.to_owned(), what: What::Folder(name) })
    }

    fn opened(&self, address: &str) -> Result<(), Refusal> {
        if !self.state.config.mailbox_exists(address) {
            return Err(no_mailbox(address));
        }
        let denied = "Access is denied. Check credentials and try again., Cannot open mailbox.";
        if self.may_open(address) { Ok(()) } else { Err(refuse("ErrorAccessDenied", denied)) }
    }

    /// Of an ItemId; whether the message is still there shows when it is looked for.
    pub fn item(&self, node: Node<'_, '_>) -> Result<Item, Refusal> {
        let id = node.attribute("Id").ok_or_else(|| invalid("the attribute Id is missing"))?;
        let (folder, uid) = ids::parse_ews_id(id).ok_or_else(malformed)?;
        let mailbox = self.state.mail.owner_of_folder(&folder).filter(|mailbox| self.may_open(mailbox));
        let mailbox = mailbox.ok_or_else(no_item)?;
        let folder = self.with(&mailbox, |mailbox| name_of(mailbox, &folder))?.ok_or_else(no_item)?;
        Ok(Item { mailbox, folder, uid, change_key: node.attribute("ChangeKey").map(str::to_owned) })
    }
}

impl Place {
    /// The folder's name; messages lie in folders only.
    pub fn folder(&self) -> Result<&str, Refusal> {
        match &self.what {
            What::Folder(name) => Ok(name),
            What::Root(_) => Err(refuse("ErrorInvalidOperation", "This folder holds folders only.")),
        }
    }
}

/// The folder and the message with this UID.
pub fn find<'m>(mailbox: &'m mut Mailbox, item: &Item) -> Result<(&'m Folder, &'m Message), Refusal> {
    let folder = mailbox.folder(&item.folder).ok_or_else(no_item)?;
    let place = folder.messages.binary_search_by_key(&item.uid, |message| message.uid).map_err(|_| no_item())?;
    Ok((folder, &folder.messages[place]))
}

/// The archive has none.
pub fn distinguished_name(special: Special) -> Option<&'static str> {
    DISTINGUISHED.iter().find(|(_, known)| *known == special).map(|(name, _)| *name)
}

fn name_of(mailbox: &Mailbox, id: &str) -> Option<String> {
    mailbox.folders.iter().find(|folder| folder.id == id).map(|folder| folder.name.clone())
}

fn malformed() -> Refusal {
    refuse("ErrorInvalidIdMalformed", "Id is malformed.")
}

pub fn no_item() -> Refusal {
    refuse("ErrorItemNotFound", "The specified object was not found in the store.")
}

fn no_folder() -> Refusal {
    refuse("ErrorFolderNotFound", "The specified folder could not be found in the store.")
}

fn no_mailbox(address: &str) -> Refusal {
    let text = if address.contains('@') {
        "The SMTP address has no mailbox associated with it."
    } else {
        "No mailbox with such guid."
    };
    refuse("ErrorNonExistentMailbox", text)
}
