//! FETCH (RFC 3501 section 6.4.5), without ENVELOPE and BODYSTRUCTURE.

use imap_codec::imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName as Item, Section};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::session::{Open, number};
use crate::mailbox::{Mailbox, Message};

const INTERNALDATE: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:space]-[month repr:short]-[year] [hour]:[minute]:[second] +0000");

pub fn fetch(
    mailbox: &mut Mailbox,
    open: &Open,
    uids: &[u32],
    wanted: &MacroOrMessageDataItemNames<'_>,
    by_uid: bool,
    output: &mut Vec<u8>,
) -> Result<(), String> {
    let mut items = match wanted {
        MacroOrMessageDataItemNames::Macro(of) => of.expand(),
        MacroOrMessageDataItemNames::MessageDataItemNames(items) => items.clone(),
    };
    if by_uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    let reads =
        items.iter().any(|item| matches!(item, Item::BodyExt { peek: false, .. } | Item::Rfc822 | Item::Rfc822Text));
    for uid in uids {
        if reads && let Some(message) = mailbox.change(&open.folder, *uid) {
            message.flags.insert("\\Seen".into());
        }
        let Some(folder) = mailbox.folder(&open.folder) else { return Err("NO the folder is gone".into()) };
        let place = folder.messages.binary_search_by_key(uid, |message| message.uid);
        let (Ok(place), Some(number)) = (place, number(open, *uid)) else { continue };
        output.extend_from_slice(format!("* {number} FETCH (").as_bytes());
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                output.push(b' ');
            }
            one(&folder.messages[place], item, output)?;
        }
        output.extend_from_slice(b")\r\n");
    }
    Ok(())
}

fn one(message: &Message, item: &Item<'_>, output: &mut Vec<u8>) -> Result<(), String> {
    let raw = message.raw.as_slice();
    let (header, text) = raw.split_at(header_end(raw));
    let literal = |name: &str, bytes: &[u8], output: &mut Vec<u8>| {
        output.extend_from_slice(format!("{name} {{{}}}\r\n", bytes.len()).as_bytes());
        output.extend_from_slice(bytes);
    };
    let flags = || message.flags.iter().cloned().collect::<Vec<_>>().join(" ");
    match item {
        Item::Uid => output.extend_from_slice(format!("UID {}", message.uid).as_bytes()),
        Item::Flags => output.extend_from_slice(format!("FLAGS ({})", flags()).as_bytes()),
        Item::Rfc822Size => output.extend_from_slice(format!("RFC822.SIZE {}", raw.len()).as_bytes()),
        Item::InternalDate => {
            output.extend_from_slice(format!("INTERNALDATE \"{}\"", date(message.received)).as_bytes());
        }
        Item::Rfc822 => literal("RFC822", raw, output),
        Item::Rfc822Header => literal("RFC822.HEADER", header, output),
        Item::Rfc822Text => literal("RFC822.TEXT", text, output),
        Item::BodyExt { section, partial, .. } => {
            let (name, bytes) = match section {
                None => (String::new(), raw.to_vec()),
                Some(Section::Header(None)) => ("HEADER".into(), header.to_vec()),
                Some(Section::Text(None)) => ("TEXT".into(), text.to_vec()),
                Some(Section::HeaderFields(None, names)) => {
                    let names: Vec<_> =
                        names.as_ref().iter().map(|name| String::from_utf8_lossy(name.as_ref()).into_owned()).collect();
                    (format!("HEADER.FIELDS ({})", names.join(" ")), fields(header, &names))
                }
                Some(_) => return Err("NO [CANNOT] this section is not served here".into()),
            };
            match partial {
                None => literal(&format!("BODY[{name}]"), &bytes, output),
                Some((start, count)) => {
                    let from = (*start as usize).min(bytes.len());
                    let to = (from + count.get() as usize).min(bytes.len());
                    literal(&format!("BODY[{name}]<{start}>"), &bytes[from..to], output);
                }
            }
        }
        _ => return Err("NO [CANNOT] this item is not served here".into()),
    }
    Ok(())
}

/// Where the text begins: after the first empty line.
pub fn header_end(raw: &[u8]) -> usize {
    raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(raw.len(), |place| place + 4)
}

/// Whole fields of these names, folded lines with them, and the empty line.
fn fields(header: &[u8], names: &[String]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            inside = names.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(name));
        }
        if inside {
            found.extend_from_slice(line);
        }
    }
    found.extend_from_slice(b"\r\n");
    found
}

fn date(time: OffsetDateTime) -> String {
    time.format(INTERNALDATE).unwrap_or_default()
}
