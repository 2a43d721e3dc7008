//! What of a message is its text: which parts, in which order, in whose charset.

use std::borrow::Cow;

use super::{
    charset,
    codec::Encoding,
    facts::Facts,
    html,
    mime::{Disposition, Leaf},
};
use crate::limits;

/// The parts of a message that are text to read, in their order.
#[derive(Default)]
pub struct Bodies {
    slots: Vec<Slot>,
    has_text: bool,
    has_html: bool,
}

/// What stands in one place of the message: a part, or a multipart/alternative.
#[derive(Default)]
struct Slot {
    alternative: Option<usize>,
    text: Body,
    html: Body,
}

impl Bodies {
    /// `false`: this part is an attachment.
    pub fn take(&mut self, leaf: &Leaf<'_>) -> bool {
        let is_html = match leaf.media_type.as_str() {
            "text/plain" => false,
            "text/html" => true,
            _ => return false,
        };
        if !self.is_body(leaf, is_html) {
            return false;
        }
        let same =
            self.slots.last().is_some_and(|slot| slot.alternative.is_some() && slot.alternative == leaf.alternative);
        if !same {
            self.slots.push(Slot { alternative: leaf.alternative, ..Slot::default() });
        }
        if let Some(slot) = self.slots.last_mut() {
            if is_html { slot.html.add(leaf) } else { slot.text.add(leaf) }
        }
        if is_html {
            self.has_html = true
        } else {
            self.has_text = true
        }
        true
    }

    /// A text with a file name is a file that somebody attached; but the whole message, and the first text there is, is the
    /// body whatever its name (MIME-tools names every body that is given by path).
    fn is_body(&self, leaf: &Leaf<'_>, is_html: bool) -> bool {
        if leaf.disposition == Disposition::Attachment {
            return false;
        }
        let has_same = if is_html { self.has_html } else { self.has_text };
        let is_first = !self.has_text && !self.has_html;
        leaf.name.is_none() || leaf.is_root || is_first || (leaf.alternative.is_some() && !has_same)
    }

    /// Text and HTML each hold the whole mail, as far as it has either.
    pub fn into_facts(self, facts: &mut Facts) {
        let (mut text, mut html) = (Body::default(), Body::default());
        for slot in self.slots {
            match (slot.text.text, slot.html.text) {
                (Some(plain), Some(marked)) => {
                    text.join(plain, slot.text.truncated);
                    html.join(marked, slot.html.truncated);
                }
                (Some(plain), None) => {
                    if self.has_html && !plain.trim().is_empty() {
                        html.join(preformatted(&plain), slot.text.truncated);
                    }
                    text.join(plain, slot.text.truncated);
                }
                (None, Some(marked)) => {
                    if self.has_text {
                        text.join(html::words(&marked), slot.html.truncated);
                    }
                    html.join(marked, slot.html.truncated);
                }
                (None, None) => {}
            }
        }
        (facts.text, facts.text_truncated) = (text.text, text.truncated);
        (facts.html, facts.html_truncated) = (html.text, html.truncated);
    }
}

fn preformatted(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<pre>{}</pre>\n", escaped.trim_end())
}

/// Text of one or several parts, up to the bound.
#[derive(Default)]
struct Body {
    text: Option<String>,
    truncated: bool,
}

impl Body {
    fn add(&mut self, leaf: &Leaf<'_>) {
        if self.truncated {
            return;
        }
        // No transfer encoding needs more than four bytes for one, so nothing is cut that would have had room.
        let max = match leaf.encoding {
            Encoding::Identity => limits::FACT_TEXT_MAX + 1,
            Encoding::Base64 | Encoding::QuotedPrintable => 4 * limits::FACT_TEXT_MAX,
        };
        let encoded = &leaf.body[..leaf.body.len().min(max)];
        let is_cut = encoded.len() < leaf.body.len();
        let mut bytes = leaf.encoding.decode(encoded);
        // The cut may have gone through a character.
        if let (true, Err(error)) = (is_cut, std::str::from_utf8(&bytes))
            && error.error_len().is_none()
        {
            let whole = error.valid_up_to();
            match &mut bytes {
                Cow::Borrowed(bytes) => *bytes = &bytes[..whole],
                Cow::Owned(bytes) => bytes.truncate(whole),
            }
        }
        let named = match &leaf.charset {
            None if leaf.media_type == "text/html" => declared(&bytes),
            _ => None,
        };
        let decoded = charset::decoded(bytes, leaf.charset.as_deref().or(named.as_deref()));
        let decoded = match leaf.flowed {
            Some(delete_space) if leaf.media_type == "text/plain" => joined(&decoded, delete_space),
            _ => decoded,
        };
        self.join(decoded, is_cut);
    }

    fn join(&mut self, next: String, is_cut: bool) {
        if self.truncated {
            return;
        }
        let whole = match self.text.take() {
            Some(before) if before.is_empty() || before.ends_with('\n') => before + &next,
            Some(before) => before + "\n" + &next,
            None => next,
        };
        self.truncated = is_cut || whole.len() > limits::FACT_TEXT_MAX;
        self.text = Some(cut(whole, limits::FACT_TEXT_MAX));
    }
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

/// What unlabelled HTML says of itself: `<meta charset=…>`, where that is needed.
fn declared(bytes: &[u8]) -> Option<String> {
    if std::str::from_utf8(bytes).is_ok() {
        return None;
    }
    let start = bytes[..bytes.len().min(limits::HTML_CHARSET_LOOK)].to_ascii_lowercase();
    let at = memchr::memmem::find(&start, b"charset=")? + b"charset=".len();
    let rest = start[at..].trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'")).unwrap_or(rest);
    let len =
        rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"-_:.".contains(byte))).unwrap_or(rest.len());
    let name = String::from_utf8_lossy(&rest[..len]).into_owned();
    // It was read as ASCII, so it is not in a wider one.
    (len > 0 && !name.starts_with("utf-16") && !name.starts_with("utf-32")).then_some(name)
}

/// RFC 3676 section 4: lines that end with a blank go on in the next one of the same depth of quoting.
fn joined(text: &str, delete_space: bool) -> String {
    let mut out = String::with_capacity(text.len());
    // Depth of the paragraph that goes on.
    let mut open: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        let end = &line[bare.len()..];
        let content = bare.trim_start_matches('>');
        let depth = bare.len() - content.len();
        let content = content.strip_prefix(' ').unwrap_or(content);
        let is_signature = content == "-- ";
        if open.take().is_some_and(|before| before == depth && !is_signature) {
            if delete_space {
                out.pop();
            }
        } else {
            if out.ends_with(' ') && !out.ends_with("-- ") && !out.is_empty() {
                // The paragraph was cut off by another depth.
                out.push('\n');
            }
            out.extend(std::iter::repeat_n('>', depth));
            if depth > 0 && !content.is_empty() {
                out.push(' ');
            }
        }
        out.push_str(content);
        let flows = content.ends_with(' ') && !is_signature && !end.is_empty();
        if flows { open = Some(depth) } else { out.push_str(end) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::joined;
    use crate::message::parse;

    fn text(raw: &str) -> Option<String> {
        parse(raw.replace('\n', "\r\n").as_bytes()).text
    }

    #[test]
    fn fault_02_a_main_body_that_has_a_file_name_is_the_body() {
        for header in [
            "Content-Type: text/plain; charset=utf-8; name=\"message.txt\"",
            "Content-Type: text/plain; name=",
            "Content-Type: text/plain\nContent-Disposition: inline; filename=x.txt",
            "Content-Disposition: =?utf-8?Q?inline?=",
        ] {
            let facts = parse(format!("From: a@b.test\n{header}\n\nPlease help\n").as_bytes());
            assert_eq!((facts.text.as_deref(), facts.attachments.len()), (Some("Please help\n"), 0), "{header}");
        }
        let html = parse(b"Content-Type: text/html; name=x.html\n\n<p>Help</p>");
        assert_eq!(html.html.as_deref(), Some("<p>Help</p>"));
        let both = "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain; name=a.txt\n\nHelp\n\
            --b\nContent-Type: text/html; name=a.html\n\n<p>Help</p>\n--b--";
        let both = parse(both.as_bytes());
        assert_eq!((both.text.as_deref(), both.html.as_deref()), (Some("Help"), Some("<p>Help</p>")));
        let mixed = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; name=a.txt\n\nHelp\n\
            --b\nContent-Type: text/plain; name=log.txt\n\nlog\n--b--";
        let mixed = parse(mixed.as_bytes());
        assert_eq!((mixed.text.as_deref(), mixed.attachments.len()), (Some("Help"), 1));
        let attached = parse(b"Content-Type: text/plain; name=a\nContent-Disposition: attachment\n\nx");
        assert_eq!((attached.text, attached.attachments.len()), (None, 1));
    }

    #[test]
    fn fault_13_text_and_html_are_each_the_whole_mail() {
        let footer = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>The mail</p>\n\
            --b\n\nA list's <footer>\n--b--";
        let facts = parse(footer.as_bytes());
        assert_eq!(facts.text.as_deref(), Some("The mail\nA list's <footer>"));
        assert_eq!(facts.html.as_deref(), Some("<p>The mail</p>\n<pre>A list's &lt;footer&gt;</pre>\n"));
        let apple = "Content-Type: multipart/alternative; boundary=a\n\n--a\n\nabove below\n--a\n\
            Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>above</p>\n\
            --b\nContent-Type: application/pdf\n\nx\n--b\nContent-Type: text/html\n\n<p>below</p>\n--b--\n--a--";
        let facts = parse(apple.as_bytes());
        assert_eq!(facts.text.as_deref(), Some("above below"));
        assert_eq!(facts.html.as_deref(), Some("<p>above</p>\n<p>below</p>"));
        let only = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>above</p>\n\
            --b\nContent-Type: application/pdf\n\nx\n--b\nContent-Type: text/html\n\n<p>below</p>\n--b--";
        let facts = parse(only.as_bytes());
        assert_eq!((facts.text, facts.html.as_deref()), (None, Some("<p>above</p>\n<p>below</p>")));
    }

    #[test]
    fn fault_11_a_body_without_an_empty_line_before_it() {
        for (raw, expected) in [
            (
                "From: a@b.test\nSubject: x\nThis is the body without a separator\nsecond line",
                "This is the body without a separator\nsecond line",
            ),
            ("Subject: x\nThis is the body\n\nsecond: paragraph", "This is the body\n\nsecond: paragraph"),
            ("Subject: x\nHello\nPlease note: the\nnote: this\nend", "Hello\nPlease note: the\nnote: this\nend"),
            ("Subject: x\n \nbody\n", "body\n"),
            ("Content-Type: multipart/mixed; boundary=b\n--b\n\ntext\n--b--", "text"),
            ("Content-Type: multipart/mixed; boundary=b\n\n--b\nno header\n--b--", "no header"),
        ] {
            assert_eq!(text(raw).as_deref(), Some(expected.replace('\n', "\r\n").as_str()), "{raw}");
        }
        let folded = parse(b"Subject: a\n \n b\nFrom: a@b.test\n\nbody");
        assert_eq!((folded.subject.as_deref(), folded.text.as_deref()), (Some("a b"), Some("body")));
    }

    #[test]
    fn fault_18_flowed_text_is_joined_and_html_says_its_charset() {
        assert_eq!(joined("Donau \r\ndampf\r\n", true), "Donaudampf\r\n");
        assert_eq!(
            joined("one \r\ntwo\r\n\r\n> a \r\n> b\r\n>> c\r\n-- \r\nAnn", false),
            "one two\r\n\r\n> a b\r\n>> c\r\n-- \r\nAnn"
        );
        assert_eq!(joined(" >quoted by a blank\r\n", false), ">quoted by a blank\r\n");
        let meta = parse(b"Content-Type: text/html\n\n<meta charset=\"iso-8859-2\">\xb1");
        assert!(meta.html.unwrap().ends_with('ą'));
        let bom = parse(b"Content-Type: text/plain; charset=utf-8\n\n\xef\xbb\xbfHello");
        assert_eq!(bom.text.as_deref(), Some("Hello"));
        let comment = parse(b"Content-Transfer-Encoding: (x) quoted-printable\n\na=3Db");
        assert_eq!(comment.text.as_deref(), Some("a=b"));
    }
}
