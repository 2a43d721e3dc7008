//! Fields with parameters (RFC 2045 section 5.1, RFC 2183), their values continued and in other charsets (RFC 2231), read
//! leniently. mail-parser 0.11.9 loses values that begin on the next line, and characters split between continuations.

use std::borrow::Cow;

use super::{charset, codec::hex, field::one_line, words};

/// Content-Type or Content-Disposition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// What stands before the parameters, lower-case.
    pub value: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// Lower-case, without what RFC 2231 appends.
    name: String,
    /// Number of the continuation.
    section: Option<u32>,
    extended: bool,
    bytes: Vec<u8>,
}

impl Parameters {
    /// Of an unfolded value.
    pub fn read(value: &[u8]) -> Self {
        let mut cursor = Cursor { bytes: value, at: 0 };
        cursor.skip_blank();
        let head = cursor.until(|byte| matches!(byte, b';' | b' ' | b'\t' | b'('));
        let head = charset::guessed(head.trim_ascii()).to_lowercase();
        let mut read = Self { value: head.trim_matches(['"', '\'']).trim().to_owned(), parts: Vec::new() };
        while let Some(part) = cursor.parameter() {
            read.parts.extend(part);
        }
        read
    }

    /// The decoded value of a parameter. What RFC 2231 writes goes before the plain form beside it.
    pub fn get(&self, name: &str) -> Option<String> {
        let of_name = || self.parts.iter().filter(|part| part.name == name);
        let mut sections: Vec<&Part> = of_name().filter(|part| part.section.is_some()).collect();
        sections.sort_by_key(|part| part.section);
        sections.dedup_by_key(|part| part.section);
        let text = if sections.first().is_some_and(|first| first.section == Some(0)) {
            joined(&sections)
        } else if let Some(part) = of_name().find(|part| part.extended && part.section.is_none()) {
            joined(&[part])
        } else {
            words::decoded(&of_name().find(|part| part.section.is_none())?.bytes)
        };
        Some(one_line(text))
    }
}

/// RFC 2231 section 4.1: the charset stands once, in front of the first section.
fn joined(sections: &[&Part]) -> String {
    let mut bytes = Vec::new();
    let mut label = None;
    for (at, part) in sections.iter().enumerate() {
        let mut rest = part.bytes.as_slice();
        if at == 0 && part.extended {
            let mut pieces = rest.splitn(3, |byte| *byte == b'\'');
            if let (Some(name), Some(_), Some(text)) = (pieces.next(), pieces.next(), pieces.next()) {
                label = Some(String::from_utf8_lossy(name).into_owned());
                rest = text;
            }
        }
        if part.extended { percent_decoded(rest, &mut bytes) } else { bytes.extend_from_slice(rest) }
    }
    match label {
        Some(label) => charset::decoded(Cow::Owned(bytes), Some(&label)),
        None => words::decoded(&bytes),
    }
}

fn percent_decoded(mut rest: &[u8], out: &mut Vec<u8>) {
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after.get(..2).and_then(hex)) {
            (b'%', Some(value)) => {
                out.push(value);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn until(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// White space and comments (RFC 5322 section 3.2.2), which may stand around `=`, too.
    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'(' => {
                    let mut depth = 0usize;
                    let rest = &self.bytes[self.at..];
                    let end = rest.iter().position(|byte| {
                        depth = match byte {
                            b'(' => depth + 1,
                            b')' => depth - 1,
                            _ => depth,
                        };
                        depth == 0
                    });
                    self.at = end.map_or(self.bytes.len(), |end| self.at + end + 1);
                }
                _ => break,
            }
        }
    }

    /// `None` at the end; `Some(None)` for what is none.
    fn parameter(&mut self) -> Option<Option<Part>> {
        loop {
            self.skip_blank();
            match self.peek()? {
                b';' | b',' => self.at += 1,
                _ => break,
            }
        }
        let name = self.until(|byte| matches!(byte, b'=' | b';' | b' ' | b'\t' | b'(')).trim_ascii();
        self.skip_blank();
        if self.peek() != Some(b'=') {
            return Some(None);
        }
        self.at += 1;
        self.skip_blank();
        let bytes = match self.peek() {
            Some(b'"') => self.quoted(),
            _ => self.bare().to_vec(),
        };
        Some(part(name, bytes))
    }

    fn quoted(&mut self) -> Vec<u8> {
        let start = self.at + 1;
        let mut out = Vec::new();
        let mut at = start;
        while let Some(&byte) = self.bytes.get(at) {
            match (byte, self.bytes.get(at + 1)) {
                (b'"', _) => {
                    self.at = at + 1;
                    return out;
                }
                // A path of Windows has backslashes that escape nothing.
                (b'\\', Some(next @ (b'"' | b'\\'))) => {
                    out.push(*next);
                    at += 2;
                    continue;
                }
                _ => out.push(byte),
            }
            at += 1;
        }
        // Never closed.
        self.at = start;
        self.until(|byte| byte == b';').trim_ascii_end().to_vec()
    }

    /// Up to `;`, to a comment, or to the next parameter where the `;` is missing. Blanks are tolerated.
    fn bare(&mut self) -> &'a [u8] {
        let start = self.at;
        loop {
            self.until(|byte| matches!(byte, b';' | b' ' | b'\t'));
            let end = self.at;
            let rest = self.bytes[end..].trim_ascii_start();
            let is_next = || {
                let len = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*')));
                rest[0].is_ascii_alphabetic() && len.is_some_and(|len| rest[len] == b'=')
            };
            if self.peek().is_none_or(|byte| byte == b';') || rest.is_empty() || rest[0] == b'(' || is_next() {
                return &self.bytes[start..end];
            }
            self.at = self.bytes.len() - rest.len();
        }
    }
}

fn part(name: &[u8], bytes: Vec<u8>) -> Option<Part> {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let (bare, extended) = name.strip_suffix('*').map_or((name.as_str(), false), |bare| (bare, true));
    let (bare, section) = match bare.split_once('*') {
        Some((bare, number)) => (bare, Some(number.parse().ok()?)),
        None => (bare, None),
    };
    (!bare.is_empty()).then(|| Part { name: bare.to_owned(), section, extended, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_15_names_of_files_as_rfc_2231_and_mailers_write_them() {
        for (parameters, expected) in [
            ("filename*0*=windows-1251''%EF%F0%EE%E3; filename*1*=%F0%E0%EC%EC%E0.pdf", "программа.pdf"),
            (
                "filename=\"=?utf-8?Q?ignored.pdf?=\"; filename*0*=utf-8''real%20; filename*1*=n%C3%A4me.pdf",
                "real näme.pdf",
            ),
            ("filename*1*=%A4me.pdf; filename*0*=utf-8''n%C3", "näme.pdf"),
            ("filename=\"fallback.pdf\"; filename*=utf-8''real%20n%C3%A4me.pdf", "real näme.pdf"),
            ("filename*=UTF-8''it's%20ok.pdf", "it's ok.pdf"),
            ("filename==?utf-8?B?Y2Fmw6k=?= =?utf-8?B?LnBkZg==?=", "café.pdf"),
            ("filename=report(1).pdf", "report(1).pdf"),
            ("filename=report.pdf (a comment)", "report.pdf"),
            ("filename=My Report.pdf; size=1", "My Report.pdf"),
            ("filename=a.pdf size=1", "a.pdf"),
            ("filename = \"a b.pdf\"", "a b.pdf"),
            ("filename (x) = (y) \"a b.pdf\"", "a b.pdf"),
            ("filename=\"C:\\new\\\"x\\\".pdf\"", "C:\\new\"x\".pdf"),
            ("filename=\"never closed.pdf", "never closed.pdf"),
            ("filename*=plain%20name.pdf", "plain name.pdf"),
            ("filename*0=\"=?utf-8?B?Y2Fm\"; filename*1=\"w6k=?=.pdf\"", "café.pdf"),
            ("FileName=\"x.pdf\"", "x.pdf"),
        ] {
            let read = Parameters::read(format!("attachment; {parameters}").as_bytes());
            assert_eq!(read.value, "attachment");
            assert_eq!(read.get("filename").as_deref(), Some(expected), "{parameters}");
        }
    }

    #[test]
    fn what_mailers_forget_is_made_up_for() {
        let read = Parameters::read(b"application/pdf name=\"x.pdf\"");
        assert_eq!((read.value.as_str(), read.get("name").as_deref()), ("application/pdf", Some("x.pdf")));
        let read = Parameters::read(b"text/plain; charset=utf-8 format=flowed;;; delsp = yes");
        assert_eq!(read.get("charset").as_deref(), Some("utf-8"));
        assert_eq!((read.get("format").as_deref(), read.get("delsp").as_deref()), (Some("flowed"), Some("yes")));
        let read = Parameters::read(b"text/plain; charset=us-ascii (Plain text)");
        assert_eq!(read.get("charset").as_deref(), Some("us-ascii"));
        assert_eq!(Parameters::read(b"=?utf-8?Q?inline?=").value, "=?utf-8?q?inline?=");
        assert_eq!(Parameters::read(b"").value, "");
    }
}
