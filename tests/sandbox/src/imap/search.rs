//! SEARCH (RFC 3501 section 6.4.4). Text is looked for in the bytes as they lie, undecoded.

use imap_codec::imap_types::search::SearchKey as Key;

use super::{
    fetch::header_end,
    session::{Open, chosen},
};
use crate::mailbox::{Folder, Message};

/// UIDs, ascending.
pub fn search(folder: &Folder, open: &Open, criteria: &[Key<'_>]) -> Vec<u32> {
    let fits = |message: &&Message| criteria.iter().all(|key| matches(message, open, key));
    folder.messages.iter().filter(fits).map(|message| message.uid).collect()
}

fn matches(message: &Message, open: &Open, key: &Key<'_>) -> bool {
    let has = |flag: &str| message.flags.contains(flag);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
    let (header, body) = message.raw.split_at(header_end(&message.raw));
    let field = |name: &[u8], wanted: &[u8]| {
        let unfolded = text(header).replace("\r\n ", " ").replace("\r\n\t", " ");
        let (start, wanted) = (format!("{}:", text(name)), text(wanted));
        unfolded.lines().any(|line| line.strip_prefix(&start).is_some_and(|value| value.contains(&wanted)))
    };
    let day = message.received.date().to_string();
    match key {
        Key::All | Key::Old => true,
        Key::And(keys) => keys.as_ref().iter().all(|key| matches(message, open, key)),
        Key::Or(one, other) => matches(message, open, one) || matches(message, open, other),
        Key::Not(key) => !matches(message, open, key),
        Key::SequenceSet(set) => chosen(open, set, false).contains(&message.uid),
        Key::Uid(set) => chosen(open, set, true).contains(&message.uid),
        Key::Seen => has("\\Seen"),
        Key::Unseen => !has("\\Seen"),
        Key::Answered => has("\\Answered"),
        Key::Unanswered => !has("\\Answered"),
        Key::Deleted => has("\\Deleted"),
        Key::Undeleted => !has("\\Deleted"),
        Key::Flagged => has("\\Flagged"),
        Key::Unflagged => !has("\\Flagged"),
        Key::Draft => has("\\Draft"),
        Key::Undraft => !has("\\Draft"),
        Key::Keyword(word) => has(word.as_ref()),
        Key::Unkeyword(word) => !has(word.as_ref()),
        Key::Larger(size) => message.raw.len() > *size as usize,
        Key::Smaller(size) => message.raw.len() < *size as usize,
        Key::Since(date) => day >= date.as_ref().to_string(),
        Key::Before(date) => day < date.as_ref().to_string(),
        Key::On(date) => day == date.as_ref().to_string(),
        Key::Header(name, value) => field(name.as_ref(), value.as_ref()),
        Key::From(value) => field(b"from", value.as_ref()),
        Key::To(value) => field(b"to", value.as_ref()),
        Key::Cc(value) => field(b"cc", value.as_ref()),
        Key::Bcc(value) => field(b"bcc", value.as_ref()),
        Key::Subject(value) => field(b"subject", value.as_ref()),
        Key::Body(value) => text(body).contains(&text(value.as_ref())),
        Key::Text(value) => text(&message.raw).contains(&text(value.as_ref())),
        // Nothing is recent here, and Date fields are not looked into.
        _ => false,
    }
}
