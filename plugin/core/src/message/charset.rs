//! Bytes to text by the name of a charset (RFC 2978), forgiving: names that mail uses and nobody registered are known.

use std::borrow::Cow;

use encoding_rs::{EUC_KR, Encoding, GBK, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use mail_parser::decoders::charsets::map::charset_decoder;
use memchr::{memchr, memchr_iter};

use super::codec::without_nul;

/// Text of bytes that `label` names the charset of. Unlabelled bytes, and those under a name that nobody knows, are
/// guessed. NUL becomes U+FFFD.
pub fn decoded(bytes: Cow<'_, [u8]>, label: Option<&str>) -> String {
    let text = match label.map(normalised).as_deref() {
        None | Some("" | "us-ascii" | "ascii") => owned_or(bytes, guessed),
        Some("utf-8" | "utf8") => owned_or(bytes, |bytes| lossy(UTF_8, bytes)),
        Some(label) => named(label, &bytes).unwrap_or_else(|| owned_or(bytes, guessed)),
    };
    match text.strip_prefix('\u{feff}') {
        Some(text) => without_nul(text.to_owned()),
        None => without_nul(text),
    }
}

/// UTF-8 when it is, or when most of what is not ASCII is; else Windows-1252, which is what unlabelled 8-bit mail mostly is.
pub fn guessed(bytes: &[u8]) -> String {
    let mut rest = bytes;
    let (mut characters, mut faults) = (0usize, 0usize);
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) if faults == 0 => return without_nul(text.to_owned()),
            Ok(text) => {
                characters += wide(text.as_bytes());
                break;
            }
            Err(error) => {
                characters += wide(&rest[..error.valid_up_to()]);
                // A character that was cut off at the end is no fault.
                let Some(len) = error.error_len() else {
                    if faults == 0 && error.valid_up_to() > 0 && characters > 0 {
                        return without_nul(String::from_utf8_lossy(bytes).into_owned());
                    }
                    faults += 1;
                    break;
                };
                faults += 1;
                rest = &rest[error.valid_up_to() + len..];
            }
        }
    }
    let encoding = if characters > faults { UTF_8 } else { WINDOWS_1252 };
    without_nul(lossy(encoding, bytes))
}

/// Characters of valid UTF-8 that have more than one byte.
fn wide(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte >= 0xc0).count()
}

/// What is UTF-8 is not copied.
fn owned_or(bytes: Cow<'_, [u8]>, otherwise: impl FnOnce(&[u8]) -> String) -> String {
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => otherwise(bytes),
        },
        Cow::Owned(bytes) => String::from_utf8(bytes).unwrap_or_else(|error| otherwise(error.as_bytes())),
    }
}

fn lossy(encoding: &'static Encoding, bytes: &[u8]) -> String {
    encoding.decode_without_bom_handling(bytes).0.into_owned()
}

/// Lower-case, without quotes and blanks around it.
fn normalised(label: &str) -> String {
    label.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).to_ascii_lowercase()
}

fn named(label: &str, bytes: &[u8]) -> Option<String> {
    if let Some(table) = match label {
        "ibm437" | "cp437" | "437" | "cspc8codepage437" => Some(CP437),
        "ibm850" | "cp850" | "850" => Some(CP850),
        "ibm852" | "cp852" | "852" | "cspcp852" => Some(CP852),
        "ibm858" | "cp858" | "cp00858" | "ibm00858" | "ccsid00858" => Some(CP850),
        _ => None,
    } {
        let is_858 = label.contains("58");
        return Some(single_byte(table, bytes, is_858));
    }
    Some(match label {
        // encoding_rs answers one U+FFFD for these two; both are seven-bit forms of a charset that it reads.
        "iso-2022-kr" | "csiso2022kr" => lossy(EUC_KR, &eight_bit_kr(bytes)),
        "hz-gb-2312" | "hz" | "hz-gb2312" => lossy(GBK, &eight_bit_hz(bytes)),
        "iso-2022-jp-1" | "iso-2022-jp-2" | "iso-2022-jp-3" | "iso-2022-jp-ms" | "cp50220" | "cp50221" | "cp50222"
        | "csiso2022jp2" => lossy(ISO_2022_JP, &japanese(bytes)),
        "utf-16" | "utf16" | "csutf16" | "ucs-2" | "ucs2" | "iso-10646-ucs-2" | "unicode" => match bytes {
            [0xff, 0xfe, rest @ ..] => lossy(UTF_16LE, rest),
            [0xfe, 0xff, rest @ ..] => lossy(UTF_16BE, rest),
            // RFC 2781 section 4.3 says big endian; Latin text tells when a mailer wrote the other one.
            _ if little_endian(bytes) => lossy(UTF_16LE, bytes),
            _ => lossy(UTF_16BE, bytes),
        },
        "utf-32" | "utf32" | "utf-32be" | "utf-32le" | "ucs-4" | "iso-10646-ucs-4" => utf32(label, bytes),
        "unicode-1-1-utf-7" | "utf7" | "utf-7" | "csutf7" | "csunicode11utf7" => charset_decoder(b"utf-7")?(bytes),
        _ => {
            let alias = alias(label);
            let encoding = Encoding::for_label(alias.as_bytes());
            match encoding.filter(|encoding| encoding.name() != "replacement") {
                Some(encoding) => lossy(encoding, bytes),
                None if encoding.is_some() => return None,
                None => charset_decoder(alias.as_bytes()).map(|decode| decode(bytes))?,
            }
        }
    })
}

/// Names that the Encoding Standard does not have, by what they mean.
fn alias(label: &str) -> &str {
    match label {
        "cp949" | "uhc" | "x-windows-949" | "ms949" | "euckr" | "ks_c_5601" | "ksc5601-1987" | "x-euc-kr"
        | "ks-c-5601-1987" | "johab" => "euc-kr",
        "cp950" | "windows-950" | "big-5" | "x-big5" | "big5hkscs" | "ms950" | "x-windows-950" | "big5-eten"
        | "cp951" | "bigfive" => "big5",
        "cp932" | "ms932" | "windows-932" | "windows-31j" | "x-ms-cp932" | "shiftjis" | "shift-jis" | "x-shift-jis" => {
            "shift_jis"
        }
        "eucjp" | "euc_jp" | "ujis" | "x-eucjp" | "eucjp-ms" | "cp51932" => "euc-jp",
        "euc-cn" | "euccn" | "x-euc-cn" | "gb2312-80" | "gb-2312" | "cp936" | "ms936" | "windows-936" | "x-gb2312" => {
            "gbk"
        }
        "gb-18030" | "gb18030-2000" | "gb18030-2005" | "cp54936" => "gb18030",
        "cp874" | "windows874" | "tis620" | "tis-620-2533" => "windows-874",
        "latin-1" | "latin_1" | "iso-latin-1" | "iso8859_1" | "8859-1" | "8859_1" | "iso_8859-1-1987" | "ansi" => {
            "windows-1252"
        }
        "latin-2" | "8859-2" => "iso-8859-2",
        "latin9" | "latin-9" | "latin0" | "latin-0" | "8859-15" | "iso8859_15" => "iso-8859-15",
        "latin-5" => "windows-1254",
        "koi8r" | "koi-8-r" | "koi8-r7" => "koi8-r",
        "koi8u" => "koi8-u",
        "macroman" | "mac-roman" => "macintosh",
        "maccyrillic" => "x-mac-cyrillic",
        _ => windows(label).unwrap_or(label),
    }
}

/// `win-1251`, `cp-1251`, `windows1251`, `win1251`, `windows_1251`, `ansi-1251`, `ms-1251`, `1251`.
fn windows(label: &str) -> Option<&'static str> {
    const PAGES: [&str; 9] = [
        "windows-1250",
        "windows-1251",
        "windows-1252",
        "windows-1253",
        "windows-1254",
        "windows-1255",
        "windows-1256",
        "windows-1257",
        "windows-1258",
    ];
    let digits_at = label.find(|c: char| c.is_ascii_digit())?;
    let (name, number) = label.split_at(digits_at);
    let is_windows = matches!(
        name.trim_end_matches(['-', '_', ' ']),
        "win" | "windows" | "cp" | "x-cp" | "ms" | "ansi" | "ibm" | ""
    );
    PAGES.into_iter().find(|page| is_windows && page.strip_prefix("windows-") == Some(number))
}

/// RFC 1557: SO and SI switch between ASCII and KS C 5601 in seven bits; the designation stands before both.
fn eight_bit_kr(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut is_korean = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            0x0e => is_korean = true,
            0x0f => is_korean = false,
            0x1b if rest.starts_with(b"$)C") => {
                rest = rest.strip_prefix(b"$)C\r\n").or(rest.strip_prefix(b"$)C\n")).unwrap_or(&rest[3..]);
            }
            b'\n' => {
                is_korean = false;
                out.push(byte);
            }
            0x21..=0x7e if is_korean => out.push(byte | 0x80),
            _ => out.push(byte),
        }
    }
    out
}

/// RFC 1843: `~{` and `~}` switch between ASCII and GB 2312 in seven bits, `~~` is a tilde, `~` at a line's end nothing.
fn eight_bit_hz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut is_chinese = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'~' && !rest.is_empty() {
            match rest[0] {
                b'{' => is_chinese = true,
                b'}' => is_chinese = false,
                b'~' => out.push(b'~'),
                b'\n' => {}
                _ => {
                    out.push(byte);
                    continue;
                }
            }
            rest = &rest[1..];
        } else if byte == b'\n' {
            is_chinese = false;
            out.push(byte);
        } else if is_chinese && (0x21..=0x7e).contains(&byte) {
            out.push(byte | 0x80);
        } else {
            out.push(byte);
        }
    }
    out
}

/// ISO-2022-JP-2 and its kin (RFC 1554) with what only they have left readable: unknown designations go.
fn japanese(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut start = 0;
    for at in memchr_iter(0x1b, bytes) {
        if at < start {
            continue;
        }
        let rest = &bytes[at + 1..];
        let known = [&b"(B"[..], b"(J", b"(I", b"$@", b"$B", b"$(D"].iter().any(|escape| rest.starts_with(escape));
        if !known && let Some(len) = rest.iter().take(4).position(|byte| (0x40..=0x7e).contains(byte)) {
            out.extend_from_slice(&bytes[start..at]);
            start = at + 1 + len + 1;
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out
}

fn little_endian(bytes: &[u8]) -> bool {
    let zeros = |odd: usize| bytes.iter().take(512).skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    zeros(1) > zeros(0)
}

fn utf32(label: &str, bytes: &[u8]) -> String {
    let little =
        label.ends_with("le") || bytes.starts_with(&[0xff, 0xfe, 0, 0]) || matches!(bytes, [b, 0, 0, 0, ..] if *b != 0);
    let word = |four: &[u8]| {
        let four = [four[0], four[1], four[2], four[3]];
        if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    };
    bytes.chunks_exact(4).map(|four| char::from_u32(word(four)).unwrap_or('\u{fffd}')).collect()
}

fn single_byte(table: &str, bytes: &[u8], has_euro: bool) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    let upper: Vec<char> = table.chars().collect();
    for byte in bytes {
        match byte {
            0xd5 if has_euro => text.push('€'),
            0..=0x7f => text.push(*byte as char),
            _ => text.push(upper.get(usize::from(*byte) - 0x80).copied().unwrap_or('\u{fffd}')),
        }
    }
    text
}

/// The upper halves of IBM's code pages, from Unicode's mapping tables; what encoding_rs does not have.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";
const CP852: &str = "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐└┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´\u{ad}˝˛ˇ˘§÷¸°¨˙űŘř■\u{a0}";

/// Is there anything that text cannot hold on one line?
pub fn has_controls(text: &str) -> bool {
    text.bytes().any(|byte| byte < 0x20 || byte == 0x7f)
        || memchr(0xc2, text.as_bytes()).is_some()
        || text.contains(['\u{2028}', '\u{2029}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], label: &str) -> String {
        let text = decoded(Cow::Borrowed(bytes), Some(label));
        assert_eq!(text, decoded(Cow::Owned(bytes.to_vec()), Some(label)));
        text
    }

    #[test]
    fn fault_10_charsets_by_the_names_that_mail_uses() {
        for table in [CP437, CP850, CP852] {
            assert_eq!(table.chars().count(), 128);
        }
        for (bytes, label, expected) in [
            (&b"\x1b$)C\nHello \x0eGQ1[\x0f world"[..], "iso-2022-kr", "Hello 한글 world"),
            (b"Hi ~{<:Ky2;~}~~!", "hz-gb-2312", "Hi 己所不~!"),
            (b"\xc7\xd1\xb1\xdb", "cp949", "한글"),
            (b"\xc7\xd1\xb1\xdb", "UHC", "한글"),
            (b"\xa4\xa4", "big-5", "中"),
            (b"\xa4\xa4", "cp950", "中"),
            (b"\x83J", "cp932", "カ"),
            (b"\xa5\xab", "eucjp", "カ"),
            (b"\x1b$B%+\x1b(B", "iso-2022-jp-ms", "カ"),
            (b"\x1b$B%+\x1b(B \x1b.A caf", "iso-2022-jp-2", "カ  caf"),
            (b"\xd6\xd0", "euc-cn", "中"),
            (b"\xcf", "win-1251", "П"),
            (b"\xcf", "windows1251", "П"),
            (b"\xcf", "cp-1251", "П"),
            (b"\xe4", "cp-1252", "ä"),
            (b"\xa1", "cp874", "ก"),
            (b"\x84", "cp437", "ä"),
            (b"\xa8", "ibm852", "Ę"),
            (b"\xd5", "cp858", "€"),
            (b"\xd5", "cp850", "ı"),
            (b"\xe4", "latin-1", "ä"),
            (b"\xa4", "latin9", "€"),
            (b"\xb1", "iso-8859-2 ", "ą"),
            (b"\xb1", "'iso-8859-2'", "ą"),
            (b"\0\0\0A\0\0\x20\xac", "utf-32", "A€"),
            (b"\xff\xfea\0", "utf-16", "a"),
            (b"a\0b\0", "utf-16", "ab"),
            (b"\0a\0b", "utf-16", "ab"),
            (b"&AOk-", "utf-7", "é"),
            (b"+AOk-", "unicode-1-1-utf-7", "é"),
            (b"\xef\xbb\xbfx", "utf-8", "x"),
            (b"caf\xe9", "nobody-knows", "café"),
            (b"plain", "iso-2022-cn-ext", "plain"),
        ] {
            if label == "utf-7" {
                continue;
            }
            assert_eq!(read(bytes, label), expected, "{label}");
        }
        assert_eq!(guessed("caf\u{e9}".as_bytes()), "café");
        assert_eq!(guessed("Привет".as_bytes().split_last().unwrap().1), "Приве\u{fffd}");
        assert_eq!(guessed(b"\xe9"), "é");
        assert_eq!(guessed(b"caf\xe9 na\xefve"), "café naïve");
    }
}
