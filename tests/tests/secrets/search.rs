//! Secrets, and the spellings in which they are searched for.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::json;
use url::form_urlencoded;

/// Each secret, and what it is called in a failure: a test must not print it either.
#[derive(Clone, Default)]
pub struct Secrets(pub BTreeMap<String, String>);

impl Secrets {
    pub fn add(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 16, "{name} is too short to be searched for");
        self.0.entry(secret.to_owned()).or_insert_with(|| name.to_owned());
    }

    /// The names of those that are in there.
    pub fn found_in(&self, haystack: &[u8]) -> Vec<String> {
        let found = |secret: &str| spellings(secret).iter().any(|spelling| contains(haystack, spelling.as_bytes()));
        let known = self.0.iter().filter(|(secret, _)| found(secret)).map(|(_, name)| name.clone());
        known.chain(has_signed_token(haystack).then(|| "a signed token".to_owned())).collect()
    }

    /// In files of this process that have no name any more.
    pub fn found_in_open_files(&self) -> Vec<String> {
        let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
        let is_spool = |path: &Path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().ends_with("(deleted)"));
        descriptors
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| is_spool(path))
            // It may have been closed since, and its number may be a pipe now: only plain files are read.
            .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file()))
            .filter_map(|path| fs::read(path).ok())
            .flat_map(|content| self.found_in(&content))
            .collect()
    }
}

/// Assertions and ID tokens are made anew each time and cannot be known: any JWS is one too many (`eyJ`, its header, a dot).
fn has_signed_token(haystack: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    haystack.split(|byte| !is_word(byte) && *byte != b'.').any(|word| {
        word.windows(3).position(|start| start == b"eyJ").is_some_and(|at| {
            let header = word[at..].split(|byte| *byte == b'.').next().unwrap_or_default();
            header.len() >= 16 && word.len() > at + header.len() + 1
        })
    })
}

fn spellings(secret: &str) -> Vec<String> {
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let each = |format: fn(u8) -> String| secret.bytes().map(format).collect::<String>();
    let mut spellings = vec![
        secret.to_owned(),
        form.clone(),
        each(|byte| format!("%{byte:02X}")),
        each(|byte| format!("%{byte:02x}")),
        each(|byte| format!("{byte:02X}")),
        each(|byte| format!("{byte:02x}")),
        json!(secret).to_string().trim_matches('"').to_owned(),
        format!("{secret:?}").trim_matches('"').to_owned(),
        format!("{:?}", secret.as_bytes()).trim_matches(['[', ']']).to_owned(),
        secret.chars().rev().collect(),
    ];
    for text in [secret, &form] {
        for shift in 0..3 {
            // The characters that depend on what stands before and after are left out.
            let padded = [&[0; 2][..shift], text.as_bytes()].concat();
            let (first, last) = ([0, 2, 3][shift], padded.len() * 8 / 6);
            spellings.push(BASE64_STANDARD_NO_PAD.encode(&padded)[first..last].to_owned());
            spellings.push(BASE64_URL_SAFE_NO_PAD.encode(&padded)[first..last].to_owned());
        }
    }
    spellings.sort();
    spellings.dedup();
    spellings
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else { return false };
    // Byte by byte over the first one: windows() alone takes minutes in a debug build.
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[test]
fn the_search_finds_what_is_hidden_in_any_spelling() {
    let canaries = [
        ("an access token", "ya29.Pl4nted+/access_~token"),
        ("a refresh token", "1//0Pl4nted-refresh_token=="),
        ("a code", "4/0APl4nted.code_with-marks"),
        ("a code verifier", "Pl4nted-verifier.0123456789_~"),
        ("a client secret", "Pl4nted+/:secret_~ \"value\"\\"),
        ("an assertion", "Pl4ntedHeader.Pl4ntedClaims.Pl4ntedSignature"),
        ("a key", "MIGHAgEAMBMGPl4nted+/key"),
        ("a password", "p\u{e4}ss w\u{f6}rd/Pl4nted%2B"),
    ];
    let (mut planted, mut missed) = (0, Vec::new());
    for (name, secret) in canaries {
        let secrets = Secrets(BTreeMap::from([(secret.to_owned(), name.to_owned())]));
        assert_eq!(secrets.found_in(b"nothing of the kind"), Vec::<String>::new());
        let each = |format: fn(u8) -> String| secret.bytes().map(format).collect::<String>();
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let mut hidden = vec![
            ("plain", secret.to_owned()),
            ("form", form.clone()),
            ("percent, upper", each(|byte| format!("%{byte:02X}"))),
            ("percent, lower", each(|byte| format!("%{byte:02x}"))),
            ("hex, upper", each(|byte| format!("{byte:02X}"))),
            ("hex, lower", each(|byte| format!("{byte:02x}"))),
            ("JSON", json!(secret).to_string()),
            ("Debug", format!("{secret:?}")),
            ("a list of bytes", format!("{:?}", secret.as_bytes())),
            ("reversed", secret.chars().rev().collect()),
            // RFC 6749 2.3.1: encoded as a form first.
            ("Basic", BASE64_STANDARD.encode(format!("client:{form}"))),
        ];
        for before in ["", "a", "ab", "user=alice@example.test\u{1}auth=Bearer "] {
            for after in ["", "\u{1}\u{1}", "xyz"] {
                let text = format!("{before}{secret}{after}");
                hidden.push(("base64", BASE64_STANDARD.encode(&text)));
                hidden.push(("base64url", BASE64_URL_SAFE_NO_PAD.encode(&text)));
            }
        }
        let mut haystacks: Vec<_> = hidden
            .into_iter()
            .map(|(spelling, text)| (spelling, format!("2026 INFO some line {text}, and more").into_bytes()))
            .collect();
        haystacks.push(("among bytes that are no text", [&[0, 255, 10, 200], secret.as_bytes(), &[0, 1]].concat()));
        for (spelling, haystack) in haystacks {
            planted += 1;
            if secrets.found_in(&haystack) != [name] {
                missed.push(format!("{name}: {spelling}"));
            }
        }
    }
    let jwt = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "x5t#S256": "abc"}).to_string());
    assert_eq!(Secrets::default().found_in(format!("sent {jwt}.claims.signature").as_bytes()), ["a signed token"]);
    writeln!(std::io::stdout(), "planted leaks found: {}/{planted}", planted - missed.len()).unwrap();
    assert_eq!(missed, Vec::<String>::new());
}
