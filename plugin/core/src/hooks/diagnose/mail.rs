//! The sign-in, what the account may do in the mailbox, and one message in and out.

use std::{io::Read, ops::ControlFlow};

use serde_json::{Value, json};

use super::{
    Options,
    step::{Finding, KEEPER, SERVER, Walk, words},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    hooks::{Work, send},
    limits, message,
    oauth::AccessToken,
    settings::{Account, Action, Fetching},
    transport::{Entry, Inbox, Item, Outbox, Proof, Raw},
};

/// What a connection of either direction can prove.
pub trait Proven {
    fn proof(&self) -> Proof;

    fn caution(&self) -> Option<&'static str> {
        None
    }
}

impl Proven for Box<dyn Inbox> {
    fn proof(&self) -> Proof {
        (**self).proof()
    }
}

impl Proven for Box<dyn Outbox> {
    fn proof(&self) -> Proof {
        (**self).proof()
    }

    fn caution(&self) -> Option<&'static str> {
        (**self).caution()
    }
}

/// As every hook does it: a refused token is replaced once.
pub fn log_in<T: Proven>(
    walk: &mut Walk<'_>,
    token: Option<&AccessToken>,
    open: impl Fn(&AccessToken, Deadline) -> Result<T>,
) -> Option<T> {
    let (session, account) = (walk.session, walk.account());
    let mut fresh_secret = None;
    let opened = walk.step("login", &["tls", "token"], |deadline| {
        let Some(token) = token else { return (Finding::unneeded("there is no token"), None) };
        let refusal = match open(token, deadline.at_most(deadline.left() / 2)) {
            Ok(opened) => return (logged_in(&opened, account), Some(opened)),
            Err(refusal) if refusal.kind() == Kind::Refused => refusal,
            Err(error) => return (Finding::failed("", &error, account), None),
        };
        let said = refusal.provider_code_text().map(words).unwrap_or_default();
        let fresh = match session.grants.replace(account, &session.net, token, deadline) {
            Ok(fresh) => fresh,
            // What only a person can cure counts for more than what the mail server said.
            Err(error) if matches!(error.kind(), Kind::ConsentRequired | Kind::AdminRequired | Kind::Settings) => {
                let saw = format!("the mail server refused the token ({said}), and no fresh one was to be had");
                return (Finding::failed(saw, &error, account), None);
            }
            Err(error) => {
                let saw = format!("no fresh token to try again with ({})", error.message());
                return (refused(saw, &refusal, account), None);
            }
        };
        fresh_secret = Some(fresh.secret().clone());
        match open(&fresh, deadline) {
            Ok(opened) => {
                let finding = logged_in(&opened, account).but(
                    &format!("The stored token was refused ({said}) and a fresh one was taken."),
                    "nobody",
                    "Watch whether it happens again: somebody may be revoking tokens.",
                );
                (finding, Some(opened))
            }
            Err(error) => (refused("a fresh token was refused as well".to_owned(), &error, account), None),
        }
    });
    if let Some(secret) = fresh_secret {
        walk.keep_secret(&secret);
    }
    opened
}

fn logged_in(opened: &impl Proven, account: &Account) -> Finding {
    let proof = opened.proof();
    let saw = format!("{} accepted {} by {}", proof.tls.server, account.username, proof.mechanism);
    let finding = Finding::ok(saw, "The mail server takes the token for this mailbox.");
    match opened.caution() {
        Some(caution) => finding.but(caution, KEEPER, "Choose SMTP for outgoing mail where Bcc is needed."),
        None => finding,
    }
}

fn refused(saw: String, error: &Error, account: &Account) -> Finding {
    let finding = Finding::failed(saw, error, account);
    match error.kind() {
        Kind::Refused => finding.by(&format!("{KEEPER}, with the administrator of the mailbox {}", account.username)),
        _ => finding,
    }
}

/// `mailbox` and `sample_in`.
pub fn incoming(walk: &mut Walk<'_>, mut inbox: Option<Box<dyn Inbox>>, verbose: bool) {
    let account = walk.account();
    let mut newest = None;
    walk.step("mailbox", &["login"], |deadline| {
        let (Some(inbox), Some(fetching)) = (inbox.as_deref_mut(), &account.fetching) else {
            return (Finding::unneeded("no mailbox is open"), None);
        };
        (mailbox(inbox, fetching, account, &mut newest, deadline), Some(()))
    });
    let folder_opened = newest.is_some();
    let needs: &[&str] = if folder_opened { &["login"] } else { &["login", "mailbox"] };
    walk.step("sample_in", needs, |deadline| {
        let finding = match (inbox.as_deref_mut(), newest) {
            (Some(inbox), Some((_, Some(entry)))) => sample(inbox, &entry, account, verbose, deadline),
            (_, Some((folder, None))) => {
                Finding::ok(format!("{folder} is empty"), "There is no mail to read; the next that arrives is read.")
            }
            _ => Finding::unneeded("no folder is open"),
        };
        (finding, Some(()))
    });
}

/// The newest message of the first folder that could be opened.
type Newest = Option<(String, Option<Entry>)>;

fn mailbox(
    inbox: &mut dyn Inbox,
    fetching: &Fetching,
    account: &Account,
    newest: &mut Newest,
    deadline: Deadline,
) -> Finding {
    let actions = [&fetching.after_import, &fetching.after_refusal];
    let (mut saw, mut failure): (Vec<String>, Option<Finding>) = (Vec::new(), None);
    let mut lacking = Vec::new();
    let mut fail = |finding: Finding| {
        failure.get_or_insert(finding);
    };
    for folder in &fetching.folders {
        match inbox.look(folder, deadline) {
            Ok(Some(look)) => {
                let rights =
                    look.rights.as_ref().map_or_else(String::new, |rights| format!(", rights {}", words(rights)));
                saw.push(format!("{folder}: {} messages{rights}", look.messages));
                lacking.extend(missing_rights(folder, look.rights.as_deref(), &actions));
                if newest.as_ref().is_none_or(|(_, entry)| entry.is_none()) {
                    *newest = Some((folder.clone(), look.newest));
                }
            }
            Ok(None) => {
                saw.push(format!("{folder}: not there"));
                let error = Error::new(Kind::Settings, format!("The mailbox has no folder {folder}."));
                fail(Finding::failed("", &error, account).remedied(
                    "Correct the folders under advanced (names are as the server spells them), or create the folder.",
                ));
            }
            Err(error) => {
                saw.push(format!("{folder}: cannot be opened"));
                fail(Finding::failed("", &error, account).by(&format!("{KEEPER}, with {SERVER}")));
                // Without a connection the others would only repeat it.
                if error.is_transient() {
                    break;
                }
            }
        }
    }
    let mut to_create = Vec::new();
    for target in actions.into_iter().filter_map(target) {
        match inbox.look(target, deadline) {
            Ok(Some(look)) => {
                saw.push(format!("{target} (for fetched mail): there"));
                if look.rights.as_ref().is_some_and(|rights| !rights.contains('i')) {
                    lacking.push(format!("put mail into {target}"));
                }
            }
            Ok(None) => {
                saw.push(format!("{target} (for fetched mail): not there yet"));
                to_create.push(target);
            }
            Err(error) => {
                saw.push(format!("{target} (for fetched mail): cannot be opened"));
                fail(Finding::failed("", &error, account).by(&format!("{KEEPER}, with {SERVER}")));
            }
        }
    }
    let saw = saw.join("; ");
    if let Some(mut failure) = failure {
        failure.saw = match failure.saw.as_str() {
            "no useful answer" => saw,
            words => format!("{saw}; {words}"),
        };
        return failure;
    }
    let finding = Finding::ok(saw, "Every folder can be read.");
    if !lacking.is_empty() {
        let means = format!("The account may not {}.", lacking.join(", nor "));
        let remedy = "Give the account these rights, or choose to leave fetched mail as it is.";
        return finding.but(&means, format!("the owner of the mailbox, or {SERVER}"), remedy);
    }
    match to_create.as_slice() {
        [] => finding,
        // Whether it may be created cannot be known without trying.
        missing => finding.but(
            &format!("{} is created when the first mail is moved there, if the server lets us.", missing.join(", ")),
            KEEPER,
            "Create the folder in the mailbox now to be sure.",
        ),
    }
}

fn target(action: &Action) -> Option<&str> {
    match action {
        Action::Move { folder } => Some(folder),
        Action::Leave | Action::MarkSeen | Action::Delete => None,
    }
}

/// RFC 4314 section 2.1; `d` and `c` are what RFC 2086 had for several of them.
fn missing_rights(folder: &str, rights: Option<&str>, actions: &[&Action]) -> Vec<String> {
    let Some(rights) = rights else { return Vec::new() };
    let has = |letters: &str| letters.chars().all(|letter| rights.contains(letter));
    let mut missing = Vec::new();
    let removes = actions.iter().any(|action| matches!(action, Action::Move { .. } | Action::Delete));
    if actions.iter().any(|action| matches!(action, Action::MarkSeen)) && !has("s") {
        missing.push(format!("mark mail as seen in {folder}"));
    }
    if removes && !has("te") && !has("d") {
        missing.push(format!("remove mail from {folder}"));
    }
    missing
}

fn sample(inbox: &mut dyn Inbox, entry: &Entry, account: &Account, verbose: bool, deadline: Deadline) -> Finding {
    let (folder, size) = (&entry.key.folder, entry.size);
    if size > limits::SAMPLE_MAX {
        let saw = format!("the newest message of {folder} has {size} bytes and was not read for a sample");
        return Finding::ok(saw, "Mail can be listed.");
    }
    let mut sample = None;
    let read = inbox.read(std::slice::from_ref(entry), deadline, &mut |_, item| {
        sample = Some(item);
        ControlFlow::Continue(())
    });
    match (read, sample) {
        (Err(error), _) | (Ok(_), Some(Item::Failed(error))) => {
            Finding::failed(format!("the newest message of {folder} ({size} bytes) could not be read"), &error, account)
        }
        (Ok(_), None | Some(Item::Gone | Item::LeftOut)) => {
            Finding::ok(format!("the newest message of {folder} went away meanwhile"), "Mail can be listed.")
        }
        (Ok(_), Some(Item::Read(raw))) => {
            let bytes = match &raw {
                Raw::Memory(bytes) => bytes.len() as u64,
                Raw::Spool { len, .. } => *len,
            };
            let mut saw = format!("the newest message of {folder}: {bytes} bytes");
            if verbose {
                saw.push_str(&format!(", subject \"{}\"", subject(raw)));
            }
            Finding::ok(saw, "Mail can be read; nothing in the mailbox was changed.")
        }
    }
}

fn subject(raw: Raw) -> String {
    let head = match raw {
        Raw::Memory(bytes) => bytes,
        Raw::Spool { file, .. } => {
            let mut head = Vec::new();
            // The header section stands at the beginning; a shorter one is as good.
            let _ = file.take(limits::MIME_FIELD_MAX as u64).read_to_end(&mut head);
            head
        }
    };
    let subject = message::parse(&head).subject.unwrap_or_default();
    let mut shown: String = words(&subject).chars().take(limits::SAMPLE_SUBJECT_MAX).collect();
    if shown.len() < words(&subject).len() {
        shown.push('…');
    }
    shown
}

/// `sample_out`, over the connection that has just proved itself.
pub fn outgoing(walk: &mut Walk<'_>, work: &mut Work, outbox: Option<Box<dyn Outbox>>, options: &Options) {
    let account = walk.account();
    let own = account.sending.as_ref().filter(|_| options.send).map(|sending| sending.from.to_string());
    let to = options.send_to.clone().or(own);
    let needs: &[&str] = if to.is_some() { &["login"] } else { &[] };
    walk.step("sample_out", needs, |deadline| {
        let Some(to) = to else {
            return (Finding::unneeded("skipped because nobody asked to send a message"), Some(()));
        };
        if let Some(outbox) = outbox {
            work.send.adopt(outbox);
        }
        let finding = match send(work, &to, deadline) {
            Ok(answer) => judge(&answer, &to, account),
            Err(error) => Finding::failed(format!("no message to {to}"), &error, account),
        };
        (finding, Some(()))
    });
}

fn send(work: &mut Work, to: &str, deadline: Deadline) -> Result<Value> {
    let request = json!({
        "to": [to],
        "subject": "Test of outgoing mail",
        "text": "The helpdesk sent this message to see whether its mail goes out. Nobody needs to answer.",
        "deadline_ms": (deadline.left().as_millis() as u64).max(1),
    });
    let context = work.context.clone();
    let request = send::parse(&request.to_string(), b"")?;
    let answer = work.send.run(&context, request)?;
    serde_json::from_str(&answer)
        .map_err(|e| Error::new(Kind::Internal, "The outcome of sending cannot be read.").source_error(e))
}

fn judge(answer: &Value, to: &str, account: &Account) -> Finding {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    if answer["outcome"] == "sent" {
        let saw = format!(
            "{} took {} for {to}: {}",
            text(answer, "server"),
            text(answer, "message_id"),
            words(&text(answer, "reply"))
        );
        return Finding::ok(saw, "Mail goes out; look whether it arrives.");
    }
    let error = &answer["error"];
    let (code, remedy) = (text(error, "provider_code"), text(error, "remedy"));
    let saw = format!("{} for {to}; {}", text(answer, "outcome"), words(&code));
    let kind = if error["kind"] == "consent_required" { Kind::ConsentRequired } else { Kind::Refused };
    let finding = Finding::failed(saw.trim_end_matches("; "), &Error::new(kind, text(error, "message")), account);
    let finding = if kind == Kind::Refused { finding.by(&format!("{KEEPER}, with {SERVER}")) } else { finding };
    if remedy.is_empty() { finding } else { finding.remedied(&remedy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_only_missed_where_they_are_needed_and_told() {
        let (seen, moves) = (Action::MarkSeen, Action::Move { folder: "Done".into() });
        assert!(missing_rights("INBOX", None, &[&seen, &moves]).is_empty(), "not told");
        assert!(missing_rights("INBOX", Some("lr"), &[&Action::Leave]).is_empty(), "not needed");
        assert!(missing_rights("INBOX", Some("lrste"), &[&seen, &moves]).is_empty());
        assert!(missing_rights("INBOX", Some("lrsd"), &[&Action::Delete]).is_empty(), "RFC 2086");
        assert_eq!(missing_rights("INBOX", Some("lrt"), &[&seen, &moves]).len(), 2);
    }

    #[test]
    fn a_subject_is_one_short_line() {
        let raw = format!("Subject: {}\r\n second\x07 line\r\n\r\n", "word ".repeat(40));
        let shown = subject(Raw::Memory(raw.into_bytes()));
        assert!(shown.ends_with('…') && shown.chars().count() <= limits::SAMPLE_SUBJECT_MAX + 1, "{shown}");
        assert_eq!(subject(Raw::Memory(b"\r\n".to_vec())), "");
    }
}
