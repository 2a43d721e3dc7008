//! The floor of the fetching benchmark: one TLS connection, XOAUTH2, EXAMINE, one UID FETCH of everything, every byte
//! read and dropped. Nothing that keeps or looks at messages can be faster over the same connection.
//!
//! `floor CA PORT USER TOKEN_FILE [FOLDER]` prints one JSON line `{"bytes","seconds"}`; the clock starts after EXAMINE.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, fs, path::Path, process::ExitCode, time::Instant};

use serde_json::json;

use oauth_mail_tests::{
    Error, Result,
    wire::{Mechanism, Wire},
};

const BUFFER: usize = 1 << 18;
const TAG: &[u8] = b"end ";

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<String> {
    let (ca, port, user, token, folder) = match arguments {
        [ca, port, user, token] => (ca, port, user, token, "INBOX"),
        [ca, port, user, token, folder] => (ca, port, user, token, folder.as_str()),
        _ => return Err(Error::new("usage: floor CA PORT USER TOKEN_FILE [FOLDER]")),
    };
    let token = fs::read_to_string(token).map_err(Error::doing(token))?;
    let mut wire = Wire::tls(Path::new(ca), port.parse().map_err(Error::doing("PORT"))?)?;
    let login = wire.imap_login(Mechanism::Xoauth2, user, token.trim())?;
    login.map_err(|lines| Error::new(format!("refused: {}", lines.join(" "))))?;
    let examined = wire.imap(&format!("EXAMINE \"{folder}\""))?;
    if !examined.last().is_some_and(|line| line.starts_with("t OK")) {
        return Err(Error::new(examined.join(" ")));
    }
    let start = Instant::now();
    wire.write_line("end UID FETCH 1:* (UID BODY.PEEK[])")?;
    let bytes = read_to_end(&mut wire)?;
    let seconds = start.elapsed().as_secs_f64();
    wire.write_line("bye LOGOUT")?;
    Ok(json!({ "bytes": bytes, "seconds": seconds }).to_string())
}

/// Until the last line of what has come is the tagged one. Literals are not parsed: a message would have to end a read
/// with exactly such a line to end the count early.
fn read_to_end(wire: &mut Wire) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut tail = Vec::new();
    let mut total = 0;
    loop {
        let count = wire.read(&mut buffer)?;
        if count == 0 {
            return Err(Error::new("the server closed the connection"));
        }
        total += count as u64;
        tail.extend_from_slice(&buffer[count.saturating_sub(512)..count]);
        tail.drain(..tail.len().saturating_sub(512));
        if let Some(line) = last_line(&tail).filter(|line| line.starts_with(TAG)) {
            if line.starts_with(b"end OK") {
                return Ok(total);
            }
            return Err(Error::new(String::from_utf8_lossy(line)));
        }
    }
}

/// Only when it is complete.
fn last_line(tail: &[u8]) -> Option<&[u8]> {
    let body = tail.strip_suffix(b"\r\n")?;
    let start = body.windows(2).rposition(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
    Some(&body[start..])
}
