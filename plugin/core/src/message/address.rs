//! The one parser of addresses: what a policy looks at is what goes over the wire.

use lettre::{Address, message::Mailbox};
use serde::Deserialize;

use crate::{
    error::{Error, Kind, Result},
    limits,
};

/// RFC 5321 envelope: who gets it, and who hears of a failure (`None`: the null sender).
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: Option<Address>,
    pub to: Vec<Address>,
}

/// A person in a request: `"Name <a@b>"`, `"a@b"`, or `{"name": …, "address": …}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Person {
    Text(String),
    Parts(Parts),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    #[serde(default)]
    pub name: Option<String>,
    pub address: String,
}

impl Person {
    /// # Errors
    /// `Misuse` for what is not exactly one address.
    pub fn mailbox(&self) -> Result<Mailbox> {
        match self {
            Self::Text(text) => parse_mailbox(text),
            Self::Parts(Parts { name, address }) => {
                Ok(Mailbox::new(name.as_deref().and_then(display_name), parse_address(address)?))
            }
        }
    }
}

/// Reads `Name <a@b>` or `a@b`. Lists, groups and comments are refused, never half understood.
///
/// # Errors
/// `Misuse` for what is not exactly one address.
pub fn parse_mailbox(text: &str) -> Result<Mailbox> {
    let text = text.trim();
    let Some((name, address)) = text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) else {
        return Ok(Mailbox::new(None, parse_address(text)?));
    };
    let name = name.trim();
    let name = match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => unquote(quoted),
        // `a@b, c <d@e>` would lose a recipient
        None if name.contains(['<', '>', '@']) => return Err(not_one(text)),
        None => name.to_owned(),
    };
    Ok(Mailbox::new(display_name(&name), parse_address(address.trim())?))
}

/// Reads `a@b`. A domain outside ASCII becomes its A-labels (RFC 5891), so that only a local part outside ASCII needs
/// SMTPUTF8.
///
/// # Errors
/// `Misuse` for what is not exactly one address within the lengths of RFC 5321.
pub fn parse_address(text: &str) -> Result<Address> {
    let address = text.trim().parse().or_else(|_| quoted(text.trim()).parse::<Address>()).map_err(|_| not_one(text))?;
    let (local, domain) = (address.user(), address.domain());
    let address = if domain.is_ascii() {
        address
    } else {
        let Ok(url::Host::Domain(ascii)) = url::Host::parse(domain) else { return Err(not_one(text)) };
        Address::new(local, ascii).map_err(|_| not_one(text))?
    };
    if is_safe(&address) { Ok(address) } else { Err(not_one(text)) }
}

/// With the local part in quotes: `foo..bar@docomo.test` is no dot-atom, and mail comes from it all the same. Not for what may
/// be something else than one address.
fn quoted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((local, domain)) if local.bytes().all(is_atom_or_dot) => format!("\"{local}\"@{domain}"),
        _ => String::new(),
    }
}

/// RFC 5322 section 3.2.3.
fn is_atom_or_dot(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte)
}

/// Can this address stand between `<` and `>` of a command without ending it? `Address` has an unchecked constructor,
/// so the transport asks again.
pub fn is_safe(address: &Address) -> bool {
    let text: &str = address.as_ref();
    text.len() <= limits::ADDRESS_MAX
        && address.user().len() <= limits::LOCAL_PART_MAX
        && !text.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ') || matches!(c, '<' | '>'))
        // RFC 5321 section 4.1.2: a space only inside of quotes.
        && !address.domain().contains(' ')
        && (!address.user().contains(' ') || address.user().starts_with('"') && address.user().ends_with('"'))
}

/// A name without control characters, cut at `limits::NAME_MAX`; `None` when nothing is left.
pub fn display_name(name: &str) -> Option<String> {
    let clean: String = one_line(name).chars().take(limits::NAME_MAX).collect();
    if clean.is_empty() { None } else { Some(clean) }
}

/// Text for one header: each run of white space and control characters becomes one space.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(breaks_words).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

fn breaks_words(c: char) -> bool {
    c == ' ' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn unquote(quoted: &str) -> String {
    let mut name = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        name.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    name
}

fn not_one(text: &str) -> Error {
    let shown: String = one_line(text).chars().take(80).collect();
    Error::new(Kind::Misuse, format!("\u{201c}{shown}\u{201d} is not one mail address."))
        .remedy("Give each recipient alone: `name@example.com` or `Name <name@example.com>`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read() {
        for (text, name, address) in [
            ("a@b.test", None, "a@b.test"),
            ("  A B <a@b.test> ", Some("A B"), "a@b.test"),
            ("\"Doe, \\\"J\\\"\" <a@b.test>", Some("Doe, \"J\""), "a@b.test"),
            ("Doe, John <a@b.test>", Some("Doe, John"), "a@b.test"),
            ("<a@b.test>", None, "a@b.test"),
            ("A\r\nBcc: x <a@b.test>", Some("A Bcc: x"), "a@b.test"),
            ("a@b\u{fc}cher.test", None, "a@xn--bcher-kva.test"),
            ("\u{e9}@b.test", None, "\u{e9}@b.test"),
        ] {
            let mailbox = parse_mailbox(text).unwrap();
            assert_eq!((mailbox.name.as_deref(), mailbox.email.as_ref()), (name, address), "{text}");
        }
    }

    /// content.md 17: what facts hand out can be written to.
    #[test]
    fn content_17_addresses_that_exist_are_quoted_where_they_must_be() {
        for (text, address) in [
            ("foo..bar@docomo.test", "\"foo..bar\"@docomo.test"),
            ("foo.@docomo.test", "\"foo.\"@docomo.test"),
            (".foo@docomo.test", "\".foo\"@docomo.test"),
            ("\"foo bar\"@x.test", "\"foo bar\"@x.test"),
            ("Name <foo..bar@docomo.test>", "\"foo..bar\"@docomo.test"),
        ] {
            assert_eq!(parse_mailbox(text).unwrap().email.as_ref() as &str, address, "{text}");
        }
        for text in ["foo bar@x.test", "@docomo.test", "a@b@c.test"] {
            assert!(parse_mailbox(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_policy_and_wire_could_read_differently_is_refused() {
        for text in [
            "",
            "a",
            "a@b.test, c@d.test",
            "a@b.test, c <d@e.test>",
            "a@b.test> <c@d.test>",
            "a@b.test\r\nRCPT TO:<evil@x.test>",
            "a@b.test\nBcc: evil@x.test",
            "a@b.test\0",
            "\"a\r\nb\"@b.test",
            "a@b.test>",
            "<@relay.test:a@b.test>",
            "Group: a@b.test;",
            &format!("{}@b.test", "x".repeat(65)),
        ] {
            assert!(parse_mailbox(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn characters_whose_low_byte_is_cr_or_lf_do_not_become_line_ends() {
        // CVE-2025-7962: U+760D and U+760A cut to eight bits are CR and LF
        let mailbox = parse_mailbox("\u{760d}\u{760a}Bcc: e <a\u{760d}\u{760a}@b.test>").unwrap();
        assert_eq!(mailbox.email.to_string(), "a\u{760d}\u{760a}@b.test");
        assert!(!mailbox.email.to_string().bytes().any(|byte| matches!(byte, b'\r' | b'\n')));
    }
}
