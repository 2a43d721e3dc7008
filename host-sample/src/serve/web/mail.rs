//! Reads a message to show it: its HTML, made harmless, and its attachments.

use std::borrow::Cow;

use mail_parser::{MessageParser, MimeHeaders as _, PartType};

/// Of a message that is read for a page.
pub const SIZE_MAX: u64 = 64 * 1024 * 1024;
/// Of the HTML that is shown.
const HTML_MAX: usize = 2 * 1024 * 1024;
/// The parser goes one level deeper at each of them, and its stack has an end.
const CONTAINERS_MAX: usize = 200;
const NAME_MAX: usize = 120;

pub struct Mail {
    /// As it came.
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
}

pub struct Attachment {
    pub name: String,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// # Errors
/// A sentence: why it is not shown.
pub fn read(raw: &[u8]) -> Result<Mail, &'static str> {
    if containers(raw) > CONTAINERS_MAX {
        return Err("This message has so many parts within parts that it is not taken apart here.");
    }
    let Some(message) = MessageParser::default().parse(raw) else {
        return Err("This message cannot be taken apart.");
    };
    let html = message.html_body.iter().find_map(|&number| match &message.part(number)?.body {
        PartType::Html(html) if html.len() <= HTML_MAX => Some(html.clone().into_owned()),
        _ => None,
    });
    let attachments = message
        .attachments()
        .enumerate()
        .map(|(number, part)| {
            let media_type = part.content_type().map_or(Cow::Borrowed("application/octet-stream"), |kind| {
                let sub = kind.subtype().unwrap_or("octet-stream");
                Cow::Owned(format!("{}/{sub}", kind.ctype()).to_lowercase())
            });
            let name = part.attachment_name().map(harmless).filter(|name| !name.is_empty());
            Attachment {
                name: name.unwrap_or_else(|| format!("attachment-{}", number + 1)),
                media_type: media_type.into_owned(),
                bytes: part.contents().to_vec(),
            }
        })
        .collect();
    Ok(Mail { html, attachments })
}

/// No scripts, styles, forms, frames or images; links lead out of the page and tell nobody where they stood.
pub fn sanitised(html: &str) -> String {
    ammonia::Builder::default()
        .rm_tags(["img", "map", "area"])
        .url_schemes(["http", "https", "mailto"].into())
        .url_relative(ammonia::UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"))
        .set_tag_attribute_value("a", "target", "_blank")
        .clean(html)
        .to_string()
}

/// Multiparts and messages within messages, as their headers name them.
fn containers(raw: &[u8]) -> usize {
    let begins = |word: &[u8]| raw.windows(word.len()).filter(|bytes| bytes.eq_ignore_ascii_case(word)).count();
    begins(b"multipart") + begins(b"rfc822") + begins(b"message/global")
}

/// A name of a file, not a path, and without what turns its end around on the screen.
fn harmless(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let turns = |c: &char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let kept = last.chars().filter(|c| !c.is_control() && !turns(c)).take(NAME_MAX).collect::<String>();
    kept.trim_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "From: a@b.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=m\r\n\r\n\
        --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
        --a\r\nContent-Type: text/plain\r\n\r\nhello\r\n\
        --a\r\nContent-Type: text/html\r\n\r\n<p onclick=\"x()\">hello <b>you</b></p>\r\n--a--\r\n\
        --m\r\nContent-Type: text/html; name=\"evil.html\"\r\n\
        Content-Disposition: attachment; filename=\"../../evil\u{202e}fdp.html\"\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nPHNjcmlwdD4=\r\n--m--\r\n";

    #[test]
    fn html_and_attachments_are_found() {
        let mail = read(MAIL.as_bytes()).unwrap();
        assert_eq!(sanitised(&mail.html.unwrap()).trim(), "<p>hello <b>you</b></p>");
        assert_eq!(mail.attachments.len(), 1);
        assert_eq!(mail.attachments[0].bytes, b"<script>");
        assert_eq!(mail.attachments[0].media_type, "text/html");
        assert_eq!(mail.attachments[0].name, "evilfdp.html");
    }

    #[test]
    fn what_could_act_or_tell_is_taken_out() {
        for (dirty, clean) in [
            ("<script>alert(1)</script>a", "a"),
            ("<img src=https://spy.test/p.gif onerror=x()>a", "a"),
            ("<style>*{display:none}</style>a", "a"),
            ("<iframe src=//evil.test></iframe>a", "a"),
            ("<form action=//evil.test><input name=p>a</form>", "a"),
            ("<svg onload=x()><a xlink:href=javascript:x()>a</a></svg>", ""),
            ("<a href=\"javascript:x()\">a</a>", "<a rel=\"noopener noreferrer nofollow\" target=\"_blank\">a</a>"),
            ("<a href=\"/logout\">a</a>", "<a rel=\"noopener noreferrer nofollow\" target=\"_blank\">a</a>"),
            ("<p style=\"position:fixed\" class=x id=y>a</p>", "<p>a</p>"),
            ("<meta http-equiv=refresh content=\"0;url=//evil.test\"><base href=//evil.test>a", "a"),
        ] {
            let seen = sanitised(dirty);
            let bare = seen.replace(" target=\"_blank\"", "").replace(" rel=\"noopener noreferrer nofollow\"", "");
            let clean = clean.replace(" target=\"_blank\"", "").replace(" rel=\"noopener noreferrer nofollow\"", "");
            assert_eq!(bare, clean, "{dirty}");
            assert!(!seen.contains("evil") && !seen.contains("spy") && !seen.contains("x()"), "{seen}");
        }
        assert!(sanitised("<a href=https://a.test>a</a>").contains("noopener noreferrer"));
    }

    #[test]
    fn a_nested_message_is_not_taken_apart() {
        let mut raw = String::new();
        for level in 0..100_000 {
            raw.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
        }
        assert!(read(raw.as_bytes()).is_err());
        let messages = "Content-Type: MESSAGE/RFC822\r\n\r\n".repeat(100_000);
        assert!(read(messages.as_bytes()).is_err());
        // As deep as it is allowed to be, on a stack of the size that a page has.
        let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(CONTAINERS_MAX);
        let mail = std::thread::Builder::new().stack_size(2 << 20).spawn(move || read(deep.as_bytes()).is_ok());
        assert!(mail.unwrap().join().unwrap());
    }
}
