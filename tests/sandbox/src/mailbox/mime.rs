//! What faces over HTTP ask of a raw message.

use mail_parser::{Address, MessageParser};

/// In this header, a message that cannot be converted to MIME: `X-Sandbox-Poison: yes`.
const POISON: &str = "X-Sandbox-Poison";
/// A message with more parts is not parsed beyond its header: the parser recurses.
const PARTS_MAX: usize = 200;

/// The header only when there are suspiciously many parts.
pub fn parse(raw: &[u8]) -> Option<mail_parser::Message<'_>> {
    let count =
        |word: &[u8]| raw.windows(word.len()).filter(|bytes| bytes.eq_ignore_ascii_case(word)).take(PARTS_MAX).count();
    let parser = MessageParser::default();
    if count(b"multipart/") + count(b"message/") < PARTS_MAX { parser.parse(raw) } else { parser.parse_headers(raw) }
}

pub fn is_poisoned(parsed: &mail_parser::Message<'_>) -> bool {
    parsed.headers_raw().any(|(name, _)| name.eq_ignore_ascii_case(POISON))
}

pub fn addresses(list: Option<&Address<'_>>) -> Vec<String> {
    let all = list.into_iter().flat_map(Address::iter);
    all.filter_map(|address| address.address()).map(str::to_owned).collect()
}

/// As it is delivered.
pub fn without_bcc(raw: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(raw.len());
    let (mut is_header, mut is_bcc) = (true, false);
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        is_header &= !line.trim_ascii().is_empty();
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            is_bcc = line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"bcc:"));
        }
        if !(is_header && is_bcc) {
            kept.extend_from_slice(line);
        }
    }
    kept
}
