//! The words of HTML, line by line, and which of them quote an earlier message. One pass, no recursion; a reader for text
//! only, so that nothing of it is fit to be shown as HTML.

use crate::limits;
use mail_parser::decoders::html::add_html_token;
use memchr::{memchr, memmem};

/// One line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// Byte of the source at which it begins.
    pub at: usize,
    pub part: Part,
}

/// What a line is by the containers around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Written,
    /// Of an earlier message; with the container that says so.
    Quoted(&'static str),
    /// A quotation that might be the writer's own: only an attribution before it makes it history.
    Block,
    Signature,
    /// From here on, all is an earlier message.
    Rest(&'static str),
}

/// The text of `html`; lines are kept apart as their elements do.
pub fn words(html: &str) -> String {
    let mut text = String::with_capacity(html.len() / 2);
    for line in lines(html) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&line.text);
    }
    text
}

/// Lines without white space around them; never two empty ones in a row.
pub fn lines(html: &str) -> Vec<Line> {
    let mut reader =
        Reader { html, out: Vec::new(), line: Line::default(), open: Vec::new(), rest: None, pre: 0, blank: false };
    reader.run();
    while reader.out.last().is_some_and(|line| line.text.is_empty()) {
        reader.out.pop();
    }
    reader.out
}

struct Reader<'a> {
    html: &'a str,
    out: Vec<Line>,
    line: Line,
    /// Containers that say what their lines are, outermost first.
    open: Vec<Container<'a>>,
    rest: Option<&'static str>,
    pre: usize,
    /// A blank is due before the next word.
    blank: bool,
}

struct Container<'a> {
    name: &'a str,
    part: Part,
    /// Elements of the same name that are open inside it.
    nested: usize,
}

/// Containers inside containers that are told apart.
const OPEN_MAX: usize = 64;

impl<'a> Reader<'a> {
    fn run(&mut self) {
        let bytes = self.html.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr(b'<', &bytes[at..]).map_or(bytes.len(), |len| at + len);
            self.text(&self.html[at..end], at);
            if end == bytes.len() {
                break;
            }
            at = self.tag(end);
        }
        self.end_line(bytes.len(), false);
    }

    /// Where reading goes on behind the `<` at `at`.
    fn tag(&mut self, at: usize) -> usize {
        let html = self.html;
        let rest = &html[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            return comment.find("-->").map_or(html.len(), |len| at + 4 + len + 3);
        }
        let closes = rest.starts_with('/');
        let name_at = at + 1 + usize::from(closes);
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_');
        let name_len = html[name_at..].find(|c| !is_name(c)).unwrap_or(html.len() - name_at);
        let name = &html[name_at..name_at + name_len];
        if name.is_empty() && !rest.starts_with(['!', '?', '/']) {
            // A bare `<` in the text.
            self.text("<", at);
            return at + 1;
        }
        let end = end_of_tag(html, name_at + name_len);
        let attributes = &html[name_at + name_len..end];
        let next = (end + 1).min(html.len());
        let is = |names: &[&str]| names.iter().any(|it| name.eq_ignore_ascii_case(it));
        if !closes && is(&["style", "script", "title", "xml", "template"]) && !attributes.ends_with('/') {
            return after_close(html, next, name);
        }
        if is(&["br"]) {
            self.end_line(next, true);
        } else if is(&BLOCKS) {
            self.end_line(if closes { next } else { at }, false);
            // A paragraph has an empty line around it.
            if is(&["p"]) && closes {
                self.line.at = next;
                self.empty_line(next);
            }
        } else if is(&["td", "th"]) {
            self.blank = true;
        }
        if is(&["pre"]) {
            self.pre = if closes { self.pre.saturating_sub(1) } else { self.pre + 1 };
        }
        if is(&["img"])
            && let Some(alt) = attribute(attributes, "alt")
        {
            self.blank = true;
            self.text(alt, at);
            self.blank = true;
        }
        if closes {
            self.close(name)
        } else {
            self.open(name, attributes)
        }
        next
    }

    fn open(&mut self, name: &'a str, attributes: &str) {
        if let Some(inner) = self.open.last_mut()
            && inner.name.eq_ignore_ascii_case(name)
            && !attributes.ends_with('/')
        {
            inner.nested += 1;
        }
        let Some(part) = container(name, attributes) else { return };
        if let Part::Rest(kind) = part {
            self.rest.get_or_insert(kind);
        } else if self.open.len() < OPEN_MAX {
            self.open.push(Container { name, part, nested: 0 });
        }
    }

    fn close(&mut self, name: &str) {
        let Some(inner) = self.open.last_mut() else { return };
        if !inner.name.eq_ignore_ascii_case(name) {
            return;
        }
        if inner.nested > 0 {
            inner.nested -= 1;
            return;
        }
        self.open.pop();
        // What counts as one element inside the outer container has ended, too.
        if let Some(outer) = self.open.last_mut()
            && outer.name.eq_ignore_ascii_case(name)
        {
            outer.nested = outer.nested.saturating_sub(1);
        }
    }

    fn text(&mut self, text: &str, at: usize) {
        if self.pre > 0 {
            let mut from = at;
            for (index, line) in text.split('\n').enumerate() {
                if index > 0 {
                    self.end_line(from, true);
                }
                from += line.len() + 1;
                self.word(line.trim_end_matches('\r'));
            }
            return;
        }
        for piece in text.split_inclusive(|c: char| c.is_ascii_whitespace()) {
            let word = piece.trim_ascii();
            if !word.is_empty() {
                self.word(word);
            }
            self.blank |= piece.len() > word.len();
        }
    }

    fn word(&mut self, word: &str) {
        if self.line.text.is_empty() {
            if word.is_empty() {
                return;
            }
            self.line.part = self.part();
        } else if self.blank {
            self.line.text.push(' ');
        }
        self.blank = false;
        let mut rest = word;
        while let Some(mark) = rest.find('&') {
            self.line.text.push_str(&rest[..mark]);
            let token = &rest[mark..];
            let end = token.bytes().take(ENTITY_MAX).position(|byte| byte == b';');
            match end {
                Some(end) => {
                    add_html_token(&mut self.line.text, &token.as_bytes()[..=end], false);
                    rest = &token[end + 1..];
                }
                None => {
                    self.line.text.push('&');
                    rest = &token[1..];
                }
            }
        }
        self.line.text.push_str(rest);
    }

    fn part(&self) -> Part {
        if let Some(kind) = self.rest {
            return Part::Rest(kind);
        }
        let quoted = self.open.iter().find(|one| matches!(one.part, Part::Quoted(_)));
        quoted.or(self.open.first()).map_or(Part::Written, |one| one.part)
    }

    /// `keep_empty`: an empty line was meant.
    fn end_line(&mut self, next: usize, keep_empty: bool) {
        self.blank = false;
        let mut line = std::mem::replace(&mut self.line, Line { at: next, ..Line::default() });
        let text = line.text.replace(['\u{a0}', '\u{200b}', '\u{feff}', '\u{ad}'], " ");
        line.text = text.trim().to_owned();
        if line.text.is_empty() {
            if keep_empty {
                self.empty_line(line.at);
            }
            return;
        }
        self.out.push(line);
    }

    fn empty_line(&mut self, at: usize) {
        if self.out.last().is_some_and(|line| !line.text.is_empty()) {
            self.out.push(Line { text: String::new(), at, part: self.part() });
        }
    }
}

/// Longest entity, with `&` and `;`.
const ENTITY_MAX: usize = 34;

const BLOCKS: [&str; 32] = [
    "p",
    "div",
    "table",
    "tr",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "blockquote",
    "pre",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "body",
    "html",
    "head",
    "section",
    "article",
    "header",
    "footer",
    "center",
    "form",
    "fieldset",
    "address",
    "tbody",
    "main",
];

/// Which containers of which mailers say what is in them. Found in mail of each; none of them is documented.
fn container(name: &str, attributes: &str) -> Option<Part> {
    let id = attribute(attributes, "id").unwrap_or_default();
    let class = attribute(attributes, "class").unwrap_or_default();
    let has = |wanted: &str| class.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(wanted));
    // Outlook prefixes ids and classes that it passes on with `x_`.
    let id = id.trim_start_matches("x_");
    if name.eq_ignore_ascii_case("blockquote") {
        let is_cite = attribute(attributes, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("cite"));
        let known =
            is_cite || has("gmail_quote") || has("yahoo_quoted") || has("protonmail_quote") || has("tutanota_quote");
        return Some(if known { Part::Quoted("blockquote") } else { Part::Block });
    }
    if attributes.is_empty() {
        return None;
    }
    // Gmail.
    if has("gmail_attr") {
        return Some(Part::Quoted("gmail_attr"));
    }
    if has("gmail_signature")
        || has("moz-signature")
        || id.eq_ignore_ascii_case("AppleMailSignature")
        || id.eq_ignore_ascii_case("ms-outlook-mobile-signature")
        || id.eq_ignore_ascii_case("Signature")
        || id.eq_ignore_ascii_case("protonmail_signature_block")
    {
        return Some(Part::Signature);
    }
    // Thunderbird.
    if has("moz-cite-prefix") {
        return Some(Part::Quoted("moz-cite-prefix"));
    }
    // Yahoo.
    if has("yahoo_quoted") || id.starts_with("yahoo_quoted") || has("yahooQuoted") {
        return Some(Part::Quoted("yahoo_quoted"));
    }
    // Outlook on the web, and its mobile apps.
    if id.eq_ignore_ascii_case("divRplyFwdMsg")
        || id.eq_ignore_ascii_case("divRpyFwdMsg")
        || id.eq_ignore_ascii_case("appendonsend")
        || id.eq_ignore_ascii_case("mail-editor-reference-message-container")
        || id.eq_ignore_ascii_case("OLK_SRC_BODY_SECTION")
        || has("OutlookMessageHeader")
    {
        return Some(Part::Rest("outlook"));
    }
    // Outlook on the desktop: the line above From, Sent, To, Subject. Nothing else names it.
    if name.eq_ignore_ascii_case("div")
        && let Some(style) = attribute(attributes, "style")
    {
        let style: String = style.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
        let is_line = |color: &str| {
            style.contains(&format!("border-top:solid{color}1.0pt"))
                || style.contains(&format!("border-top:solid{color}1pt"))
                || style.contains(&format!("border-top:1ptsolid{color}"))
                || style.contains(&format!("border-top:1.0ptsolid{color}"))
        };
        if style.contains("padding:3.0pt0") && ["#e1e1e1", "#b5c4df"].into_iter().any(is_line) {
            return Some(Part::Rest("outlook"));
        }
    }
    None
}

/// The `>` of the tag whose attributes begin at `at`; one in quotes does not count.
fn end_of_tag(html: &str, at: usize) -> usize {
    let bytes = html.as_bytes();
    let mut index = at;
    let limit = bytes.len().min(at + TAG_MAX);
    let mut quote = None;
    while index < limit {
        match (bytes[index], quote) {
            (byte @ (b'"' | b'\''), None) if bytes[..index].trim_ascii_end().ends_with(b"=") => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b'>', None) => return index,
            _ => {}
        }
        index += 1;
    }
    // A quote that was never closed.
    memchr(b'>', &bytes[at..]).map_or(bytes.len(), |len| at + len)
}

/// Longest tag whose quotes are minded, bytes: pictures may stand in them, and then anything ends it.
const TAG_MAX: usize = limits::HTML_TAG_MAX;

fn after_close(html: &str, from: usize, name: &str) -> usize {
    let bytes = html.as_bytes();
    memmem::find_iter(&bytes[from..], b"</")
        .map(|at| from + at)
        .find(|at| bytes.get(at + 2..at + 2 + name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name.as_bytes())))
        .map_or(html.len(), |at| memchr(b'>', &bytes[at..]).map_or(html.len(), |len| at + len + 1))
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '/')).unwrap_or(rest.len());
        if end == 0 {
            // A stray sign; the rest is not read.
            return None;
        }
        let (this, after) = rest.split_at(end);
        let after = after.trim_ascii_start();
        let (value, after) = match after.strip_prefix('=').map(str::trim_ascii_start) {
            None => ("", after),
            Some(after) => match after.chars().next() {
                Some(quote @ ('"' | '\'')) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                _ => {
                    let end = after.find(|c: char| c.is_ascii_whitespace()).unwrap_or(after.len());
                    after.split_at(end)
                }
            },
        };
        if this.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
        if rest.is_empty() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_and_nothing_else() {
        for (html, expected) in [
            ("<p>Hello <b>you</b></p><p>again</p>", "Hello you\n\nagain"),
            ("a<br>b<br/><br />c", "a\nb\n\nc"),
            ("<title>no</title><style>p{}</style><script>x()</script>yes<!-- no -->", "yes"),
            ("<xml><o:x>no</o:x></xml>yes", "yes"),
            ("caf&eacute; &amp; &#8364; &lt;b&gt; &nosuch; & x", "café & € <b> &nosuch; & x"),
            ("1 < 2", "1 < 2"),
            ("<pre>a\n  b</pre>", "a\nb"),
            ("<img alt=\"A cat\" src=x>", "A cat"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("<a title=\"a > b\" href=x>link</a>", "link"),
            ("a&nbsp;&nbsp;b", "a  b"),
            ("<style>never closed", ""),
            ("", ""),
        ] {
            assert_eq!(words(html), expected, "{html}");
        }
    }

    #[test]
    fn hostile_html_takes_linear_time() {
        let begun = std::time::Instant::now();
        for html in [
            "<",
            "<div ",
            "<a b=\"",
            "<!--",
            "<blockquote>",
            "&",
            "</",
            "<style>",
            "<pre>\n",
            "<img alt=",
            "<div id='x' ",
        ] {
            let _ = words(&html.repeat((1 << 20) / html.len()));
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
