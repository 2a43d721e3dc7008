//! XML: what comes in as a tree, what goes out as escaped text.

use std::borrow::Cow;

use roxmltree::{Document, Node, ParsingOptions};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

/// Elements, attributes and texts of one request.
const NODES_MAX: u32 = 100_000;

const DATE_TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// # Errors
/// One sentence: not well-formed, with a DOCTYPE, or too many nodes. Depth is no danger: the parser does not recurse.
pub fn parse(text: &str) -> Result<Document<'_>, String> {
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| error.to_string())
}

/// The first child element of this local name.
pub fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    elements(node).find(|child| child.tag_name().name() == name)
}

pub fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

/// Its text without spaces around; empty without text.
pub fn text<'a>(node: Node<'a, '_>) -> &'a str {
    node.text().unwrap_or_default().trim()
}

pub fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).map(text).filter(|text| !text.is_empty())
}

/// xs:boolean.
pub fn is_true(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("true")
}

/// For text and attributes; characters that XML 1.0 does not have become U+FFFD.
pub fn escape(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !matches!(c, '<' | '>' | '&' | '"' | '\'' | '\r') && is_char(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\r' => escaped.push_str("&#xD;"),
            c if is_char(c) => escaped.push(c),
            _ => escaped.push('\u{fffd}'),
        }
    }
    Cow::Owned(escaped)
}

/// <https://www.w3.org/TR/xml/#charsets>
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// `<t:NAME>text</t:NAME>`
pub fn element(name: &str, content: &str) -> String {
    format!("<t:{name}>{}</t:{name}>", escape(content))
}

pub fn date_time(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(DATE_TIME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_requests_are_refused() {
        assert!(parse("<a><b x='1'/>t</a>").is_ok());
        assert!(parse("<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>").is_err());
        assert!(parse(&"<a>".repeat(1_000_000)).is_err());
        assert!(parse(&format!("<a>{}</a>", "<b/>".repeat(200_000))).is_err());
    }

    #[test]
    fn what_xml_does_not_have_is_replaced() {
        assert_eq!(escape("a<b>&\"c\"\u{0}\u{b}\t\r\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}\u{fffd}\t&#xD;\n");
        assert_eq!(element("Subject", "x"), "<t:Subject>x</t:Subject>");
    }
}
