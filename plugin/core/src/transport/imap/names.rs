//! Mailbox names as they are written into commands.

use base64::{
    Engine,
    alphabet::IMAP_MUTF7,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};

use crate::error::{Error, Fault, Result};

/// A folder name in modified UTF-7 (RFC 3501 section 5.1.3), quoted.
///
/// # Errors
/// `Settings` for an empty name or one with control characters.
pub fn quoted(folder: &str) -> Result<String> {
    if folder.is_empty() || folder.chars().any(char::is_control) {
        return Err(Error::settings(vec![Fault {
            pointer: "/advanced".into(),
            label: "Folder".into(),
            message: "A folder name must not be empty or contain control characters.".into(),
        }]));
    }
    let encoded = modified_utf7(folder);
    Ok(format!("\"{}\"", encoded.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn modified_utf7(text: &str) -> String {
    let engine = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);
    let mut out = String::with_capacity(text.len());
    let mut shifted: Vec<u8> = Vec::new();
    let flush = |shifted: &mut Vec<u8>, out: &mut String| {
        if !shifted.is_empty() {
            out.push('&');
            engine.encode_string(&*shifted, out);
            out.push('-');
            shifted.clear();
        }
    };
    for c in text.chars() {
        if c.is_ascii() {
            flush(&mut shifted, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut shifted, &mut out);
    out
}

/// A mailbox name as the server wrote it. What is no modified UTF-7 (servers that write UTF-8) stays as it is.
pub fn decoded(name: &str) -> String {
    let engine = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let Some((shifted, after)) = after.split_once('-') else { return name.to_owned() };
        if shifted.is_empty() {
            out.push('&');
        } else {
            let Ok(bytes) = engine.decode(shifted) else { return name.to_owned() };
            let units = bytes.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            if !bytes.len().is_multiple_of(2) {
                return name.to_owned();
            }
            out.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The prefixes in a NAMESPACE response (RFC 2342 section 5), as the server wrote them, the personal namespaces first. A
/// response without a personal namespace begins with an empty prefix.
pub fn namespace_prefixes(line: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(line);
    let Some(rest) = text.get(..12).filter(|start| start.eq_ignore_ascii_case("* NAMESPACE ")).map(|_| &text[12..])
    else {
        return Vec::new();
    };
    let mut prefixes = Vec::new();
    if rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("NIL")) {
        prefixes.push(String::new());
    }
    // Each namespace is `("prefix" "delimiter" …)`; the first string of each is its prefix.
    let (mut in_string, mut escaped, mut first_of_group, mut current) = (false, false, false, String::new());
    for c in rest.chars() {
        match c {
            _ if escaped => {
                current.push(c);
                escaped = false;
            }
            '\\' if in_string => escaped = true,
            '"' => {
                if in_string && first_of_group {
                    prefixes.push(decoded(&std::mem::take(&mut current)));
                    first_of_group = false;
                }
                current.clear();
                in_string = !in_string;
            }
            _ if in_string => current.push(c),
            '(' => first_of_group = true,
            _ => {}
        }
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_namespaces_are_read() {
        for (line, prefixes) in [
            ("* NAMESPACE ((\"INBOX.\" \".\")) NIL NIL\r\n", &["INBOX."][..]),
            ("* NAMESPACE ((\"\" \"/\")) ((\"~\" \"/\")) ((\"#shared/\" \"/\"))\r\n", &["", "~", "#shared/"]),
            ("* NAMESPACE NIL NIL ((\"\" \".\"))\r\n", &["", ""]),
            ("* LIST () \".\" x\r\n", &[]),
        ] {
            assert_eq!(namespace_prefixes(line.as_bytes()), prefixes, "{line}");
        }
    }

    #[test]
    fn folder_names_are_modified_utf7() {
        // The examples of RFC 3501 section 5.1.3.
        assert_eq!(quoted("~peter/mail/台北/日本語").unwrap(), "\"~peter/mail/&U,BTFw-/&ZeVnLIqe-\"");
        assert_eq!(quoted("Müll & Co").unwrap(), "\"M&APw-ll &- Co\"");
        assert_eq!(quoted("a\"b\\c").unwrap(), "\"a\\\"b\\\\c\"");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["~peter/mail/台北/日本語", "Müll & Co", "Éléments envoyés", "INBOX"] {
            assert_eq!(decoded(&modified_utf7(name)), name);
        }
        for odd in ["a&", "a&b", "Entwürfe", "&AAAA-"] {
            assert_eq!(decoded(odd), odd, "written in no known way, it stays");
        }
    }

    #[test]
    fn a_folder_name_cannot_smuggle_a_command() {
        assert!(quoted("INBOX\r\na2 DELETE INBOX").is_err());
        assert!(quoted("").is_err());
    }
}
