//! One session's commands after the login, and what is open.

use std::collections::BTreeSet;

use imap_codec::imap_types::{
    command::CommandBody,
    extensions::binary::LiteralOrLiteral8,
    flag::{Flag, StoreResponse, StoreType},
    mailbox::{ListMailbox, Mailbox as Name},
    sequence::{SeqOrUid, Sequence, SequenceSet},
    status::StatusDataItemName,
};
use time::OffsetDateTime;

use super::{CAPABILITIES, fetch, search};
use crate::{
    mailbox::{Folder, Mailbox},
    state::State,
};

pub struct Session<'a> {
    state: &'a State,
    /// Whose mailbox was logged in to.
    mailbox: Option<String>,
    open: Option<Open>,
}

pub struct Open {
    pub folder: String,
    read_only: bool,
    /// UIDs by message sequence number, as the client knows them.
    pub view: Vec<u32>,
}

/// `OK …`, `NO …`, `BAD …` after the tag.
type Outcome = Result<String, String>;

impl<'a> Session<'a> {
    pub fn new(state: &'a State) -> Self {
        Self { state, mailbox: None, open: None }
    }

    pub fn enter(&mut self, mailbox: String) {
        self.mailbox = Some(mailbox);
    }

    /// Untagged answers and the tagged one.
    pub fn run(&mut self, tag: &str, body: CommandBody<'_>) -> Vec<u8> {
        let mut output = Vec::new();
        let by_number = is_by_number(&body);
        let outcome = match body {
            CommandBody::Capability => {
                line(&mut output, &format!("CAPABILITY {CAPABILITIES}"));
                Ok("CAPABILITY completed.".into())
            }
            CommandBody::Id { .. } => {
                line(&mut output, "ID (\"name\" \"oauth-mail-sandbox\")");
                Ok("ID completed.".into())
            }
            CommandBody::Noop => Ok("NOOP completed.".into()),
            CommandBody::Logout => {
                line(&mut output, "BYE until next time");
                Ok("LOGOUT completed.".into())
            }
            CommandBody::Login { .. } => {
                Err("NO [PRIVACYREQUIRED] LOGIN is switched off here: Basic authentication has ended.".into())
            }
            body => match self.mailbox.clone() {
                None => Err("BAD log in first".into()),
                Some(address) => {
                    let (state, open) = (self.state, &mut self.open);
                    let work = |mailbox: &mut Mailbox| {
                        let outcome = run_in(mailbox, open, body, &mut output);
                        // RFC 3501 section 7.4.1: no number may change under a command that speaks in numbers.
                        if !by_number {
                            news(mailbox, open, &mut output);
                        }
                        outcome
                    };
                    state.mail.with(&address, work).unwrap_or_else(|| Err("NO the mailbox is gone".into()))
                }
            },
        };
        let text = match outcome {
            Ok(text) => format!("{tag} OK {text}\r\n"),
            Err(text) => format!("{tag} {text}\r\n"),
        };
        output.extend_from_slice(text.as_bytes());
        output
    }
}

fn run_in(mailbox: &mut Mailbox, open: &mut Option<Open>, body: CommandBody<'_>, output: &mut Vec<u8>) -> Outcome {
    match body {
        CommandBody::Select { mailbox: name, .. } => enter(mailbox, open, &text(&name), false, output),
        CommandBody::Examine { mailbox: name, .. } => enter(mailbox, open, &text(&name), true, output),
        CommandBody::List { mailbox_wildcard, .. } => {
            let pattern = match &mailbox_wildcard {
                ListMailbox::Token(token) => String::from_utf8_lossy(token.as_ref()).into_owned(),
                ListMailbox::String(string) => String::from_utf8_lossy(string.as_ref()).into_owned(),
            };
            list(mailbox, &pattern, "LIST", output)
        }
        CommandBody::Lsub { .. } => list(mailbox, "*", "LSUB", output),
        CommandBody::Namespace => {
            line(output, "NAMESPACE ((\"\" \"/\")) NIL NIL");
            Ok("NAMESPACE completed.".into())
        }
        CommandBody::Status { mailbox: name, item_names } => status(mailbox, &text(&name), &item_names, output),
        CommandBody::Create { mailbox: name } => match mailbox.create_folder(&text(&name)) {
            true => Ok("CREATE completed.".into()),
            false => Err("NO [ALREADYEXISTS] there is such a folder".into()),
        },
        CommandBody::Subscribe { .. } | CommandBody::Unsubscribe { .. } => Ok("done.".into()),
        CommandBody::Append { mailbox: name, flags, date, message } => {
            let raw = match &message {
                LiteralOrLiteral8::Literal(literal) => literal.as_ref().to_vec(),
                LiteralOrLiteral8::Literal8(literal) => literal.data.to_vec(),
            };
            let seconds = date.map(|date| date.as_ref().timestamp());
            let received = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
            let name = text(&name);
            let received = received.unwrap_or_else(OffsetDateTime::now_utc);
            let uid = mailbox.append(&name, raw, flag_names(&flags), received);
            let uid = uid.ok_or("NO [TRYCREATE] there is no such folder")?;
            Ok(format!("[APPENDUID {} {uid}] APPEND completed.", validity(mailbox, &name)))
        }
        body => {
            let Some(selected) = open else { return Err("BAD select a folder first".into()) };
            let end = in_folder(mailbox, selected, body, output)?;
            if end.is_none() {
                *open = None;
            }
            Ok(end.unwrap_or_else(|| "closed.".into()))
        }
    }
}

/// `Ok(None)`: the folder was closed.
fn in_folder(
    mailbox: &mut Mailbox,
    open: &mut Open,
    body: CommandBody<'_>,
    output: &mut Vec<u8>,
) -> Result<Option<String>, String> {
    let writes = matches!(
        body,
        CommandBody::Store { .. } | CommandBody::Move { .. } | CommandBody::Expunge | CommandBody::ExpungeUid { .. }
    );
    if writes && open.read_only {
        return Err("NO [READ-ONLY] the folder was opened by EXAMINE".into());
    }
    let done = |verb: &str| Ok(Some(format!("{verb} completed.")));
    match body {
        CommandBody::Check => done("CHECK"),
        CommandBody::Unselect => Ok(None),
        CommandBody::Close => {
            if !open.read_only {
                expunge(mailbox, open, None);
            }
            Ok(None)
        }
        CommandBody::Fetch { sequence_set, macro_or_item_names, uid, .. } => {
            let uids = chosen(open, &sequence_set, uid);
            fetch::fetch(mailbox, open, &uids, &macro_or_item_names, uid, output)?;
            done("FETCH")
        }
        CommandBody::Search { criteria, uid, .. } => {
            let folder = mailbox.folder(&open.folder).ok_or("NO the folder is gone")?;
            let found = search::search(folder, open, criteria.as_ref());
            let numbers = found.iter().filter_map(|found| if uid { Some(*found) } else { number(open, *found) });
            let numbers: String = numbers.map(|number| format!(" {number}")).collect();
            line(output, &format!("SEARCH{numbers}"));
            done("SEARCH")
        }
        CommandBody::Store { sequence_set, kind, response, flags, uid, .. } => {
            let names = flag_names(&flags);
            for found in chosen(open, &sequence_set, uid) {
                let Some(message) = mailbox.change(&open.folder, found) else { continue };
                match kind {
                    StoreType::Replace => message.flags = names.clone(),
                    StoreType::Add => message.flags.extend(names.iter().cloned()),
                    StoreType::Remove => message.flags.retain(|flag| !names.contains(flag)),
                }
                let flags = message.flags.iter().cloned().collect::<Vec<_>>().join(" ");
                if let (StoreResponse::Answer, Some(number)) = (response, number(open, found)) {
                    line(output, &format!("{number} FETCH (UID {found} FLAGS ({flags}))"));
                }
            }
            done("STORE")
        }
        CommandBody::Copy { sequence_set, mailbox: target, uid } => {
            let (uids, target) = (chosen(open, &sequence_set, uid), text(&target));
            let code = transfer(mailbox, &open.folder, &uids, &target, Mailbox::copy_to)?;
            Ok(Some(format!("{code} COPY completed.")))
        }
        CommandBody::Move { sequence_set, mailbox: target, uid } => {
            let (uids, target) = (chosen(open, &sequence_set, uid), text(&target));
            let code = transfer(mailbox, &open.folder, &uids, &target, Mailbox::move_to)?;
            line(output, &format!("OK {code} moved"));
            done("MOVE")
        }
        CommandBody::Expunge => {
            expunge(mailbox, open, None);
            done("EXPUNGE")
        }
        CommandBody::ExpungeUid { sequence_set } => {
            let uids = chosen(open, &sequence_set, true);
            expunge(mailbox, open, Some(&uids));
            done("EXPUNGE")
        }
        other => Err(format!("NO {} is not served here", other.name())),
    }
}

fn enter(mailbox: &mut Mailbox, open: &mut Option<Open>, name: &str, read_only: bool, output: &mut Vec<u8>) -> Outcome {
    *open = None;
    let folder = mailbox.folder(name).ok_or("NO [NONEXISTENT] there is no such folder")?;
    line(output, "FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)");
    line(output, "OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] kept");
    line(output, &format!("{} EXISTS", folder.messages.len()));
    line(output, "0 RECENT");
    line(output, &format!("OK [UIDVALIDITY {}] valid", folder.uid_validity));
    line(output, &format!("OK [UIDNEXT {}] next", folder.uid_next));
    let view = folder.messages.iter().map(|message| message.uid).collect();
    *open = Some(Open { folder: folder.name.clone(), read_only, view });
    Ok(if read_only { "[READ-ONLY] EXAMINE completed." } else { "[READ-WRITE] SELECT completed." }.into())
}

fn list(mailbox: &Mailbox, pattern: &str, verb: &str, output: &mut Vec<u8>) -> Outcome {
    if pattern.is_empty() {
        line(output, &format!("{verb} (\\Noselect) \"/\" \"\""));
    }
    for folder in mailbox.folders.iter().filter(|folder| fits(pattern, &folder.name)) {
        let inside = format!("{}/", folder.name);
        let parent = mailbox.folders.iter().any(|other| other.name.starts_with(&inside));
        let mut attributes = vec![if parent { "\\HasChildren" } else { "\\HasNoChildren" }];
        attributes.extend(folder.special.and_then(|special| special.attribute()));
        line(output, &format!("{verb} ({}) \"/\" {}", attributes.join(" "), quoted(&folder.name)));
    }
    Ok(format!("{verb} completed."))
}

/// `*` is anything, `%` anything without `/` (RFC 3501 section 6.3.8).
fn fits(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case("INBOX") {
        return name.eq_ignore_ascii_case("INBOX");
    }
    match pattern.split_at_checked(1) {
        None => name.is_empty(),
        Some(("*", rest)) => (0..=name.len()).filter_map(|at| name.get(at..)).any(|name| fits(rest, name)),
        Some(("%", rest)) => {
            let end = name.find('/').unwrap_or(name.len());
            (0..=end).filter_map(|at| name.get(at..)).any(|name| fits(rest, name))
        }
        Some((first, rest)) => name.strip_prefix(first).is_some_and(|name| fits(rest, name)),
    }
}

fn status(mailbox: &mut Mailbox, name: &str, items: &[StatusDataItemName], output: &mut Vec<u8>) -> Outcome {
    let folder = mailbox.folder(name).ok_or("NO [NONEXISTENT] there is no such folder")?;
    let count = |wanted: &dyn Fn(&BTreeSet<String>) -> bool| {
        folder.messages.iter().filter(|message| wanted(&message.flags)).count()
    };
    let values = items.iter().map(|item| match item {
        StatusDataItemName::Messages => format!("MESSAGES {}", folder.messages.len()),
        StatusDataItemName::UidNext => format!("UIDNEXT {}", folder.uid_next),
        StatusDataItemName::UidValidity => format!("UIDVALIDITY {}", folder.uid_validity),
        StatusDataItemName::Unseen => format!("UNSEEN {}", count(&|flags| !flags.contains("\\Seen"))),
        StatusDataItemName::Deleted => format!("DELETED {}", count(&|flags| flags.contains("\\Deleted"))),
        _ => "RECENT 0".to_owned(),
    });
    let values = values.collect::<Vec<_>>().join(" ");
    line(output, &format!("STATUS {} ({values})", quoted(&folder.name)));
    Ok("STATUS completed.".into())
}

/// The COPYUID of RFC 4315.
fn transfer(
    mailbox: &mut Mailbox,
    from: &str,
    uids: &[u32],
    to: &str,
    work: impl Fn(&mut Mailbox, &str, u32, &str) -> Option<u32>,
) -> Outcome {
    if mailbox.folder(to).is_none() {
        return Err("NO [TRYCREATE] there is no such folder".into());
    }
    let pairs: Vec<_> = uids.iter().filter_map(|uid| Some((*uid, work(mailbox, from, *uid, to)?))).collect();
    let join = |numbers: Vec<u32>| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let (old, new): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    if old.is_empty() {
        return Ok("[NOTHING]".into());
    }
    Ok(format!("[COPYUID {} {} {}]", validity(mailbox, to), join(old), join(new)))
}

/// Removes what is marked as deleted, of `uids` or of all; the client hears of it by [`news`].
fn expunge(mailbox: &mut Mailbox, open: &Open, uids: Option<&[u32]>) {
    let Some(folder) = mailbox.folder(&open.folder) else { return };
    let marked =
        folder.messages.iter().filter(|message| message.flags.contains("\\Deleted")).map(|message| message.uid);
    let marked: Vec<_> = marked.filter(|uid| uids.is_none_or(|uids| uids.contains(uid))).collect();
    for uid in marked {
        mailbox.remove(&open.folder, uid);
    }
}

/// Tells what has gone and come since the client last heard.
fn news(mailbox: &mut Mailbox, open: &mut Option<Open>, output: &mut Vec<u8>) {
    let Some(open) = open else { return };
    let Some(Folder { messages, .. }) = mailbox.folder(&open.folder) else { return };
    let now: Vec<u32> = messages.iter().map(|message| message.uid).collect();
    for place in (0..open.view.len()).rev() {
        if now.binary_search(&open.view[place]).is_err() {
            line(output, &format!("{} EXPUNGE", place + 1));
        }
    }
    open.view.retain(|uid| now.binary_search(uid).is_ok());
    if now.len() > open.view.len() {
        line(output, &format!("{} EXISTS", now.len()));
    }
    open.view = now;
}

/// UIDs of the set, ascending; `*` is the last message.
pub fn chosen(open: &Open, set: &SequenceSet, by_uid: bool) -> Vec<u32> {
    let last = if by_uid { open.view.last().copied().unwrap_or(0) } else { open.view.len() as u32 };
    let value = |end: &SeqOrUid| match end {
        SeqOrUid::Value(value) => value.get(),
        SeqOrUid::Asterisk => last,
    };
    let inside = |number: u32| {
        set.0.as_ref().iter().any(|sequence| match sequence {
            Sequence::Single(one) => value(one) == number,
            Sequence::Range(a, b) => (value(a).min(value(b))..=value(a).max(value(b))).contains(&number),
        })
    };
    let numbered = open.view.iter().zip(1_u32..);
    numbered.filter(|(uid, number)| inside(if by_uid { **uid } else { *number })).map(|(uid, _)| *uid).collect()
}

/// Message sequence number of a UID.
pub fn number(open: &Open, uid: u32) -> Option<u32> {
    open.view.binary_search(&uid).ok().map(|place| place as u32 + 1)
}

pub fn line(output: &mut Vec<u8>, text: &str) {
    output.extend_from_slice(format!("* {text}\r\n").as_bytes());
}

fn is_by_number(body: &CommandBody<'_>) -> bool {
    matches!(
        body,
        CommandBody::Fetch { uid: false, .. }
            | CommandBody::Store { uid: false, .. }
            | CommandBody::Search { uid: false, .. }
    )
}

fn text(name: &Name<'_>) -> String {
    match name {
        Name::Inbox => "INBOX".into(),
        Name::Other(other) => String::from_utf8_lossy(other.as_ref()).into_owned(),
    }
}

fn flag_names(flags: &[Flag<'_>]) -> BTreeSet<String> {
    flags.iter().map(ToString::to_string).collect()
}

fn validity(mailbox: &mut Mailbox, folder: &str) -> u32 {
    mailbox.folder(folder).map_or(0, |folder| folder.uid_validity)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
