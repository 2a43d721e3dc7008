#!/bin/sh
# What: mail-parser loses a MIME parameter whose value begins on the next line (boundary=<line break><tab>"b1"). RFC 2045
#       with RFC 5322 section 3.2.2 allows white space there, and Exchange writes long file names so. A boundary
#       that is lost costs the whole structure of the message.
# With: mail-parser 0.11.9 from crates.io (needs cargo).
# Seen: the same multipart has 2 parts when the boundary is on one line, and none when it is folded after the sign "=".
# So:   unfold Content-Type and Content-Disposition before the parser reads them.
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
mail-parser = "=0.11.9"
[workspace]
T
cat > "$work/src/main.rs" <<'R'
use mail_parser::{MessageParser, MimeHeaders};

fn attachments(fold: &str) -> usize {
    let raw = format!(
        "From: a@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary={fold}\"b1\"\r\n\r\n\
         --b1\r\nContent-Type: text/plain\r\n\r\nsee\r\n\
         --b1\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\nContent-Disposition: attachment\r\n\r\nabc\r\n--b1--\r\n"
    );
    let message = MessageParser::default().parse(raw.as_bytes()).expect("a message");
    message.attachments().filter(|part| part.attachment_name() == Some("a.pdf")).count()
}

fn main() {
    println!("mail-parser 0.11.9");
    let (plain, folded) = (attachments(""), attachments("\r\n\t"));
    println!("boundary on one line: {plain} attachment; boundary folded after the sign: {folded}");
    if (plain, folded) != (1, 0) {
        eprintln!("the behaviour has changed");
        std::process::exit(1);
    }
}
R
cargo run --quiet --manifest-path "$work/Cargo.toml"
echo "as seen: the folded parameter is lost"
