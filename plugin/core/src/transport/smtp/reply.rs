//! Replies, read within bounds. lettre parses them once they are known to be whole and small.

use std::{
    io::{self, Read},
    time::Duration,
};

use lettre::transport::smtp::response::Response;

use crate::{
    error::{Error, Kind, Result},
    limits,
    remedies::Enhanced,
};

/// One reply, all its lines.
#[derive(Clone, Debug)]
pub struct Reply(Response);

impl Reply {
    pub fn code(&self) -> u16 {
        self.0.code().into()
    }

    /// 25z: done, in answer to MAIL, RCPT, RSET and the final dot. What else begins with 2 answers something else.
    pub fn is_done(&self) -> bool {
        self.code() / 10 == 25
    }

    /// The enhanced status code (RFC 2034), where there is one.
    pub fn enhanced(&self) -> Option<Enhanced> {
        Enhanced::of(&self.text())
    }

    /// 4yz: the same may succeed later.
    pub fn is_transient(&self) -> bool {
        self.code() / 100 == 4
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.message()
    }

    /// Code and text in one line, verbatim but for the line ends.
    pub fn text(&self) -> String {
        let mut text = self.code().to_string();
        for line in self.lines() {
            text.push(' ');
            text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        text
    }

    /// Does the text hold this, whatever the case of its letters?
    pub fn says(&self, what: &str) -> bool {
        self.text().to_ascii_lowercase().contains(&what.to_ascii_lowercase())
    }

    /// The wait that the text names, as grey-listing servers do: "try again in 300 seconds".
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.text().to_ascii_lowercase();
        let words: Vec<&str> =
            text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        words.windows(2).find_map(|pair| {
            let unit = match pair[1] {
                "s" | "sec" | "secs" | "second" | "seconds" => 1,
                "min" | "mins" | "minute" | "minutes" => 60,
                "hour" | "hours" => 3600,
                "day" | "days" => 86_400,
                _ => return None,
            };
            let seconds = pair[0].parse::<u64>().ok()?.saturating_mul(unit);
            Some(Duration::from_secs(seconds).min(limits::SMTP_RETRY_AFTER_MAX))
        })
    }
}

/// Why no reply could be read.
#[derive(Debug)]
pub enum NoReply {
    /// Closed, reset, or silent until the deadline.
    Lost(io::Error),
    /// Not SMTP, or without end.
    Misbehaved(Error),
}

impl NoReply {
    pub fn into_error(self, server: &str, waiting_for: &str) -> Error {
        match self {
            Self::Misbehaved(error) => error,
            Self::Lost(e) if e.kind() == io::ErrorKind::TimedOut => {
                Error::new(Kind::Transient, format!("{server} gave no answer to {waiting_for} in time."))
                    .remedy("It is tried again later; if it keeps happening, check the server and the network.")
                    .source_error(e)
            }
            Self::Lost(e) => {
                Error::new(Kind::Transient, format!("The connection to {server} was lost at {waiting_for}."))
                    .remedy("It is tried again later; if it keeps happening, check the server and the network.")
                    .source_error(e)
            }
        }
    }
}

/// Bytes read ahead: with PIPELINING several replies come at once.
#[derive(Default)]
pub struct ReplyBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl ReplyBuffer {
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Reads one whole reply. Grows by what was received, never past one line and one read.
    pub fn read(&mut self, stream: &mut impl Read) -> Result<Reply, NoReply> {
        let mut text = String::new();
        for _ in 0..limits::SMTP_LINES_MAX {
            let line = self.line(stream)?;
            let line = String::from_utf8_lossy(&line);
            // RFC 5321 4.2: "250" alone is a reply; lettre wants the space after it.
            let last = line.as_bytes().get(3) != Some(&b'-');
            text.push_str(&line);
            if line.len() == 3 {
                text.push(' ');
            }
            text.push_str("\r\n");
            if last {
                return text
                    .parse()
                    .map(Reply)
                    .map_err(|_| NoReply::Misbehaved(misbehaved("answered with something that is not SMTP")));
            }
        }
        Err(NoReply::Misbehaved(misbehaved(&format!("answered with more than {} lines", limits::SMTP_LINES_MAX))))
    }

    /// One line without its line end; a bare LF ends one too, as every client takes it.
    fn line(&mut self, stream: &mut impl Read) -> Result<Vec<u8>, NoReply> {
        let mut scanned = self.start;
        loop {
            if let Some(at) = self.bytes[scanned..].iter().position(|&byte| byte == b'\n') {
                let line = &self.bytes[self.start..scanned + at];
                if line.len() > limits::SMTP_LINE_MAX {
                    return Err(NoReply::Misbehaved(misbehaved("answered with a line that is too long")));
                }
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.start = scanned + at + 1;
                return Ok(line);
            }
            if self.bytes.len() - self.start > limits::SMTP_LINE_MAX {
                return Err(NoReply::Misbehaved(misbehaved("answered with a line that does not end")));
            }
            self.bytes.drain(..self.start);
            self.start = 0;
            scanned = self.bytes.len();
            let mut chunk = [0; limits::SMTP_READ_CHUNK];
            match stream.read(&mut chunk) {
                Ok(0) => return Err(NoReply::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.bytes.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NoReply::Lost(e)),
            }
        }
    }
}

fn misbehaved(what: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("The mail server {what}."))
        .remedy("Check that server name and port are those of an SMTP submission server.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Reply, NoReply> {
        ReplyBuffer::default().read(&mut &bytes[..])
    }

    #[test]
    fn replies_are_read_one_by_one() {
        let mut stream = &b"250-a\r\n250 b\r\n354\r\n550 5.1.1 no\n"[..];
        let mut buffer = ReplyBuffer::default();
        assert_eq!(buffer.read(&mut stream).unwrap().text(), "250 a b");
        assert!(!buffer.is_empty());
        assert_eq!(buffer.read(&mut stream).unwrap().code(), 354);
        assert_eq!(buffer.read(&mut stream).unwrap().text(), "550 5.1.1 no");
        assert!(buffer.is_empty());
        assert!(matches!(buffer.read(&mut stream), Err(NoReply::Lost(_))));
    }

    #[test]
    fn hostile_replies_end() {
        for bytes in [
            vec![b'2'; 10 << 20],
            b"250-x\r\n".repeat(100_000),
            b"hello\r\n".to_vec(),
            b"250-a\r\n550 b\r\n".to_vec(),
            b"\r\n".to_vec(),
            b"\xff\xff\xff\xff\r\n".to_vec(),
            [b"250 ".to_vec(), vec![b'x'; limits::SMTP_LINE_MAX], b"\r\n".to_vec()].concat(),
        ] {
            assert!(matches!(read(&bytes), Err(NoReply::Misbehaved(_))), "{:?}", &bytes[..5.min(bytes.len())]);
        }
    }

    #[test]
    fn a_wait_named_in_the_text_is_understood() {
        for (text, seconds) in [
            ("450 4.2.0 Greylisted, try again in 300 seconds\r\n", Some(300)),
            ("451 4.7.1 Try again in 5 minutes.\r\n", Some(300)),
            ("451 4.7.1 come back after 9999999999999 hours\r\n", Some(24 * 3600)),
            ("450 4.2.0 busy\r\n", None),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().retry_after(), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
