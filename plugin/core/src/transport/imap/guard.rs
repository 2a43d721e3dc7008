//! The only stream that the `imap` crate ever sees. It hands over one bounded response at a time, never a byte beyond
//! it, and between two commands of the crate the same [`Wire`] can be read directly.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    answer,
    framer::{Budget, Frame, Framer, connection_error},
};
use crate::{
    clock::Deadline,
    error::{Error, Result},
    net, seam,
    transport::Transcript,
};

/// Tags of commands that do not go through the crate begin with this; its own begin with `a`.
pub const BULK_TAG: &str = "b";

/// What a connection must be able to do: `net::Stream`, or one end of a socket pair in a test.
pub trait Link: Read + Write + Send {
    fn set_deadline(&mut self, deadline: Deadline);
}

impl Link for net::Stream {
    fn set_deadline(&mut self, deadline: Deadline) {
        net::Stream::set_deadline(self, deadline);
    }
}

/// One connection: frames in, command lines out, transcript of both.
pub struct Wire {
    framer: Framer<Box<dyn Link>>,
    transcript: Transcript,
    /// From AUTHENTICATE to its tagged answer: everything that is said is secret.
    authenticating: bool,
    /// What the server said when it hung up.
    bye: Option<String>,
    /// The last tagged answer without its tag, verbatim.
    last_status: String,
    /// Why the crate was given an I/O error.
    failure: Option<Error>,
}

impl Wire {
    pub fn new(link: Box<dyn Link>, transcript: Transcript) -> Self {
        Self {
            framer: Framer::new(link),
            transcript,
            authenticating: false,
            bye: None,
            last_status: String::new(),
            failure: None,
        }
    }

    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.framer.reader_mut().set_deadline(deadline);
    }

    pub fn received(&self) -> Arc<AtomicU64> {
        self.framer.received()
    }

    pub fn is_dead(&self) -> bool {
        self.framer.is_dead()
    }

    /// Nothing is read from or written to this connection any more.
    pub fn kill(&mut self) {
        self.framer.kill();
    }

    pub fn begin(&mut self, budget: Budget) {
        self.framer.begin(budget);
    }

    pub fn last_status(&self) -> &str {
        &self.last_status
    }

    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Sends whole lines, in one write: a small second segment would wait for the server's delayed ACK.
    pub fn send(&mut self, lines: &[u8]) -> Result<()> {
        if self.is_dead() {
            return Err(connection_error(io::ErrorKind::BrokenPipe.into()));
        }
        self.note_sent(lines);
        let link = self.framer.reader_mut();
        if let Err(e) = link.write_all(lines).and_then(|()| link.flush()) {
            self.kill();
            return Err(connection_error(e));
        }
        Ok(())
    }

    /// Reads one response.
    ///
    /// # Errors
    /// As [`Framer::next`]; when the server had said BYE before, its words decide the kind.
    pub fn next(&mut self, frame: &mut Frame) -> Result<()> {
        if let Err(error) = self.framer.next(frame) {
            return Err(match self.bye.take() {
                Some(words) => answer::hung_up(&words).source_error(error),
                None => error,
            });
        }
        if self.transcript.is_on() {
            match self.authenticating && frame.line.starts_with(b"+") {
                true => self.transcript.line("S:", b"+ [challenge]"),
                false => self.transcript.line("S:", &frame.display()),
            }
        }
        if self.authenticating && is_no_challenge(&frame.line) {
            frame.line = b"+ \r\n".to_vec();
        }
        if let Some(words) = answer::bye(&frame.line) {
            self.bye = Some(words);
        } else if !frame.is_untagged() && !frame.line.starts_with(b"+") {
            self.authenticating = false;
            let text = String::from_utf8_lossy(&frame.line);
            self.last_status = text.split_once(' ').map_or("", |(_tag, status)| status).trim_end().to_owned();
        }
        Ok(())
    }

    fn note_sent(&mut self, lines: &[u8]) {
        let secret = self.authenticating;
        if let Some(end) = command_word_end(lines, b"AUTHENTICATE") {
            self.authenticating = true;
            let mechanism = lines[end..].trim_ascii_start();
            let mechanism = mechanism.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
            self.transcript.line("C:", &[&lines[..end], b" ", mechanism, b" [redacted]"].concat());
        } else if secret {
            self.transcript.line("C:", b"[redacted]");
        } else if self.transcript.is_on() {
            self.transcript.line("C:", lines.trim_ascii_end());
        }
    }
}

/// Where the command word of a tagged command line ends, when it is `word`.
fn command_word_end(line: &[u8], word: &[u8]) -> Option<usize> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let rest = &line[space + 1..];
    (rest.len() > word.len() && rest[..word.len()].eq_ignore_ascii_case(word) && rest[word.len()] == b' ')
        .then_some(space + 1 + word.len())
}

/// A wire that the crate and the bulk reader take turns with.
#[derive(Clone)]
pub struct SharedWire(Arc<Mutex<Wire>>);

impl SharedWire {
    pub fn new(wire: Wire) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    /// A panic of the parser while the lock was held leaves the wire usable; whoever caught it kills the connection.
    pub fn lock(&self) -> MutexGuard<'_, Wire> {
        seam::lock("imap.wire", &self.0)
    }
}

/// `Read + Write` for `imap::Client`.
pub struct Guard {
    wire: SharedWire,
    frame: Frame,
    /// How much of `frame.line` was handed over.
    given: usize,
    greeted: bool,
}

impl Guard {
    pub fn new(wire: SharedWire) -> Self {
        Self { wire, frame: Frame::default(), given: 0, greeted: false }
    }
}

impl Read for Guard {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.frame.line.len() {
            let mut wire = self.wire.lock();
            if let Err(error) = wire.next(&mut self.frame) {
                wire.failure = Some(error);
                self.given = self.frame.line.len();
                return Err(io::Error::other("the connection was given up"));
            }
            self.given = 0;
            answer::to_ascii(&mut self.frame.line);
            // The crate takes an untagged line that its parser cannot read for the end of the connection.
            // A tag of another than the crate makes it give up, too.
            let meant = match self.frame.is_untagged() {
                true => answer::parse(&self.frame.line).is_some(),
                false => !self.frame.line.starts_with(BULK_TAG.as_bytes()),
            };
            if !std::mem::replace(&mut self.greeted, true) {
                continue;
            }
            if !meant {
                self.given = self.frame.line.len();
            }
        }
        let part = &self.frame.line[self.given..];
        let len = part.len().min(into.len());
        into[..len].copy_from_slice(&part[..len]);
        self.given += len;
        Ok(len)
    }
}

impl Write for Guard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.wire.lock();
        wire.begin(Budget::CONTROL);
        if let Err(error) = wire.send(bytes) {
            wire.failure = Some(error);
            return Err(io::Error::other("the connection was given up"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Text where a challenge in base64 should be (RFC 9051 section 6.2.2), such as `+ Ready`: many servers write some, and mean "go
/// on". The `imap` crate would take it for a broken challenge.
fn is_no_challenge(line: &[u8]) -> bool {
    let Some(challenge) = line.strip_prefix(b"+") else { return false };
    STANDARD.decode(challenge.trim_ascii()).is_err()
}
