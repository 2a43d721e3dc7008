//! What the page shows of a message: the library's facts of it, the HTML made harmless, names made harmless.

use oauth_mail_abi::Library;
use serde_json::Value;

use crate::failure::Result;

/// Of a message that is read for a page.
pub const SIZE_MAX: u64 = 64 * 1024 * 1024;
const NAME_MAX: usize = 120;

pub struct Mail {
    pub text: Option<String>,
    /// As it came.
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
}

pub struct Attachment {
    pub name: String,
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    pub part_index: u32,
}

/// # Errors
/// What the library says.
pub fn read(library: &Library, raw: &[u8]) -> Result<Mail> {
    Ok(shown(&library.facts(raw)?))
}

fn shown(facts: &Value) -> Mail {
    let attachments = facts["attachments"].as_array().into_iter().flatten().enumerate().map(|(number, one)| {
        let name = one["name"].as_str().map(harmless).filter(|name| !name.is_empty());
        Attachment {
            name: name.unwrap_or_else(|| format!("attachment-{}", number + 1)),
            media_type: one["type"].as_str().unwrap_or("application/octet-stream").to_owned(),
            size: one["size"].as_u64().unwrap_or_default(),
            part_index: one["part_index"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or_default(),
        }
    });
    let text = |field: &str| facts[field].as_str().map(str::to_owned);
    Mail { text: text("text"), html: text("html"), attachments: attachments.collect() }
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

    #[test]
    fn what_the_library_lists_is_shown_under_harmless_names() {
        let facts = serde_json::json!({
            "text": "hello", "html": "<p onclick=\"x()\">hello <b>you</b></p>",
            "attachments": [
                {"name": "../../evil\u{202e}fdp.html", "type": "text/html", "size": 8, "part_index": 2},
                {"name": null, "type": "image/png", "size": 1, "part_index": 3},
            ],
        });
        let mail = shown(&facts);
        assert_eq!(sanitised(&mail.html.unwrap()).trim(), "<p>hello <b>you</b></p>");
        let listed: Vec<_> = mail.attachments.iter().map(|one| (one.name.as_str(), one.size, one.part_index)).collect();
        assert_eq!(listed, [("evilfdp.html", 8, 2), ("attachment-2", 1, 3)]);
        assert_eq!(shown(&Value::Null).attachments.len(), 0);
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
}
