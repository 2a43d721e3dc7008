#!/bin/sh
# What: imap-proto, the parser below the crate imap, does not parse the CAPABILITY response of a server that offers
#       IMAP4rev2 and not IMAP4rev1, which RFC 9051 allows. The client then believes that nothing is offered.
# With: imap-proto 0.16.7 from crates.io (needs cargo).
# Seen: "* CAPABILITY IMAP4rev1 …" parses; the same line with IMAP4rev2 alone is an error, not an unknown capability.
# So:   read the words of a CAPABILITY line yourself when the parser gives nothing.
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
imap-proto = "=0.16.7"
[workspace]
T
cat > "$work/src/main.rs" <<'R'
fn parses(line: &str) -> bool {
    imap_proto::parser::parse_response(line.as_bytes()).is_ok()
}

fn main() {
    println!("imap-proto 0.16.7");
    let lines = [
        ("* CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2\r\n", true),
        ("* CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR AUTH=XOAUTH2\r\n", true),
        ("* CAPABILITY IMAP4rev2 SASL-IR AUTH=XOAUTH2\r\n", false),
    ];
    let mut same = true;
    for (line, seen) in lines {
        println!("{:58} {}", line.trim_end(), if parses(line) { "parsed" } else { "error" });
        same &= parses(line) == seen;
    }
    if !same {
        eprintln!("the behaviour has changed");
        std::process::exit(1);
    }
}
R
cargo run --quiet --manifest-path "$work/Cargo.toml"
echo "as seen: a list without IMAP4rev1 is not parsed"
