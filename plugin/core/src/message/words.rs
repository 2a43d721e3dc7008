//! Encoded words (RFC 2047), read leniently: mailers split characters, leave padding out, and put words where none may
//! stand. mail-parser 0.11.9 loses letters or adds blanks in these cases.

use std::borrow::Cow;

use memchr::memmem;

use super::{
    charset,
    codec::{Encoding, quoted_words},
};

/// Text of an unfolded header value. Runs of words in one charset are decoded as one, because some mailers split inside
/// a character.
pub fn decoded(value: &[u8]) -> String {
    if memmem::find(value, b"=?").is_none() {
        return charset::guessed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut run: Option<Run> = None;
    let mut plain_at = 0;
    let mut search_at = 0;
    while let Some(at) = memmem::find(&value[search_at..], b"=?").map(|at| search_at + at) {
        let Some(word) = Word::at(value, at) else {
            search_at = at + 2;
            continue;
        };
        let between = &value[plain_at..at];
        search_at = word.end;
        plain_at = word.end;
        let is_adjacent = run.is_some() && between.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        match &mut run {
            Some(run) if is_adjacent && run.charset.eq_ignore_ascii_case(word.charset) => run.bytes.extend(word.bytes),
            _ => {
                Run::finish(run.take(), &mut text);
                if !is_adjacent {
                    text.push_str(&charset::guessed(between));
                }
                run = Some(Run { charset: word.charset, bytes: word.bytes });
            }
        }
    }
    Run::finish(run, &mut text);
    text.push_str(&charset::guessed(&value[plain_at..]));
    text
}

/// The end of the encoded word at `at`, where one stands there.
pub fn end_of_word(value: &[u8], at: usize) -> Option<usize> {
    Word::at(value, at).map(|word| word.end)
}

struct Run<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
}

impl Run<'_> {
    fn finish(run: Option<Self>, text: &mut String) {
        let Some(Self { charset, bytes }) = run else { return };
        let name = String::from_utf8_lossy(charset);
        text.push_str(&charset::decoded(Cow::Owned(bytes), Some(&name)));
    }
}

struct Word<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
    end: usize,
}

impl<'a> Word<'a> {
    /// Looks no further than to the next `=?`, so that a value full of broken words takes linear time.
    fn at(value: &'a [u8], at: usize) -> Option<Self> {
        let rest = value.get(at..)?.strip_prefix(b"=?")?;
        let charset_len = rest.iter().take(CHARSET_MAX).position(|byte| *byte == b'?')?;
        let charset = &rest[..charset_len];
        if charset.is_empty() || !charset.iter().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let encoding = *rest.get(charset_len + 1)?;
        let text_at = at + 2 + charset_len + 3;
        if rest.get(charset_len + 2) != Some(&b'?') {
            return None;
        }
        let text = value.get(text_at..)?;
        let mut from = 0;
        let text_len = loop {
            let mark = from + memchr::memchr(b'?', &text[from..])?;
            match text.get(mark + 1) {
                Some(b'=') => break mark,
                _ if mark > 0 && text[mark - 1] == b'=' => return None,
                _ => from = mark + 1,
            }
        };
        let text = &text[..text_len];
        let bytes = match encoding {
            b'B' | b'b' => Encoding::Base64.decode(text).into_owned(),
            b'Q' | b'q' => quoted_words(text),
            _ => return None,
        };
        // What decodes to nothing is no word, unless it is empty by intention.
        if bytes.is_empty() && !text.is_empty() {
            return None;
        }
        // RFC 2231 section 5: a language may follow the charset.
        let charset = charset.split(|byte| *byte == b'*').next().unwrap_or(charset);
        Some(Self { charset, bytes, end: text_at + text_len + 2 })
    }
}

/// Longest name of a charset that is looked for.
const CHARSET_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_12_encoded_words_as_mailers_write_them() {
        for (value, expected) in [
            ("=?utf-8?B?SGVsbG8gd29ybGQ?=", "Hello world"),
            ("=?utf-8?B?w6k?=", "é"),
            ("=?utf-8?B?UsOkY2huLnBkZg?=", "Rächn.pdf"),
            ("=?utf-8?Q?Beh=C3?= =?utf-8?Q?=B6rden?=", "Behörden"),
            ("=?UTF-8?B?4oI=?=\t=?utf-8?B?rA==?=", "€"),
            ("=?utf-8?Q?caf=C3=A9?=. Fail", "café. Fail"),
            ("ao=?utf-8?b?w7s=?=t", "août"),
            ("[Request ID: ##=?utf-8?Q?47?=##]", "[Request ID: ##47##]"),
            ("=?utf-8*de?Q?Gr=FC?=", "Gr\u{fffd}"),
            ("=?iso-8859-1*en?Q?caf=E9_?= x", "café  x"),
            ("=?utf-8?Q?a?= =?iso-8859-1?Q?=E9?= b", "aé b"),
            ("=?utf-8?Q??=x", "x"),
            ("=?utf-8?Q?what??=", "what?"),
            ("=?utf-8?b?!!!?=", "=?utf-8?b?!!!?="),
            ("=?utf-8?q?never ends", "=?utf-8?q?never ends"),
            ("=?a?q?=?utf-8?q?x?=", "=?a?q?x"),
            ("=?", "=?"),
        ] {
            assert_eq!(decoded(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(decoded(b"=?iso-8859-1?Q?caf\xe9?="), "café");
        // Exchange 2007 splits ISO-2022-JP between the two bytes of one character.
        assert_eq!(decoded(b"=?iso-2022-jp?B?GyRCJSsl?= =?iso-2022-jp?B?SiVFGyhC?="), "カナヅ");
        let broken = "Привет мир \u{0}".replace('\u{0}', "");
        let raw = [broken.as_bytes(), b"\xd0 end"].concat();
        assert_eq!(decoded(&raw), "Привет мир \u{fffd} end");
        assert_eq!(decoded(b"caf\xe9"), "café");
    }
}
