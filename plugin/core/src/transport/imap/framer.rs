//! Cuts a byte stream into IMAP responses without trusting the server: every length, depth, count and sum is bounded
//! before anything recursive or growing sees the bytes.
//!
//! One response is its lines with each literal elided to `{0}`, and beside them the literals' contents. The elided
//! text is small and harmless to parse; the contents are moved once, from the read buffer to where they stay.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    error::{About, Error, Kind, Result},
    limits,
    transport::{Raw, spool::Spool},
};

/// One response. Reused from call to call.
#[derive(Default)]
pub struct Frame {
    /// All lines of the response with their CRLF; each literal stands as `{0}CRLF`.
    pub line: Vec<u8>,
    /// Contents of the literals, in order.
    pub literals: Vec<Raw>,
}

impl Frame {
    pub fn is_untagged(&self) -> bool {
        self.line.starts_with(b"* ")
    }

    /// The text as it is shown in a transcript: literals as `{n bytes}`, no line ends.
    pub fn display(&self) -> Vec<u8> {
        let mut shown = Vec::with_capacity(self.line.len() + 16 * self.literals.len());
        let mut rest = self.line.as_slice();
        for literal in &self.literals {
            let Some(at) = find(rest, b"{0}\r\n") else { break };
            shown.extend_from_slice(&rest[..at]);
            let len = match literal {
                Raw::Memory(bytes) => bytes.len() as u64,
                Raw::Spool { len, .. } => *len,
            };
            shown.extend_from_slice(format!("{{{len} bytes}}").as_bytes());
            rest = &rest[at + 5..];
        }
        shown.extend_from_slice(rest.trim_ascii_end());
        shown
    }
}

/// What the answer to one command may cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub responses: usize,
    pub bytes: u64,
}

impl Budget {
    /// Every command but a body FETCH.
    pub const CONTROL: Self = Self { responses: limits::IMAP_RESPONSES_MAX, bytes: limits::IMAP_COMMAND_BYTES_MAX };
    /// A body FETCH: at most the largest message, or a group of small ones, and what the server adds by itself.
    pub const BODIES: Self = Self {
        responses: limits::IMAP_RESPONSES_MAX,
        bytes: limits::MESSAGE_MAX + limits::IMAP_GROUP_BYTES + limits::IMAP_COMMAND_BYTES_MAX,
    };
}

pub struct Framer<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    left: Budget,
    received: Arc<AtomicU64>,
    /// After an error nobody knows where the next response begins.
    dead: bool,
}

impl<R: Read> Framer<R> {
    pub fn new(reader: R) -> Self {
        let buffer = vec![0; limits::IMAP_BUFFER].into_boxed_slice();
        Self { reader, buffer, start: 0, end: 0, left: Budget::CONTROL, received: Arc::default(), dead: false }
    }

    pub fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Bytes that came, counted on.
    pub fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    pub fn kill(&mut self) {
        self.dead = true;
    }

    /// Begins to count anew: a command was sent, or an answer ended and the next one begins.
    pub fn begin(&mut self, budget: Budget) {
        self.left = budget;
    }

    /// Reads one response into `frame`, whose earlier content is dropped.
    ///
    /// # Errors
    /// `Transient` when the connection ended or the deadline passed, `TooLarge` for a message above
    /// `limits::MESSAGE_MAX`, `ServerMisbehaved` for any other limit. After each of them the connection is dead.
    pub fn next(&mut self, frame: &mut Frame) -> Result<()> {
        if self.dead {
            return Err(Error::new(Kind::Transient, "The connection to the mail server was given up.")
                .with_about(About::Connection));
        }
        let result = self.read_frame(frame);
        self.dead = result.is_err();
        result
    }

    fn read_frame(&mut self, frame: &mut Frame) -> Result<()> {
        frame.line.clear();
        frame.literals.clear();
        if self.left.responses == 0 {
            return Err(misbehaved("answers without end"));
        }
        self.left.responses -= 1;
        let mut nesting = Nesting::default();
        loop {
            let from = frame.line.len();
            self.read_line(&mut frame.line)?;
            if from == 0 && frame.line == b"\r\n" {
                frame.line.clear();
                continue;
            }
            nesting.feed(&frame.line[from..])?;
            if is_text(&frame.line) {
                return Ok(());
            }
            let Some((brace, announced)) = announced(&frame.line) else { return Ok(()) };
            frame.line.truncate(brace);
            frame.line.extend_from_slice(b"{0}\r\n");
            if frame.literals.len() == limits::IMAP_LITERALS_MAX {
                return Err(misbehaved("too many literals in one response"));
            }
            let literal = self.read_literal(announced)?;
            frame.literals.push(literal);
        }
    }

    /// Appends one line, always ended by CRLF.
    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<()> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            let (part, ended) = match unread.iter().position(|&byte| byte == b'\n') {
                Some(at) => (&unread[..=at], true),
                None => (unread, false),
            };
            if line.len() + part.len() > limits::IMAP_LINE_MAX {
                return Err(misbehaved("a line longer than any real one"));
            }
            line.extend_from_slice(part);
            self.start += part.len();
            if ended {
                // Bare LF happens; every parser below expects CRLF.
                if !line.ends_with(b"\r\n") {
                    line.pop();
                    line.extend_from_slice(b"\r\n");
                }
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn read_literal(&mut self, announced: u64) -> Result<Raw> {
        if announced > limits::MESSAGE_MAX {
            return Err(Error::new(
                Kind::TooLarge,
                format!("The server sends {announced} bytes in one piece; {} are accepted.", limits::MESSAGE_MAX),
            )
            .remedy("Move the message out of the fetched folder, or read it with another program."));
        }
        let mut spool = Spool::sized(announced)?;
        let mut left = announced as usize;
        while left > 0 {
            let part = self.available(left)?;
            let len = part.len();
            spool.put(part)?;
            left -= len;
            self.start += len;
        }
        spool.end()
    }

    /// Unread bytes, at least one and at most `wanted`; not yet taken.
    fn available(&mut self, wanted: usize) -> Result<&[u8]> {
        if self.start == self.end {
            self.fill()?;
        }
        let end = self.end.min(self.start + wanted);
        Ok(&self.buffer[self.start..end])
    }

    /// Called only when everything in the buffer was taken.
    fn fill(&mut self) -> Result<()> {
        let got = loop {
            match self.reader.read(&mut self.buffer) {
                Ok(got) => break got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(connection_error(e)),
            }
        };
        if got == 0 {
            return Err(connection_error(io::ErrorKind::UnexpectedEof.into()));
        }
        self.received.fetch_add(got as u64, Ordering::Relaxed);
        self.left.bytes = self
            .left
            .bytes
            .checked_sub(got as u64)
            .ok_or_else(|| misbehaved("more bytes than the answer to any command needs"))?;
        (self.start, self.end) = (0, got);
        Ok(())
    }
}

/// Depth of parentheses: as the parser counts them, outside quoted strings, and regardless of quotes.
#[derive(Default)]
struct Nesting {
    quoted: bool,
    escaped: bool,
    depth: usize,
    raw_depth: usize,
}

impl Nesting {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        for &byte in bytes {
            match byte {
                b'(' => self.raw_depth += 1,
                b')' => self.raw_depth = self.raw_depth.saturating_sub(1),
                _ => {}
            }
            if self.quoted {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.quoted = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.quoted = true,
                    b'(' => self.depth += 1,
                    b')' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
            if self.depth > limits::IMAP_DEPTH_MAX || self.raw_depth > limits::IMAP_RAW_DEPTH_MAX {
                return Err(misbehaved("lists nested deeper than any real one"));
            }
        }
        Ok(())
    }
}

/// Status responses, continuation requests and tagged responses end in free text, where `{5}` announces nothing
/// (RFC 3501 section 9, resp-text).
fn is_text(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"* ") else { return true };
    let word = rest.split(|byte| matches!(byte, b' ' | b'\r')).next().unwrap_or_default();
    [&b"OK"[..], b"NO", b"BAD", b"BYE", b"PREAUTH"].iter().any(|status| word.eq_ignore_ascii_case(status))
}

/// `{n}` or `{n+}` at the end of the line: where the brace stands, and n.
fn announced(line: &[u8]) -> Option<(usize, u64)> {
    let inner = line.strip_suffix(b"}\r\n")?;
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let brace = inner.iter().rposition(|byte| !byte.is_ascii_digit())?;
    let digits = &inner[brace + 1..];
    if inner[brace] != b'{' || digits.is_empty() {
        return None;
    }
    // More digits than a u64 holds is still an announcement: refused as too large, not read as text.
    Some((brace, std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX)))
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// What an I/O error on the connection means.
pub fn connection_error(e: io::Error) -> Error {
    let sentence = match e.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "The mail server gave no answer in time.",
        _ => "The connection to the mail server was lost.",
    };
    Error::new(Kind::Transient, sentence)
        .remedy("Try again: what was not finished is taken up.")
        .with_about(About::Connection)
        .source_error(e)
}

fn misbehaved(what: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("The mail server sent {what}; the connection was closed."))
        .remedy("Check that the server name leads to the mail server and not to something in between.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<Frame> {
        let mut frame = Frame::default();
        Framer::new(bytes).next(&mut frame).map(|()| frame)
    }

    fn refused(bytes: &[u8]) -> Kind {
        first(bytes).map(|_| ()).expect_err("must be refused").kind()
    }

    /// Gives one byte at a time, for ever the same.
    struct Endless(&'static [u8], usize);

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            for byte in into.iter_mut() {
                *byte = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(into.len())
        }
    }

    #[test]
    fn literals_are_elided_and_kept_beside() {
        let bytes = b"\r\n* 1 FETCH (UID 7 BODY[] {5}\r\nab{9}X-Y {2+}\r\n\r\n FLAGS ())\r\n* 2 EXISTS\n";
        let mut framer = Framer::new(&bytes[..]);
        let mut frame = Frame::default();
        framer.next(&mut frame).unwrap();
        assert_eq!(frame.line, b"* 1 FETCH (UID 7 BODY[] {0}\r\nX-Y {0}\r\n FLAGS ())\r\n");
        assert_eq!(frame.display(), b"* 1 FETCH (UID 7 BODY[] {5 bytes}X-Y {2 bytes} FLAGS ())");
        assert!(matches!(&frame.literals[..], [Raw::Memory(a), Raw::Memory(b)] if a == b"ab{9}" && b == b"\r\n"));
        framer.next(&mut frame).unwrap();
        assert_eq!((&frame.line[..], frame.literals.len()), (&b"* 2 EXISTS\r\n"[..], 0));
        assert_eq!(framer.next(&mut frame).unwrap_err().kind(), Kind::Transient);
        assert!(framer.is_dead());
    }

    #[test]
    fn a_number_at_the_end_of_free_text_is_no_literal() {
        for line in [&b"* OK wait {5}\r\n"[..], b"* bye {5}\r\n", b"+ {5}\r\n", b"a1 NO [X] {5}\r\n"] {
            assert_eq!(first(line).unwrap().line, line);
        }
    }

    #[test]
    fn nesting_cannot_reach_the_parser() {
        // 340 levels overflow a 2 MiB stack in imap-proto (issue 90 there).
        let nest = |open: usize| [b"* 1 FETCH (BODYSTRUCTURE ".to_vec(), vec![b'('; open]].concat();
        assert_eq!(refused(&[nest(400), b"\r\n".to_vec()].concat()), Kind::ServerMisbehaved);
        assert!(first(&[nest(30), b"\r\n".to_vec()].concat()).is_ok());
        let hidden = |open: usize| [b"* 1 FETCH (X \"".to_vec(), vec![b'('; open], b"\")\r\n".to_vec()].concat();
        assert!(first(&hidden(100)).is_ok());
        assert_eq!(refused(&hidden(400)), Kind::ServerMisbehaved);
        // Spread over lines that literals separate.
        let spread = b"((({0}\r\n".repeat(60);
        assert_eq!(refused(&[b"* 1 FETCH ".to_vec(), spread].concat()), Kind::ServerMisbehaved);
    }

    #[test]
    fn twenty_thousand_literals_are_refused() {
        let many = [b"* 1 FETCH (".to_vec(), b"X {2}\r\nab ".repeat(20_000)].concat();
        assert_eq!(refused(&many), Kind::ServerMisbehaved);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut framer = Framer::new(Endless(b"x", 0));
        let mut frame = Frame::default();
        assert_eq!(framer.next(&mut frame).unwrap_err().kind(), Kind::ServerMisbehaved);
        assert!(frame.line.capacity() <= 2 * limits::IMAP_LINE_MAX);
    }

    #[test]
    fn endless_answers_are_refused() {
        let mut framer = Framer::new(Endless(b"* 1 EXISTS\r\n", 0));
        let mut frame = Frame::default();
        let count = (0..).take_while(|_| framer.next(&mut frame).is_ok()).count();
        assert_eq!(count, limits::IMAP_RESPONSES_MAX);
        let mut framer = Framer::new(Endless(b"* 1 FETCH (X {100000}\r\n", 0));
        let until = (0..1_000).find_map(|_| framer.next(&mut frame).err()).unwrap();
        assert_eq!(until.kind(), Kind::ServerMisbehaved);
    }

    #[test]
    fn an_announced_size_allocates_nothing() {
        for digits in ["4294967295", "99999999999999999999999999"] {
            assert_eq!(refused(format!("* 1 FETCH (BODY[] {{{digits}}}\r\nabc").as_bytes()), Kind::TooLarge);
        }
        // Within the limit: waits for the bytes, which do not come.
        assert_eq!(refused(b"* 1 FETCH (BODY[] {1000000}\r\nabc"), Kind::Transient);
    }

    #[test]
    fn a_large_literal_goes_to_a_spool_file() {
        let content: Vec<u8> = (0..limits::SPOOL_THRESHOLD + 1).map(|n| (n % 251) as u8).collect();
        let head = format!("* 1 FETCH (BODY[] {{{}}}\r\n", content.len());
        let mut frame = first(&[head.as_bytes(), &content, b")\r\n"].concat()).unwrap();
        let Some(Raw::Spool { mut file, len }) = frame.literals.pop() else { panic!("not spooled") };
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(len == content.len() as u64 && read == content);
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let pieces: [&[u8]; 12] = [
            b"* ",
            b"1 FETCH (",
            b"BODY[] ",
            b"{3}\r\n",
            b"{0+}\r\n",
            b"\r\n",
            b"\"",
            b"\\",
            b")",
            b"(",
            b"OK ",
            b"\xc3\xa4",
        ];
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                bytes.extend_from_slice(pieces[(seed % 12) as usize]);
            }
            let mut framer = Framer::new(&bytes[..]);
            let mut frame = Frame::default();
            while framer.next(&mut frame).is_ok() {
                let _ = super::super::answer::fetched(&frame.line);
                let _ = frame.display();
            }
        }
    }
}
