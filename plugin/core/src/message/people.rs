//! Address lists (RFC 5322 section 3.4) as mailers write them, brought into one form: white space, comments, routes and
//! needless quotes out, domains in A-labels. mail-parser 0.11.9 breaks quoted local parts, literals and open quotes.

use super::{charset, facts::Mailbox, field::one_line, words};

/// The mailboxes of one unfolded field, groups flattened. `nameless`: also whoever has a name only, with the empty address
/// (`MAILER-DAEMON <>`).
pub fn mailboxes(value: &[u8], nameless: bool, max: usize) -> Vec<Mailbox> {
    let mut list = Vec::new();
    // A comma that nobody quoted: `Doe, Jane <j@x.test>`.
    let mut pending: Option<String> = None;
    let tokens = tokens(value);
    for entry in entries(&tokens) {
        if list.len() >= max {
            break;
        }
        match mailbox(entry, true) {
            Some(mut found) if found.address.is_empty() => {
                let name = found.name.take().unwrap_or_default();
                let has_angle = entry.iter().any(|token| matches!(token.kind, Kind::Open));
                if nameless && has_angle {
                    list.push(Mailbox { name: Some(name), address: String::new() });
                } else if !has_angle {
                    pending = Some(pending.map_or(name.clone(), |before| format!("{before}, {name}")));
                }
            }
            Some(mut found) => {
                if let Some(before) = pending.take() {
                    let has_angle = entry.iter().any(|token| matches!(token.kind, Kind::Open));
                    found.name = match found.name {
                        Some(name) if has_angle => Some(format!("{before}, {name}")),
                        name => name,
                    };
                }
                list.push(found);
            }
            None => {}
        }
    }
    if nameless
        && list.is_empty()
        && let Some(name) = pending
    {
        list.push(Mailbox { name: Some(name), address: String::new() });
    }
    list
}

/// One address as text, in the form in which addresses are compared and handed out; `None` when it is not one.
pub fn canonical(address: &str) -> Option<String> {
    let tokens = tokens(address.as_bytes());
    mailbox(entries(&tokens).next()?, false).map(|found| found.address).filter(|address| !address.is_empty())
}

#[derive(Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    /// Without its quotes or brackets; a comment without its parentheses.
    bytes: &'a [u8],
    /// White space or a comment stands before it.
    spaced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Atom,
    Quoted,
    Literal,
    Comment,
    Open,
    Close,
    Comma,
    Semicolon,
    Colon,
    At,
}

fn tokens(value: &[u8]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut spaced) = (0, false);
    // What is never closed is looked for once: a value full of it takes linear time.
    let (mut quotes, mut comments, mut literals) = (true, true, true);
    while let Some(&byte) = value.get(at) {
        let start = at;
        let single = |kind| Some((kind, &value[start..start + 1], start + 1));
        let found = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                spaced = true;
                at += 1;
                continue;
            }
            b'"' if quotes => closed(value, at, b'"', b'"').map(|end| (Kind::Quoted, &value[at + 1..end], end + 1)),
            b'(' if comments => closed(value, at, b'(', b')').map(|end| (Kind::Comment, &value[at + 1..end], end + 1)),
            b'[' if literals => closed(value, at, b'[', b']').map(|end| (Kind::Literal, &value[at..=end], end + 1)),
            b'"' | b'(' | b')' | b'[' | b']' => None,
            b'<' => single(Kind::Open),
            b'>' => single(Kind::Close),
            b',' => single(Kind::Comma),
            b';' => single(Kind::Semicolon),
            b':' => single(Kind::Colon),
            b'@' => single(Kind::At),
            _ => {
                let word = if value[at..].starts_with(b"=?") { words::end_of_word(value, at) } else { None };
                let end = word.unwrap_or_else(|| {
                    let len = value[at..].iter().position(|byte| b" \t\r\n\"()[]<>,;:@".contains(byte));
                    len.map_or(value.len(), |len| at + len.max(1))
                });
                Some((Kind::Atom, &value[at..end], end))
            }
        };
        match found {
            Some((kind, bytes, end)) => {
                tokens.push(Token { kind, bytes, spaced });
                spaced = kind == Kind::Comment;
                at = end;
            }
            None => {
                match byte {
                    b'"' => quotes = false,
                    b'(' => comments = false,
                    b'[' => literals = false,
                    _ => {}
                }
                at += 1;
            }
        }
    }
    tokens
}

/// Where what opens at `at` closes; parentheses nest.
fn closed(value: &[u8], at: usize, open: u8, close: u8) -> Option<usize> {
    let mut depth = 0usize;
    let mut index = at + 1;
    while let Some(&byte) = value.get(index) {
        if byte == b'\\' {
            index += 1;
        } else if byte == close {
            if depth == 0 {
                return Some(index);
            }
            depth -= 1;
        } else if byte == open {
            depth += 1;
        }
        index += 1;
    }
    None
}

/// The tokens of each mailbox: between commas and semicolons, without the names of groups.
fn entries<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t [Token<'a>]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < tokens.len() {
            let mut start = at;
            let mut is_inside = false;
            let mut has_address = false;
            let mut end = tokens.len();
            let mut next = tokens.len();
            for (index, token) in tokens.iter().enumerate().skip(at) {
                match token.kind {
                    // An angle that is opened twice was not meant as one.
                    Kind::Open => is_inside = true,
                    Kind::Close => is_inside = false,
                    Kind::At => has_address = true,
                    Kind::Comma if is_inside && !closes_later(tokens, index) => {
                        (end, next) = (index, index + 1);
                        break;
                    }
                    Kind::Comma | Kind::Semicolon if !is_inside => {
                        (end, next) = (index, index + 1);
                        break;
                    }
                    // The name of a group ends.
                    Kind::Colon if !is_inside && !has_address => start = index + 1,
                    _ => {}
                }
            }
            at = next;
            if start < end {
                return Some(&tokens[start..end]);
            }
        }
        None
    })
}

/// A route (`<@a,@b:c@d>`) has commas inside its brackets; a bracket that stays open has them, too.
fn closes_later(tokens: &[Token<'_>], from: usize) -> bool {
    let ahead = &tokens[from..tokens.len().min(from + ROUTE_MAX)];
    let end = ahead.iter().position(|token| matches!(token.kind, Kind::Close | Kind::Open | Kind::Semicolon));
    end.is_some_and(|end| ahead[end].kind == Kind::Close && ahead[..end].iter().any(|token| token.kind == Kind::Colon))
}

/// Tokens of a route that are looked at.
const ROUTE_MAX: usize = 64;

fn mailbox(entry: &[Token<'_>], may_be_encoded: bool) -> Option<Mailbox> {
    let opens = || entry.iter().enumerate().filter(|(_, token)| token.kind == Kind::Open).map(|(at, _)| at);
    if let Some(first) = opens().next() {
        // `Foo <note> <a@b.test>`: the first bracket that holds an address.
        let inside = opens().take(8).find_map(|open| {
            let len = entry[open + 1..].iter().position(|token| matches!(token.kind, Kind::Close | Kind::Open));
            let inside = &entry[open + 1..len.map_or(entry.len(), |len| open + 1 + len)];
            Some((open, inside)).filter(|(_, inside)| inside.iter().any(|token| token.kind == Kind::At))
        });
        let before = phrase(&entry[..first]);
        let Some((open, inside)) = inside else {
            let inside = phrase(entry.get(first + 1..).unwrap_or_default());
            // The address itself as an encoded word.
            let address = inside.filter(|text| may_be_encoded && text.contains('@')).and_then(|text| canonical(&text));
            return match (before, address) {
                (name, Some(address)) => Some(Mailbox { name, address }),
                (Some(name), None) => Some(Mailbox { name: Some(name), address: String::new() }),
                (None, None) => None,
            };
        };
        let after = &entry[open + 1 + inside.len()..];
        let after = after.iter().take_while(|token| token.kind != Kind::Open).copied().collect::<Vec<_>>();
        let name = before.or_else(|| comment(entry)).or_else(|| phrase(&after));
        let address = address(inside).unwrap_or_default();
        return (name.is_some() || !address.is_empty()).then_some(Mailbox { name, address });
    }
    match entry.iter().rposition(|token| token.kind == Kind::At) {
        Some(at) => {
            let from = run_before(entry, at);
            let to = run_after(entry, at);
            let address = address(&entry[from..to])?;
            let name = phrase(&entry[..from]).or_else(|| comment(entry)).or_else(|| phrase(&entry[to..]));
            Some(Mailbox { name, address })
        }
        None => {
            let text = phrase(entry)?;
            if may_be_encoded && text.contains('@') {
                // All of it in one encoded word, or in quotes.
                let tokens = tokens(text.as_bytes());
                if let Some(found) = entries(&tokens).find_map(|entry| mailbox(entry, false)) {
                    return Some(found);
                }
            }
            Some(Mailbox { name: Some(text), address: String::new() })
        }
    }
}

/// Where the local part begins whose `@` is at `at`: the word before it, and what hangs on it by dots.
fn run_before(entry: &[Token<'_>], at: usize) -> usize {
    let mut from = at;
    while from > 0 {
        let token = entry[from - 1];
        let is_local = matches!(token.kind, Kind::Atom | Kind::Quoted);
        let joins =
            from == at || !entry[from].spaced || entry[from].bytes.starts_with(b".") || token.bytes.ends_with(b".");
        if token.kind == Kind::Comment && from == at && from > 1 {
            from -= 1;
            continue;
        }
        if !is_local || !joins {
            break;
        }
        from -= 1;
    }
    from
}

fn run_after(entry: &[Token<'_>], at: usize) -> usize {
    let mut to = at + 1;
    while let Some(token) = entry.get(to) {
        let is_domain = matches!(token.kind, Kind::Atom | Kind::Literal);
        let before = entry[to - 1];
        let joins = to == at + 1
            || before.kind == Kind::Comment
            || !token.spaced
            || token.bytes.starts_with(b".")
            || before.bytes.ends_with(b".");
        if token.kind == Kind::Comment && to == at + 1 {
            to += 1;
            continue;
        }
        if !is_domain || !joins {
            break;
        }
        to += 1;
    }
    to
}

/// `local@domain` of tokens that hold nothing else but comments, white space, and a route.
fn address(tokens: &[Token<'_>]) -> Option<String> {
    let is_route = tokens.iter().find(|token| token.kind != Kind::Comment).is_some_and(|token| token.kind == Kind::At);
    let route = tokens.iter().position(|token| token.kind == Kind::Colon).filter(|_| is_route);
    let tokens = route.map_or(tokens, |colon| &tokens[colon + 1..]);
    let at = tokens.iter().rposition(|token| token.kind == Kind::At)?;
    let mut local = String::new();
    let mut is_quoted = false;
    for token in tokens[..at].iter().filter(|token| token.kind != Kind::Comment) {
        match token.kind {
            Kind::Quoted => {
                is_quoted = true;
                local.push_str(&unescaped(token.bytes));
            }
            _ => local.push_str(&charset::guessed(token.bytes)),
        }
    }
    // RFC 6068 is for links; some programs write it where an address belongs.
    if !is_quoted && local.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("mailto:")) {
        local.drain(..7);
    }
    let local = if is_quoted && !is_dot_atom(&local) { quoted(&local) } else { local };
    let domain: String = tokens[at + 1..]
        .iter()
        .filter(|token| matches!(token.kind, Kind::Atom | Kind::Literal))
        .map(|token| charset::guessed(token.bytes))
        .collect();
    // The dot of the root (RFC 1034 section 3.1), which no address has and some programs write.
    let domain = domain.strip_suffix('.').unwrap_or(&domain);
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace();
    let (local_ok, domain_ok) = (!local.is_empty(), !domain.is_empty() && domain.chars().all(is_plain));
    (local_ok && domain_ok).then(|| format!("{}@{}", one_line(local), a_labels(domain)))
}

/// RFC 5891; what cannot be encoded stays.
fn a_labels(domain: &str) -> String {
    match url::Host::parse(domain) {
        Ok(url::Host::Domain(ascii)) if !domain.is_ascii() => ascii,
        _ => domain.to_owned(),
    }
}

fn is_dot_atom(local: &str) -> bool {
    let is_atext = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    !local.is_empty() && local.split('.').all(|word| !word.is_empty() && word.chars().all(is_atext))
}

fn quoted(local: &str) -> String {
    let mut out = String::with_capacity(local.len() + 2);
    out.push('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn unescaped(bytes: &[u8]) -> String {
    let text = charset::guessed(bytes);
    if !text.contains('\\') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// A display name: words in the order they stand, decoded.
fn phrase(tokens: &[Token<'_>]) -> Option<String> {
    let mut bytes = Vec::new();
    for token in tokens.iter().filter(|token| !matches!(token.kind, Kind::Comment | Kind::Open | Kind::Close)) {
        if token.spaced && !bytes.is_empty() {
            bytes.push(b' ');
        }
        match token.kind {
            Kind::Quoted if token.bytes.contains(&b'\\') => {
                let mut escaped = false;
                bytes.extend(token.bytes.iter().filter(|byte| {
                    escaped = !escaped && **byte == b'\\';
                    !escaped
                }));
            }
            _ => bytes.extend_from_slice(token.bytes),
        }
    }
    let name = one_line(words::decoded(&bytes));
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The old way to give a name: `a@b.test (Ann)`.
fn comment(entry: &[Token<'_>]) -> Option<String> {
    let text = entry.iter().find(|token| token.kind == Kind::Comment)?.bytes;
    let name = one_line(words::decoded(text));
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Vec<(String, String)> {
        let list = mailboxes(value.as_bytes(), true, 100);
        list.into_iter().map(|one| (one.name.unwrap_or_default(), one.address)).collect()
    }

    #[test]
    fn fault_06_valid_and_common_sender_addresses() {
        for (value, name, address) in [
            ("\"foo bar\"@bar.test", "", "\"foo bar\"@bar.test"),
            ("\"foo..bar\"@docomo.test", "", "\"foo..bar\"@docomo.test"),
            ("foo..bar@docomo.test", "", "foo..bar@docomo.test"),
            ("\"/G=Foo/S=Bar/\"@x.test", "", "/G=Foo/S=Bar/@x.test"),
            ("foo@[IPv6:2001:db8::1]", "", "foo@[IPv6:2001:db8::1]"),
            ("X <foo@[192.0.2.1]>", "X", "foo@[192.0.2.1]"),
            ("MAILER-DAEMON <>", "MAILER-DAEMON", ""),
            ("\"Mail Delivery System\" <>", "Mail Delivery System", ""),
            ("root", "root", ""),
            ("MAILER-DAEMON", "MAILER-DAEMON", ""),
            ("=?utf-8?Q?J=C3=B6rg_=3Cj=40b.test=3E?=", "Jörg", "j@b.test"),
            ("Big Bug bb@bug.test", "Big Bug", "bb@bug.test"),
            ("Foo <a@b.test> <c@d.test>", "Foo", "a@b.test"),
            ("Foo <note> <c@d.test>", "Foo", "c@d.test"),
            ("\"Foo Bar <foo@bar.test>", "Foo Bar", "foo@bar.test"),
            ("Foo (Bar <foo@bar.test>", "Foo Bar", "foo@bar.test"),
            ("a@b.test (Ann (the first))", "Ann (the first)", "a@b.test"),
            ("<a@b.test> (Ann)", "Ann", "a@b.test"),
            ("=?utf-8?Q?Doe,_J?= <a@b.test>", "Doe, J", "a@b.test"),
            ("Doe, Jane <a@b.test>", "Doe, Jane", "a@b.test"),
            ("\"=?utf-8?Q?caf=C3=A9?=\" <a@b.test>", "café", "a@b.test"),
            ("\"Foo\\\"s\" <a@b.test>", "Foo\"s", "a@b.test"),
            ("\"a@b.test\" <c@d.test>", "a@b.test", "c@d.test"),
            ("\"a@b.test\"", "", "a@b.test"),
            ("=?utf-8?Q?Foo=0D=0ABcc=3A_x?= <a@b.test>", "Foo Bcc: x", "a@b.test"),
            ("<=?utf-8?Q?j=40b.test?=>", "", "j@b.test"),
            ("Foo <a@b.test", "Foo", "a@b.test"),
            ("<mailto:a@b.test>", "", "a@b.test"),
            ("Ann <a@b.test.>", "Ann", "a@b.test"),
            ("Ann <MAILTO:a@b.test>", "Ann", "a@b.test"),
        ] {
            assert_eq!(read(value), [(name.to_owned(), address.to_owned())], "{value}");
        }
    }

    #[test]
    fn fault_19_addresses_are_brought_into_one_form() {
        for value in [
            "Alice <alice @ example.test>",
            "\"alice\"@example.test",
            "Alice <\"alice\"@example.test>",
            "<@relay.test,@b.test:alice@example.test>",
            "alice(x)@(y)example.test",
            "alice @ example . test",
        ] {
            assert_eq!(read(value)[0].1, "alice@example.test", "{value}");
        }
        assert_eq!(read("Jörg <j@bücher.test>")[0].1, "j@xn--bcher-kva.test");
        assert_eq!(canonical("\"alice\"@b\u{fc}cher.test").as_deref(), Some("alice@xn--bcher-kva.test"));
        assert_eq!(canonical("nobody"), None);
    }

    #[test]
    fn lists_and_groups_are_flattened() {
        let addresses = |value: &str| read(value).into_iter().map(|one| one.1).collect::<Vec<_>>();
        assert_eq!(
            addresses("a@x.test, team: b@x.test, C <c@x.test>; d@x.test"),
            ["a@x.test", "b@x.test", "c@x.test", "d@x.test"]
        );
        assert_eq!(addresses("a@x.test; b@x.test"), ["a@x.test", "b@x.test"]);
        assert_eq!(addresses("undisclosed-recipients:;"), [""; 0]);
        assert_eq!(addresses(", ,"), [""; 0]);
        assert_eq!(addresses("<a@x.test, <b@x.test>"), ["a@x.test", "b@x.test"]);
        assert!(mailboxes(b"root", false, 9).is_empty());
    }
}
