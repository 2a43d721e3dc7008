//! The parts of a message (RFC 2046): where each begins and ends, found in one pass, without decoding, copying or
//! recursion, so that no mail of any sender costs more than a look at its bytes.
//!
//! Messages inside messages are leaves: what they hold is theirs.

use memchr::{memchr, memmem};

use super::{
    codec::Encoding,
    facts::Flag,
    field::{Name, Section},
    parameters::Parameters,
};
use crate::limits;

/// A part that is no multipart.
#[derive(Clone, Debug, Default)]
pub struct Leaf<'a> {
    /// Counts leaves in the order they stand in the message.
    pub index: u32,
    /// Lower-case, `text/plain`.
    pub media_type: String,
    pub charset: Option<String>,
    pub name: Option<String>,
    pub content_id: Option<String>,
    pub disposition: Disposition,
    pub encoding: Encoding,
    /// RFC 3676: its lines flow; `Some(true)` without the blank at their ends.
    pub flowed: Option<bool>,
    /// The `method` of a text/calendar part (RFC 5546).
    pub method: Option<String>,
    /// Number of the outermost multipart/alternative around it.
    pub alternative: Option<usize>,
    /// It is the whole message.
    pub is_root: bool,
    /// Still encoded.
    pub body: &'a [u8],
}

/// RFC 2183.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    #[default]
    Absent,
    Inline,
    /// `attachment`, and what section 2.8 says to treat like it: any other token.
    Attachment,
}

pub struct Tree<'a> {
    pub root: Section<'a>,
    /// The `report-type` parameter when the whole message is a multipart/report.
    pub report: Option<Option<String>>,
    pub leaves: Vec<Leaf<'a>>,
    pub flags: Vec<Flag>,
}

impl<'a> Tree<'a> {
    pub fn of(raw: &'a [u8]) -> Self {
        let root = Section::read(raw, 0, |_| false);
        let mut walk =
            Walk { raw, open: Vec::new(), leaves: Vec::new(), flags: Vec::new(), field_bytes: 0, alternatives: 0 };
        let mut part = walk.describe(&root, "text/plain");
        let report = (part.leaf.media_type == "multipart/report").then(|| part.report_type.take());
        part.leaf.is_root = true;
        walk.run(part, root.body_at);
        let Walk { leaves, mut flags, .. } = walk;
        if root.truncated {
            flags.push(Flag::HeadersTruncated);
        }
        Self { root, report, leaves, flags }
    }
}

struct Walk<'a> {
    raw: &'a [u8],
    /// The multiparts we are inside of, outermost first.
    open: Vec<Multipart>,
    leaves: Vec<Leaf<'a>>,
    flags: Vec<Flag>,
    /// Bytes of part headers read so far.
    field_bytes: usize,
    /// Outermost multipart/alternatives so far.
    alternatives: usize,
}

struct Multipart {
    boundary: Vec<u8>,
    body_at: usize,
    /// RFC 2046 5.1.5: the parts of a digest are messages unless they say otherwise.
    digest: bool,
    has_parts: bool,
    /// Number of the outermost multipart/alternative that it is or is in.
    alternative: Option<usize>,
}

/// A part whose headers were read.
struct Part<'a> {
    leaf: Leaf<'a>,
    boundary: Option<String>,
    report_type: Option<String>,
}

/// A line that begins or ends a part.
struct Delimiter {
    line_at: usize,
    next: usize,
    level: usize,
    closes: bool,
}

impl<'a> Walk<'a> {
    fn run(&mut self, mut part: Part<'a>, mut body_at: usize) {
        loop {
            let mut pending = self.enter(part, body_at);
            let mut from = body_at;
            let next = loop {
                let Some(delimiter) = self.next_delimiter(from) else {
                    self.leave(pending.take(), body_at, self.raw.len(), 0);
                    return;
                };
                self.leave(pending.take(), body_at, delimiter.line_at, delimiter.level + 1);
                from = delimiter.next;
                if !delimiter.closes {
                    break delimiter;
                }
                self.open.truncate(delimiter.level);
                if self.open.is_empty() {
                    return;
                }
            };
            if self.leaves.len() >= limits::MIME_PARTS_MAX || self.field_bytes > limits::MIME_PARTS_FIELDS_MAX {
                self.flags.push(Flag::TooManyParts);
                return;
            }
            let multipart = &mut self.open[next.level];
            multipart.has_parts = true;
            let default = if multipart.digest { "message/rfc822" } else { "text/plain" };
            let section = Section::read(self.raw, next.next, |line| self.level_of(line).is_some());
            part = self.describe(&section, default);
            body_at = section.body_at;
        }
    }

    /// Opens a multipart; a leaf comes back, to be finished where the next delimiter stands.
    fn enter(&mut self, mut part: Part<'a>, body_at: usize) -> Option<Leaf<'a>> {
        let around = self.open.last().and_then(|multipart| multipart.alternative);
        part.leaf.alternative = around;
        if !part.leaf.media_type.starts_with("multipart/") {
            return Some(part.leaf);
        }
        if self.open.len() >= limits::MIME_DEPTH_MAX {
            if !self.flags.contains(&Flag::TooDeep) {
                self.flags.push(Flag::TooDeep);
            }
            return Some(part.leaf);
        }
        match part.boundary.map(|boundary| boundary.trim_end().to_owned()).filter(|boundary| !boundary.is_empty()) {
            Some(boundary) => {
                let digest = part.leaf.media_type == "multipart/digest";
                let alternative = around.or_else(|| {
                    (part.leaf.media_type == "multipart/alternative").then(|| {
                        self.alternatives += 1;
                        self.alternatives
                    })
                });
                let boundary = boundary.into_bytes();
                self.open.push(Multipart { boundary, body_at, digest, has_parts: false, alternative });
                None
            }
            // RFC 2046 5.1.1 requires one; without it the body is best shown as it is.
            None => {
                part.leaf.media_type = "text/plain".into();
                Some(part.leaf)
            }
        }
    }

    /// Finishes the leaf that ends before `line_at`, and the multiparts that were cut off deeper than `level`.
    fn leave(&mut self, pending: Option<Leaf<'a>>, body_at: usize, line_at: usize, level: usize) {
        if let Some(leaf) = pending {
            self.add(leaf, body_at, line_at);
        }
        for cut in self.open.split_off(level.min(self.open.len())) {
            // Its delimiter never came: shown as the text that it looks like to its reader.
            if !cut.has_parts {
                self.add(Leaf { media_type: "text/plain".into(), ..Leaf::default() }, cut.body_at, line_at);
            }
        }
    }

    fn add(&mut self, mut leaf: Leaf<'a>, from: usize, line_at: usize) {
        // RFC 2046 5.1.1: the line end before a delimiter belongs to the delimiter.
        let mut body = &self.raw[from..line_at.max(from)];
        if line_at < self.raw.len() {
            body = body.strip_suffix(b"\n").map_or(body, |body| body.strip_suffix(b"\r").unwrap_or(body));
        }
        leaf.body = body;
        leaf.index = self.leaves.len() as u32;
        self.leaves.push(leaf);
    }

    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.open.is_empty() {
            return None;
        }
        // `from` is the start of a line: its own line counts too.
        let search_at = from.saturating_sub(1);
        for at in memmem::find_iter(&self.raw[search_at..], b"\n--") {
            let line_at = search_at + at + 1;
            let next = memchr(b'\n', &self.raw[line_at..]).map_or(self.raw.len(), |at| line_at + at + 1);
            if let Some((level, closes)) = self.level_of(&self.raw[line_at..next]) {
                return Some(Delimiter { line_at, next, level, closes });
            }
        }
        None
    }

    /// Whose delimiter is this line, which begins with `--`? The innermost one wins; any outer one ends what is inside.
    fn level_of(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line[2..].trim_ascii_end();
        let closed = text.strip_suffix(b"--");
        self.open.iter().enumerate().rev().find_map(|(level, multipart)| {
            if multipart.boundary == text {
                Some((level, false))
            } else {
                (closed == Some(&multipart.boundary)).then_some((level, true))
            }
        })
    }

    fn describe(&mut self, section: &Section<'_>, default: &str) -> Part<'a> {
        let relevant = [Name::ContentType, Name::ContentDisposition, Name::ContentId];
        self.field_bytes += relevant.iter().filter_map(|name| section.first(*name)).map(<[u8]>::len).sum::<usize>();
        let content_type = section.parameters(Name::ContentType);
        let disposition = section.parameters(Name::ContentDisposition);
        let parameter = |name| content_type.as_ref().and_then(|parsed| parsed.get(name));
        let name = disposition.as_ref().and_then(|parsed| parsed.get("filename"));
        let is = |name, value: &str| parameter(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
        let leaf = Leaf {
            media_type: match &content_type {
                Some(parsed) => media_type(parsed),
                None => default.into(),
            },
            charset: parameter("charset"),
            name: name.or_else(|| parameter("name")).filter(|name| !name.is_empty()),
            content_id: section.ids(Name::ContentId).into_iter().next(),
            disposition: disposition.as_ref().map(kind_of).unwrap_or_default(),
            encoding: section.first(Name::ContentTransferEncoding).map(Encoding::named).unwrap_or_default(),
            flowed: is("format", "flowed").then(|| is("delsp", "yes")),
            method: parameter("method"),
            ..Leaf::default()
        };
        Part { leaf, boundary: parameter("boundary"), report_type: parameter("report-type") }
    }
}

fn kind_of(parsed: &Parameters) -> Disposition {
    match parsed.value.as_str() {
        "inline" => Disposition::Inline,
        token if is_token(token) => Disposition::Attachment,
        _ => Disposition::Absent,
    }
}

/// RFC 2045 section 5.1.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
}

/// RFC 2045 5.2: what cannot be understood is text/plain; a type without subtype is at least kept visible.
fn media_type(parsed: &Parameters) -> String {
    let (main, sub) = parsed.value.split_once('/').unwrap_or((&parsed.value, ""));
    match (main.trim(), sub.trim()) {
        (main, sub) if is_token(main) && is_token(sub) => format!("{main}/{sub}"),
        (main, _) if main == "text" || main.is_empty() => "text/plain".into(),
        _ => "application/octet-stream".into(),
    }
}
