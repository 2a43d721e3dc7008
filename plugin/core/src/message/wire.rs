//! The bytes of a message as they may go over the wire: checked last, whoever made them.
//!
//! SMTP smuggling (VU#302671) lives in line ends that one server takes for a line end and the next does not, so that
//! only CRLF leaves this library, and every other CR or LF is made one.

use std::{borrow::Cow, ops::Range};

use crate::{
    error::{Error, Kind, Result},
    limits,
};

/// What a server must offer to take these bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes above 127 anywhere: 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// Bytes above 127 in the header section: SMTPUTF8 (RFC 6531, 6532).
    pub utf8_headers: bool,
}

/// Proves that `raw` is RFC 5322 as far as the wire cares: only CRLF ends lines, the last line has one, no NUL, lines
/// within `limits::MESSAGE_LINE_MAX`, and nothing but header fields before the first empty line.
///
/// # Errors
/// `Misuse`, naming the line.
pub fn verify(raw: &[u8]) -> Result<Needs> {
    let mut needs = Needs::default();
    let mut in_header = true;
    for (index, line) in raw.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(fault(number, "does not end in CRLF", "Hand it in as raw MIME; its line ends are put right."));
        };
        let mut bits = 0;
        for &byte in line {
            if byte == b'\r' || byte == 0 {
                return Err(fault(number, "holds a bare CR or a NUL", "Encode the part as base64."));
            }
            bits |= byte;
        }
        if line.len() > limits::MESSAGE_LINE_MAX {
            return Err(fault(
                number,
                &format!("has {} bytes; {} are allowed (RFC 5322)", line.len(), limits::MESSAGE_LINE_MAX),
                "Encode the part as quoted-printable or base64.",
            ));
        }
        needs.eight_bit |= bits >= 0x80;
        if in_header {
            if line.is_empty() {
                in_header = false;
                continue;
            }
            if bits >= 0x80 {
                if std::str::from_utf8(line).is_err() {
                    return Err(fault(number, "is a header that is neither ASCII nor UTF-8", "Encode it (RFC 2047)."));
                }
                needs.utf8_headers = true;
            }
            let continues = matches!(line[0], b' ' | b'\t') && number > 1;
            if !continues && field_name(line).is_none() {
                return Err(fault(
                    number,
                    "stands before the first empty line and is not a header field",
                    "A message begins with header fields, then an empty line, then the body.",
                ));
            }
        }
    }
    Ok(needs)
}

/// Makes every CRLF and bare LF one CRLF, and ends the last line. A bare CR becomes a space in the header section, where a
/// line more would be a field more (whoever fills a Subject could add recipients), and a line end in the body. Borrows when
/// nothing had to change.
///
/// # Errors
/// `Misuse` when there is a NUL, which no encoding of MIME leaves, and when every line ends in a CR alone: then nobody can
/// tell the fields from each other.
pub fn normalise(raw: &[u8]) -> Result<Cow<'_, [u8]>> {
    if let Some(at) = raw.iter().position(|&byte| byte == 0) {
        let number = raw[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        return Err(fault(number, "holds a NUL", "Encode the part as base64."));
    }
    if is_normal(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    if !raw.contains(&b'\n') && raw.contains(&b'\r') {
        return Err(fault(1, "ends in a CR alone", "End each line in CRLF or LF."));
    }
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32 + 2);
    let (header, mut rest) = raw.split_at(header_end(raw));
    for line in header.split_inclusive(|&byte| byte == b'\n') {
        let text = without_end(line);
        out.extend(text.iter().map(|&byte| if byte == b'\r' { b' ' } else { byte }));
        out.extend_from_slice(b"\r\n");
    }
    while let Some(at) = rest.iter().position(|&byte| matches!(byte, b'\r' | b'\n')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"\r\n");
        let end = if rest[at..].starts_with(b"\r\n") { at + 2 } else { at + 1 };
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        out.extend_from_slice(rest);
        out.extend_from_slice(b"\r\n");
    }
    Ok(Cow::Owned(out))
}

/// Where the body begins: after the first line that holds nothing. The header section of raw MIME whatever ends its lines.
pub fn header_end(raw: &[u8]) -> usize {
    let mut at = 0;
    for line in raw.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        if without_end(line).is_empty() {
            break;
        }
    }
    at
}

/// A line without its LF and the CRs before it: text that went through two programs may have several.
fn without_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &line[..end]
}

/// One header field with its continuation lines, CRLF included.
pub struct Field<'a> {
    pub name: &'a str,
    pub range: Range<usize>,
}

/// The header fields of a normalised message, in order, and where the header section ends (before the empty line).
pub fn fields(raw: &[u8]) -> (Vec<Field<'_>>, usize) {
    let mut fields: Vec<Field<'_>> = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let end = raw[at..].iter().position(|&byte| byte == b'\n').map_or(raw.len(), |lf| at + lf + 1);
        let line = &raw[at..end];
        match (line, fields.last_mut()) {
            (b"\r\n", _) => break,
            ([b' ' | b'\t', ..], Some(last)) => last.range.end = end,
            _ => fields.push(Field { name: field_name(line).unwrap_or_default(), range: at..end }),
        }
        at = end;
    }
    (fields, at)
}

/// RFC 5322 2.2: printable ASCII without the colon, then the colon.
fn field_name(line: &[u8]) -> Option<&str> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = &line[..colon];
    let good = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic());
    if good { std::str::from_utf8(name).ok() } else { None }
}

fn is_normal(raw: &[u8]) -> bool {
    raw.ends_with(b"\r\n")
        && raw
            .split_inclusive(|&byte| byte == b'\n')
            .all(|line| line.strip_suffix(b"\r\n").is_some_and(|line| !line.contains(&b'\r')))
}

fn fault(number: usize, what: &str, remedy: &str) -> Error {
    Error::new(Kind::Misuse, format!("Line {number} of the message {what}.")).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smuggled_line_ends_become_crlf() {
        for (raw, expected) in [
            (&b"A: b\n\nx\n.\ny"[..], &b"A: b\r\n\r\nx\r\n.\r\ny\r\n"[..]),
            (b"A: b\n\nx\r.\ry", b"A: b\r\n\r\nx\r\n.\r\ny\r\n"),
            (b"A: b\r\r\n\r\r\nx\r\n", b"A: b\r\n\r\nx\r\n"),
            (b"A: b\r\n\r\nx\r\n.\ny\r\n", b"A: b\r\n\r\nx\r\n.\r\ny\r\n"),
            (b"A: b\r\n\r\nx\n.\r\ny\r\n", b"A: b\r\n\r\nx\r\n.\r\ny\r\n"),
            (b"A: b\r\n\r\nx\r\r\ny\r\n", b"A: b\r\n\r\nx\r\n\r\ny\r\n"),
            (b"A: b", b"A: b\r\n"),
        ] {
            let normal = normalise(raw).unwrap();
            assert_eq!(&*normal, expected);
            verify(&normal).unwrap();
            assert!(matches!(normalise(&normal).unwrap(), Cow::Borrowed(_)));
        }
    }

    /// reliability.md 15: a line more in the header section is a field more.
    #[test]
    fn reliability_15_a_bare_cr_in_a_header_is_never_a_line() {
        for (raw, expected) in [
            (&b"Subject: s\rBcc: c@b.test\n\nx\n"[..], &b"Subject: s Bcc: c@b.test\r\n\r\nx\r\n"[..]),
            (b"Subject: s\r\rx\r\nTo: b@b.test\r\n\r\n", b"Subject: s  x\r\nTo: b@b.test\r\n\r\n"),
            (b"Subject: s\r\n\rBcc: c@b.test\r\n\r\n", b"Subject: s\r\n Bcc: c@b.test\r\n\r\n"),
            (b"Subject: s\r\r Bcc: c@b.test\r\n", b"Subject: s   Bcc: c@b.test\r\n"),
        ] {
            let normal = normalise(raw).unwrap();
            assert_eq!(&*normal, expected, "{}", String::from_utf8_lossy(&normal));
        }
        for refused in [&b"Subject: s\rTo: b@b.test\r\rx\r"[..], b"Subject: s\0\n\n"] {
            assert_eq!(normalise(refused).unwrap_err().kind(), Kind::Misuse);
        }
    }

    #[test]
    fn what_must_not_leave_is_named_with_its_line() {
        let long = [b"A: b\r\n\r\n".to_vec(), vec![b'x'; 999], b"\r\n".to_vec()].concat();
        for (raw, line) in [
            (&b"A: b\n\r\n"[..], "Line 1"),
            (b"A: b\r\n\r\nx\ry\r\n", "Line 3"),
            (b"A: b\r\n\r\nx\0y\r\n", "Line 3"),
            (b"A: b\r\nno field\r\n\r\n", "Line 2"),
            (b" folded first\r\n\r\n", "Line 1"),
            (b"A: \xff\r\n\r\n", "Line 1"),
            (b"A: b\r\n\r\nend", "Line 3"),
            (&long, "Line 3"),
        ] {
            let error = verify(raw).unwrap_err();
            assert!(error.message().starts_with(line), "{error:?}");
        }
        assert!(normalise(b"A: b\n\n\0").is_err());
    }

    #[test]
    fn needs_are_seen() {
        assert_eq!(verify(b"A: b\r\n\r\nx\r\n").unwrap(), Needs::default());
        assert_eq!(
            verify("A: b\r\n\r\n\u{e9}\r\n".as_bytes()).unwrap(),
            Needs { eight_bit: true, utf8_headers: false }
        );
        assert_eq!(verify("A: \u{e9}\r\n\r\nx\r\n".as_bytes()).unwrap(), Needs { eight_bit: true, utf8_headers: true });
    }
}
