//! What the server's answers say: one guarded parse, and what its words mean.

use std::collections::BTreeSet;

use imap_proto::{AttributeValue, Response};

use super::framer::find;
use crate::{
    error::{About, Error, Kind},
    guard, limits, remedies,
};

/// Parses one framed response. `None`: the parser cannot read it, or panicked on it (`INTERNALDATE NIL` does that to
/// imap-proto 0.16.7).
pub fn parse(line: &[u8]) -> Option<Response<'_>> {
    guard::guarded("the IMAP parser", || Ok(imap_proto::parser::parse_response(line).ok()))
        .ok()
        .flatten()
        .map(|(_rest, response)| response)
}

/// The facts of one FETCH response that are ever asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    pub uid: u32,
    pub size: Option<u32>,
    pub internal_date: Option<String>,
    /// The whole message was among the items.
    pub has_body: bool,
    /// It did not come as a literal: its bytes; `None` for a literal or NIL.
    pub inline_body: Option<Vec<u8>>,
}

/// Reads a FETCH response; `None` for anything else, and for one without UID (nobody asked for it).
pub fn fetched(line: &[u8]) -> Option<Fetched> {
    if !is_fetch(line) {
        return None;
    }
    let Some(Response::Fetch(_, attributes)) = parse(line) else {
        // A message whose line the parser cannot read must not become invisible.
        return scan(line);
    };
    let mut found = Fetched::default();
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(uid) => found.uid = uid,
            AttributeValue::Rfc822Size(size) => found.size = Some(size),
            AttributeValue::InternalDate(date) => found.internal_date = Some(date.into_owned()),
            AttributeValue::BodySection { section: None, data, .. } => {
                found.has_body = true;
                found.inline_body = data.map(|data| data.into_owned()).filter(|data| !data.is_empty());
            }
            _ => {}
        }
    }
    (found.uid != 0).then_some(found)
}

/// UID and size by looking for their names outside quoted strings.
fn scan(line: &[u8]) -> Option<Fetched> {
    let mut words = Vec::new();
    let (mut quoted, mut escaped, mut word) = (false, false, Vec::new());
    for &byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b' ' | b'(' | b')' | b'\r' | b'\n' => words.push(std::mem::take(&mut word)),
            _ => word.push(byte.to_ascii_uppercase()),
        }
    }
    let number_after = |name: &[u8]| {
        let at = words.iter().position(|word| word == name)?;
        std::str::from_utf8(words.get(at + 1)?).ok()?.parse::<u32>().ok()
    };
    Some(Fetched {
        uid: number_after(b"UID").filter(|uid| *uid != 0)?,
        size: number_after(b"RFC822.SIZE"),
        internal_date: None,
        has_body: words.iter().any(|word| word == b"BODY[]"),
        inline_body: None,
    })
}

/// The UID of a FETCH response when it is a number beyond 32 bits, which RFC 9051 section 9 (nz-number) does not allow
/// and some servers give. Such a message must not become invisible.
pub fn oversized_uid(line: &[u8]) -> Option<String> {
    if !is_fetch(line) {
        return None;
    }
    let text = String::from_utf8_lossy(line).to_ascii_uppercase();
    let (_, after) = text.split_once("UID ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).take(40).collect();
    (!digits.is_empty() && digits.parse::<u32>().is_err()).then_some(digits)
}

/// The UIDs that a SEARCH (RFC 3501) or ESEARCH (RFC 4731; RFC 9051 servers answer nothing else) response names.
/// `None`: it is another response.
pub fn search(line: &[u8]) -> Option<Vec<u32>> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (star, rest) = text.split_once(' ')?;
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().filter(|_| star == "*")?;
    if kind.eq_ignore_ascii_case("SEARCH") {
        // RFC 7162 adds (MODSEQ n) at the end.
        return Some(words.map_while(|word| word.parse().ok()).collect());
    }
    if !kind.eq_ignore_ascii_case("ESEARCH") {
        return None;
    }
    let all = words.skip_while(|word| !word.eq_ignore_ascii_case("ALL")).nth(1).unwrap_or_default();
    let mut uids = Vec::new();
    for range in all.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let (first, last) = (first.min(last), first.max(last));
        if uids.len() as u64 + u64::from(last - first) >= limits::IMAP_RESPONSES_MAX as u64 {
            return None;
        }
        uids.extend(first..=last);
    }
    Some(uids)
}

/// Does a tagged OK say that the command was carried out for a part of the messages only?
///
/// `MESSAGELIMIT n uid` (RFC 9738 section 3): what lies below `uid` is still to be asked for. `LIMIT` and `PARTIAL` name no
/// message.
pub fn limit(status: &str) -> Option<Limit> {
    match response_code(status)?.as_str() {
        "MESSAGELIMIT" => {
            let (_, after) = status.split_once('[')?;
            let uid = after.split(']').next()?.split(' ').nth(2).and_then(|uid| uid.parse().ok());
            Some(Limit { below: uid })
        }
        "LIMIT" | "PARTIAL" => Some(Limit { below: None }),
        _ => None,
    }
}

/// Where an answer was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub below: Option<u32>,
}

/// The number of a response code such as `[UIDVALIDITY 7]`. Servers give some beyond 32 bits, which imap-proto does not read.
pub fn code_number(line: &[u8], name: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(line).to_ascii_uppercase();
    let (_, after) = text.split_once(&format!("[{name} "))?;
    after.split(']').next()?.trim().parse().ok()
}

/// Names after `CAPABILITY`, in upper case, up to a closing bracket. Read by words: imap-proto refuses a list without IMAP4rev1
/// or with two spaces in a row.
pub fn capabilities(text: &str) -> BTreeSet<String> {
    let upper = text.to_ascii_uppercase();
    let Some((_, list)) = upper.split_once("CAPABILITY ") else { return BTreeSet::new() };
    let list = list.split([']', '\r', '\n']).next().unwrap_or_default();
    list.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn is_fetch(line: &[u8]) -> bool {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    words.next() == Some(b"*")
        && words.next().is_some_and(|number| number.iter().all(u8::is_ascii_digit))
        && words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"FETCH"))
}

/// Which of the frame's literals is the message.
pub fn body_literal(line: &[u8]) -> usize {
    let upper = line.to_ascii_uppercase();
    let Some(body) = find(&upper, b"BODY[]") else { return 0 };
    upper[..body].windows(5).filter(|window| *window == b"{0}\r\n").count()
}

/// `* BYE words`.
pub fn bye(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"* ")?;
    (rest.len() >= 3 && rest[..3].eq_ignore_ascii_case(b"BYE"))
        .then(|| String::from_utf8_lossy(&rest[3..]).trim().to_owned())
}

/// The parser slices text by bytes and panics inside a character; only human text is touched by this.
pub fn to_ascii(line: &mut [u8]) {
    line.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
}

/// The server ended the connection, with these words.
pub fn hung_up(words: &str) -> Error {
    meaning(words).unwrap_or_else(|| {
        let error = Error::new(Kind::Transient, "The mail server ended the connection.")
            .remedy("Try again: what was not finished is taken up.")
            .with_about(About::Connection);
        said(error, words)
    })
}

/// The server answered NO or BAD to `what`.
pub fn refused(what: &str, words: &str) -> Error {
    meaning(words).unwrap_or_else(|| {
        let error = Error::new(Kind::ServerMisbehaved, format!("The mail server refused to {what}."))
            .remedy("The server's own words say why; ask its administrator if they do not help.");
        said(error, words)
    })
}

/// Words that mean the same whatever was asked. Response codes: RFC 5530; `LIMIT` also from Dovecot for too many
/// connections; the sentences are Exchange Online's and Gmail's.
pub fn meaning(words: &str) -> Option<Error> {
    let remedy = remedies::by_imap(words)?;
    Some(said(remedy.error(remedy.what("The mail server").unwrap_or_default()), words))
}

/// Adds what the server said: its words for people, its response code (RFC 9051 section 7.1), or the status word where there
/// is none, for decisions.
pub fn said(error: Error, words: &str) -> Error {
    let code = response_code(words).unwrap_or_else(|| words.split(' ').next().unwrap_or_default().to_ascii_uppercase());
    let about = match code.as_str() {
        "UNAVAILABLE" | "LIMIT" => About::Server,
        "OVERQUOTA"
        | "AUTHENTICATIONFAILED"
        | "AUTHORIZATIONFAILED"
        | "EXPIRED"
        | "PRIVACYREQUIRED"
        | "CONTACTADMIN" => About::Mailbox,
        "NOPERM" | "INUSE" | "NONEXISTENT" | "TRYCREATE" | "ALREADYEXISTS" => About::Folder,
        _ => match error.kind() {
            Kind::Throttled | Kind::Transient => About::Server,
            Kind::Refused | Kind::AdminRequired | Kind::Settings | Kind::ConsentRequired => About::Mailbox,
            _ => About::Unknown,
        },
    };
    error.provider_code(words).with_code(code).or_about(about)
}

/// `OVERQUOTA` of `NO [OVERQUOTA] …`, in upper case, without what follows it inside the brackets.
pub fn response_code(status: &str) -> Option<String> {
    let (_, text) = status.split_once(' ')?;
    let code = text.trim_start().strip_prefix('[')?.split([']', ' ']).next()?;
    (!code.is_empty()).then(|| code.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_date_nil_does_not_hide_the_message() {
        let line = b"* 3 FETCH (UID 17 RFC822.SIZE 2048 INTERNALDATE NIL)\r\n";
        assert!(parse(line).is_none());
        let found = fetched(line).unwrap();
        assert_eq!((found.uid, found.size), (17, Some(2048)));
    }

    #[test]
    fn a_uid_inside_a_quoted_string_is_not_taken() {
        let line = b"* 3 FETCH (X-ODD \"a \\\" UID 5 \" UID 17 BODY[] {0}\r\n)\r\n";
        let found = scan(line).unwrap();
        assert_eq!((found.uid, found.has_body), (17, true));
    }

    #[test]
    fn the_message_is_the_literal_after_its_name() {
        assert_eq!(body_literal(b"* 1 FETCH (UID 1 BODY[] {0}\r\n)\r\n"), 0);
        assert_eq!(body_literal(b"* 1 FETCH (X-A {0}\r\n UID 1 body[] {0}\r\n)\r\n"), 1);
    }

    #[test]
    fn both_kinds_of_search_answers_are_read() {
        for (line, uids) in [
            ("* SEARCH 3 1 2\r\n", Some(vec![3, 1, 2])),
            ("* SEARCH\r\n", Some(vec![])),
            ("* SEARCH 4 (MODSEQ 9)\r\n", Some(vec![4])),
            ("* ESEARCH (TAG \"b1\") UID ALL 1:3,7\r\n", Some(vec![1, 2, 3, 7])),
            ("* ESEARCH (TAG \"b1\") UID COUNT 2 ALL 9,5\r\n", Some(vec![9, 5])),
            ("* ESEARCH (TAG \"b1\") UID\r\n", Some(vec![])),
            ("* ESEARCH UID ALL 1:4294967295\r\n", None),
            ("* 3 EXISTS\r\n", None),
        ] {
            assert_eq!(search(line.as_bytes()), uids, "{line}");
        }
    }

    #[test]
    fn an_answer_for_a_part_of_the_messages_says_so() {
        assert_eq!(limit("OK [MESSAGELIMIT 5 8] done"), Some(Limit { below: Some(8) }));
        assert_eq!(limit("OK [MESSAGELIMIT 5] done"), Some(Limit { below: None }));
        assert_eq!(limit("OK [LIMIT] enough"), Some(Limit { below: None }));
        assert_eq!(limit("OK [READ-ONLY] done").or(limit("OK done")), None);
    }

    #[test]
    fn numbers_beyond_32_bits_are_not_passed_over() {
        assert_eq!(oversized_uid(b"* 1 FETCH (UID 19564493749 RFC822.SIZE 187)\r\n").as_deref(), Some("19564493749"));
        assert_eq!(oversized_uid(b"* 1 FETCH (UID 17 RFC822.SIZE 187)\r\n"), None);
        assert_eq!(code_number(b"* OK [UIDVALIDITY 1713632002544] x\r\n", "UIDVALIDITY"), Some(1_713_632_002_544));
    }

    #[test]
    fn a_list_of_capabilities_is_read_by_its_words() {
        for text in [
            "* CAPABILITY IMAP4rev2 SASL-IR AUTH=XOAUTH2\r\n",
            "* OK [CAPABILITY IMAP4rev2  SASL-IR AUTH=xoauth2] ready AUTH=NONE\r\n",
        ] {
            let list: Vec<String> = capabilities(text).into_iter().collect();
            assert_eq!(list, ["AUTH=XOAUTH2", "IMAP4REV2", "SASL-IR"], "{text}");
        }
    }

    #[test]
    fn throttling_is_never_taken_for_a_bad_token() {
        for (words, kind) in [
            ("NO [LIMIT] Maximum number of connections", Kind::Throttled),
            ("NO [ALERT] Too many simultaneous connections. (Failure)", Kind::Throttled),
            ("NO [UNAVAILABLE] Temporary authentication failure.", Kind::Transient),
            ("BAD User is authenticated but not connected.", Kind::Refused),
        ] {
            assert_eq!(meaning(words).map(|error| error.kind()), Some(kind), "{words}");
        }
        assert!(meaning("NO [AUTHENTICATIONFAILED] Authentication failed.").is_none());
    }
}
