//! Command and reply over one connection, plain or secure.

use std::io::{self, Read, Write};

use super::reply::{NoReply, Reply, ReplyBuffer};
use crate::{
    clock::Deadline,
    net::{Plain, Stream},
    transport::Transcript,
};

/// A connection whose reads and writes end by a deadline.
pub(super) trait Connection: Read + Write {
    fn set_deadline(&mut self, deadline: Deadline);

    /// Has something come, or has it ended?
    fn has_unread(&mut self) -> bool;
}

impl Connection for Plain {
    fn set_deadline(&mut self, deadline: Deadline) {
        Plain::set_deadline(self, deadline);
    }

    fn has_unread(&mut self) -> bool {
        Plain::has_unread(self)
    }
}

impl Connection for Stream {
    fn set_deadline(&mut self, deadline: Deadline) {
        Stream::set_deadline(self, deadline);
    }

    fn has_unread(&mut self) -> bool {
        Stream::has_unread(self)
    }
}

/// `Dialogue<Plain>` knows only greeting, EHLO and STARTTLS; what is secret takes a `Dialogue<Stream>`, so that a token
/// on a plain connection is a type error.
pub(super) struct Dialogue<S> {
    pub(super) stream: S,
    pub(super) transcript: Transcript,
    buffer: ReplyBuffer,
}

impl<S: Connection> Dialogue<S> {
    pub(super) fn new(stream: S, transcript: Transcript) -> Self {
        Self { stream, transcript, buffer: ReplyBuffer::default() }
    }

    /// Sends one command line (with its CRLF) and reads the reply.
    pub(super) fn command(&mut self, line: &str) -> Result<Reply, NoReply> {
        self.show("C:", line);
        self.write(line.as_bytes())?;
        self.reply()
    }

    /// The same for a line that holds a secret: the transcript shows `shown`.
    pub(super) fn secret_command(&mut self, line: &str, shown: &str) -> Result<Reply, NoReply> {
        self.show("C:", shown);
        self.write(line.as_bytes())?;
        self.reply()
    }

    /// Everything in one go: one write, one TLS record where it fits, no waiting for a delayed ACK.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), NoReply> {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).map_err(NoReply::Lost)
    }

    pub(super) fn reply(&mut self) -> Result<Reply, NoReply> {
        let reply = self.buffer.read(&mut self.stream)?;
        self.show_reply(&reply);
        Ok(reply)
    }

    /// Waits for a reply until `deadline`, however long the silence: the connection's own limit on silence is shorter
    /// than what RFC 5321 4.5.3.2.6 grants a server after the final dot.
    pub(super) fn patient_reply(&mut self, deadline: Deadline) -> Result<Reply, NoReply> {
        self.stream.set_deadline(deadline);
        loop {
            match self.reply() {
                Err(NoReply::Lost(e)) if e.kind() == io::ErrorKind::TimedOut && !deadline.left().is_zero() => {}
                other => return other,
            }
        }
    }

    /// Has the server said more than it was asked for? Nothing is waited for.
    pub(super) fn has_unread(&mut self) -> bool {
        !self.buffer.is_empty() || self.stream.has_unread()
    }

    fn show_reply(&self, reply: &Reply) {
        if self.transcript.is_on() {
            self.show("S:", &reply.text());
        }
    }

    pub(super) fn show(&self, direction: &str, lines: &str) {
        if self.transcript.is_on() {
            for line in lines.trim_end().split("\r\n") {
                self.transcript.line(direction, line.as_bytes());
            }
        }
    }
}

impl Dialogue<Stream> {
    /// What the server said before a write failed. Nothing is sent any more: see [`super::send::After::Broken`].
    pub(super) fn last_reply(&mut self, deadline: Deadline) -> Result<Reply, NoReply> {
        self.stream.set_deadline(deadline);
        let reply = self.buffer.read(&mut self.stream.only_reading())?;
        self.show_reply(&reply);
        Ok(reply)
    }
}
