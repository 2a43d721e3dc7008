#!/bin/sh
# What: a text in ISO-2022-KR (RFC 1557) or HZ-GB-2312 (RFC 1843), both registered MIME charsets, comes out of mail-parser
#       as one U+FFFD: its decoder, encoding_rs, follows the WHATWG list, where both names mean "replacement", an encoding
#       that answers one replacement character whatever the bytes are. The ASCII words of the text are gone, too.
# With: mail-parser 0.11.9 with the feature full_encoding, from crates.io (needs cargo).
# Seen: "Hello <Korean> world" and "Hello <Chinese> world" each become "\u{fffd}"; ISO-2022-JP is decoded.
# So:   decode these two yourself, or keep the ASCII; Python's codecs iso2022_kr and hz are a reference.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat > "$work/Cargo.toml" <<'T'
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[dependencies]
mail-parser = { version = "=0.11.9", features = ["full_encoding"] }
[workspace]
T
cat > "$work/src/main.rs" <<'R'
use mail_parser::MessageParser;

fn text(charset: &str, body: &[u8]) -> String {
    let mut raw = format!(
        "From: a@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\n\r\n"
    )
    .into_bytes();
    raw.extend_from_slice(body);
    let message = MessageParser::default().parse(&raw).expect("a message");
    message.body_text(0).expect("a text").into_owned()
}

fn main() {
    println!("mail-parser 0.11.9, full_encoding");
    let samples: [(&str, &[u8], bool); 3] = [
        ("iso-2022-kr", b"\x1b$)C\nHello \x0eGQ1[\x0f world\n", false),
        ("hz-gb-2312", b"Hello ~{<:Ky2;~} world\n", false),
        ("iso-2022-jp", b"Hello \x1b$B%+%J\x1b(B world\n", true),
    ];
    let mut same = true;
    for (charset, body, keeps) in samples {
        let text = text(charset, body);
        println!("{charset:12} {:?}", text.trim_end());
        same &= text.contains("Hello") == keeps && (keeps || text.trim_end() == "\u{fffd}");
    }
    if !same {
        eprintln!("the behaviour has changed");
        std::process::exit(1);
    }
}
R
cargo run --quiet --manifest-path "$work/Cargo.toml"
echo "as seen: the whole text is one U+FFFD"
