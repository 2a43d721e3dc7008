//! Exchange writes characters that XML 1.0 forbids, as they stand in old mail: `&#x1F;` in a Subject,
//! U+FFFF, bytes that are not UTF-8. A strict parser refuses the whole answer for one of them, and with
//! it the folder. Here each becomes U+FFFD before the parser sees the text.
//!
//! Sources: XML 1.0 sections 2.2 (Char), 4.1 (references) and 4.6 (predefined entities);
//! ews-java-api issue 156 (5 to 10 % of mailboxes), exchangelib issue 1200.

const REPLACEMENT: char = '\u{FFFD}';
const PREDEFINED: [&str; 5] = ["amp", "lt", "gt", "quot", "apos"];
/// A reference is not longer than this: `&#x0010FFFF;` has 12 characters.
const REFERENCE_MAX: usize = 16;

/// The text of an answer with nothing in it that XML 1.0 forbids. Markup stays as it is.
pub fn cleaned(bytes: Vec<u8>) -> String {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    if !text.contains('&') && text.chars().all(is_char) {
        return text;
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|c| c == '&' || c == '<' || !is_char(c)) {
        let (before, from) = rest.split_at(at);
        clean.push_str(before);
        rest = if let Some(section) = literal_section(from) {
            // Nothing is a reference in there.
            clean.extend(section.chars().map(|c| if is_char(c) { c } else { REPLACEMENT }));
            &from[section.len()..]
        } else if from.starts_with('&') {
            let (written, len) = reference(from);
            clean.push_str(written);
            &from[len..]
        } else {
            let first = from.chars().next().unwrap_or(REPLACEMENT);
            clean.push(if is_char(first) { first } else { REPLACEMENT });
            &from[first.len_utf8()..]
        };
    }
    clean.push_str(rest);
    clean
}

/// CDATA section or comment, up to its end.
fn literal_section(text: &str) -> Option<&str> {
    [("<![CDATA[", "]]>"), ("<!--", "-->")].into_iter().find_map(|(begin, end)| {
        let inner = text.strip_prefix(begin)?;
        let len = inner.find(end).map_or(inner.len(), |at| at + end.len());
        Some(&text[..begin.len() + len])
    })
}

/// What is written for the reference at the beginning of `text`, and how much of `text` it stands for.
/// An ampersand that begins none is one itself.
fn reference(text: &str) -> (&str, usize) {
    const LONE: (&str, usize) = ("&amp;", 1);
    let end = text.bytes().take(REFERENCE_MAX).position(|byte| byte == b';');
    let Some(end) = end else { return LONE };
    let (name, whole) = (&text[1..end], &text[..=end]);
    let number = match name.strip_prefix('#') {
        None if PREDEFINED.contains(&name) => return (whole, whole.len()),
        None => return LONE,
        Some(number) => number,
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return LONE;
    }
    // Half of a surrogate pair is no character either.
    let c = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    if c.is_some_and(is_char) { (whole, whole.len()) } else { ("\u{FFFD}", whole.len()) }
}

/// Char of XML 1.0.
pub fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(inner: &[u8]) -> String {
        let clean = cleaned([b"<a b=\"", inner, b"\">", inner, b"</a>"].concat());
        let document = super::super::soap::parse(&clean).unwrap_or_else(|| panic!("{clean:?}"));
        let root = document.root_element();
        assert_eq!(root.attribute("b").unwrap_or_default(), root.text().unwrap_or_default());
        root.text().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_xml_forbids_becomes_a_replacement_character() {
        for (written, read) in [
            (&b"x&#x1F;y"[..], "x\u{FFFD}y"),
            (b"x&#x0;y", "x\u{FFFD}y"),
            (b"x&#11;y", "x\u{FFFD}y"),
            (b"x&#xFFFE;y", "x\u{FFFD}y"),
            (b"x&#xD83D;&#xDE00;y", "x\u{FFFD}\u{FFFD}y"),
            (b"x&#99999999999;y", "x\u{FFFD}y"),
            (b"x\x0By\x00z\x7F", "x\u{FFFD}y\u{FFFD}z\u{7F}"),
            ("x\u{FFFF}y\u{FFFE}\u{1F600}".as_bytes(), "x\u{FFFD}y\u{FFFD}\u{1F600}"),
            (b"caf\xE9 \xED\xA0\xBD", "caf\u{FFFD} \u{FFFD}\u{FFFD}\u{FFFD}"),
            (b"a &amp; b &lt; &#65;&#x42; &quot;", "a & b < AB \""),
            (
                b"AT&T &nbsp; & &; &#; &#x; &#xZZ; &#1234567890123456789;",
                "AT&T &nbsp; & &; &#; &#x; &#xZZ; &#1234567890123456789;",
            ),
        ] {
            assert_eq!(text_of(written), read);
        }
    }

    #[test]
    fn markup_stays_and_nothing_is_a_reference_in_a_literal_section() {
        let answer = "<?xml version=\"1.0\"?><a><!-- & &#x1; --><b/><![CDATA[&#x1F;\u{1F}]]>&#x1F;</a>";
        let clean = cleaned(answer.as_bytes().to_vec());
        assert_eq!(clean, "<?xml version=\"1.0\"?><a><!-- & &#x1; --><b/><![CDATA[&#x1F;\u{FFFD}]]>\u{FFFD}</a>");
        for open in ["<![CDATA[&", "<!-- &", "&", "&#", "<"] {
            assert!(cleaned(open.as_bytes().to_vec()).starts_with(&open[..1]), "cut off in the middle: {open}");
        }
        let long = "&".repeat(100_000);
        assert_eq!(cleaned(long.into_bytes()).len(), 500_000);
    }
}
