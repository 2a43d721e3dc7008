//! Content-Transfer-Encoding (RFC 2045 section 6), forgiving: mail that is a little wrong is still read.

use std::borrow::Cow;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use memchr::{memchr, memchr_iter};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    Base64,
    QuotedPrintable,
    /// 7bit, 8bit, binary, and any name that nobody knows: the bytes as they are.
    #[default]
    Identity,
}

impl Encoding {
    /// From the value of a Content-Transfer-Encoding field.
    pub fn named(value: &[u8]) -> Self {
        let value = without_comments(value);
        let value = value.trim_ascii_start();
        let end = value.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'-'));
        match &value[..end.unwrap_or(value.len())] {
            name if name.eq_ignore_ascii_case(b"base64") => Self::Base64,
            name if name.eq_ignore_ascii_case(b"quoted-printable") => Self::QuotedPrintable,
            _ => Self::Identity,
        }
    }

    pub fn decode(self, body: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Base64 => Cow::Owned(base64_decode(body)),
            Self::QuotedPrintable => Cow::Owned(quoted_printable_decode(body)),
            Self::Identity => Cow::Borrowed(body),
        }
    }

    /// Exactly the length of what [`Encoding::decode`] gives, without decoding base64.
    pub fn decoded_len(self, body: &[u8]) -> usize {
        match self {
            Self::Base64 => runs(body).map(|run| bytes_of(count_alphabet(run))).sum(),
            Self::QuotedPrintable => quoted_printable_decode(body).len(),
            Self::Identity => body.len(),
        }
    }
}

pub fn without_nul(text: String) -> String {
    match memchr(0, text.as_bytes()) {
        Some(_) => text.replace('\0', "\u{fffd}"),
        None => text,
    }
}

/// RFC 2045 6.8 asks to ignore what is not in the alphabet. `=` ends a run; another may follow, because some mailers
/// encode piecewise and join.
fn base64_decode(body: &[u8]) -> Vec<u8> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireNone),
    );
    let mut out = Vec::with_capacity(body.len() / 4 * 3 + 3);
    let mut run_text = Vec::with_capacity(body.len());
    for run in runs(body) {
        run_text.clear();
        // Whole lines are copied at once; a line with something foreign in it goes byte by byte.
        for line in separated(run, b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if count_alphabet(line) == line.len() {
                run_text.extend_from_slice(line);
            } else {
                run_text.extend(line.iter().copied().filter(|byte| in_alphabet(*byte)));
            }
        }
        // One left-over digit carries no whole byte.
        if run_text.len() % 4 == 1 {
            run_text.pop();
        }
        // Cannot fail: alphabet and length are as the engine wants them.
        let _ = ENGINE.decode_vec(&run_text, &mut out);
    }
    out
}

fn runs(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    separated(body, b'=')
}

/// `slice::split` looks at bytes one by one; this does not.
fn separated(bytes: &[u8], by: u8) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(by, bytes).chain([bytes.len()]).map(move |end| &bytes[std::mem::replace(&mut start, end + 1)..end])
}

fn bytes_of(digits: usize) -> usize {
    digits / 4 * 3 + [0, 0, 1, 2][digits % 4]
}

fn in_alphabet(byte: u8) -> bool {
    // No short circuits: this form is vectorised.
    ((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10) | (byte == b'+') | (byte == b'/')
}

fn count_alphabet(bytes: &[u8]) -> usize {
    // Sums of up to 255 fit into a byte, and bytes are added many at a time.
    bytes.chunks(255).map(|chunk| chunk.iter().map(|byte| u8::from(in_alphabet(*byte))).sum::<u8>() as usize).sum()
}

/// RFC 2045 6.7. What is no proper escape stays as it stands there (rule 1's note); white space at a line's end is
/// transport padding (rule 3).
fn quoted_printable_decode(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        let newline: &[u8] = if line.ends_with(b"\r\n") {
            b"\r\n"
        } else if line.ends_with(b"\n") {
            b"\n"
        } else {
            b""
        };
        let mut line = line[..line.len() - newline.len()].trim_ascii_end();
        let soft = line.last() == Some(&b'=');
        if soft {
            line = &line[..line.len() - 1];
        }
        while let Some(at) = memchr(b'=', line) {
            out.extend_from_slice(&line[..at]);
            match line.get(at + 1..at + 3).and_then(hex) {
                Some(byte) => {
                    out.push(byte);
                    line = &line[at + 3..];
                }
                None => {
                    out.push(b'=');
                    line = &line[at + 1..];
                }
            }
        }
        out.extend_from_slice(line);
        if !soft {
            out.extend_from_slice(newline);
        }
    }
    out
}

/// Without comments (RFC 2045 section 6.1 allows them) and quotes (which it does not).
fn without_comments(value: &[u8]) -> Vec<u8> {
    let mut depth = 0usize;
    let mut kept = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'"' | b'\'' => {}
            _ if depth == 0 => kept.push(*byte),
            _ => {}
        }
    }
    kept
}

/// RFC 2047 section 4.2: as quoted-printable, and `_` is a blank.
pub fn quoted_words(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after.get(..2).and_then(hex)) {
            (b'=', Some(value)) => {
                out.push(value);
                rest = &after[2..];
                continue;
            }
            (b'_', _) => out.push(b' '),
            _ => out.push(byte),
        }
        rest = after;
    }
    out
}

pub fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_base64_is_read_as_far_as_it_goes_and_its_size_is_exact() {
        for (body, expected) in [
            ("aGVsbG8=", "hello"),
            ("aGVs\r\nbG8=\r\n", "hello"),
            ("aGVsbG8", "hello"),
            ("aGVsbG8gd29y\nb", "hello wor"),
            ("aG*Vs bG8!=", "hello"),
            ("aGVsbG8=IHdvcmxk", "hello world"),
            ("====", ""),
            ("", ""),
        ] {
            assert_eq!(Encoding::Base64.decode(body.as_bytes()), expected.as_bytes(), "{body:?}");
            assert_eq!(Encoding::Base64.decoded_len(body.as_bytes()), expected.len(), "{body:?}");
        }
        // Bytes of any kind, in any length: never a panic, never another size.
        let noise: Vec<u8> = (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in 0..600 {
            let body = &noise[len..len * 2];
            assert_eq!(Encoding::Base64.decode(body).len(), Encoding::Base64.decoded_len(body));
        }
        let long = "QUJD".repeat(1000);
        assert_eq!(Encoding::Base64.decoded_len(long.as_bytes()), 3000);
    }

    #[test]
    fn broken_quoted_printable_is_read_as_far_as_it_goes() {
        for (body, expected) in [
            ("caf=C3=A9", "café"),
            ("caf=c3=a9 \t\r\nx", "café\r\nx"),
            ("soft=\r\nbreak=  \nhere", "softbreakhere"),
            ("a=ZZ b=4", "a=ZZ b=4"),
            ("a=3D3D\n\n", "a=3D\n\n"),
            ("=", ""),
            ("", ""),
        ] {
            assert_eq!(
                String::from_utf8_lossy(&Encoding::QuotedPrintable.decode(body.as_bytes())),
                expected,
                "{body:?}"
            );
        }
    }

    #[test]
    fn fault_18_a_comment_or_quotes_around_the_name_of_an_encoding() {
        for value in ["base64", " (x) Base64 (y)", "\"base64\"", "base64;", "'base64'"] {
            assert_eq!(Encoding::named(value.as_bytes()), Encoding::Base64, "{value}");
        }
        assert_eq!(Encoding::named(b"(base64) 8bit"), Encoding::Identity);
    }
    #[test]
    fn unlabelled_and_mislabelled_text_is_still_readable() {
        let read = |bytes: &[u8], charset| {
            let text = crate::message::charset::decoded(Cow::Borrowed(bytes), charset);
            assert_eq!(text, crate::message::charset::decoded(Cow::Owned(bytes.to_vec()), charset));
            text
        };
        assert_eq!(read("é".as_bytes(), None), "é");
        assert_eq!(read(b"caf\xe9", None), "café");
        assert_eq!(read("é".as_bytes(), Some("us-ascii")), "é");
        assert_eq!(read(b"caf\xe9", Some("no-such-charset")), "café");
        assert_eq!(read(b"\x1b$B$3$s\x1b(B", Some("ISO-2022-JP")), "こん");
        assert_eq!(read(b"\xbf\xe0", Some("iso-8859-5")), "Пр");
        assert_eq!(read(b"a\0b", None), "a\u{fffd}b");
        assert_eq!(read(b"x", Some("")), "x");
    }
}
